//! What a project can pay out, as Cregis last told; and what Cregis has against an order that nobody
//! has made yet.
//!
//! All of this only reads. Payouts never wait for it: an order is checked with what is known at the
//! moment, and Cregis itself refuses what it cannot pay.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::intake::queue;
use super::{Project, Refused};
use crate::causes::chain;
use crate::coin::Currency;
use crate::cregis::coins::{Coin, Unanswered};
use crate::metrics::label::Shed;
use crate::order::{Order, Violation, too_fine};

/// A list that is older is asked for anew.
const FRESH: Duration = Duration::from_secs(600);
/// Before an order is turned down for what the list says, it is asked for anew when older than this.
const JUST_TOLD: Duration = Duration::from_secs(10);
/// Pause after an answer that was none.
const AGAIN: Duration = Duration::from_secs(60);
/// Orders that are shown to Cregis at once; neither sends nor polls wait for them.
const CHECKS: usize = 8;

/// The coins of one project, and the turns to ask about them.
#[derive(Debug)]
pub(super) struct Coins {
    last: ArcSwapOption<Told>,
    /// Whoever asks for the list holds this, so that one question serves all.
    asking: Mutex<()>,
    /// One permit per order that is being checked.
    checks: Arc<Semaphore>,
    /// Bounds how many wait for one.
    queue: Semaphore,
}

/// A list, and when it was asked for.
#[derive(Debug)]
struct Told {
    coins: Vec<Coin>,
    at: Instant,
}

impl Coins {
    pub(super) fn new() -> Self {
        Self {
            last: ArcSwapOption::empty(),
            asking: Mutex::default(),
            checks: Arc::new(Semaphore::new(CHECKS)),
            queue: Semaphore::new(2 * CHECKS),
        }
    }

    fn younger_than(&self, age: Duration) -> Option<Arc<Told>> {
        self.last.load_full().filter(|told| told.at.elapsed() < age)
    }
}

impl Told {
    fn find(&self, currency: &Currency) -> Option<&Coin> {
        self.coins.iter().find(|coin| coin.is(currency))
    }

    /// What the list has against `order`.
    fn objection(&self, order: &Order) -> Option<Violation> {
        let Some(coin) = self.find(&order.currency) else {
            let rule = "is not among the coins that Cregis pays out for this project";
            return Some(Violation::new("currency", rule));
        };
        let decimals = coin.decimals.or_else(|| order.currency.decimals());
        too_fine(&order.amount, decimals).map(|rule| Violation::new("amount", rule))
    }
}

impl Project {
    /// How many digits after the point the coin has: as Cregis last told for this project, or else
    /// as published, where either is known.
    pub fn decimals(&self, currency: &Currency) -> Option<usize> {
        let last = self.coins.last.load();
        let told = last.as_ref().and_then(|told| told.find(currency)?.decimals);
        told.or_else(|| currency.decimals())
    }

    /// A turn to show an order to Cregis.
    pub(super) async fn turn_to_check(&self, until: Instant) -> Result<OwnedSemaphorePermit, Shed> {
        queue(&self.coins.checks, &self.coins.queue, until).await
    }

    /// Shows `order` to Cregis without making it; has an answer by `until`.
    pub(super) async fn validate(&self, order: &Order, until: Instant) -> Result<(), Refused> {
        if self.breaker.is_open() {
            return Err(Refused::UpstreamUnavailable);
        }
        let patience = until.min(Instant::now() + self.cregis.read_timeout());
        let pid = order.key.pid;
        match timeout_at(patience, self.objections(order)).await {
            Ok(Ok(objections)) if objections.is_empty() => Ok(()),
            Ok(Ok(objections)) => Err(Refused::Invalid(objections)),
            Ok(Err(error)) => {
                tracing::warn!(pid, error = chain(&error), "check unanswered");
                Err(match error {
                    Unanswered::Refused(_) => Refused::GatewayRefused,
                    Unanswered::Read(_) | Unanswered::Other(_) => Refused::UpstreamUnavailable,
                })
            }
            Err(_) => Err(Refused::UpstreamUnavailable),
        }
    }

    /// All that Cregis has against `order`; nothing is said where one of the answers is missing.
    async fn objections(&self, order: &Order) -> Result<Vec<Violation>, Unanswered> {
        let legal = self.cregis.is_legal(order.currency.chain_id(), &order.address);
        let (objection, legal) = tokio::try_join!(self.objection(order), legal)?;
        let illegal = || Violation::new("address", "is not an address of this chain to Cregis");
        Ok(objection.into_iter().chain((!legal).then(illegal)).collect())
    }

    async fn objection(&self, order: &Order) -> Result<Option<Violation>, Unanswered> {
        match self.list(FRESH).await?.objection(order) {
            None => Ok(None),
            // Somebody may just have put it right at Cregis.
            Some(_) => Ok(self.list(JUST_TOLD).await?.objection(order)),
        }
    }

    /// The list; asks for it anew where the last one is as old as `age`. A failure keeps that.
    async fn list(&self, age: Duration) -> Result<Arc<Told>, Unanswered> {
        if let Some(told) = self.coins.younger_than(age) {
            return Ok(told);
        }
        let _asking = self.coins.asking.lock().await;
        // Somebody else may have had an answer meanwhile.
        if let Some(told) = self.coins.younger_than(age) {
            return Ok(told);
        }
        let at = Instant::now();
        let told = Arc::new(Told { coins: self.cregis.coins().await?, at });
        self.coins.last.store(Some(Arc::clone(&told)));
        Ok(told)
    }
}

/// Keeps the project's list of coins fresh for as long as it is polled.
pub(super) async fn keep_fresh(pid: i64, project: &Project) {
    let mut open = project.breaker.watch();
    // While Cregis refuses us it is asked by the breaker's probe alone.
    while open.wait_for(|open| !*open).await.is_ok() {
        let pause = match project.list(FRESH).await {
            Ok(told) => FRESH.saturating_sub(told.at.elapsed()),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(pid, error, "list of coins not read");
                AGAIN
            }
        };
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::{advance, pause, resume};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config;
    use crate::order::Draft;
    use crate::sample::{self, LONG};
    use crate::sandbox::{self, Sandbox};

    fn order() -> Order {
        let draft = Draft { pid: sandbox::PID, amount: "1.12".into(), ..sample::draft() };
        Order::check(draft, false).expect("good")
    }

    /// A project over a sandbox whose first lists are as `faults` say, each once.
    async fn project(faults: &[&str]) -> (Project, JoinSet<()>) {
        let sandbox = Sandbox::bind(sandbox::Settings::default()).await.expect("bound");
        for fault in faults {
            let fault = format!(r#"{{"on": "coins", {fault}}}"#);
            sandbox.book().add_fault(serde_json::from_str(&fault).expect("a fault"));
        }
        let settings = config::Project {
            pid: sandbox::PID,
            base_url: format!("http://{}", sandbox.address().expect("bound")).parse().expect("URL"),
            api_key: sandbox::API_KEY.into(),
            ..sample::project()
        };
        let served = JoinSet::from_iter([sandbox.run(CancellationToken::new())]);
        (Project::new(&settings, String::new()).expect("built"), served)
    }

    async fn later(time: Duration) {
        pause();
        advance(time).await;
        resume();
    }

    #[tokio::test]
    async fn an_order_is_turned_down_by_a_list_of_the_last_ten_seconds_only() {
        let (project, _served) = project(&[r#""fields": {"payout_coins": []}"#]).await;
        let validate = async || project.validate(&order(), Instant::now() + LONG).await;
        for _ in 0..2 {
            assert!(matches!(validate().await, Err(Refused::Invalid(bad)) if bad.len() == 1));
        }
        later(JUST_TOLD).await;
        assert_eq!(validate().await, Ok(()), "asked anew, and put right");
    }

    #[tokio::test]
    async fn a_list_is_asked_for_anew_after_ten_minutes_and_a_failure_keeps_the_last_one() {
        let two = r#"{"chain_id": "195", "token_id": "195", "decimals": "2"}"#;
        let two = format!(r#""fields": {{"payout_coins": [{two}]}}"#);
        let (project, _served) = project(&[&two, r#""status": 503"#]).await;
        let decimals = || project.decimals(&order().currency);
        assert_eq!(decimals(), Some(6), "as published");
        project.list(FRESH).await.expect("told");
        project.list(FRESH).await.expect("kept");
        assert_eq!(decimals(), Some(2));
        later(FRESH).await;
        project.list(FRESH).await.expect_err("503");
        assert_eq!(decimals(), Some(2), "a failure keeps it");
        project.list(FRESH).await.expect("told anew");
        assert_eq!(decimals(), Some(6));
    }
}

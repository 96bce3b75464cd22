//! Follows payouts to their end: asks Cregis about what is due, and never sends.
//!
//! Its own few questions at a time, so that sends are never kept waiting; and where nobody answers,
//! a pause for everybody.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio::time::{Instant, sleep, timeout};

use super::evidence::Asked;
use super::{Engine, Project};
use crate::attention::{AGE_MAX, Attention};
use crate::ledger::{Cause, Due, Id, Lead, Unavailable};
use crate::payout::Payout;
use crate::state::State;

/// Questions of each kind under way at once.
const QUESTIONS: usize = 4;
/// The most that one round takes up.
const ROUND: i64 = 64;
/// What a round has not come to by then, since Cregis is slow, is left to the next one: in a shared ledger
/// it is this replica's for a minute only.
const ROUND_MAX: Duration = Duration::from_secs(40);
/// The longest time between two looks at the ledger.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause where nothing was answered.
const SILENCE: Duration = Duration::from_secs(5);
/// A notice whose cid Cregis does not know is asked about so often.
const MISSING_MAX: i64 = 8;
/// The longest pause between two questions about a notice.
const LEAD_PAUSE_MAX: Duration = Duration::from_secs(600);

/// Looks after the project's payouts for as long as it is polled: after those that Cregis has spoken
/// of, and beside them after all the others, so that neither waits for the other.
pub(super) async fn follow(engine: &Engine, pid: i64, project: &Project) {
    tokio::join!(
        patrol(engine, pid, project, Beat::Notices),
        patrol(engine, pid, project, Beat::Payouts)
    );
}

/// What a patrol looks after.
#[derive(Clone, Copy)]
enum Beat {
    Notices,
    Payouts,
}

async fn patrol(engine: &Engine, pid: i64, project: &Project, beat: Beat) {
    let mut open = project.breaker.watch();
    let nap = (project.poll_first() / 4).clamp(Duration::from_millis(20), LOOK_EVERY);
    loop {
        // While Cregis refuses us it is asked by the breaker's probe alone.
        if open.wait_for(|open| !*open).await.is_err() {
            return;
        }
        match (round(engine, pid, project, beat).await, beat) {
            (Round::More, _) => {}
            (Round::Silent, _) => sleep(SILENCE).await,
            (Round::Done, Beat::Notices) => {
                let _ = timeout(nap, project.news.notified()).await;
            }
            (Round::Done, Beat::Payouts) => sleep(nap).await,
        }
    }
}

/// How a round went.
enum Round {
    /// There is more to do at once.
    More,
    /// Nobody answered anything.
    Silent,
    /// Nothing else is due.
    Done,
}

async fn round(engine: &Engine, pid: i64, project: &Project, beat: Beat) -> Round {
    let due = Due { pid, now: engine.ledger.now(), limit: ROUND };
    let found = match beat {
        Beat::Notices => {
            let leads = engine.ledger.leads(due).await;
            leads.map(|leads| leads.into_iter().map(Question::Lead).collect::<Vec<_>>())
        }
        Beat::Payouts => {
            let payouts = engine.ledger.due(due).await;
            payouts.map(|due| due.into_iter().map(Box::new).map(Question::Payout).collect())
        }
    };
    let Ok(questions) = found else { return Round::Done };
    let full = questions.len() >= ROUND as usize;
    let end = Instant::now() + ROUND_MAX;
    let in_time = questions.into_iter().take_while(|_| Instant::now() < end);
    let settled = iter(in_time).map(|question| question.settle(engine, pid, project));
    let answers: Vec<bool> = settled.buffer_unordered(QUESTIONS).collect().await;
    match answers.as_slice() {
        [_, ..] if !answers.contains(&true) => Round::Silent,
        _ if full => Round::More,
        _ => Round::Done,
    }
}

/// Something to ask Cregis about.
enum Question {
    Lead(Lead),
    Payout(Box<Payout>),
}

impl Question {
    /// Asks and writes down what was learnt; true where there was an answer.
    async fn settle(self, engine: &Engine, pid: i64, project: &Project) -> bool {
        let settled = match self {
            Self::Lead(lead) => settle_lead(engine, pid, project, lead).await,
            Self::Payout(payout) => settle_payout(engine, project, *payout).await,
        };
        // A ledger that fails says so itself, and what is due stays due.
        settled.unwrap_or(false)
    }
}

async fn settle_payout(
    engine: &Engine,
    project: &Project,
    mut payout: Payout,
) -> Result<bool, Unavailable> {
    let now = engine.ledger.now();
    let age = now.duration_since(payout.state_time).unwrap_or_default();
    if age >= AGE_MAX {
        payout = engine.page(&payout, Attention::Age, Cause::Age).await?;
    }
    let (State::Accepted, Some(cid)) = (payout.state, payout.cid) else {
        // A doubt has nothing that could be asked about; it is looked at for its age.
        engine.ledger.postpone(payout, now + AGE_MAX).await?;
        return Ok(true);
    };
    let asked = engine.ask(project, &payout, cid).await;
    let answered = !matches!(asked, Asked::Unanswered);
    match asked {
        Asked::Agrees(agreed) => {
            engine.confirm(project, &payout, agreed, Cause::Poll).await?;
        }
        Asked::Disagrees => {
            payout = engine.page(&payout, Attention::FieldMismatch, Cause::Poll).await?;
        }
        Asked::Missing | Asked::Unanswered => {}
    }
    // Of no effect where the answer was news: that set its own time.
    let pause = backoff(project.poll_first(), payout.polls, age);
    engine.ledger.postpone(payout, now + jitter(pause)).await?;
    Ok(answered)
}

async fn settle_lead(
    engine: &Engine,
    pid: i64,
    project: &Project,
    lead: Lead,
) -> Result<bool, Unavailable> {
    let Lead { notice, third_party_id, cid, tries } = lead;
    let Some(payout) = engine.ledger.find(pid, Id::ThirdParty(third_party_id)).await? else {
        engine.ledger.close(notice, None).await?;
        return Ok(true);
    };
    let doubling = 1u32 << tries.clamp(0, 16);
    let pause = project.poll_first().saturating_mul(doubling).min(LEAD_PAUSE_MAX);
    let again = engine.ledger.now() + jitter(pause);
    match engine.ask(project, &payout, cid).await {
        Asked::Agrees(agreed) => {
            let after = engine.confirm(project, &payout, agreed, Cause::Notice).await?;
            engine.ledger.close(notice, None).await?;
            if after.state == State::Accepted {
                // The notice said more than the query: look again before the backoff would.
                let due = engine.ledger.now() + project.poll_first();
                engine.ledger.postpone(after, due).await?;
            }
        }
        Asked::Disagrees => {
            engine.page(&payout, Attention::FieldMismatch, Cause::Notice).await?;
            engine.ledger.close(notice, None).await?;
        }
        Asked::Missing if tries + 1 >= MISSING_MAX => {
            engine.page(&payout, Attention::Contradiction, Cause::Notice).await?;
            engine.ledger.close(notice, None).await?;
        }
        Asked::Missing => engine.ledger.close(notice, Some(again)).await?,
        Asked::Unanswered => {
            engine.ledger.close(notice, Some(again)).await?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// How long to wait for the next question: 1, 2, 4, 10, then 20 times `first`; after a day in one
/// state 120 times, which is hourly by default.
fn backoff(first: Duration, polls: i64, age: Duration) -> Duration {
    let times = match polls {
        _ if age >= AGE_MAX => 120,
        ..=0 => 2,
        1 => 4,
        2 => 10,
        _ => 20,
    };
    first.saturating_mul(times)
}

/// Up to a fifth more or less, so that what came together does not stay together.
fn jitter(pause: Duration) -> Duration {
    let draw = getrandom::u32().unwrap_or(u32::MAX / 2) % 401;
    pause / 1000 * (800 + draw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_back_off_and_stray_by_a_fifth_at_most() {
        let first = Duration::from_secs(30);
        let young = |polls| backoff(first, polls, Duration::ZERO).as_secs();
        assert_eq!([0, 1, 2, 3, 99].map(young), [60, 120, 300, 600, 600]);
        assert_eq!(backoff(first, 0, AGE_MAX), Duration::from_secs(3600));
        for _ in 0..1000 {
            let strayed = jitter(first);
            assert!((24..=36).contains(&strayed.as_secs()), "{strayed:?}");
        }
    }
}

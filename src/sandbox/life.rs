//! What the sandbox does by itself: it sends its messages and takes orders to their end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::CONTENT_TYPE;
use reqwest::Client;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::book::Book;
use super::fault::Fault;
use super::message::{Answer, Kind, Letter};
use super::order::{AWAITS_APPROVAL, way};

/// How long a receiver has for its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often an undecided verification is asked again. The vendor publishes no number; this and the
/// pause are our own.
const RETRIES: u32 = 5;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Something to do in the background.
#[derive(Debug)]
pub(super) enum Job {
    /// Send a message.
    Send(Letter),
    /// Take an order to its end.
    Live(Life),
}

/// What is before an order that was just stored.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) cid: i64,
    /// Brings the answer to its first verification, where there is to be one.
    pub(super) verification: Option<oneshot::Receiver<Answer>>,
    /// Where it is to end before its create call is answered: what happens to its notice.
    pub(super) early: Option<Box<Fault>>,
    /// Holds the answer to the create call until dropped.
    pub(super) hold: Option<oneshot::Sender<()>>,
}

/// Who does the jobs.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) book: Arc<Book>,
    pub(super) http: Client,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// The client that sends the messages.
pub(super) fn client() -> reqwest::Result<Client> {
    Client::builder()
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .timeout(TIMEOUT)
        // A receiver that was restarted shall not cost a message.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("payoutd-sandbox/", env!("CARGO_PKG_VERSION")))
        .build()
}

// === impl Worker ===

impl Worker {
    /// Does the jobs as they come. Messages of one kind about one order go one after the other,
    /// unless a fault delays one: those overtake and are overtaken.
    pub(super) async fn run(self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut last: HashMap<(Kind, i64), CancellationToken> = HashMap::new();
        while let Some(job) = jobs.recv().await {
            let book = Arc::clone(&self.book);
            match job {
                Job::Live(life) => self.start(live(book, life)),
                Job::Send(letter) => {
                    let sent = CancellationToken::new();
                    let before = if letter.delay.is_zero() {
                        last.insert((letter.kind, letter.cid), sent.clone())
                    } else {
                        None
                    };
                    let http = self.http.clone();
                    self.start(async move {
                        let _sent = sent.drop_guard();
                        if let Some(before) = before {
                            before.cancelled().await;
                        }
                        deliver(book, http, letter).await;
                    });
                }
            }
        }
    }

    fn start(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(work));
    }
}

async fn deliver(book: Arc<Book>, http: Client, mut letter: Letter) {
    sleep(letter.delay).await;
    if letter.lost {
        return;
    }
    for _ in 0..letter.times {
        let answer = post(&http, &letter).await;
        book.note_delivery(&letter, answer.as_ref());
        if let Some(answer) = answer
            && let Some(heard) = letter.heard.take()
        {
            // Nobody may be left to hear it.
            let _ = heard.send(answer);
        }
    }
}

async fn post(http: &Client, letter: &Letter) -> Option<Answer> {
    let post = http.post(&letter.url).header(CONTENT_TYPE, "application/json");
    let answer = post.body(letter.body.clone()).send().await.ok()?;
    let http_status = answer.status().as_u16();
    Some(Answer { http_status, body: answer.text().await.ok()? })
}

/// Has an order verified, where that is wanted, and takes it to its outcome, where it has one.
async fn live(book: Arc<Book>, life: Life) {
    let Life { cid, verification, early, mut hold } = life;
    if let Some(first) = verification {
        let answer = first.await.ok();
        if early.is_none() {
            hold = None;
        }
        if !approved(&book, cid, answer).await {
            return;
        }
    }
    if let Some(early) = early {
        if let Some(answer) = book.end(cid, *early) {
            // Answered or not, it has been delivered.
            let _ = answer.await;
        }
        return;
    }
    drop(hold);
    let Some((outcome, after)) = book.outcome() else { return };
    let (way, mut from) = (way(outcome), AWAITS_APPROVAL);
    let pause = after / u32::try_from(way.len().max(1)).unwrap_or(1);
    for to in way {
        sleep(pause).await;
        // Whoever moves an order by hand has it to themselves.
        if !book.advance(cid, from, to) {
            return;
        }
        from = to;
    }
}

/// Whether the verification ends with `ok`; asks again where the first answer says nothing.
async fn approved(book: &Book, cid: i64, first: Option<Answer>) -> bool {
    let mut decision = first.and_then(|answer| answer.decision());
    for _ in 0..RETRIES {
        if decision.is_some() {
            break;
        }
        sleep(RETRY_AFTER).await;
        let Some(next) = book.ask(cid) else { return false };
        decision = next.await.ok().and_then(|answer| answer.decision());
    }
    if let Some(approved) = decision {
        book.settle(cid, approved);
    }
    decision == Some(true)
}

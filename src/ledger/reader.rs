//! The threads that read: whatever is asked, one snapshot, then the answers.

use std::iter::once;
use std::sync::{Arc, mpsc};

use rusqlite::Connection;
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use super::faults::Faults;
use super::{Unavailable, sqlite};

/// The most questions that share a snapshot.
const BATCH_MAX: usize = 64;

/// A question: does its work, and leaves its answer.
pub(super) type Read = Box<dyn FnOnce(&Connection) -> Answer + Send>;

/// An answer on its way to whoever asked.
pub(super) type Answer = Box<dyn FnOnce() + Send>;

/// The question that does `work` and answers through `reply`; what fails is told to `faults`.
pub(super) fn question<T: Send + 'static>(
    work: impl FnOnce(&Connection) -> Result<T, sqlite::Error> + Send + 'static,
    reply: oneshot::Sender<Result<T, Unavailable>>,
    faults: Arc<Faults>,
) -> Read {
    Box::new(move |db| {
        let found = work(db).map_err(|error| {
            match sqlite::damage(&error) {
                Some(damage) => faults.damaged(damage),
                None => faults.unread(&error),
            }
            Unavailable
        });
        // Whoever asked may have gone.
        Box::new(move || drop(reply.send(found)))
    })
}

/// Answers `questions` until nobody can ask any more.
///
/// Each statement alone would lock the file's index anew, and each answer alone would wake the
/// runtime: where many ask at once they share both.
pub(super) fn run(
    db: &Connection,
    questions: &mpsc::Receiver<Read>,
    answered: &tokio_mpsc::UnboundedSender<Vec<Answer>>,
) {
    while let Ok(first) = questions.recv() {
        // All of them before the snapshot: nobody may be shown less than there was when they asked.
        let batch: Vec<_> = once(first).chain(questions.try_iter().take(BATCH_MAX - 1)).collect();
        if batch.len() == 1 {
            batch.into_iter().for_each(|question| question(db)());
            continue;
        }
        // Without one, each has its own.
        let snapshot = db.unchecked_transaction();
        let answers = batch.into_iter().map(|question| question(db)).collect();
        drop(snapshot);
        // Without a runtime there is nobody left to be told.
        let _ = answered.send(answers);
    }
}

/// Hands out whole batches from within the runtime.
pub(super) async fn tell(mut batches: tokio_mpsc::UnboundedReceiver<Vec<Answer>>) {
    while let Some(answers) = batches.recv().await {
        answers.into_iter().for_each(|answer| answer());
    }
}

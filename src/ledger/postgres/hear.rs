//! What replicas tell each other: which payouts have changed.
//!
//! Only so that nobody waits for the next pulse: what is lost here is found there. It is told after the
//! commit and many at a time, since a NOTIFY within it would make all commits wait for each other.

use std::future::poll_fn;
use std::pin::pin;

use tokio_postgres::AsyncMessage;

use super::{Error, PULSE, Postgres};

/// The channel.
const CHANNEL: &str = "payoutd";
/// PostgreSQL takes no longer text than 8,000 bytes.
const WORDS_MAX: usize = 150;

impl Postgres {
    /// Listens, for as long as it is polled.
    pub(super) async fn hear(&self) {
        loop {
            if let Err(error) = self.listen().await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot hear the other replicas; polling");
            }
            tokio::time::sleep(PULSE).await;
        }
    }

    async fn listen(&self) -> Result<(), Error> {
        let (client, mut driver) = self.connector.connect().await?;
        let listen = format!("LISTEN {CHANNEL}");
        let mut listening = pin!(client.batch_execute(&listen));
        let mut asked = true;
        loop {
            tokio::select! {
                heard = listening.as_mut(), if asked => {
                    heard?;
                    asked = false;
                }
                message = poll_fn(|context| driver.poll_message(context)) => match message.transpose()? {
                    Some(AsyncMessage::Notification(said)) => self.heard(said.payload()),
                    Some(_) => {}
                    None => return Ok(()),
                },
            }
        }
    }

    /// Wakes whoever waits here for what another replica has changed, and remembers how far it has come.
    fn heard(&self, words: &str) {
        let mut words = words.split(' ');
        // The channel is the database's, and there may be other ledgers in it.
        if words.next() != Some(self.witness.ledger()) {
            return;
        }
        self.told(words.next().unwrap_or_default());
        let changed = words.filter_map(|word| {
            let (row, revision) = word.split_once(':')?;
            Some((row.parse().ok()?, revision.parse().ok()?))
        });
        self.watchers.publish(&changed.collect::<Vec<_>>());
    }

    /// Tells the others what has changed here, for as long as it is polled.
    pub(super) async fn tell(&self) {
        let mut outbox = self.outbox.lock().await;
        let mut changed = Vec::new();
        while outbox.recv_many(&mut changed, WORDS_MAX).await > 0 {
            let words: Vec<_> =
                changed.drain(..).map(|(row, revision)| format!("{row}:{revision}")).collect();
            if let Err(error) = self.say(&format!("{} {}", self.mark(), words.join(" "))).await {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "the other replicas were not told");
            }
        }
    }

    async fn say(&self, words: &str) -> Result<(), Error> {
        self.ask(async |client| {
            let statement = client.prepare_cached("SELECT pg_notify($1, $2)").await?;
            client.execute(&statement, &[&CHANNEL, &words]).await?;
            Ok(())
        })
        .await
    }
}

//! What replicas tell each other: which payouts have changed, and what each of them has acknowledged.
//!
//! Of changes only so that nobody waits for the next pulse: what is lost here is found there. It is told after the
//! commit and many at a time, since a NOTIFY within it would make all commits wait for each other. What was
//! acknowledged is asked for, too: a replica that begins to listen asks all that do, and one that starts, or a
//! `check`, waits for their answers. They answer over the connection that listens, since a database that has lost
//! something gets no other one from them.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};

use super::connection::Driver;
use super::witness::{look, parse, spell};
use super::{Error, PULSE, Postgres};
use crate::causes::chain;
use crate::ledger::OpenError;
use crate::ledger::witness::Witness;

/// The channel.
const CHANNEL: &str = "payoutd";
/// So many changes, or marks, are told at once: PostgreSQL takes no longer text than 8,000 bytes.
const WORDS_MAX: usize = 90;
/// One that was heard for longer has been heard.
const SILENCE: Duration = Duration::from_secs(10);
/// Replicas that run answer so soon.
const ANSWERS: Duration = Duration::from_secs(2);
/// How often those that run are counted while they are waited for.
const COUNT_AGAIN: Duration = Duration::from_millis(50);
/// Held by each replica while it listens: an advisory lock on the ledger, "payh" in ASCII.
const HEARS: &str =
    "SELECT pg_try_advisory_lock_shared(1885436264, hashtext(identity)) FROM ledger";
/// How many replicas hold the lock of [`HEARS`].
const HEARING: &str = "SELECT count(*) FROM pg_locks
     WHERE locktype = 'advisory' AND granted AND classid = 1885436264 AND objsubid = 2
         AND objid = (SELECT hashtext(identity)::oid FROM ledger)
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

impl Postgres {
    /// Listens, for as long as it is polled.
    pub(super) async fn hear(&self) {
        let mut said = false;
        loop {
            let began = Instant::now();
            let ended = self.listen().await;
            // Once for each silence.
            said &= began.elapsed() < SILENCE;
            if let Err(error) = ended
                && !said
            {
                tracing::warn!(error = chain(&error), "cannot hear the other replicas; polling");
                said = true;
            }
            tokio::time::sleep(PULSE).await;
        }
    }

    async fn listen(&self) -> Result<(), Error> {
        let (client, driver) = self.connector.connect().await?;
        let (ask, mut asked) = unbounded_channel::<String>();
        let answers = async {
            client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
            client.query_one(HEARS, &[]).await?;
            // Whoever asked meanwhile was not heard.
            ask_all(&client, &self.witness, "all").await?;
            while let Some(name) = asked.recv().await {
                answer(&client, &self.witness, &name).await?;
            }
            Ok(())
        };
        let hears = listen_to(driver, |said| {
            // Nobody answers only once the connection ends.
            self.heard(said).into_iter().for_each(|name| drop(ask.send(name)));
        });
        tokio::select! {
            answered = answers => answered,
            ended = hears => Ok(ended?),
        }
    }

    /// Wakes whoever waits here for what another replica has changed, and remembers what it has acknowledged. Returns
    /// the name of who wants to know what was acknowledged here.
    fn heard(&self, said: &str) -> Option<String> {
        let words = words(&self.witness, said)?;
        let mut asker = None;
        let mut changed = Vec::new();
        for word in words {
            if let Some(name) = word.strip_prefix('?') {
                asker = Some(name.to_owned());
            } else if let Some(mark) = parse(word) {
                self.witness.saw(mark);
            } else if let Some((row, revision)) = word.split_once(':') {
                changed.extend(row.parse().ok().zip(revision.parse().ok()));
            }
        }
        self.watchers.publish(&changed);
        asker
    }

    /// Tells the others what has changed here, for as long as it is polled.
    pub(super) async fn tell(&self) {
        let mut outbox = self.outbox.lock().await;
        let mut news = Vec::new();
        while outbox.recv_many(&mut news, WORDS_MAX).await > 0 {
            let mut said = self.witness.ledger().to_owned();
            for (mark, change) in news.drain(..) {
                said.push_str(&format!(" {}", spell(mark)));
                if let Some((row, revision)) = change {
                    said.push_str(&format!(" {row}:{revision}"));
                }
            }
            let told = self.ask(async |client| Ok(notify(client, &said).await?)).await;
            if let Err(error) = told {
                let error = chain(&error);
                tracing::debug!(error, "the other replicas were not told");
            }
        }
    }
}

/// Has `witness` remember what the replicas that run have acknowledged, and looks whether the database holds it.
///
/// # Errors
/// The database does not answer, or does not hold it.
pub(super) async fn learn(
    client: &Client,
    driver: Driver,
    witness: &Witness,
) -> Result<Result<(), OpenError>, Error> {
    let (tell, mut told) = unbounded_channel();
    let ask = async {
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
        if others(client).await? == 0 {
            return Ok(Ok(()));
        }
        let mut name = [0u8; 8];
        getrandom::fill(&mut name)?;
        let name = hex::encode(name);
        ask_all(client, witness, &name).await?;
        let last = format!("!{name}");
        match timeout(ANSWERS, answers(client, witness, &last, &mut told)).await {
            Ok(answered) => answered?,
            Err(_) => tracing::warn!("a replica that runs has not said what it has acknowledged"),
        }
        Ok(look(client, witness).await?)
    };
    let hears = listen_to(driver, |said| {
        let _ = tell.send(said.to_owned());
    });
    tokio::select! {
        asked = ask => asked,
        ended = hears => {
            ended?;
            Err(Error::Silent)
        }
    }
}

/// Waits until each replica that listens has said what it has acknowledged, in messages of which the last has the
/// word `last`.
async fn answers(
    client: &Client,
    witness: &Witness,
    last: &str,
    told: &mut UnboundedReceiver<String>,
) -> Result<(), tokio_postgres::Error> {
    let mut heard = 0;
    // Whoever has gone meanwhile is not waited for.
    while heard < others(client).await? {
        let Ok(Some(said)) = timeout(COUNT_AGAIN, told.recv()).await else { continue };
        for word in words(witness, &said).into_iter().flatten() {
            parse(word).into_iter().for_each(|mark| witness.saw(mark));
            heard += i64::from(word == last);
        }
    }
    Ok(())
}

/// How many replicas listen.
async fn others(client: &Client) -> Result<i64, tokio_postgres::Error> {
    client.query_one(HEARING, &[]).await?.try_get(0)
}

/// The words of what was said about the ledger of `witness`. The channel is the database's, and there may be other
/// ledgers in it.
fn words<'a>(witness: &Witness, said: &'a str) -> Option<impl Iterator<Item = &'a str>> {
    let (ledger, words) = said.split_once(' ')?;
    (ledger == witness.ledger()).then(|| words.split(' '))
}

/// Asks all that listen what they have acknowledged.
async fn ask_all(
    client: &Client,
    witness: &Witness,
    name: &str,
) -> Result<(), tokio_postgres::Error> {
    notify(client, &format!("{} ?{name}", witness.ledger())).await
}

/// Says what was acknowledged here, to whoever asked as `name`.
async fn answer(
    client: &Client,
    witness: &Witness,
    name: &str,
) -> Result<(), tokio_postgres::Error> {
    for marks in witness.marks().chunks(WORDS_MAX) {
        let words: Vec<_> = marks.iter().copied().map(spell).collect();
        notify(client, &format!("{} {}", witness.ledger(), words.join(" "))).await?;
    }
    notify(client, &format!("{} !{name}", witness.ledger())).await
}

async fn notify(client: &Client, words: &str) -> Result<(), tokio_postgres::Error> {
    client.execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &words]).await?;
    Ok(())
}

/// Moves the bytes of a connection, and hands over what it hears, until it ends.
async fn listen_to(
    mut driver: Driver,
    mut heard: impl FnMut(&str),
) -> Result<(), tokio_postgres::Error> {
    while let Some(message) = poll_fn(|context| driver.poll_message(context)).await {
        if let AsyncMessage::Notification(said) = message? {
            heard(said.payload());
        }
    }
    Ok(())
}

//! The words that the ledger's verbs are spoken in.

use std::time::{Duration, SystemTime};

use sha3::{Digest, Sha3_256};

use tokio_util::sync::CancellationToken;

use super::witness::Mark;
use crate::order::Order;
use crate::payout::Payout;
use crate::policy::Rule;
use crate::state::State;

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error(
        "another process has this ledger open, by this path or another one: the lock is on the database file itself and ends with that process"
    )]
    Locked,
    /// A running process was started with this path, and its file is not at it any more.
    #[error(
        "a running payoutd was started with this path and has another file open: its file was removed, moved or replaced (or that payoutd is an older version). Put that file back, or stop that payoutd: docs/operations.md"
    )]
    Replaced,
    /// It has several names, and SQLite finds its log by the name.
    #[error(
        "the ledger file has {0} hard links: opened by another name, it lacks the commits in its log. Remove all names but one"
    )]
    Linked(u64),
    /// It is mounted without its folder, and SQLite makes its log in the folder.
    #[error(
        "the ledger file is a mount point: its log would lie outside of the mount and be lost with it. Mount the folder instead"
    )]
    Mounted,
    /// What is at its path is not what was opened.
    #[error("{} was removed, moved or replaced: docs/operations.md", path.display())]
    Moved {
        /// The path: of the ledger, its log, or the log's index.
        path: std::path::PathBuf,
        /// Why nothing can be seen there, where that is so.
        #[source]
        cause: Option<std::io::Error>,
    },
    /// Its log cannot be emptied after a failure, since another process reads from it.
    #[error("another process is reading from the ledger's log")]
    LogInUse,
    /// It was written by a newer payoutd.
    #[error("the ledger has schema version {found}, newer than the {known} known here")]
    Newer {
        /// The version in the file.
        found: i64,
        /// The newest that this build can write.
        known: i64,
    },
    /// The file is a database of something else.
    #[error("the file is not a payoutd ledger")]
    Foreign,
    /// The file system or the build does not give durable commits.
    #[error("commits would not be durable: journal_mode={journal} synchronous={synchronous}")]
    NotDurable {
        /// What SQLite answered for `journal_mode`.
        journal: String,
        /// What SQLite answered for `synchronous`.
        synchronous: i64,
    },
    /// The file or its folder cannot be used.
    #[error("cannot use the ledger file")]
    Io(#[source] std::io::Error),
    /// SQLite refused.
    #[error("SQLite cannot open the ledger")]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL does not answer, or refused.
    #[error("PostgreSQL cannot open the ledger")]
    Postgres(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A commit of the database's might be lost although it was acknowledged.
    #[error("commits would not be durable: {0}")]
    NotSafe(String),
    /// The database cannot hold every text.
    #[error(
        "the database's encoding is {0}; it must be UTF8, or some texts cannot be kept: CREATE DATABASE another one with ENCODING 'UTF8' TEMPLATE template0, and let ledger.url name it"
    )]
    Encoding(String),
    /// A pooler gives each transaction another connection.
    #[error(
        "there is a pooler with transaction pooling before the database, which keeps no sessions: let ledger.url name the server itself, or set the pooler to pool_mode = session, with a default_pool_size of at least ledger.max_connections + 2 for each replica"
    )]
    Pooled,
    /// Its payouts have gone elsewhere, and are paid from there.
    #[error("the ledger was copied to {0} and must not be used any more: set ledger.url")]
    Retired(String),
    /// A copy of the file was begun, and nobody has seen its end.
    #[error(
        "the ledger is being copied to {target}, and must not be used any more; nobody has seen the end of that. Nothing is sent. Finish the copy with `{command}`, then set ledger.url"
    )]
    Moving {
        /// Where to.
        target: String,
        /// What ends the copy.
        command: String,
    },
    /// A copy into the database was begun, and has not ended.
    #[error(
        "a ledger's file was to be copied into the database, and that has not ended: payouts are missing. Nothing is sent. Finish the copy with `{0}`"
    )]
    HalfCopied(String),
    /// A copy into the database is being made.
    #[error("a ledger's file is being copied into the database: start when that has ended")]
    CopyUnderWay,
    /// The tables are older than this build, or missing, and are not to be made here.
    #[error(
        "the ledger has schema version {found}, older than {wanted}: run `payoutd ledger migrate` as its owner"
    )]
    Older {
        /// The version that was found; 0 for none.
        found: i64,
        /// The version that this build works with.
        wanted: i64,
    },
    /// It does not hold what somebody was told from it: an old copy, or a standby that was behind.
    #[error(
        "the ledger has lost what was acknowledged: it ends with {reached}, and {acknowledged}, which was acknowledged, is not in it. Nothing is sent. Settle what is missing before you remove the witness: docs/operations.md"
    )]
    RolledBack {
        /// How far the ledger has come.
        reached: Mark,
        /// How far it had come when somebody was last told something.
        acknowledged: Mark,
    },
    /// The witness has seen another ledger.
    #[error(
        "this is not the ledger that its witness knows, and which had come to {acknowledged}: another file or database, or a copy from before an upgrade. Nothing is sent: docs/operations.md"
    )]
    OtherLedger {
        /// How far that one had come.
        acknowledged: Mark,
    },
    /// What `ledger.witness` names cannot be read or written.
    #[error("cannot use the witness (ledger.witness)")]
    Witness(#[source] std::io::Error),
    /// What `ledger.witness` names is something else, or was damaged.
    #[error("the file of ledger.witness is not a witness, or is damaged: docs/operations.md")]
    NoWitness,
}

/// Names a payout within a project.
#[derive(Clone, Debug)]
pub enum Id {
    /// The caller's id.
    ThirdParty(String),
    /// Cregis's id.
    Cid(i64),
}

/// When a recorded payout may be sent once more. `NOT_SENT` always may.
#[derive(Clone, Copy, Debug)]
pub enum Resend {
    /// A doubt is never sent again.
    Never,
    /// A doubt may be, once its last send was recorded before this time.
    DoubtsOlderThan(SystemTime),
}

/// What recording an order found.
#[derive(Debug)]
pub enum Begun {
    /// The payout is durable as SENDING, and the caller of `begin` is the one that must send it.
    Send(Payout),
    /// The id is known, and nothing is to be sent. Its order may differ from the one given.
    Known(Payout),
    /// A rule of the caller's speaks against it. Nothing is recorded.
    Denied(Rule),
    /// An operator has paused the project. Nothing is recorded. Only a shared ledger finds that here.
    Paused,
}

/// What has moved a payout; kept with the revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was asked for.
    Recorded,
    /// It was asked for again.
    Resend,
    /// Its send ended.
    Reply,
    /// Its record failed before the send.
    Unsent,
    /// A process died under its send.
    Recovery,
    /// A query of ours.
    Poll,
    /// A notice, confirmed by a query.
    Notice,
    /// An external verification, confirmed by a query.
    Verification,
    /// An operator, and what the operator saw.
    Operator(String),
    /// It has been in one state for too long.
    Age,
}

/// Which payouts to list.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The project.
    pub pid: i64,
    /// Only this caller's.
    pub caller: Option<String>,
    /// Any of these; empty means all.
    pub states: Vec<State>,
    /// Only what a person should look at.
    pub attention_only: bool,
    /// Only what came into its present state no later than this.
    pub not_after: Option<SystemTime>,
    /// Only rows after this one.
    pub after_row: i64,
    /// At most so many.
    pub limit: i64,
}

/// What is due.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// In this project.
    pub pid: i64,
    /// At this time.
    pub now: SystemTime,
    /// At most so much.
    pub limit: i64,
}

/// A validly signed notice of Cregis's. The signature has no separators, so whoever has heard one can write it in endless
/// ways: all that say the same about the payout's id, cid and status are one.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The project whose key signed it.
    pub pid: i64,
    /// The caller's id, as it says.
    pub third_party_id: String,
    /// Cregis's id, as it says.
    pub cid: i64,
    /// Cregis's status number, as it says.
    pub status: i32,
    /// Its text.
    pub body: String,
    /// The row of the payout it names; None for an orphan.
    pub payout: Option<i64>,
}

/// How many notices are kept of one payout. A question that is open gives its place to nobody.
pub(super) const NOTICES_MAX: i64 = 32;
/// How many notices without a payout are kept of one project, the newest.
pub(super) const ORPHANS_MAX: i64 = 1_000;
/// The question about a notice is asked again for the same notice once it is this old.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// What became of a notice that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is kept, or asked about once more.
    New,
    /// One that says the same was kept before.
    Known,
    /// Nothing is kept: its payout has as many open questions as it may have notices.
    Full,
}

impl Notice {
    /// Tells it from all others that say something else.
    pub(super) fn key(&self) -> [u8; 32] {
        let mut key = Sha3_256::new();
        // What an orphan says is worth a question once its payout is recorded.
        key.update([u8::from(self.payout.is_some())]);
        key.update(self.pid.to_be_bytes());
        key.update(self.cid.to_be_bytes());
        key.update(self.status.to_be_bytes());
        // The only one whose length varies.
        key.update(&self.third_party_id);
        key.finalize().into()
    }
}

/// A notice that Cregis is to be asked about.
#[derive(Clone, Debug)]
pub struct Lead {
    /// The notice.
    pub notice: i64,
    /// The payout it names.
    pub third_party_id: String,
    /// The id it names.
    pub cid: i64,
    /// How often Cregis has been asked.
    pub tries: i64,
}

/// The ledger could not do it; nothing is known to have been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is unavailable")]
pub struct Unavailable;

/// The ledger could not record a send, or does not know whether it did. Nothing may be sent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the ledger is unavailable")]
pub struct Unrecorded {
    /// When the send that may be recorded all the same begins; None where certainly none is recorded.
    pub send_time: Option<SystemTime>,
    /// Cancelled once nothing can be recorded any more that does not show by then.
    pub over: CancellationToken,
}

impl Unrecorded {
    /// Where nothing is on its way: what does not show is not recorded.
    pub fn at_once(send_time: Option<SystemTime>) -> Self {
        let over = CancellationToken::new();
        over.cancel();
        Self { send_time, over }
    }
}

impl From<Unavailable> for Unrecorded {
    fn from(_: Unavailable) -> Self {
        Self::at_once(None)
    }
}

impl OpenError {
    pub(super) fn from_postgres(
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Postgres(error.into())
    }
}

impl Cause {
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Recorded => "RECORDED",
            Self::Resend => "RESEND",
            Self::Reply => "REPLY",
            Self::Unsent => "UNSENT",
            Self::Recovery => "RECOVERY",
            Self::Poll => "POLL",
            Self::Notice => "NOTICE",
            Self::Verification => "VERIFICATION",
            Self::Operator(_) => "OPERATOR",
            Self::Age => "AGE",
        }
    }

    pub(super) fn evidence(&self) -> Option<&str> {
        match self {
            Self::Operator(evidence) => Some(evidence),
            Self::Recorded
            | Self::Resend
            | Self::Reply
            | Self::Unsent
            | Self::Recovery
            | Self::Poll
            | Self::Notice
            | Self::Verification
            | Self::Age => None,
        }
    }
}

impl Resend {
    fn allows(self, payout: &Payout) -> bool {
        match (payout.state, self) {
            (State::NotSent, _) => true,
            (State::InDoubt, Self::DoubtsOlderThan(limit)) => payout.send_time <= limit,
            (State::InDoubt, Self::Never) => false,
            (
                State::Sending
                | State::Accepted
                | State::Rejected
                | State::Voided
                | State::Succeeded
                | State::Failed
                | State::Denied,
                _,
            ) => false,
        }
    }

    /// Tells whether `order`, asked for again by whoever may, would send `known` once more.
    pub fn would_send(self, known: &Payout, order: &Order) -> bool {
        self.allows(known) && known.order.differences(order).is_empty()
    }
}

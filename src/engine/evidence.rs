//! What Cregis says about a payout, weighed: nothing moves one but a signed query that agrees with
//! the ledger in every field that decides about money. A remark that came back as another one is shown to
//! a person, and decides nothing.
//!
//! A notice or a verification only says where to look. Their signatures have no separators, so a
//! valid one proves that the key's holder wrote these bytes in some arrangement, and no more.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{Engine, Project, Refused};
use crate::attention::Attention;
use crate::causes::chain;
use crate::cregis::Queried;
use crate::cregis::echo::Echo;
use crate::ledger::{Cause, Id, Notice, Unavailable};
use crate::metrics::label::{Answer, Errand};
use crate::order::Key;
use crate::payout::{Payout, Progress};
use crate::policy::Terms;
use crate::state::State;

/// Cregis waits for the answer to a verification; without a confirmation by then it gets none.
const VERIFICATION_WAIT: Duration = Duration::from_secs(4);

/// What asking Cregis about an id of its own came to.
#[derive(Debug)]
pub(super) enum Asked {
    /// It is the payout, and this is what has become of it.
    Agrees(Agreed),
    /// It is another order.
    Disagrees,
    /// Cregis has no order under the id.
    Missing,
    /// No answer, or none that can be used.
    Unanswered,
}

/// What a query showed of a payout.
#[derive(Debug)]
pub(super) struct Agreed {
    progress: Progress,
    /// Whether the remark came back as another one.
    remark_changed: bool,
}

/// A message of Cregis's whose signature is good.
#[derive(Debug)]
pub struct Message {
    /// The id it names.
    pub cid: i64,
    /// What it says that the order is.
    pub echo: Echo,
    /// Its text.
    pub body: String,
}

/// Why a verification is not answered.
#[derive(Debug, thiserror::Error)]
pub enum Undecided {
    /// The ledger does not answer.
    #[error("the ledger is unavailable")]
    Ledger(#[from] Unavailable),
    /// The query that must confirm it found nothing, or was not answered.
    #[error("the confirming query found nothing")]
    Query,
}

/// How an operator settles a doubt.
#[derive(Clone, Copy, Debug)]
pub enum Resolution {
    /// It exists at Cregis under this id.
    Cid(i64),
    /// It was never created.
    Void,
}

impl Engine {
    /// Asks Cregis about `cid`, and whether that is `payout`.
    pub(super) async fn ask(&self, project: &Project, payout: &Payout, cid: i64) -> Asked {
        let start = Instant::now();
        let queried = project.cregis.query(cid).await;
        let answer = match &queried {
            Ok(Queried::Found(_)) => Answer::Good,
            Ok(Queried::Missing) => Answer::Missing,
            Ok(Queried::Other(_)) => Answer::Refused,
            Err(_) => Answer::Unanswered,
        };
        let upstream = &self.metrics().projects.upstream;
        upstream.at((Errand::Query, answer)).took(start.elapsed());
        match queried {
            Ok(Queried::Found(echo)) => match echo.differences(&payout.order) {
                same if same.is_empty() => Asked::Agrees(Agreed {
                    progress: echo.progress(cid),
                    remark_changed: echo.changes_remark(&payout.order),
                }),
                fields => {
                    let Key { pid, third_party_id } = &payout.order.key;
                    tracing::error!(pid, third_party_id, cid, ?fields, "query disagrees");
                    Asked::Disagrees
                }
            },
            Ok(Queried::Missing) => Asked::Missing,
            Ok(Queried::Other(code)) => {
                tracing::warn!(
                    pid = payout.order.key.pid,
                    cid,
                    cregis.code = code,
                    "query refused"
                );
                Asked::Unanswered
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(pid = payout.order.key.pid, cid, error, "query unanswered");
                Asked::Unanswered
            }
        }
    }

    /// Writes what a query showed, and says so where it is news.
    pub(super) async fn confirm(
        &self,
        project: &Project,
        before: &Payout,
        agreed: Agreed,
        cause: Cause,
    ) -> Result<Payout, Unavailable> {
        let asked = before.clone();
        // First, for what comes to its end now is not asked about again.
        let before = if agreed.remark_changed {
            &self.page(before, Attention::FieldMismatch, Cause::Poll).await?
        } else {
            before
        };
        let poll_first = project.poll_first();
        let after = self.ledger.confirm(asked, agreed.progress, poll_first, cause).await?;
        self.news(before, &after);
        Ok(after)
    }

    /// Marks the payout for a person, and says so where that is news.
    pub(super) async fn page(
        &self,
        before: &Payout,
        attention: Attention,
        cause: Cause,
    ) -> Result<Payout, Unavailable> {
        let after = self.ledger.note(before.clone(), attention, cause).await?;
        self.news(before, &after);
        Ok(after)
    }

    /// Keeps a notice; once this has returned it may be acknowledged. What fits the ledger is
    /// confirmed by a query soon; what does not moves nothing.
    ///
    /// # Errors
    /// It is not kept, and must not be acknowledged.
    pub async fn take_notice(&self, pid: i64, message: Message) -> Result<(), Unavailable> {
        let Message { cid, echo, body } = message;
        let third_party_id = echo.third_party_id.clone();
        let known = self.ledger.find(pid, Id::ThirdParty(third_party_id.clone())).await?;
        let lead = known.as_ref().is_some_and(|payout| {
            misfits(payout, cid, &echo).is_empty() && !is_end(payout, cid, &echo)
        });
        let row = known.as_ref().map(|payout| payout.row);
        if let Some(payout) = known {
            // Before it is kept: what was kept is acknowledged, and does not come again.
            for attention in oddities(&payout, cid, &echo) {
                self.page(&payout, attention, Cause::Notice).await?;
            }
        }
        let status = echo.status;
        let notice = Notice { pid, third_party_id, cid, status, body, payout: row };
        if !self.ledger.keep(notice, lead).await? {
            return Ok(());
        }
        if row.is_none() {
            tracing::error!(pid, cid, "notice for a payout that was never recorded here");
        }
        if let (true, Ok(project)) = (lead, self.project(pid)) {
            project.news.notify_one();
        }
        Ok(())
    }

    /// Decides whether Cregis may pay `cid`: exactly one for each payout, ever.
    ///
    /// # Errors
    /// Neither yes nor no may be said.
    pub async fn verify(&self, pid: i64, message: &Message) -> Result<bool, Undecided> {
        let (Ok(project), cid) = (self.project(pid), message.cid) else { return Ok(false) };
        let key = Key { pid, third_party_id: message.echo.third_party_id.clone() };
        let id = Id::ThirdParty(key.third_party_id.clone());
        let Some(mut payout) = self.ledger.find(pid, id).await? else {
            tracing::error!(pid, cid, "verification of a payout that was never recorded: denied");
            return Ok(false);
        };
        let misfits = misfits(&payout, cid, &message.echo);
        for attention in oddities(&payout, cid, &message.echo) {
            payout = self.page(&payout, attention, Cause::Verification).await?;
        }
        // What has no cid yet is asked about now: an answer was lost, or we were wrong to close it.
        if misfits.is_empty() && payout.cid.is_none() {
            let asked = timeout(VERIFICATION_WAIT, self.ask(project, &payout, cid)).await;
            match asked.unwrap_or(Asked::Unanswered) {
                Asked::Agrees(agreed) => {
                    payout = self.confirm(project, &payout, agreed, Cause::Verification).await?;
                }
                Asked::Disagrees => {
                    let attention = Attention::FieldMismatch;
                    self.page(&payout, attention, Cause::Verification).await?;
                    return Ok(false);
                }
                // It may be too new to be found; a no would end it for good.
                Asked::Missing | Asked::Unanswered => return Err(Undecided::Query),
            }
        }
        // Its caller was told that it does not exist, and may have paid under another id by now.
        let reopened = Attention::ExistsAfterClose.as_str();
        let open = !payout.attention.iter().any(|attention| attention == reopened);
        let approved = misfits.is_empty() && open && self.ledger.approve(key, cid).await?;
        let third_party_id = &payout.order.key.third_party_id;
        tracing::info!(pid, third_party_id, cid, approved, "verification");
        Ok(approved)
    }

    /// Settles a doubt on an operator's word; a `cid` only where a query agrees.
    ///
    /// # Errors
    /// Unknown project or payout, `ResolutionRefused`, or somebody does not answer.
    pub async fn resolve_doubt(
        &self,
        terms: &Terms,
        key: Key,
        resolution: Resolution,
        evidence: String,
    ) -> Result<Payout, Refused> {
        let project = self.project(key.pid)?;
        let id = Id::ThirdParty(key.third_party_id.clone());
        let mut before = self.get(terms, key.pid, id).await?;
        let after = match resolution {
            Resolution::Void => {
                let age = self.void_min_age;
                let voided = self.ledger.void(before.clone(), age, evidence).await?;
                let refused = "only a doubt can be voided, and only once it is old enough";
                voided.ok_or(Refused::ResolutionRefused(refused))?
            }
            Resolution::Cid(cid) if before.cid == Some(cid) => before.clone(),
            Resolution::Cid(_) if before.cid.is_some() => {
                return Err(Refused::ResolutionRefused("another cid is bound"));
            }
            Resolution::Cid(_) if before.state == State::Sending => {
                return Err(Refused::ResolutionRefused("its send is still under way"));
            }
            Resolution::Cid(cid) => match self.ask(project, &before, cid).await {
                Asked::Agrees(agreed) => {
                    let cause = Cause::Operator(evidence);
                    // This says what is new by itself.
                    before = self.confirm(project, &before, agreed, cause).await?;
                    before.clone()
                }
                Asked::Disagrees => {
                    return Err(Refused::ResolutionRefused("Cregis's order is another payout"));
                }
                Asked::Missing => {
                    return Err(Refused::ResolutionRefused("Cregis has no order under this cid"));
                }
                Asked::Unanswered => return Err(Refused::UpstreamUnavailable),
            },
        };
        self.news(&before, &after);
        match resolution {
            Resolution::Cid(cid) if after.cid != Some(cid) => {
                Err(Refused::ResolutionRefused("the cid belongs to another payout"))
            }
            Resolution::Cid(_) | Resolution::Void => Ok(after),
        }
    }
}

/// What speaks against a message being about `payout`.
fn misfits(payout: &Payout, cid: i64, echo: &Echo) -> Vec<Attention> {
    let fields = (!echo.differences(&payout.order).is_empty()).then_some(Attention::FieldMismatch);
    let bound = payout.cid.is_some_and(|bound| bound != cid).then_some(Attention::CidMismatch);
    fields.into_iter().chain(bound).collect()
}

/// Whether a message says no more than how `payout` has ended.
fn is_end(payout: &Payout, cid: i64, echo: &Echo) -> bool {
    let shown = payout.progress.as_ref().map(|progress| progress.status);
    payout.state.is_final() && payout.cid == Some(cid) && shown == Some(echo.status)
}

/// What a person should know about a message: what speaks against it, and a changed remark.
fn oddities(payout: &Payout, cid: i64, echo: &Echo) -> Vec<Attention> {
    let mut found = misfits(payout, cid, echo);
    if echo.changes_remark(&payout.order) && !found.contains(&Attention::FieldMismatch) {
        found.push(Attention::FieldMismatch);
    }
    found
}

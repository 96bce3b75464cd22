//! `payout.v1.OperatorService`: what people do when nothing else settles a payout.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::call::Call;
use super::{resolve, status};
use crate::engine::Engine;
use crate::engine::evidence::Resolution;
use crate::order::{Key, Violation, id_fits};
use crate::pb;
use crate::pb::operator_service_server::OperatorService;
use crate::policy::Terms;

/// The longest text that is kept with an operator's act, in characters.
const TEXT_MAX: usize = 1024;

/// The service.
#[derive(Debug)]
pub(super) struct Operator {
    engine: Arc<Engine>,
}

impl Operator {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    async fn settle(
        &self,
        request: pb::ResolvePayoutRequest,
        terms: &Terms,
    ) -> Result<pb::Payout, Status> {
        use pb::resolve_payout_request::Resolution as Asked;
        let mut violations = Vec::new();
        let pid = resolve(&self.engine, terms, request.pid, &mut violations)?;
        let mut refuse = |field, rule: &str| violations.push(Violation::new(field, rule));
        if !id_fits(&request.third_party_id) {
            refuse("third_party_id", "must match [A-Za-z0-9_-]{1,64}");
        }
        let resolution = match request.resolution {
            Some(Asked::Cid(cid)) if cid > 0 => Some(Resolution::Cid(cid)),
            Some(Asked::Void(true)) => Some(Resolution::Void),
            Some(Asked::Cid(_)) => {
                refuse("cid", "must be above 0");
                None
            }
            Some(Asked::Void(false)) | None => {
                refuse("resolution", "give cid, or void as true");
                None
            }
        };
        let evidence = request.evidence.trim();
        if evidence.is_empty() || !is_text(evidence) {
            let rule =
                "must be 1 to 1024 characters that say what was seen, and no control characters";
            refuse("evidence", rule);
        }
        let (Some(resolution), true) = (resolution, violations.is_empty()) else {
            return Err(status::invalid(&violations));
        };
        let key = Key { pid, third_party_id: request.third_party_id };
        let resolved = self.engine.resolve_doubt(terms, key, resolution, evidence.to_owned()).await;
        resolved.map(Into::into).map_err(|refused| status::refused(&refused))
    }

    async fn intake(&self, request: pb::SetIntakeRequest, terms: &Terms) -> Result<bool, Status> {
        let pb::SetIntakeRequest { pid, paused, note } = request;
        if !is_text(&note) {
            let rule = "must be at most 1024 characters, and no control characters";
            return Err(status::invalid(&[Violation::new("note", rule)]));
        }
        let pid = (pid != 0).then_some(pid);
        let set = self.engine.set_intake(terms, pid, paused, note).await;
        set.map(|()| paused).map_err(|refused| status::refused(&refused))
    }
}

/// Whether a text of an operator's can be kept: by every ledger, and in an event, which nobody can change later.
fn is_text(text: &str) -> bool {
    text.chars().count() <= TEXT_MAX && !text.chars().any(char::is_control)
}

#[tonic::async_trait]
impl OperatorService for Operator {
    async fn resolve_payout(
        &self,
        request: Request<pb::ResolvePayoutRequest>,
    ) -> Result<Response<pb::ResolvePayoutResponse>, Status> {
        let call = Call::of(request.extensions())?;
        let resolved = self.settle(request.into_inner(), call.terms()).await;
        call.respond(resolved.map(|payout| pb::ResolvePayoutResponse { payout: Some(payout) }))
    }

    async fn set_intake(
        &self,
        request: Request<pb::SetIntakeRequest>,
    ) -> Result<Response<pb::SetIntakeResponse>, Status> {
        let call = Call::of(request.extensions())?;
        let set = self.intake(request.into_inner(), call.terms()).await;
        call.respond(set.map(|paused| pb::SetIntakeResponse { paused }))
    }
}

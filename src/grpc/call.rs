//! What is known about a call before its body is read: when it came, from whom, and the id that its
//! log lines and its answer carry.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Extensions, Response, Status};

use super::status;
use crate::caller::Caller;
use crate::engine::Refused;
use crate::policy::Terms;
use crate::telemetry::lines::Lines;

/// The name of the header that holds a call's id.
pub(super) const ID: &str = "x-request-id";

/// What is known about a call. The gate notes it among the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) arrival: Instant,
    pub(super) caller: Arc<Caller>,
    pub(super) id: MetadataValue<Ascii>,
    /// How often a refusal is logged.
    pub(super) refusals: Arc<Lines>,
}

/// A call's id: the caller's own where it has a usable one, else a random one, which tells nobody how many there are.
pub(super) fn id_of(headers: &HeaderMap) -> MetadataValue<Ascii> {
    let given = headers.get(ID).map(|id| id.as_bytes()).filter(|id| {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        matches!(id.len(), 1..=64) && id.iter().all(fits)
    });
    given.and_then(|id| MetadataValue::try_from(id).ok()).unwrap_or_else(|| {
        let mut id = [0; 16];
        // Without randomness calls share an id, which only the log minds.
        let _ = getrandom::fill(&mut id);
        hex::encode(id).parse().unwrap_or(MetadataValue::from_static("none"))
    })
}

impl Call {
    /// The gate's note about a request.
    ///
    /// # Errors
    /// A request without one has come past the gate, and nobody knows from whom.
    pub(super) fn of(extensions: &Extensions) -> Result<Self, Status> {
        let noted = extensions.get::<Self>().cloned();
        noted.ok_or_else(|| status::refused(&Refused::Unauthenticated))
    }

    pub(super) fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    pub(super) fn terms(&self) -> &Arc<Terms> {
        self.caller.terms()
    }

    /// Sends the call's id along with its answer.
    pub(super) fn respond<T>(self, answer: Result<T, Status>) -> Result<Response<T>, Status> {
        match answer {
            Ok(message) => {
                let mut response = Response::new(message);
                response.metadata_mut().insert(ID, self.id);
                Ok(response)
            }
            Err(mut status) => {
                tracing::debug!(request.id = self.id(), %status, "refused");
                if status.code() == Code::PermissionDenied
                    && let Some(left_out) = self.refusals.admit()
                {
                    let (caller, why) = (self.caller.name(), status.message());
                    tracing::warn!(request.id = self.id(), caller, why, left_out, "caller refused");
                }
                status.metadata_mut().insert(ID, self.id);
                Err(status)
            }
        }
    }
}

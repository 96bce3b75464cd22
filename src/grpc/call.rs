//! What is known about a call before its body is read: when it came, from whom, and the id that its
//! log lines and its answer carry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Gives every call an id: the caller's own where it has a usable one.
#[derive(Debug)]
pub(super) struct Ids {
    /// Makes ids of different processes differ.
    prefix: u32,
    count: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { prefix: getrandom::u32().unwrap_or_default(), count: AtomicU64::new(1) }
    }

    pub(super) fn of(&self, headers: &HeaderMap) -> MetadataValue<Ascii> {
        let given = headers.get(ID).map(|id| id.as_bytes()).filter(|id| {
            let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
            matches!(id.len(), 1..=64) && id.iter().all(fits)
        });
        given.and_then(|id| MetadataValue::try_from(id).ok()).unwrap_or_else(|| self.next())
    }

    fn next(&self) -> MetadataValue<Ascii> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:08x}-{count:x}", self.prefix);
        id.parse().unwrap_or_else(|_| MetadataValue::from(count))
    }
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

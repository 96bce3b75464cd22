//! What is known about a call: when it came, and the id that its log lines and its answer carry.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Extensions, Request, Response, Status};

/// What is known about a request before its body is read.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) arrival: Instant,
    id: MetadataValue<Ascii>,
}

/// Gives every call an id: the caller's own where it has a usable one.
#[derive(Debug)]
pub(super) struct Calls {
    /// Makes ids of different processes differ.
    prefix: u32,
    count: AtomicU64,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self { prefix: getrandom::u32().unwrap_or_default(), count: AtomicU64::new(1) }
    }

    pub(super) fn note(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let given = request.metadata().get("x-request-id").filter(|id| {
            let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
            matches!(id.len(), 1..=64) && id.as_bytes().iter().all(fits)
        });
        let id = given.cloned().unwrap_or_else(|| self.next());
        request.extensions_mut().insert(Call { arrival: Instant::now(), id });
        Ok(request)
    }

    fn next(&self) -> MetadataValue<Ascii> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:08x}-{count:x}", self.prefix);
        id.parse().unwrap_or_else(|_| MetadataValue::from(count))
    }
}

impl Call {
    pub(super) fn of(extensions: &Extensions) -> Self {
        // Every request passes the interceptor.
        let noted = extensions.get::<Self>().cloned();
        noted.unwrap_or_else(|| Self { arrival: Instant::now(), id: MetadataValue::from(0) })
    }

    pub(super) fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    /// Sends the call's id along with its answer.
    pub(super) fn respond<T>(self, answer: Result<T, Status>) -> Result<Response<T>, Status> {
        match answer {
            Ok(message) => {
                let mut response = Response::new(message);
                response.metadata_mut().insert("x-request-id", self.id);
                Ok(response)
            }
            Err(mut status) => {
                tracing::debug!(request.id = self.id(), %status, "refused");
                status.metadata_mut().insert("x-request-id", self.id);
                Err(status)
            }
        }
    }
}

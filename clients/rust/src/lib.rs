//! The stubs of payoutd ([`v1`]), and the one rule for its callers ([`pay`]): the same id until a final state.
//! Short, to be used or copied.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{self, Bytes, StdError};
use tonic::{Request, Status};
use tonic_types::StatusExt;

use v1::payout_service_client::PayoutServiceClient;
use v1::watch_payout_request::Id;
use v1::{CreatePayoutRequest, Payout, PayoutState, WatchPayoutRequest};

/// The generated messages and clients.
#[allow(missing_docs)]
pub mod v1 {
    tonic::include_proto!("payout.v1");
}

/// Why [`pay`] ended without a final payout.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The same id cannot help: the ErrorInfo's `retry` is not `same_id`.
    #[error(transparent)]
    Refused(Status),
    /// The time is over.
    #[error("not known to be final: come back later, with the same id")]
    NotFinal,
}

/// Asks for the payout until it is final, for at most this long, and returns it.
///
/// Dropping the future stops asking; it changes nothing of what becomes of the payout.
///
/// # Errors
///
/// The service's own error where the same id cannot help, and [`Error::NotFinal`] when the time is over.
pub async fn pay<T: Transport>(
    payouts: &mut PayoutServiceClient<T>,
    request: &CreatePayoutRequest,
    time: Duration,
) -> Result<Payout, Error> {
    let began = Instant::now();
    let asking = async {
        loop {
            let left = time.saturating_sub(began.elapsed());
            match attempt(payouts, request, left).await {
                Ok(Some(payout)) => return Ok(payout),
                Ok(None) => sleep(PAUSE).await,
                Err(error) if is_the_callers(&error) => return Err(Error::Refused(error)),
                Err(error) => sleep(pause(&error)).await,
            }
        }
    };
    timeout(time, asking).await.unwrap_or(Err(Error::NotFinal))
}

const PAUSE: Duration = Duration::from_secs(1);

/// The final payout; None where it has to be created again.
async fn attempt<T: Transport>(
    payouts: &mut PayoutServiceClient<T>,
    request: &CreatePayoutRequest,
    left: Duration,
) -> Result<Option<Payout>, Status> {
    let deadline = left.min(Duration::from_secs(35));
    let mut request = Request::new(request.clone());
    request.set_timeout(deadline);
    // tonic does not count the wait for a connection.
    let Ok(answer) = timeout(deadline, payouts.create_payout(request)).await else {
        return Ok(None);
    };
    let Some(payout) = answer?.into_inner().payout else { return Ok(None) };
    if is_final(payout.state()) {
        return Ok(Some(payout));
    }
    // An error of the watch is one more end without a final state; so is a connection that is silently dead.
    let watched = timeout(Duration::from_secs(300), watch(payouts, payout)).await;
    Ok(watched.map_or(None, |end| end.unwrap_or(None)))
}

async fn watch<T: Transport>(
    payouts: &mut PayoutServiceClient<T>,
    payout: Payout,
) -> Result<Option<Payout>, Status> {
    let request = WatchPayoutRequest {
        pid: payout.pid,
        id: Some(Id::ThirdPartyId(payout.third_party_id)),
        after_revision: payout.revision,
    };
    let mut changes = payouts.watch_payout(request).await?.into_inner();
    while let Some(change) = changes.message().await? {
        match change.payout {
            Some(payout) if is_final(payout.state()) => return Ok(Some(payout)),
            Some(payout) if payout.state() == PayoutState::NotSent => break,
            _ => {}
        }
    }
    Ok(None)
}

fn is_final(state: PayoutState) -> bool {
    use PayoutState::{Denied, Failed, Rejected, Succeeded, Voided};
    matches!(state, Rejected | Voided | Succeeded | Failed | Denied)
}

/// Without a detail of ours, an error says nothing about the money.
fn is_the_callers(error: &Status) -> bool {
    error.get_details_error_info().is_some_and(|info| {
        info.domain == "payout.v1" && info.metadata.get("retry").is_none_or(|it| it != "same_id")
    })
}

fn pause(error: &Status) -> Duration {
    error.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or(PAUSE)
}

/// What a client may be made over: a `Channel`, or one behind an interceptor that adds a token.
pub trait Transport:
    GrpcService<
        Body,
        Error: Into<StdError>,
        ResponseBody: codegen::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    >
{
}

impl<T> Transport for T where
    T: GrpcService<
            Body,
            Error: Into<StdError>,
            ResponseBody: codegen::Body<Data = Bytes, Error: Into<StdError> + Send>
                              + Send
                              + 'static,
        >
{
}

//! `payoutd health`: a probe for containers that hold no other tool.

use std::time::Duration;

use tonic::transport::Endpoint;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Longer than this is an answer, too.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a probe did not find SERVING.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an address.
    #[error("not an http URL such as http://127.0.0.1:50051")]
    Address(#[source] tonic::transport::Error),
    /// Nobody there.
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
    /// It does not know the service.
    #[error("{0}")]
    Refused(String),
    /// It says so itself.
    #[error("{0}")]
    NotServing(&'static str),
}

/// Asks the server at `address` about `service`; `""` is the whole server.
///
/// # Errors
/// On every answer but SERVING.
pub async fn check(address: String, service: String) -> Result<(), Error> {
    let endpoint = Endpoint::from_shared(address).map_err(Error::Address)?;
    let endpoint = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE);
    let channel = endpoint.connect().await.map_err(Error::Connect)?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest { service }).await;
    let status = answer.map_err(|status| Error::Refused(status.message().to_owned()))?;
    let serving = ServingStatus::Serving as i32;
    match status.into_inner().status {
        status if status == serving => Ok(()),
        _ => Err(Error::NotServing("NOT_SERVING")),
    }
}

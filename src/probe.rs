//! `payoutd health`: a probe for containers that hold no other tool.

use std::time::Duration;

use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::endpoint::{self, Endpoint};

/// Longer than this is an answer, too.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a probe did not find SERVING.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error(transparent)]
    Endpoint(#[from] endpoint::Error),
    /// Too late to be of use.
    #[error("no answer")]
    Silent,
    /// It does not know the service.
    #[error("{0}")]
    Refused(String),
    /// It says so itself.
    #[error("{0}")]
    NotServing(&'static str),
}

/// Asks the server at `endpoint` about `service`; `""` is the whole server.
///
/// # Errors
/// On every answer but SERVING.
pub async fn check(endpoint: &Endpoint, service: String) -> Result<(), Error> {
    let asked = async {
        let connection = endpoint.connect(PATIENCE).await?;
        let answer = HealthClient::new(connection).check(HealthCheckRequest { service }).await;
        answer.map_err(|status| Error::Refused(status.message().to_owned()))
    };
    let status = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| Error::Silent)??;
    let serving = ServingStatus::Serving as i32;
    match status.into_inner().status {
        status if status == serving => Ok(()),
        _ => Err(Error::NotServing("NOT_SERVING")),
    }
}

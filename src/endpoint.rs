//! How a command reaches a running service: its address, TLS, and a token.
//!
//! Files are read where the arguments are parsed, so that a missing one is a mistake in the usage.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Request, Status};
use url::Url;

use crate::config::{Mistakes, private_file};

/// Whom to ask, and how to get there.
#[derive(Clone, Debug, Args)]
pub struct Endpoint {
    /// The service; https where it speaks TLS.
    #[arg(long, global = true, default_value = "http://127.0.0.1:50051", value_parser = address)]
    addr: Url,
    /// Roots for the service's certificate, PEM; needed with https.
    #[arg(long, global = true, value_name = "FILE", value_parser = pem)]
    tls_ca: Option<Certificate>,
    /// The certificate to show, PEM.
    #[arg(long, global = true, value_name = "FILE", value_parser = pem)]
    tls_cert: Option<Certificate>,
    /// Its key, PEM.
    #[arg(long, global = true, value_name = "FILE", value_parser = secret)]
    tls_key: Option<SecretString>,
    /// The name to expect in the service's certificate, where it is not the one in --addr.
    #[arg(long, global = true, value_name = "NAME")]
    tls_name: Option<String>,
    /// A file whose first line is the bearer token to send.
    #[arg(long, global = true, value_name = "FILE", value_parser = token)]
    token_file: Option<Bearer>,
}

/// A connection that shows the token.
pub type Connection = InterceptedService<Channel, Bearer>;

/// The value of `authorization`; empty: none is sent.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address or a certificate cannot be used.
    #[error("the address or a certificate cannot be used")]
    Unusable(#[source] tonic::transport::Error),
    /// Nobody there, or not who was expected.
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
}

// === impl Endpoint ===

impl Endpoint {
    /// What does not fit together.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn check(&self) -> Result<(), Mistakes> {
        let mut mistakes = Mistakes::default();
        let tls = self.addr.scheme() == "https";
        if tls && self.tls_ca.is_none() {
            mistakes.add("--tls-ca", "is required with an https address");
        }
        let given = [
            ("--tls-ca", self.tls_ca.is_some()),
            ("--tls-cert", self.tls_cert.is_some()),
            ("--tls-key", self.tls_key.is_some()),
            ("--tls-name", self.tls_name.is_some()),
        ];
        for (flag, _) in given.into_iter().filter(|(_, given)| *given && !tls) {
            mistakes.add(flag, "needs an https address");
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            mistakes.add("--tls-cert", "and --tls-key belong together");
        }
        if mistakes.0.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// Connects; `patience` bounds the connection and the handshake, each.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn connect(&self, patience: Duration) -> Result<Connection, Error> {
        let address = self.addr.to_string();
        let endpoint = tonic::transport::Endpoint::from_shared(address);
        let mut endpoint = endpoint.map_err(Error::Unusable)?;
        if self.addr.scheme() == "https" {
            endpoint = endpoint.tls_config(self.tls(patience)).map_err(Error::Unusable)?;
        }
        let channel = endpoint.connect_timeout(patience).connect().await.map_err(Error::Connect)?;
        let bearer = self.token_file.clone().unwrap_or_default();
        Ok(InterceptedService::new(channel, bearer))
    }

    fn tls(&self, patience: Duration) -> ClientTlsConfig {
        let mut tls = ClientTlsConfig::new().timeout(patience);
        if let Some(ca) = &self.tls_ca {
            tls = tls.ca_certificate(ca.clone());
        }
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            tls = tls.identity(Identity::from_pem(certificate, key.expose_secret()));
        }
        match &self.tls_name {
            Some(name) => tls.domain_name(name),
            None => tls,
        }
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

fn address(text: &str) -> Result<Url, &'static str> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) | Err(_) => Err("must be an http or https URL such as http://127.0.0.1:50051"),
    }
}

fn pem(path: &str) -> Result<Certificate, String> {
    let read = std::fs::read(path);
    let read = read.map_err(|error| format!("the file cannot be read: {}", error.kind()))?;
    Ok(Certificate::from_pem(read))
}

fn secret(path: &str) -> Result<SecretString, String> {
    private_file(Path::new(path)).map(Into::into)
}

fn token(path: &str) -> Result<Bearer, String> {
    let text = private_file(Path::new(path))?;
    let token = text.lines().next().map(str::trim).filter(|token| !token.is_empty());
    let token = token.ok_or("the file is empty")?;
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| "the token has characters that cannot be sent")?;
    value.set_sensitive(true);
    Ok(Bearer(Some(value)))
}

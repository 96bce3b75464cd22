//! The only wiring: open the ledger, recover, bind, serve, drain.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::callback;
use crate::caller::Callers;
use crate::config::Config;
use crate::disk::Disk;
use crate::engine::{Engine, Project};
use crate::grpc;
use crate::health::Health;
use crate::ledger::{Ledger, OpenError, Unavailable};
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::tls::{Broken, Certificates};

/// How long sends may go on after the signal to stop.
const DRAIN: Duration = Duration::from_millis(31_500);
/// How long connections may then take to hear their last answers, and the ledger to be told that this process ends. All
/// of it stays below 35 s, where somebody else holds the ledger's file, too: closing that may take 2 s more.
const GOODBYE: Duration = Duration::from_millis(700);

/// A service that is bound and ready to run.
#[derive(Debug)]
pub struct App {
    engine: Arc<Engine>,
    health: Health,
    grpc: (Listener, grpc::Serving),
    certificates: Option<Arc<Certificates>>,
    callback: TcpListener,
    admin: TcpListener,
    addresses: Addresses,
    /// How long a stop goes on taking calls.
    drain_delay: Duration,
}

/// Where the service listens; true even where the settings said port 0.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For callers.
    pub grpc: SocketAddr,
    /// For Cregis.
    pub callback: SocketAddr,
    /// For the platform.
    pub admin: SocketAddr,
}

/// Why the service cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger cannot be opened.
    #[error("cannot open the ledger {name}")]
    Ledger {
        /// Its file, or its database.
        name: String,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// What a dead process left cannot be recovered.
    #[error("cannot recover what an earlier process left")]
    Recover(#[from] Unavailable),
    /// A client for Cregis cannot be built.
    #[error("cannot build the client for project {pid}")]
    Client {
        /// The project.
        pid: i64,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A socket is not to be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The wanted address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The files of `[grpc.tls]` have changed since the settings were read.
    #[error("cannot use {}", .0.iter().map(Broken::to_string).collect::<Vec<_>>().join("; "))]
    Certificates(Vec<Broken>),
    /// The binary's own descriptors are broken.
    #[error("cannot serve reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// Something that must run until the stop has ended before it.
    #[error("{0} ended unasked")]
    Ended(&'static str),
}

// === impl App ===

impl App {
    /// Takes the lock, opens and recovers the ledger and binds the sockets. Fails loudly.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        let health = Health::starting().await;
        let metrics = Metrics::new(config.projects.iter().map(|project| project.pid));
        let ledger = Ledger::of(&config.ledger, &metrics).await;
        let ledger =
            ledger.map_err(|source| Error::Ledger { name: config.ledger.name(), source })?;
        let mut projects = HashMap::new();
        for settings in &config.projects {
            let pid = settings.pid;
            let project = Project::new(settings, callback_url(config, pid))
                .map_err(|source| Error::Client { pid, source })?;
            projects.insert(pid, project);
        }
        let ledger = (ledger, Disk::of(&config.ledger));
        let engine = Engine::new(ledger, projects, config.void_min_age, config.grpc.max_watches);
        let callers = Callers::new(&config.callers, config.grpc.authenticates());
        let server = grpc::server(&config.grpc, callers, Arc::clone(&engine), &health)?;
        let listener = listen(config.grpc.listen).await?;
        let callback = listen(config.callback.listen).await?;
        let admin = listen(config.admin).await?;
        let addresses = Addresses {
            grpc: local(&listener, config.grpc.listen)?,
            callback: local(&callback, config.callback.listen)?,
            admin: local(&admin, config.admin)?,
        };
        engine.recover().await?;
        let load = |tls| Certificates::load(tls, &metrics.rpc.certificate_expiry);
        let certificates = config.grpc.tls.as_ref().map(load).transpose();
        let certificates = certificates.map_err(Error::Certificates)?.map(Arc::new);
        let open = &metrics.rpc.connections;
        let listener = Listener::new(listener, &config.grpc, certificates.clone(), open);
        let grpc = (listener, server);
        let drain_delay = config.grpc.drain_delay;
        Ok(Self { engine, health, grpc, certificates, callback, admin, addresses, drain_delay })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `stop`, then drains: no new payouts, sends finish, 35 s at most.
    ///
    /// # Errors
    /// Where a part of the service ends before it was asked to.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { engine, mut health, callback, admin, addresses, drain_delay, .. } = self;
        let (grpc, certificates) = (self.grpc, self.certificates);
        let closing = CancellationToken::new();
        let mut parts = JoinSet::new();

        let ((listener, server), closed) = (grpc, closing.clone());
        parts.spawn(async move {
            server.serve(listener.incoming(), closed).await;
            "the gRPC server"
        });
        if let Some(certificates) = certificates {
            let closed = closing.clone();
            parts.spawn(async move {
                closed.run_until_cancelled(certificates.follow()).await;
                "the certificates' reloading"
            });
        }
        let (judge, closed) = (Arc::clone(&engine), closing.clone());
        parts.spawn(async move {
            callback::serve(callback, judge, closed).await;
            "the callback server"
        });
        let (ready, shown, closed) = (health.ready(), Arc::clone(&engine), closing.clone());
        parts.spawn(async move {
            admin::serve(admin, ready, shown, closed).await;
            "the admin server"
        });
        let (teller, told, closed) = (health.clone(), Arc::clone(&engine), closing.clone());
        parts.spawn(async move {
            closed.run_until_cancelled(teller.follow(&told)).await;
            "health"
        });
        let (attendant, closed) = (Arc::clone(&engine), closing.clone());
        parts.spawn(async move {
            closed.run_until_cancelled(attendant.attend()).await;
            "what goes on beside the calls"
        });
        let Addresses { grpc, callback, admin } = addresses;
        tracing::info!(%grpc, %callback, %admin, "serving");

        let unasked = tokio::select! {
            () = stop => None,
            Some(part) = parts.join_next() => Some(part.unwrap_or("a task that panicked")),
        };
        tracing::info!("draining");
        health.drain().await;
        if unasked.is_none() {
            tokio::time::sleep(drain_delay).await;
        }
        let cut_off = engine.drain(DRAIN.saturating_sub(drain_delay)).await;
        if cut_off > 0 {
            tracing::error!(payouts = cut_off, "stopped with sends under way: IN_DOUBT SHUTDOWN");
        }
        health.end().await;
        closing.cancel();
        // A silent peer can hold a graceful stop for ever: it gets a moment, then it is dropped.
        let _ = tokio::time::timeout(GOODBYE, async { while parts.join_next().await.is_some() {} })
            .await;
        // What fails here is looked after a minute later.
        let _ = tokio::time::timeout(GOODBYE, engine.release()).await;
        tracing::info!("stopped");
        unasked.map_or(Ok(()), |part| Err(Error::Ended(part)))
    }
}

fn callback_url(config: &Config, pid: i64) -> String {
    match config.callback.public_url.as_str() {
        "" => String::new(),
        base => format!("{base}/callbacks/{pid}/payout"),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

fn local(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|source| Error::Listen { address, source })
}

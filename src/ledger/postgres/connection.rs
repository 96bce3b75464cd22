//! Connections to the database: encrypted, bounded, and none over which a commit could be lost.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Connect, Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime,
};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;

use super::Error;
use super::schema::driven;
use super::witness::look;
use crate::config::{self, Shared};
use crate::ledger::OpenError;
use crate::ledger::witness::Witness;
use crate::tls::roots;

/// Waiting for a connection, and for each of the steps until a new one stands.
const CONNECT: Duration = Duration::from_secs(2);
/// How often two connections are looked at for whether they keep their sessions.
const LOOKS: usize = 5;
/// A peer that is gone is noticed so soon.
const SILENCE: Duration = Duration::from_secs(5);

/// What moves the bytes of a connection, for as long as it is polled.
pub(super) type Driver = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// A connection, and the task that drives it.
type Made = (Client, JoinHandle<()>);

/// How to reach the database.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    /// Read again for each connection: passwords change.
    password: Option<PathBuf>,
    tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    pub(super) fn new(settings: &Shared) -> Result<Self, OpenError> {
        let mut config = settings.database.clone();
        config.application_name("payoutd").connect_timeout(CONNECT).tcp_user_timeout(SILENCE);
        config.keepalives(true).keepalives_idle(SILENCE).keepalives_interval(SILENCE);
        config.keepalives_retries(2);
        // Whether it takes writes is looked at below, where there is a word for why not.
        config.target_session_attrs(TargetSessionAttrs::Any);
        let tls = MakeRustlsConnect::new(tls(settings).map_err(OpenError::Postgres)?);
        Ok(Self { config, password: settings.password_file.clone(), tls })
    }

    /// For work that may take long, such as a migration: nobody gives it up.
    pub(super) fn patient(mut self) -> Self {
        let asked = self.config.get_options().unwrap_or_default();
        // What comes later counts.
        let options =
            format!("{asked} -c statement_timeout=0 -c idle_in_transaction_session_timeout=0");
        self.config.options(options).tcp_user_timeout(Duration::ZERO);
        self
    }

    /// A connection of its own, and what drives it.
    pub(super) async fn connect(&self) -> Result<(Client, Driver), Error> {
        Ok(timeout(CONNECT * 2, self.open()).await.map_err(|_| Error::Silent)??)
    }

    async fn open(&self) -> Result<(Client, Driver), tokio_postgres::Error> {
        let mut config = self.config.clone();
        if let Some(file) = &self.password {
            match config::secret_in(file) {
                Ok(password) => {
                    config.password(password);
                }
                // The last one may still be right, and if not, the server says so.
                Err(error) => tracing::warn!(error, "ledger.password_file cannot be read again"),
            }
        }
        config.connect(self.tls.clone()).await
    }

    /// Connections of which each new one is checked, also against what `witness` remembers.
    pub(super) fn pool(&self, max: usize, witness: &Arc<Witness>) -> Result<Pool, OpenError> {
        let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(self.config.clone(), self.clone(), how);
        let witness = Arc::clone(witness);
        let safe = Hook::async_fn(move |client, _| {
            let witness = Arc::clone(&witness);
            Box::pin(async move {
                match unsafe_because(client).await {
                    Ok(None) => {}
                    Ok(Some(why)) => {
                        return Err(HookError::message(Error::NotSafe(why).to_string()));
                    }
                    Err(error) => return Err(HookError::Backend(error)),
                }
                // Before it is looked at: a copy that begins after this finds us.
                if !enter(client).await.map_err(HookError::Backend)? {
                    return Err(HookError::message(OpenError::CopyUnderWay.to_string()));
                }
                let checked = look(client, &witness).await.map_err(HookError::Backend)?;
                checked.map_err(|error| {
                    let words = error.to_string();
                    tracing::error!(error = words, "connection to the ledger refused");
                    HookError::message(words)
                })
            })
        });
        Pool::builder(manager)
            .max_size(max)
            .wait_timeout(Some(CONNECT))
            .create_timeout(Some(CONNECT * 2))
            .recycle_timeout(Some(CONNECT))
            .post_create(safe)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| OpenError::Postgres(error.into()))
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<Made, tokio_postgres::Error>> + Send + '_>> {
        Box::pin(async {
            let (client, driver) = self.open().await?;
            // Whoever asks something over it hears of its end.
            let driving = Handle::current().spawn(async move { drop(driver.await) });
            Ok((client, driving))
        })
    }
}

/// Proves that a connection is one session at the server, and no other one's.
///
/// # Errors
/// [`OpenError::Pooled`]; or the database does not answer.
pub(super) async fn has_sessions(connector: &Connector) -> Result<(), OpenError> {
    let (one, its_driver) = connector.connect().await.map_err(OpenError::from_postgres)?;
    let (other, others_driver) = connector.connect().await.map_err(OpenError::from_postgres)?;
    let looks = async {
        let (first, second) = (backend(&one).await?, backend(&other).await?);
        let mut pooled = first == second;
        for _ in 0..LOOKS {
            pooled |= backend(&one).await? != first || backend(&other).await? != second;
        }
        if pooled { Err(OpenError::Pooled) } else { Ok(()) }
    };
    timeout(SILENCE, driven(its_driver, driven(others_driver, looks)))
        .await
        .map_err(|_| OpenError::from_postgres(Error::Silent))?
}

/// The process that serves `client` at the moment. Nothing is prepared for it: a pooler may lose that.
async fn backend(client: &Client) -> Result<Option<String>, OpenError> {
    let told = client.simple_query("SELECT pg_backend_pid()").await;
    let told = told.map_err(OpenError::from_postgres)?;
    Ok(told.iter().find_map(|message| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        row.get(0).map(str::to_owned)
    }))
}

/// Has a copy into the database refuse to begin for as long as this connection lives: by an advisory lock on the ledger,
/// "payo" in ASCII. False where one is under way.
///
/// # Errors
/// Where the database does not answer.
pub(super) async fn enter(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let enter = "SELECT pg_try_advisory_lock_shared(1885436271, hashtext(identity)) FROM ledger";
    client.query_one(enter, &[]).await?.try_get(0)
}

/// Keeps all others that [`enter`] away for as long as this connection lives. False where one is there.
///
/// # Errors
/// Where the database does not answer.
pub(super) async fn enter_alone(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let enter = "SELECT pg_try_advisory_lock(1885436271, hashtext(identity)) FROM ledger";
    client.query_one(enter, &[]).await?.try_get(0)
}

/// Why a commit over this connection might be lost although it was acknowledged; None where it is kept.
/// From then on the connection keeps its `synchronous_commit`, whatever becomes of the server's, and the
/// database gives up what takes too long, sooner where it only waits for somebody, such as a person with a
/// shell. It is told so here, since a pooler may drop the URL's `options`.
///
/// # Errors
/// Where the database does not answer.
pub(super) async fn unsafe_because(
    client: &Client,
) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client
        .query_one(
            "SELECT pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes'),
                 set_config('synchronous_commit', current_setting('synchronous_commit'), false),
                 current_setting('transaction_read_only'), set_config('statement_timeout', '5s', false),
                 set_config('lock_timeout', '2s', false),
                 set_config('idle_in_transaction_session_timeout', '10s', false)",
            &[],
        )
        .await?;
    if row.try_get(0)? {
        return Ok(Some("the server is a replica; the primary is needed".to_owned()));
    }
    for (column, name) in [(1, "fsync"), (2, "full_page_writes")] {
        if row.try_get::<_, &str>(column)? != "on" {
            return Ok(Some(format!("{name} is off; it must be on")));
        }
    }
    let commit: &str = row.try_get(3)?;
    if !["on", "remote_apply"].contains(&commit) {
        return Ok(Some(format!("synchronous_commit is {commit}; it must be on")));
    }
    let read_only = row.try_get::<_, &str>(4)? == "on";
    Ok(read_only.then(|| "default_transaction_read_only is on; it must be off".to_owned()))
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Who is believed to be the database.
fn tls(settings: &Shared) -> Result<ClientConfig, Failed> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let Some(file) = &settings.tls_ca_file else {
        return Ok(config.with_platform_verifier()?.with_no_client_auth());
    };
    Ok(config.with_root_certificates(roots(file)?).with_no_client_auth())
}

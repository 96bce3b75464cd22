//! A PostgreSQL schema of a test's own. `tests/postgres/run` starts the server and says where it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use payoutd::config::{Ledger, Shared};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, NoTls};

/// One for each test; left behind, since the server is thrown away.
pub(crate) struct Database {
    config: Config,
}

impl Database {
    /// Where the server is, if there is one.
    pub(crate) fn server() -> Option<Config> {
        Some(setting("")?.parse().expect("a URL"))
    }

    pub(crate) async fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut config = Self::server().expect("tests/postgres/run starts a server");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("t{}_{count}", std::process::id());
        let (client, _driver) = connect(&config).await;
        // With it what the embedded engine has and a test may want.
        let create = format!(
            "CREATE SCHEMA {schema};
             CREATE FUNCTION {schema}.randomblob(bytes integer) RETURNS bytea LANGUAGE sql AS
                 'SELECT substring(decode(md5(random()::text) || md5(random()::text), ''hex''), 1, bytes)'"
        );
        client.batch_execute(&create).await.expect("a schema");
        config.options(format!("-c search_path={schema}"));
        Self { config }
    }

    /// Settings for a ledger in it.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::Shared(Box::new(self.shared()))
    }

    /// Where it is, as the settings say it; with `user` instead of the tests' own.
    pub(crate) fn url(&self, user: Option<&str>) -> String {
        let user = user.or(self.config.get_user()).expect("a user");
        let (name, port) = (self.config.get_dbname().expect("a name"), self.config.get_ports()[0]);
        let options = self.config.get_options().expect("a schema");
        let options = options.replace(' ', "%20").replace('=', "%3D");
        format!("postgres://{user}@127.0.0.1:{port}/{name}?options={options}")
    }

    pub(crate) fn shared(&self) -> Shared {
        Shared {
            database: self.config.clone(),
            password_file: None,
            max_connections: 8,
            tls_ca_file: None,
            witness: None,
            lease: Duration::from_secs(60),
        }
    }

    /// Another connection, as a person's shell would open one.
    pub(crate) async fn shell(&self) -> (Client, JoinSet<()>) {
        connect(&self.config).await
    }
}

/// A new ledger of the engine that is tested: a file in `folder`, or a database where there is a server.
pub(crate) async fn kept_in(folder: &TempDir) -> Ledger {
    if Database::server().is_some() {
        return Database::new().await.ledger();
    }
    Ledger::Embedded { path: super::ledger(folder), min_free: 0, witness: None }
}

/// What the script says of the server.
#[expect(clippy::disallowed_methods, reason = "a test's own environment")]
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var(format!("PAYOUTD_TEST_POSTGRES{name}")).ok()
}

pub(crate) async fn connect(config: &Config) -> (Client, JoinSet<()>) {
    let (client, connection) = config.connect(NoTls).await.expect("a connection");
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // Ends with the client.
        let _ = connection.await;
    });
    (client, driver)
}

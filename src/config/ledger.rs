//! `[ledger]`: where payouts are written down.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{Host, SslMode};
use toml::{Table, Value};

use super::reader::{Mistakes, Section, size, text};
use super::{Project, count, duration};
use crate::tls::roots;

/// The most time between the record of a send and its first byte, and what is added for clocks that differ
/// and processes that are held up.
const MARGIN: Duration = Duration::from_secs(30);

/// Where payouts are written down.
#[derive(Clone, Debug)]
pub enum Ledger {
    /// `url = "sqlite:FILE"`: a file, for one process.
    Embedded {
        /// The file; default payoutd.db.
        path: PathBuf,
        /// `min_free`, default 256 MiB, in bytes: with less on its disk, no new payouts are taken.
        min_free: u64,
        /// `witness`: the file that remembers how far the ledger has come. Default: the ledger's, with
        /// `.witness` at its end.
        witness: Option<PathBuf>,
    },
    /// `url = "postgres://USER@HOST/DB"`: a database, for several processes.
    Shared(Box<Shared>),
}

/// A PostgreSQL database.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where it is, and who we are there; with the password as it was at the start.
    pub database: tokio_postgres::Config,
    /// `password_file`: where the password is read again for each connection.
    pub password_file: Option<PathBuf>,
    /// `max_connections`, default 16: of this process to the database, at most; one more hears the others.
    pub max_connections: usize,
    /// `tls_ca_file`: who vouches for the database; by default whom the system trusts.
    pub tls_ca_file: Option<PathBuf>,
    /// `witness`: the file, of this process alone, that remembers how far the ledger has come. Without
    /// one, only the running process does.
    pub witness: Option<PathBuf>,
    /// `lease`: how long after its record a send may still be under way. Default: the longest `timeout` of a
    /// project, and 30 s; never less than that `timeout` and 3 s.
    pub lease: Duration,
}

impl Ledger {
    /// What a start over it must say, since nobody else would; None where all is well.
    pub fn warning(&self) -> Option<&'static str> {
        match self {
            // Its witness is beside it.
            Self::Embedded { .. } => None,
            Self::Shared(shared) => shared.witness.is_none().then_some(
                "ledger.witness is not set: once no replica runs, nobody remembers what was acknowledged, and \
                 on a database that has lost it the lost ids are paid again",
            ),
        }
    }

    /// The embedded ledger's file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Embedded { path, .. } => Some(path),
            Self::Shared(_) => None,
        }
    }

    /// What a person calls it.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded { path, .. } => path.display().to_string(),
            Self::Shared(shared) => {
                let database = shared.database.get_dbname().unwrap_or_default();
                format!("the PostgreSQL database {database}")
            }
        }
    }

    /// Another ledger than that of the settings: at `url`, with the password in a file.
    ///
    /// # Errors
    /// Every mistake at once, under the names of the command line.
    pub fn other(url: &str, password: Option<&Path>, ca: Option<&Path>) -> Result<Self, Mistakes> {
        let given = [("password_file", password), ("tls_ca_file", ca)];
        let given = given.iter().filter_map(|(name, path)| Some((*name, path.as_ref()?)));
        let given = given.map(|(name, path)| (name, path.to_string_lossy().into_owned()));
        let table = given.chain([("url", url.to_owned())]);
        let table = table.map(|(name, value)| (name.to_owned(), Value::String(value))).collect();
        let mut mistakes = Mistakes::default();
        let ledger = Self::read(table, &[], &mut mistakes);
        let flags = [
            ("ledger.url", "--to"),
            ("ledger.password_file", "--password-file"),
            ("ledger.tls_ca_file", "--tls-ca-file"),
        ];
        for mistake in &mut mistakes.0 {
            for (name, flag) in flags {
                *mistake = mistake.replace(name, flag);
            }
        }
        if mistakes.0.is_empty() { Ok(ledger) } else { Err(mistakes) }
    }

    pub(super) fn read(table: Table, projects: &[Project], mistakes: &mut Mistakes) -> Self {
        let mut section = Section::new(table, "ledger", mistakes);
        let default = Place::File(PathBuf::from("payoutd.db"));
        let ledger = match section.get("url", default, place) {
            Place::File(path) => Self::Embedded {
                path,
                min_free: section.get("min_free", 256 << 20, size),
                witness: section.optional("witness", file),
            },
            Place::Database(database) => {
                Self::Shared(Box::new(Shared::read(*database, &mut section, projects)))
            }
        };
        section.end();
        ledger
    }
}

impl Shared {
    fn read(
        mut database: tokio_postgres::Config,
        section: &mut Section<'_>,
        projects: &[Project],
    ) -> Self {
        let password_file = section.peek("password_file").map(PathBuf::from);
        if let Some(password) = section.optional_secret("password") {
            let password = SecretString::from(password);
            database.password(password.expose_secret());
        }
        encrypt(&mut database, section);
        let tls_ca_file = section.optional("tls_ca_file", text).map(PathBuf::from);
        // What cannot be used would only be noticed by the first connection.
        if let Some(Err(what)) = tls_ca_file.as_deref().map(roots) {
            section.mistake("tls_ca_file", what);
        }
        let longest = projects.iter().map(|project| project.timeout).max().unwrap_or_default();
        let least = longest + Duration::from_secs(3);
        let lease = section.get("lease", longest + MARGIN, duration);
        if lease < least {
            section.mistake("lease", "must be at least 3 s above the longest timeout of a project");
        }
        let max_connections = section.get("max_connections", 16, count);
        let witness = section.optional("witness", file);
        Self { database, password_file, max_connections, tls_ca_file, lease, witness }
    }
}

/// Nothing that leaves this machine is plain, and nothing is only perhaps encrypted.
fn encrypt(database: &mut tokio_postgres::Config, section: &mut Section<'_>) {
    let near = database.get_hosts().iter().all(is_near);
    let socket = matches!(database.get_hosts(), [Host::Unix(_)]);
    match database.get_ssl_mode() {
        // PostgreSQL encrypts nothing there.
        _ if socket => {
            database.ssl_mode(SslMode::Disable);
        }
        SslMode::Disable if !near => {
            section.mistake("url", "must not say sslmode=disable: the database is elsewhere");
        }
        SslMode::Disable | SslMode::Require => {}
        // What is only preferred can be talked away.
        SslMode::Prefer | _ => {
            let mode = if near { SslMode::Disable } else { SslMode::Require };
            database.ssl_mode(mode);
        }
    }
}

fn file(value: &Value) -> Result<PathBuf, &'static str> {
    let name = text(value).ok().filter(|name| !name.is_empty());
    name.map(PathBuf::from).ok_or("a file's name")
}

enum Place {
    File(PathBuf),
    Database(Box<tokio_postgres::Config>),
}

fn place(value: &Value) -> Result<Place, &'static str> {
    let must = "sqlite:FILE or postgres://USER@HOST/DATABASE";
    let text = text(value)?;
    if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
        return Ok(Place::File(PathBuf::from(path)));
    }
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(must);
    }
    let database: tokio_postgres::Config = text.parse().map_err(|_| {
        "postgres://USER@HOST/DATABASE with parameters that are known here, such as \
         sslmode=require, which always checks the certificate and its name"
    })?;
    if database.get_password().is_some() {
        return Err("a URL without password: that belongs into ledger.password_file");
    }
    let given = |part: Option<&str>| part.is_some_and(|part| !part.is_empty());
    if !given(database.get_user()) || !given(database.get_dbname()) {
        return Err(must);
    }
    // With several, each connection would find out anew which of them is the primary; after a failover
    // that left the old one running, one process would write to both.
    match (database.get_hosts(), database.get_hostaddrs()) {
        // The name is what the certificate is checked for, and what tells whether it is near.
        ([Host::Tcp(name)], []) if !name.is_empty() => Ok(Place::Database(Box::new(database))),
        ([Host::Unix(_)], []) => Ok(Place::Database(Box::new(database))),
        _ => Err("a URL with one host and no hostaddr: a name that leads to the primary"),
    }
}

/// Whether nobody is between us and the host.
fn is_near(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Config;

    /// What the settings `ledger` of a service with one project come to.
    fn load(ledger: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let project =
            [("PROJECT__PID", "7"), ("PROJECT__BASE_URL", "https://h"), ("PROJECT__API_KEY", "k")];
        let ledger = ledger.iter().map(|(name, value)| (format!("PAYOUTD_LEDGER__{name}"), value));
        let project = project.iter().map(|(name, value)| (format!("PAYOUTD_{name}"), value));
        let variables = ledger.chain(project).map(|(name, value)| (name, (*value).to_owned()));
        Config::load(None, variables).map_err(|mistakes| mistakes.0)
    }

    fn shared(ledger: &[(&str, &str)]) -> Shared {
        match load(ledger).expect("good").ledger {
            Ledger::Shared(shared) => *shared,
            Ledger::Embedded { .. } => panic!("not shared"),
        }
    }

    const URL: (&str, &str) = ("URL", "postgres://u@db.internal/payouts");

    /// URLs that are wrong, and what is said of each.
    const BAD_URLS: &[(&str, &str)] = &[
        ("postgres:u@h/db", "must be sqlite:FILE or postgres"),
        ("mysql://u@h/db", "must be sqlite:FILE or postgres"),
        ("sqlite:", "must be sqlite:FILE or postgres"),
        ("postgres://h/db", "must be sqlite:FILE or postgres"),
        ("postgres://@h/db", "must be sqlite:FILE or postgres"),
        ("postgres://u@h", "must be sqlite:FILE or postgres"),
        ("postgres://u@h/", "must be sqlite:FILE or postgres"),
        ("postgres://u:canary@h/db", "must be a URL without password"),
        ("postgres://u@h/db?password=canary", "must be a URL without password"),
        ("postgres://u@/db", "must be a URL with one host"),
        ("postgres://u@one,two/db", "must be a URL with one host"),
        ("postgres://u@one/db?host=two", "must be a URL with one host"),
        ("postgres://u@localhost/db?hostaddr=192.0.2.1", "must be a URL with one host"),
        ("postgres://u@h/db?sslmode=verify-full", "must be postgres://USER@HOST/DATABASE with par"),
        ("postgres://u@h/db?canary=1", "must be postgres://USER@HOST/DATABASE with par"),
        ("postgres://u@h:canary/db", "must be postgres://USER@HOST/DATABASE with par"),
        ("postgres://u@h/db?sslmode=disable", "must not say sslmode=disable"),
        ("postgres://u@localhost.example/db?sslmode=disable", "must not say sslmode=disable"),
        ("postgres://u@192.0.2.1/db?sslmode=disable", "must not say sslmode=disable"),
    ];

    #[test]
    fn a_url_that_is_not_safe_or_not_whole_is_refused_and_never_shown() {
        for (url, expected) in BAD_URLS {
            let mistakes = load(&[("URL", url)]).expect_err(url);
            assert_eq!(mistakes.len(), 1, "{url}: {mistakes:?}");
            assert!(mistakes[0].starts_with(&format!("ledger.url: {expected}")), "{mistakes:?}");
            assert!(!mistakes[0].contains("canary"), "{mistakes:?}");
        }
    }

    #[test]
    fn each_setting_beside_the_url_that_is_wrong_is_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = folder.path().join("open");
        std::fs::write(&open, "canary").expect("written");
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o644)).expect("its mode");
        let open = open.to_str().expect("utf-8");
        for (name, value, expected) in [
            ("LEASE", "32s", "lease: must be at least 3 s above the longest timeout"),
            ("LEASE", "0s", "lease: must be a duration"),
            ("MAX_CONNECTIONS", "0", "max_connections: must be an integer"),
            ("MAX_CONNECTIONS", "many", "max_connections: must be an integer"),
            ("MIN_FREE", "1GiB", "min_free: unknown setting"),
            ("TLS_CA_FILE", "/no/such", "tls_ca_file: the file cannot be read"),
            ("TLS_CA_FILE", open, "tls_ca_file: the file holds no certificate in PEM"),
            ("PASSWORD", "", "password: must not be empty"),
            ("PASSWORD_FILE", "/no/such", "password_file: the file cannot be read"),
            ("PASSWORD_FILE", open, "password_file: the file is readable by everybody"),
        ] {
            let mistakes = load(&[URL, (name, value)]).expect_err(name);
            assert_eq!(mistakes.len(), 1, "{name}: {mistakes:?}");
            assert!(mistakes[0].starts_with(&format!("ledger.{expected}")), "{mistakes:?}");
            assert!(!mistakes[0].contains("canary"), "{mistakes:?}");
        }
        for name in ["LEASE", "MAX_CONNECTIONS", "TLS_CA_FILE", "PASSWORD"] {
            let mistakes = load(&[("URL", "sqlite:x.db"), (name, "1m")]).expect_err(name);
            assert_eq!(mistakes, [format!("ledger.{}: unknown setting", name.to_lowercase())]);
        }
    }

    #[test]
    fn a_shared_ledger_has_defaults_and_never_shows_its_password() {
        let config = load(&[URL, ("PASSWORD", "canary")]).expect("good");
        assert!(!format!("{config:?}").contains("canary"), "the password is shown");
        assert!(!config.ledger.name().contains("canary"));
        let shared = shared(&[URL, ("PASSWORD", "canary")]);
        assert_eq!(shared.database.get_password(), Some(&b"canary"[..]));
        assert_eq!((shared.max_connections, shared.tls_ca_file), (16, None));
        assert_eq!(shared.lease, Duration::from_secs(60));
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_whatever_the_url_prefers() {
        let cases = [
            ("postgres://u@h/db", SslMode::Require),
            ("postgresql://u@h:6000/db?sslmode=prefer", SslMode::Require),
            ("postgres://u@[2001:db8::1]/db", SslMode::Require),
            ("postgres://u@127.0.0.1/db", SslMode::Disable),
            ("postgres://u@[::1]/db?sslmode=prefer", SslMode::Disable),
            ("postgres://u@localhost/db?sslmode=disable", SslMode::Disable),
            ("postgres://u@localhost/db?sslmode=require", SslMode::Require),
            ("postgres://u@%2Frun%2Fpostgresql/db", SslMode::Disable),
            ("postgres://u@/db?host=/run/postgresql&sslmode=require", SslMode::Disable),
        ];
        for (url, mode) in cases {
            assert_eq!(shared(&[("URL", url)]).database.get_ssl_mode(), mode, "{url}");
        }
    }
}

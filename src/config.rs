//! Settings: defaults, then a TOML file, then the environment. The only reader of either.
//!
//! `PAYOUTD_` and the path with `__` between its levels names a setting in the environment:
//! `PAYOUTD_GRPC__LISTEN`. Every mistake is found before any is reported, and no report shows a
//! value: what stands in the wrong place may be a secret.

mod caller;
mod environment;
mod grpc;
mod ledger;
mod limit;
mod project;
mod reader;
mod telemetry;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};
use url::Url;

pub use caller::Caller;
pub use grpc::{Grpc, Trust};
pub use ledger::{Ledger, Shared};
pub use project::Project;
pub use reader::Mistakes;
use reader::{Section, integer, settings_file, text};
pub(crate) use reader::{private_file, secret_in};
pub use telemetry::Telemetry;
pub use tls::Tls;

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listener for callers.
    pub grpc: Grpc,
    /// The listener for Cregis.
    pub callback: Callback,
    /// The listener for the platform.
    pub admin: SocketAddr,
    /// Where payouts are written down.
    pub ledger: Ledger,
    /// `operator.void_min_age`, default 24 h: a younger doubt cannot be voided.
    pub void_min_age: Duration,
    /// The Cregis projects, at least one.
    pub projects: Vec<Project>,
    /// Those who may call; with none, nobody is told from others.
    pub callers: Vec<Caller>,
    /// Log level and format.
    pub log: Log,
    /// Traces.
    pub telemetry: Telemetry,
    /// What a person should know about them.
    pub warnings: Vec<String>,
}

/// `[callback]`
#[derive(Clone, Debug)]
pub struct Callback {
    /// `listen`, default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// `public_url`: where Cregis reaches us. Empty: payouts carry no callback URL of ours.
    pub public_url: String,
}

/// `[log]`
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// `level`, default info. Concerns payoutd's own lines; libraries speak from warn up.
    pub level: tracing::Level,
    /// `format`, default auto: text on a terminal, JSON elsewhere.
    pub json: Option<bool>,
}

impl Config {
    /// Reads the settings from `file` and from the variables of `environment`.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::default();
        let mut root = file.map_or_else(Table::new, |file| settings_file(file, &mut mistakes));
        environment::overlay(&mut root, environment, &mut mistakes);

        let mut section = |name: &str, mistakes: &mut Mistakes| match root.remove(name) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(_) => {
                mistakes.add(name, "must be a table");
                Table::new()
            }
        };
        let grpc = Grpc::read(section("grpc", &mut mistakes), &mut mistakes);
        let callback = Callback::read(section("callback", &mut mistakes), &mut mistakes);
        let admin = read_admin(section("admin", &mut mistakes), &mut mistakes);
        let ledger = section("ledger", &mut mistakes);
        let log = Log::read(section("log", &mut mistakes), &mut mistakes);
        let telemetry = Telemetry::read(section("telemetry", &mut mistakes), &mut mistakes);
        let void_min_age = read_operator(section("operator", &mut mistakes), &mut mistakes);
        let pids = Project::pids(root.get("project"));
        let projects = Project::read_all(root.remove("project"), &mut mistakes);
        let ledger = Ledger::read(ledger, &projects, &mut mistakes);
        let callers = Caller::read_all(root.remove("caller"), &pids, &mut mistakes);
        for name in root.keys() {
            mistakes.add(name, "unknown setting");
        }
        grpc.refuse_exposure(!callers.is_empty(), &mut mistakes);

        if !mistakes.0.is_empty() {
            return Err(mistakes);
        }
        let warnings = mistakes.1;
        Ok(Self {
            grpc,
            callback,
            admin,
            ledger,
            void_min_age,
            projects,
            callers,
            log,
            telemetry,
            warnings,
        })
    }
}

// === sections ===

impl Callback {
    fn read(table: Table, mistakes: &mut Mistakes) -> Self {
        let mut section = Section::new(table, "callback", mistakes);
        let listen = section.get("listen", SocketAddr::from(([127, 0, 0, 1], 8080)), address);
        let public_url = section.get("public_url", String::new(), |value| {
            let must = "empty, or an absolute http or https URL without query";
            let text = text(value)?;
            if text.is_empty() {
                return Ok(text);
            }
            let url = web_url(&text).filter(|url| url.query().is_none()).ok_or(must)?;
            Ok(url.as_str().trim_end_matches('/').to_owned())
        });
        section.end();
        Self { listen, public_url }
    }
}

fn read_admin(table: Table, mistakes: &mut Mistakes) -> SocketAddr {
    let mut section = Section::new(table, "admin", mistakes);
    let listen = section.get("listen", SocketAddr::from(([127, 0, 0, 1], 9090)), address);
    section.end();
    listen
}

fn read_operator(table: Table, mistakes: &mut Mistakes) -> Duration {
    let mut section = Section::new(table, "operator", mistakes);
    let day = Duration::from_secs(24 * 60 * 60);
    let void_min_age = section.get("void_min_age", day, duration);
    section.end();
    void_min_age
}

impl Log {
    fn read(table: Table, mistakes: &mut Mistakes) -> Self {
        let mut section = Section::new(table, "log", mistakes);
        let level = section.get("level", tracing::Level::INFO, |value| {
            let must = "error, warn, info, debug or trace";
            text(value)?.parse().map_err(|_| must)
        });
        let json = section.get("format", None, |value| match text(value)?.as_str() {
            "auto" => Ok(None),
            "json" => Ok(Some(true)),
            "text" => Ok(Some(false)),
            _ => Err("auto, json or text"),
        });
        section.end();
        Self { level, json }
    }
}

// === kinds of values ===

fn address(value: &Value) -> Result<SocketAddr, &'static str> {
    let read = value.as_str().and_then(|text| text.parse().ok());
    read.ok_or("an address and a port, such as 127.0.0.1:50051")
}

fn count(value: &Value) -> Result<usize, &'static str> {
    let must = "an integer from 1 to 1000000";
    integer(value)
        .filter(|count| (1..=1_000_000).contains(count))
        .and_then(|count| usize::try_from(count).ok())
        .ok_or(must)
}

fn duration(value: &Value) -> Result<Duration, &'static str> {
    let must = "a duration above 0 and up to 366 days, such as \"30s\", \"1500ms\" or \"1h 30m\"";
    let read = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
    let most = Duration::from_secs(366 * 24 * 60 * 60);
    read.filter(|duration| !duration.is_zero() && *duration <= most).ok_or(must)
}

fn web_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const GOOD: [(&str, &str); 3] = [
        ("PAYOUTD_PROJECT__PID", "1382528827416576"),
        ("PAYOUTD_PROJECT__BASE_URL", "https://t-00000000.cregis.io"),
        ("PAYOUTD_PROJECT__API_KEY", "canary"),
    ];

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("payoutd.toml");
        std::fs::write(&path, file).expect("written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, private).expect("its mode");
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Config::load(Some(&path), variables).map_err(|mistakes| mistakes.0)
    }

    #[test]
    fn three_variables_are_enough_and_the_rest_has_defaults() {
        let config = load("", &GOOD).expect("good");
        let project = &config.projects[0];
        assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:50051");
        assert_eq!(config.admin.to_string(), "127.0.0.1:9090");
        assert_eq!(config.ledger.path(), Some(Path::new("payoutd.db")));
        assert_eq!((project.pid, project.max_in_flight), (1_382_528_827_416_576, 256));
        assert_eq!(project.timeout, Duration::from_secs(30));
        assert_eq!(project.api_key.expose_secret(), "canary");
        assert!(!format!("{config:?}").contains("canary"), "redacted by its type");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let file = r#"
            [grpc]
            listen = "127.0.0.1:1"
            reflection = false
            [[project]]
            pid = 1
            base_url = "http://127.0.0.1:9"
            api_key = "k"
            timeout = "1m 30s"
        "#;
        let config = load(file, &[("PAYOUTD_GRPC__LISTEN", "127.0.0.1:2")]).expect("good");
        assert_eq!(config.grpc.listen.port(), 2);
        assert!(!config.grpc.reflection);
        assert_eq!(config.projects[0].timeout, Duration::from_secs(90));
        let config = load(file, &[("PAYOUTD_PROJECT__PID", "7")]).expect("good");
        assert_eq!(config.projects[0].pid, 7);
    }

    #[test]
    fn a_key_file_gives_its_first_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        std::fs::write(&key, "canary\n").expect("written");
        let group = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        std::fs::set_permissions(&key, group).expect("its mode");
        let key = ("PAYOUTD_PROJECT__API_KEY_FILE", key.to_str().expect("utf-8"));
        let config = load("", &[GOOD[0], GOOD[1], key]).expect("good");
        assert_eq!(config.projects[0].api_key.expose_secret(), "canary");
    }

    /// Settings that are wrong one by one, and how each is reported.
    const BAD: &[(&str, &str, &str)] = &[
        ("PAYOUTD_GRPC__LISTEN", "localhost", "grpc.listen: must be an address"),
        ("PAYOUTD_GRPC__REFLECTION", "yes", "grpc.reflection: must be true or false"),
        ("PAYOUTD_GRPC__MAX_CALLS", "0", "grpc.max_calls: must be an integer"),
        ("PAYOUTD_GRPC__MAX_READS", "some", "grpc.max_reads: must be an integer"),
        ("PAYOUTD_GRPC__MAX_WATCHES", "1000001", "grpc.max_watches: must be an integer"),
        ("PAYOUTD_GRPC__LISTNE", "x", "grpc.listne: unknown setting"),
        ("PAYOUTD_GRPC__MAX_CONNECTIONS", "0", "grpc.max_connections: must be an integer"),
        ("PAYOUTD_GRPC__TRUST", "canary", "grpc.trust: must be none or mesh"),
        ("PAYOUTD_GRPC__TRUSTED_PROXIES", "10.0.0.0/33", "grpc.trusted_proxies: must be a list"),
        ("PAYOUTD_CALLBACK__LISTEN", "8080", "callback.listen: must be an address"),
        ("PAYOUTD_CALLBACK__PUBLIC_URL", "ftp://x", "callback.public_url: must be empty, or"),
        ("PAYOUTD_ADMIN__LISTEN", "", "admin.listen: must be an address"),
        ("PAYOUTD_LEDGER__URL", "payoutd.db", "ledger.url: must be sqlite:FILE"),
        ("PAYOUTD_LEDGER__MIN_FREE", "1GB", "ledger.min_free: must be a size such as"),
        ("PAYOUTD_LOG__LEVEL", "loud", "log.level: must be error, warn"),
        ("PAYOUTD_LOG__FORMAT", "xml", "log.format: must be auto, json"),
        ("PAYOUTD_TELEMETRY__OTLP_ENDPOINT", "otel:4317", "telemetry.otlp_endpoint: must be empty"),
        ("PAYOUTD_TELEMETRY__SAMPLE_RATIO", "1.5", "telemetry.sample_ratio: must be a number from"),
        ("PAYOUTD_OPERATOR__VOID_MIN_AGE", "1 fortnight", "operator.void_min_age: must be a dur"),
        ("PAYOUTD_PROJECT__PID", "canary", "project.pid: must be an integer above 0"),
        ("PAYOUTD_PROJECT__BASE_URL", "http://pay.example", "project.base_url: must be an https"),
        ("PAYOUTD_PROJECT__API_KEY_FILE", "/no/such", "project.api_key: must not be given beside"),
        ("PAYOUTD_PROJECT__TIMEOUT", "30", "project.timeout: must be a duration"),
        ("PAYOUTD_PROJECT__CONNECT_TIMEOUT", "31s", "project.connect_timeout: must be below"),
        ("PAYOUTD_PROJECT__MAX_IN_FLIGHT", "-1", "project.max_in_flight: must be an integer"),
        ("PAYOUTD_PROJECT__POLL_FIRST", "0s", "project.poll_first: must be a duration"),
        ("PAYOUTD_PROJECT__RESEND_IN_DOUBT", "1", "project.resend_in_doubt: must be true"),
        ("PAYOUTD_PROJECT__VERIFICATION", "on", "project.verification: must be true"),
        ("PAYOUTD_PROJECT__STRICT_TEXT", "", "project.strict_text: must be true"),
        ("PAYOUTD_NONSENSE", "canary", "PAYOUTD_NONSENSE: unknown setting"),
        ("PAYOUTD_OTHER__THING", "canary", "other: unknown setting"),
    ];

    #[test]
    fn every_mistake_is_reported_and_all_of_them_together() {
        let mut all = GOOD.to_vec();
        for (name, value, expected) in BAD {
            let alone = load("", &[&GOOD[..], &[(*name, *value)]].concat()).expect_err(name);
            assert_eq!(alone.len(), 1, "{name}: {alone:?}");
            assert!(alone[0].starts_with(expected), "{name}: {alone:?}");
            all.push((name, value));
        }
        let together = load("", &all).expect_err("all wrong");
        for (name, _, expected) in BAD {
            assert!(together.iter().any(|found| found.starts_with(expected)), "{name} is missing");
        }
        assert_eq!(together.len(), BAD.len());
        assert!(!together.concat().contains("canary"), "a value is shown");
    }

    #[test]
    fn what_is_missing_is_reported_together_too() {
        let mistakes = load("", &[("PAYOUTD_PROJECT__TIMEOUT", "1s")]).expect_err("missing");
        for expected in ["project.pid: is req", "project.base_url: is req", "project.api_key_file"]
        {
            assert!(mistakes.iter().any(|m| m.starts_with(expected)), "{expected}: {mistakes:?}");
        }
        let nothing = load("", &[]).expect_err("nothing");
        assert_eq!(nothing, ["project: at least one [[project]] is required"]);
        let missing = Config::load(Some(Path::new("/no/such")), []).expect_err("no file");
        assert!(missing.0[0].contains("cannot be read"), "{missing:?}");
    }

    #[test]
    fn broken_toml_names_its_line_and_hides_its_text() {
        let mistakes = load("\n[[project]]\napi_key = \"canary\n", &GOOD).expect_err("broken");
        assert!(mistakes[0].ends_with("line 3: not TOML"), "{mistakes:?}");
        assert!(!mistakes.concat().contains("canary"));
        let single = load("[project]\npid = 1", &[]).expect_err("not a list");
        assert_eq!(single, ["project: must be written [[project]]"]);
        let twice = "[[project]]\npid = 1\nbase_url = \"http://[::1]:1\"\napi_key = \"k\"\n";
        let twice = load(&twice.repeat(2), &[]).expect_err("twice");
        assert_eq!(twice, ["project[1].pid: stands twice"]);
    }
}

//! `[[project]]`: one Cregis project.

use std::time::Duration;

use secrecy::SecretString;
use toml::{Table, Value};
use url::Url;

use super::reader::{Mistakes, Section, boolean, integer, tables, text};
use super::{count, duration, web_url};

/// One `[[project]]`.
#[derive(Clone, Debug)]
pub struct Project {
    /// Cregis's project number.
    pub pid: i64,
    /// Cregis's gateway for the project; plain http only to loopback.
    pub base_url: Url,
    /// The project's key.
    pub api_key: SecretString,
    /// One total deadline per request, default 30 s.
    pub timeout: Duration,
    /// Default 3 s, or half of a shorter `timeout`; always below it, since running out of the total
    /// while connecting would look like a lost answer.
    pub connect_timeout: Duration,
    /// Sends under way at once, default 256.
    pub max_in_flight: usize,
    /// How long after its acceptance a payout is first asked about, default 30 s; then it backs off.
    pub poll_first: Duration,
    /// True where Cregis calls our external-verification URL for this project, default false.
    pub verification: bool,
    /// Allows a caller's repeat to send a doubt again, default false.
    pub resend_in_doubt: bool,
    /// Refuses text that contains a signed parameter's name, default false.
    pub strict_text: bool,
}

impl Project {
    /// The numbers that stand in `[[project]]`, whatever else is wrong there.
    pub(super) fn pids(value: Option<&Value>) -> Vec<i64> {
        let projects = value.and_then(Value::as_array).into_iter().flatten();
        projects.filter_map(|project| integer(project.get("pid")?)).collect()
    }

    pub(super) fn read_all(value: Option<Value>, mistakes: &mut Mistakes) -> Vec<Self> {
        let list =
            value.as_ref().map_or(Some(&[][..]), |value| value.as_array().map(Vec::as_slice));
        if list.is_some_and(<[Value]>::is_empty) {
            mistakes.add("project", "at least one [[project]] is required");
        }
        let mut projects: Vec<Self> = Vec::new();
        for (path, table) in tables(value, "project", "project", mistakes) {
            let Some(project) = Self::read(table, &path, mistakes) else { continue };
            if projects.iter().any(|known| known.pid == project.pid) {
                mistakes.add(format_args!("{path}.pid"), "stands twice");
            }
            projects.push(project);
        }
        projects
    }

    fn read(table: Table, path: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let mut section = Section::new(table, path, mistakes);
        let pid = section.require("pid", |value| {
            integer(value).filter(|pid| *pid > 0).ok_or("an integer above 0")
        });
        let base_url = section.require("base_url", base_url);
        let api_key = section.secret("api_key");
        let timeout = section.get("timeout", Duration::from_secs(30), duration);
        let connect_default = Duration::from_secs(3).min(timeout / 2);
        let connect_timeout = section.get("connect_timeout", connect_default, duration);
        if connect_timeout >= timeout {
            section.mistake("connect_timeout", "must be below timeout");
        }
        let max_in_flight = section.get("max_in_flight", 256, count);
        let resend_in_doubt = section.get("resend_in_doubt", false, boolean);
        let strict_text = section.get("strict_text", false, boolean);
        let poll_first = section.get("poll_first", Duration::from_secs(30), duration);
        let verification = section.get("verification", false, boolean);
        section.end();
        Some(Self {
            pid: pid?,
            base_url: base_url?,
            api_key: api_key?.into(),
            timeout,
            connect_timeout,
            max_in_flight,
            poll_first,
            verification,
            resend_in_doubt,
            strict_text,
        })
    }
}

fn base_url(value: &Value) -> Result<Url, &'static str> {
    let must = "an https URL without path, user or query; plain http only to loopback";
    let url = web_url(&text(value)?).ok_or(must)?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let bare = url.path() == "/" && url.query().is_none();
    if bare && (url.scheme() == "https" || loopback) { Ok(url) } else { Err(must) }
}

//! `payoutd check`: looks at everything a start depends on, and says what to do about it.

use std::fmt;

use crate::config::{Config, Project};
use crate::cregis::reply::{Meaning, SKEW_MAX};
use crate::cregis::{Cregis, Standing};
use crate::ledger::{Ledger, OpenError};
use crate::metrics::Metrics;

/// What the doctor found in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it looked.
    pub place: String,
    /// Whether all is well there.
    pub good: bool,
    /// What it saw; where not good, also what to do.
    pub words: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.good { "ok  " } else { "FAIL" };
        write!(f, "{mark}  {:<28} {}", self.place, self.words)
    }
}

/// Examines what `config` describes: the ledger, then each project by one signed read.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![ledger(config).await];
    for project in &config.projects {
        findings.extend(cregis(project).await);
    }
    findings
}

async fn ledger(config: &Config) -> Finding {
    let name = config.ledger.name();
    let (good, words) = match Ledger::of(&config.ledger, &Metrics::new([])).await {
        Ok(ledger) if ledger.is_shared() => {
            let warning = config.ledger.warning().map(|warning| format!("; {warning}"));
            let warning = warning.unwrap_or_default();
            (true, format!("{name}: opened; the primary, fsync and synchronous_commit on{warning}"))
        }
        Ok(_) => (true, format!("{name}: opened and written; WAL, synchronous=FULL")),
        Err(OpenError::Locked) => {
            (true, format!("{name}: in use by a running payoutd, which has checked it"))
        }
        Err(error) => (false, format!("{name}: {}", chain(&error))),
    };
    Finding { place: "ledger".to_owned(), good, words }
}

async fn cregis(project: &Project) -> Vec<Finding> {
    let place = format!("cregis {}", project.pid);
    let finding = |good, words: String| Finding { place: place.clone(), good, words };
    let client = match Cregis::new(project, String::new()) {
        Ok(client) => client,
        Err(error) => return vec![finding(false, chain(&error))],
    };
    let standing = match client.probe().await {
        Ok(standing) => standing,
        Err(error) => return vec![finding(false, chain(&error))],
    };
    let mut findings = vec![access(&place, &standing)];
    findings.push(match standing.skew {
        Some(skew) if skew > SKEW_MAX => finding(
            false,
            format!("the clock is {} s off Cregis's: set it, or sends are refused", skew.as_secs()),
        ),
        Some(skew) => finding(true, format!("the clock is {} s off Cregis's", skew.as_secs())),
        None => finding(true, "the answer has no Date: the clock was not compared".to_owned()),
    });
    findings
}

fn access(place: &str, standing: &Standing) -> Finding {
    let (code, msg) = (&standing.envelope.code, &standing.envelope.msg);
    let advice = match code.as_str() {
        "B0001" => "wrong API key for this project",
        "E0001" => "this machine's egress IP is not on the project's whitelist",
        "E0003" => "the project does not exist or is disabled: check pid, ask Cregis",
        "E0004" => "payouts are not switched on for the project",
        _ => "Cregis refuses this gateway",
    };
    let (good, words) = match standing.envelope.meaning() {
        Meaning::RefusesGateway => (false, format!("{code} {advice} ({msg})")),
        Meaning::Parameter => (false, format!("{code} the signed read was refused ({msg})")),
        // That payout cannot exist: not finding it means that everything before was in order.
        Meaning::Success | Meaning::RefusesPayout | Meaning::Exists | Meaning::Unlisted => {
            (true, format!("signed read answered ({code}): key, IP and project are good"))
        }
    };
    Finding { place: place.to_owned(), good, words }
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    words
}

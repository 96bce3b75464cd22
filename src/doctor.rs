//! `payoutd check`: looks at everything a start depends on, and says what to do about it.

use std::fmt;
use std::time::Duration;

use crate::causes::chain;
use crate::config::{Config, Project, Trust};
use crate::cregis::reply::{Meaning, SKEW_MAX};
use crate::cregis::{Cregis, Standing};
use crate::disk;
use crate::ledger::{Ledger, OpenError};
use crate::metrics::Metrics;
use crate::metrics::family::Known;
use crate::tls::Certificates;

/// A doubt that is younger may still come to something at Cregis.
const VOID_MIN_AGE: Duration = Duration::from_secs(60 * 60);

/// What the doctor found in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it looked.
    pub place: String,
    /// How it is there.
    pub verdict: Verdict,
    /// What it saw; where that is not good, also what to do.
    pub words: String,
}

/// How it is in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Good,
    /// It serves, but an operator should know.
    Warning,
    /// It does not serve.
    Bad,
}

impl Verdict {
    fn good_if(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "ok  ",
            Verdict::Warning => "WARN",
            Verdict::Bad => "FAIL",
        };
        write!(f, "{mark}  {:<28} {}", self.place, self.words)
    }
}

/// Examines what `config` describes: the ledger, then each project by one signed read.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let warning =
        |words| Finding { place: "settings".to_owned(), verdict: Verdict::Warning, words };
    let mut findings: Vec<_> = warnings(config).into_iter().map(warning).collect();
    findings.extend(ledger(config).await);
    for project in &config.projects {
        findings.extend(cregis(project).await);
    }
    findings
}

/// What a start with `config` must say, since nobody else would.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = config.warnings.clone();
    warnings.extend(config.ledger.warning().map(str::to_owned));
    warnings.extend(disk::warning(&config.ledger).map(str::to_owned));
    let anywhere = config.grpc.trusted_proxies.iter().find(|proxies| proxies.prefix_len() == 0);
    if let (Trust::Mesh, Some(anywhere)) = (config.grpc.trust, anywhere) {
        warnings.push(format!(
            "grpc.trusted_proxies contains {anywhere}, which is everybody: whoever can connect may say that it is any \
             caller. List only where the proxies connect from"
        ));
    }
    if config.void_min_age < VOID_MIN_AGE {
        warnings.push(format!(
            "operator.void_min_age is {}: a doubt may be voided, and paid anew under another id, while Cregis still \
             pays it. The default is 24h",
            humantime::format_duration(config.void_min_age)
        ));
    }
    let certificates =
        config.grpc.tls.as_ref().map(|tls| Certificates::load(tls, &Known::default()));
    if let Some(Ok(certificates)) = certificates {
        warnings.extend(certificates.warning());
    }
    warnings
}

async fn ledger(config: &Config) -> Vec<Finding> {
    let name = config.ledger.name();
    let finding = |good, words| Finding {
        place: "ledger".to_owned(),
        verdict: Verdict::good_if(good),
        words: format!("{name}: {words}"),
    };
    match Ledger::of(&config.ledger, &Metrics::new([])).await {
        Ok(ledger) => {
            let how =
                "opened; the primary, fsync and synchronous_commit on, an insert and a commit made";
            let first = match (ledger.is_shared(), ledger.try_out().await) {
                (true, Ok(())) => finding(true, how.to_owned()),
                (_, Err(why)) => finding(false, format!("opened, but {why}: docs/operations.md")),
                (false, Ok(())) => {
                    finding(true, "opened and written; WAL, synchronous=FULL".to_owned())
                }
            };
            let mut findings = vec![first];
            let served = config.projects.iter().map(|project| project.pid).collect();
            match ledger.warnings(&served).await {
                Ok(warnings) => findings.extend(warnings.into_iter().map(|words| {
                    let place = "ledger".to_owned();
                    Finding { place, verdict: Verdict::Warning, words }
                })),
                Err(error) => findings.push(finding(false, chain(&error))),
            }
            findings
        }
        Err(OpenError::Locked) => {
            vec![finding(true, "in use by a running payoutd, which has checked it".to_owned())]
        }
        Err(error) => vec![finding(false, chain(&error))],
    }
}

async fn cregis(project: &Project) -> Vec<Finding> {
    let place = format!("cregis {}", project.pid);
    let finding = |good, words: String| Finding {
        place: place.clone(),
        verdict: Verdict::good_if(good),
        words,
    };
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
    Finding { place: place.to_owned(), verdict: Verdict::good_if(good), words }
}

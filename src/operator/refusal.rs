//! An error of the API, in words for whoever ran the command.

use std::collections::BTreeMap;
use std::fmt;

use tonic::Status;
use tonic_types::StatusExt;

use super::record::plain;
use crate::grpc::status::DOMAIN;

/// What was refused, why, and what to do next.
#[derive(Debug)]
pub struct Refusal(Status);

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = self.0.get_error_details();
        // Messages may hold words of Cregis's or of a proxy's.
        let message = match self.0.message() {
            "" => self.0.code().description().to_owned(),
            message => plain(message),
        };
        let ours = details.error_info().filter(|info| info.domain == DOMAIN);
        let Some(info) = ours else {
            let code = self.0.code();
            return write!(
                f,
                "{code:?}: {message}\n  no detail of payoutd's: this says nothing about what was done; \
                 look with `payoutd payouts show`"
            );
        };
        write!(f, "{}: {message}", plain(&info.reason))?;
        for violation in details.bad_request().map_or(&[][..], |bad| &bad.field_violations) {
            write!(f, "\n  {}: {}", plain(&violation.field), plain(&violation.description))?;
        }
        let facts: BTreeMap<_, _> =
            info.metadata.iter().filter(|(name, _)| *name != "retry").collect();
        for (name, value) in facts {
            write!(f, "\n  {}: {}", plain(name), plain(value))?;
        }
        let retry = info.metadata.get("retry").map_or("", String::as_str);
        write!(f, "\n  retry {}: {}", plain(retry), advice(retry))?;
        match details.retry_info().and_then(|info| info.retry_delay) {
            Some(delay) => write!(f, ", after {}", humantime::format_duration(delay)),
            None => Ok(()),
        }
    }
}

fn advice(retry: &str) -> &'static str {
    match retry {
        "same_id" => "nothing was created; run the same command again",
        "fix" => "nothing was changed; correct the command",
        "new_id" => "final for this id",
        "never" => "repeating cannot help",
        _ => "look with `payoutd payouts show` before anything else",
    }
}

//! `[telemetry]`: where traces go.

use toml::{Table, Value};
use url::Url;

use super::reader::{Mistakes, Section, text};
use super::web_url;

/// `[telemetry]`
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// `otlp_endpoint`: a collector that takes OTLP over gRPC. Empty by default: no traces.
    pub otlp_endpoint: Option<Url>,
    /// `sample_ratio`, default 1.0: the part of the traces that are kept where the caller has not
    /// decided. A caller's decision holds.
    pub sample_ratio: f64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample_ratio: 1.0 }
    }
}

impl Telemetry {
    pub(super) fn read(table: Table, mistakes: &mut Mistakes) -> Self {
        let mut section = Section::new(table, "telemetry", mistakes);
        let default = Self::default();
        let read = Self {
            otlp_endpoint: section.get("otlp_endpoint", default.otlp_endpoint, endpoint),
            sample_ratio: section.get("sample_ratio", default.sample_ratio, ratio),
        };
        section.end();
        read
    }
}

fn endpoint(value: &Value) -> Result<Option<Url>, &'static str> {
    let must = "empty, or an http or https URL without path, such as http://127.0.0.1:4317";
    let text = text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    let bare = |url: &Url| url.path() == "/" && url.query().is_none();
    web_url(&text).filter(bare).map(Some).ok_or(must)
}

fn ratio(value: &Value) -> Result<f64, &'static str> {
    let whole = || value.as_integer().and_then(|whole| i32::try_from(whole).ok()).map(f64::from);
    let read = value.as_float().or_else(whole).or_else(|| value.as_str()?.parse().ok());
    read.filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or("a number from 0 to 1")
}

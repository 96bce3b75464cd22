//! How long a call may wait, read from its own header.
//!
//! No timer ends a handler: the answer would be CANCELLED, which meshes repeat. It answers before the deadline.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// What a call gets that names no deadline.
const DEFAULT: Duration = Duration::from_secs(30);
/// Longer deadlines are taken for this; no send lasts so long.
const MOST: Duration = Duration::from_secs(3600);
/// With less than this left, nothing is begun.
const LEAST: Duration = Duration::from_millis(50);

/// The moment by which the handler must answer; None where too little time is left to begin.
///
/// `arrival` is when the request's headers were read, which is when the caller's time began.
pub(super) fn answer_by(metadata: &MetadataMap, arrival: Instant) -> Option<Instant> {
    let header = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok());
    let Some(timeout) = header.and_then(parse) else { return Some(arrival + DEFAULT) };
    let timeout = timeout.min(MOST);
    // Time to put the answer on the wire before the caller gives up on it.
    let margin = (timeout / 5).clamp(Duration::from_millis(20), Duration::from_millis(200));
    (timeout.saturating_sub(arrival.elapsed()) >= LEAST).then(|| arrival + timeout - margin)
}

/// `TimeoutValue TimeoutUnit` of the gRPC protocol: up to 8 digits and one of `HMSmun`.
fn parse(text: &str) -> Option<Duration> {
    let (unit, digits) = text.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = text[..digits.len()].parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(value * 3600)),
        b'M' => Some(Duration::from_secs(value * 60)),
        b'S' => Some(Duration::from_secs(value)),
        b'm' => Some(Duration::from_millis(value)),
        b'u' => Some(Duration::from_micros(value)),
        b'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_as_the_protocol_says() {
        for (text, millis) in [("1H", 3_600_000), ("2M", 120_000), ("3S", 3000), ("150m", 150)] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("1000u"), parse("1m"));
        assert_eq!(parse("1000n"), parse("1u"));
        for bad in ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", " 1S"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert!(parse("99999999H").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_comes_shortly_before_the_deadline_or_not_at_all() {
        let arrival = Instant::now();
        let after = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().expect("ascii"));
            answer_by(&metadata, arrival).map(|until| (until - arrival).as_millis())
        };
        assert_eq!(after("150m"), Some(120));
        assert_eq!(after("30S"), Some(29_800));
        assert_eq!(after("50m"), Some(30));
        assert_eq!(after("49m"), None);
        assert_eq!(after("0S"), None);
        assert_eq!(after("nonsense"), Some(30_000), "as if there were none");
        assert_eq!(after("99999999H"), Some(3_599_800));
        tokio::time::advance(Duration::from_millis(120)).await;
        assert_eq!(after("150m"), None, "30 ms are left");
    }
}

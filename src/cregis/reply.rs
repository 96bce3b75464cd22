//! What an answer of Cregis means: one table, closed, and everything outside it is a doubt.

use std::time::Duration;

use crate::json::Json;
use crate::outcome::{Doubt, Outcome, Refusal, Unsent};

/// Further than this from Cregis's clock, a complaint about parameters is about our time stamp.
pub const SKEW_MAX: Duration = Duration::from_secs(60);

/// The documented answer: `code`, `msg` and, on success, `data`.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Cregis's code; `00000` is the only success.
    pub code: String,
    /// Cregis's message, cut to 256 printable characters.
    pub msg: String,
    /// What was asked for; null on errors.
    pub data: Json,
}

/// What a code promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// `00000`.
    Success,
    /// The parameters are wrong, or our clock is.
    Parameter,
    /// The payout is refused; it was not created.
    RefusesPayout,
    /// We are refused, whatever we ask for; nothing was created.
    RefusesGateway,
    /// The caller's id exists at Cregis.
    Exists,
    /// Nobody has promised anything about this code.
    Unlisted,
}

/// The codes whose meaning is known. Source: the vendor's table of January 2026 and the sample
/// traffic it was checked against.
pub fn meaning(code: &str) -> Meaning {
    match code {
        "00000" => Meaning::Success,
        "E0002" | "E0005" | "E0006" | "E0007" | "E0008" | "E0016" | "E0017" | "E0021" | "E0032" => {
            Meaning::RefusesPayout
        }
        "B0001" | "E0001" | "E0003" | "E0004" | "E0010" | "E0011" | "E0012" | "E0013" | "E0034"
        | "O0015" => Meaning::RefusesGateway,
        "E0009" | "E0018" => Meaning::Exists,
        // The family is written Axxxx; a longer word that starts with an A promises nothing.
        _ if code.len() == 5
            && code.starts_with('A')
            && code[1..].bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Meaning::Parameter
        }
        _ => Meaning::Unlisted,
    }
}

/// The fields that refusals blame, each with the codes that do. The table in docs/outcomes.md is made
/// from this.
pub const BLAMED: [(&str, &[&str]); 5] = [
    ("currency", &["E0005"]),
    ("amount", &["E0006", "E0007", "E0016"]),
    ("address", &["E0008"]),
    ("remark", &["E0002", "E0021"]),
    ("memo", &["E0032"]),
];

/// The request's field that a refusal blames, if it blames one.
pub fn blamed_field(code: &str) -> Option<&'static str> {
    BLAMED.iter().find(|(_, codes)| codes.contains(&code)).map(|(field, _)| *field)
}

impl Envelope {
    /// Reads a complete envelope; `data` may be absent.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let json = Json::parse(body).ok()?;
        let code = json.text("code")?.to_owned();
        let msg = json.text("msg")?;
        let msg = msg.chars().filter(|c| !c.is_control()).take(256).collect();
        Some(Self { code, msg, data: json.get("data").cloned().unwrap_or(Json::Null) })
    }

    /// What the envelope's code promises.
    pub fn meaning(&self) -> Meaning {
        meaning(&self.code)
    }

    fn refusal(self) -> Refusal {
        Refusal { code: self.code, msg: self.msg }
    }
}

/// Statuses whose bodies say nothing that we would believe.
pub fn outcome_of_status(status: u16) -> Option<Outcome> {
    match status {
        200 | 400..=499 => None,
        500..=599 => Some(Outcome::InDoubt(Doubt::Http5xx)),
        _ => Some(Outcome::InDoubt(Doubt::HttpOther)),
    }
}

/// What a send came to that was answered with `status` and the whole `body`.
///
/// `skew` is how far our clock is from the answer's `Date`, where it had one.
pub fn outcome(status: u16, body: &[u8], skew: Option<Duration>) -> Outcome {
    if let Some(outcome) = outcome_of_status(status) {
        return outcome;
    }
    let ok = status == 200;
    let Some(envelope) = Envelope::parse(body) else {
        return Outcome::InDoubt(if ok { Doubt::BadBody } else { Doubt::HttpOther });
    };
    match envelope.meaning() {
        Meaning::Success if ok => match envelope.data.int64("cid") {
            Some(cid) if cid > 0 => Outcome::Accepted(cid),
            Some(_) | None => Outcome::InDoubt(Doubt::AcceptedNoCid),
        },
        Meaning::Parameter if skew.is_some_and(|skew| skew > SKEW_MAX) => {
            Outcome::NotSent(Unsent::ClockSkew(envelope.refusal()))
        }
        Meaning::Parameter | Meaning::RefusesPayout => Outcome::Rejected(envelope.refusal()),
        Meaning::RefusesGateway => Outcome::NotSent(Unsent::GatewayRefused(envelope.refusal())),
        Meaning::Exists => Outcome::InDoubt(Doubt::ExistsUpstream),
        Meaning::Unlisted if ok => Outcome::InDoubt(Doubt::UnlistedCode),
        Meaning::Success | Meaning::Unlisted => Outcome::InDoubt(Doubt::HttpOther),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(status: u16, code: &str) -> Outcome {
        let body = format!(r#"{{"code":"{code}","msg":"m","data":null}}"#);
        outcome(status, body.as_bytes(), None)
    }

    fn refusal(code: &str) -> Refusal {
        Refusal { code: code.into(), msg: "m".into() }
    }

    #[test]
    fn success_with_an_exact_positive_cid_is_accepted_and_nothing_else_is() {
        let success = |cid: &str| {
            let body = format!(r#"{{"code":"00000","msg":"success","data":{{"cid":{cid}}}}}"#);
            outcome(200, body.as_bytes(), None)
        };
        assert_eq!(success("1382626461605888"), Outcome::Accepted(1_382_626_461_605_888));
        assert_eq!(success("9007199254740993"), Outcome::Accepted(9_007_199_254_740_993));
        assert_eq!(success("9223372036854775807"), Outcome::Accepted(i64::MAX));
        for unusable in
            ["\"1\"", "1.0", "1e3", "0", "-1", "9223372036854775808", "null", "true", "[1]", "{}"]
        {
            let expected = Outcome::InDoubt(Doubt::AcceptedNoCid);
            assert_eq!(success(unusable), expected, "{unusable}");
        }
        assert_eq!(coded(200, "00000"), Outcome::InDoubt(Doubt::AcceptedNoCid), "no data");
    }

    #[test]
    fn a_listed_refusal_of_the_payout_is_rejected_on_200_and_on_4xx() {
        for code in [
            "A0001", "A9999", "E0002", "E0005", "E0006", "E0007", "E0008", "E0016", "E0017",
            "E0021", "E0032",
        ] {
            for status in [200, 400, 403, 422, 429] {
                assert_eq!(
                    coded(status, code),
                    Outcome::Rejected(refusal(code)),
                    "{status} {code}"
                );
            }
        }
    }

    #[test]
    fn a_refusal_of_the_gateway_is_not_sent_on_200_and_on_4xx() {
        for code in [
            "B0001", "E0001", "E0003", "E0004", "E0010", "E0011", "E0012", "E0013", "E0034",
            "O0015",
        ] {
            let expected = Outcome::NotSent(Unsent::GatewayRefused(refusal(code)));
            assert_eq!(coded(200, code), expected, "{code}");
            assert_eq!(coded(401, code), expected, "{code}");
        }
    }

    #[test]
    fn a_parameter_error_under_a_wrong_clock_is_not_sent() {
        let body = br#"{"code":"A0001","msg":"m"}"#;
        let at = |seconds| outcome(200, body, Some(Duration::from_secs(seconds)));
        assert_eq!(at(61), Outcome::NotSent(Unsent::ClockSkew(refusal("A0001"))));
        assert_eq!(at(60), Outcome::Rejected(refusal("A0001")));
        let other = br#"{"code":"E0008","msg":"m"}"#;
        let skewed = outcome(200, other, Some(Duration::from_secs(3600)));
        assert_eq!(skewed, Outcome::Rejected(refusal("E0008")), "only A* depends on the clock");
    }

    #[test]
    fn an_id_that_exists_at_cregis_is_a_doubt_and_never_a_refusal() {
        for code in ["E0009", "E0018"] {
            for status in [200, 400, 409] {
                assert_eq!(coded(status, code), Outcome::InDoubt(Doubt::ExistsUpstream));
            }
        }
    }

    #[test]
    fn five_hundreds_three_hundreds_and_other_statuses_are_doubts_whatever_they_say() {
        let tempting = br#"{"code":"00000","msg":"success","data":{"cid":7}}"#;
        let refusing = br#"{"code":"E0008","msg":"m","data":null}"#;
        for body in [&tempting[..], &refusing[..], b"", b"<html>"] {
            for status in [500, 502, 503, 504, 599] {
                assert_eq!(outcome(status, body, None), Outcome::InDoubt(Doubt::Http5xx));
            }
            for status in [101, 201, 202, 204, 301, 302, 307, 308, 600] {
                assert_eq!(outcome(status, body, None), Outcome::InDoubt(Doubt::HttpOther));
            }
        }
        assert_eq!(outcome(404, tempting, None), Outcome::InDoubt(Doubt::HttpOther));
        assert_eq!(coded(403, "X1234"), Outcome::InDoubt(Doubt::HttpOther));
        assert_eq!(outcome(403, b"<html>", None), Outcome::InDoubt(Doubt::HttpOther));
    }

    #[test]
    fn a_body_that_is_not_the_envelope_is_a_doubt() {
        for bad in [
            "",
            "<html></html>",
            "null",
            "[]",
            "{}",
            r#"{"code":"E0008"}"#,
            r#"{"msg":"m"}"#,
            r#"{"code":8,"msg":"m"}"#,
            r#"{"code":"E0008","msg":null}"#,
            r#"{"code":"00000","code":"E0008","msg":"m"}"#,
            r#"{"code":"00000","msg":"m","data":{"cid":1,"cid":2}}"#,
            r#"{"code":"00000","msg":"m","data":{"cid":1}"#,
            "\u{feff}{\"code\":\"00000\",\"msg\":\"m\",\"data\":{\"cid\":1}}",
        ] {
            let found = outcome(200, bad.as_bytes(), None);
            assert_eq!(found, Outcome::InDoubt(Doubt::BadBody), "{bad}");
        }
    }

    /// Codes that are listed for other calls, or not at all, promise nothing about a payout.
    #[test]
    fn random_unlisted_codes_are_doubts() {
        let symbols = b"ABCEOT0123456789xyz_";
        let mut seed = 0x5eed_u64;
        let mut tried = 0;
        while tried < 20_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let length = 1 + (seed >> 60) as usize % 7;
            let code: String = (0..length)
                .map(|at| symbols[(seed >> (8 * at)) as usize % symbols.len()] as char)
                .collect();
            if meaning(&code) == Meaning::Unlisted {
                tried += 1;
                assert_eq!(coded(200, &code), Outcome::InDoubt(Doubt::UnlistedCode), "{code}");
            }
        }
        for code in
            ["", "0", "000000", "E0014", "E0015", "E0019", "T0062", "ACCEPTED", "A001", "a0001"]
        {
            assert_eq!(coded(200, code), Outcome::InDoubt(Doubt::UnlistedCode), "{code}");
        }
    }
}

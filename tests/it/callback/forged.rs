//! Whatever is forged, malformed or could be read in two ways changes no row and hears no word.

use payoutd::sandbox::{API_KEY, PID, signed};
use serde_json::{Value, json};

use super::letter::{
    Answer, Fields, accepted, barrier, fields, genuine, lost, notice, path, question, send,
    snapshot, with,
};
use crate::support::{ADDRESS, Whole, order};

/// What is sent, and what it hears.
struct Bad {
    name: &'static str,
    line: String,
    body: Vec<u8>,
    status: u16,
}

fn bad(name: &'static str, kind: &str, body: impl Into<Vec<u8>>) -> Bad {
    Bad { name, line: format!("POST {}", path(kind)), body: body.into(), status: 401 }
}

fn text(fields: Fields) -> String {
    String::from_utf8(genuine(fields)).expect("text")
}

/// The corpus, made from a message that would be taken.
fn corpus(kind: &str, good: &Fields) -> Vec<Bad> {
    let whole = text(good.clone());
    let mut cases = spoilt(kind, &whole);
    // Signed by the very key: only the form is wrong.
    let cid = good["cid"].as_i64().expect("a cid");
    for (name, changes) in [
        ("cid as text", json!({"cid": cid.to_string()})),
        ("cid as a fraction", json!({"cid": 1.5})),
        ("cid with an exponent", json!({"cid": 1e3})),
        ("negative cid", json!({"cid": -cid})),
        ("cid 0", json!({"cid": 0})),
        ("cid 2^63", json!({"cid": 9_223_372_036_854_775_808_u64})),
        ("cid true", json!({"cid": true})),
        ("no cid", json!({"cid": null})),
        ("amount as a float", json!({"amount": 1.1})),
        ("amount as an integer", json!({"amount": 1})),
        ("nested", json!({"extra": {"status": 6}})),
        ("a list", json!({"extra": [6]})),
        ("wrong pid", json!({"pid": 7})),
        ("pid as text", json!({"pid": PID.to_string()})),
        ("no pid", json!({"pid": null})),
        ("no id", json!({"third_party_id": null})),
        ("id as a number", json!({"third_party_id": 7})),
        ("no amount", json!({"amount": null})),
        ("no chain", json!({"chain_id": null})),
        ("no token", json!({"token_id": null})),
        ("nonce as a number", json!({"nonce": 7})),
        ("time stamp as text", json!({"timestamp": "1687850657960"})),
    ] {
        cases.push(bad(name, kind, genuine(with(good.clone(), changes))));
    }
    for (name, changes) in match kind {
        "payout" => vec![
            ("no status", json!({"status": null})),
            ("status as text", json!({"status": "6"})),
            ("status beyond 32 bits", json!({"status": 4_294_967_302_i64})),
            ("address renamed", json!({"address": null, "to_address": ADDRESS})),
        ],
        _ => vec![("address renamed", json!({"to_address": null, "address": ADDRESS}))],
    } {
        cases.push(bad(name, kind, genuine(with(good.clone(), changes))));
    }
    for (name, body) in reflected(&good["third_party_id"], cid) {
        cases.push(bad(name, kind, genuine(body)));
    }
    cases.extend(astray(kind, &whole));
    cases
}

/// Bytes that are not what was signed, or not one reading.
fn spoilt(kind: &str, whole: &str) -> Vec<Bad> {
    let signature = whole.split("\"sign\":\"").nth(1).and_then(|rest| rest.get(..32));
    let signature = signature.expect("a signature");
    let unsigned = with(serde_json::from_str(whole).expect("JSON"), json!({"sign": null}));
    let as_number = with(unsigned.clone(), json!({"sign": 7}));
    let mut flipped = whole.as_bytes().to_vec();
    let at = whole.find("1.1").expect("the amount");
    flipped[at] ^= 1 << 3;
    let first = format!("{:x}", (u8::from_str_radix(&signature[..1], 16).expect("hex")) ^ 1);
    let latin = whole.replacen("195", "19\u{1}", 1).into_bytes();
    let latin: Vec<u8> = latin.into_iter().map(|b| if b == 1 { 0xff } else { b }).collect();
    let tampered = |from: &str, to: &str| whole.replacen(from, to, 1);
    vec![
        bad("empty", kind, ""),
        bad("no JSON", kind, "success"),
        bad("an empty object", kind, "{}"),
        bad("a list of it", kind, format!("[{whole}]")),
        bad("wrong key", kind, signed("0".repeat(32).as_str(), unsigned.clone())),
        bad("no key", kind, signed("", unsigned.clone())),
        bad("flipped bit", kind, flipped),
        bad(
            "flipped bit of the signature",
            kind,
            tampered(signature, &format!("{first}{}", &signature[1..])),
        ),
        bad(
            "upper-case signature",
            kind,
            tampered(signature, &format!("AB{}", &signature[2..]).to_uppercase()),
        ),
        bad("short signature", kind, tampered(signature, &signature[..31])),
        bad("empty signature", kind, tampered(signature, "")),
        bad("no signature", kind, Value::Object(unsigned).to_string()),
        bad("signature as a number", kind, Value::Object(as_number).to_string()),
        bad("cid twice", kind, tampered("{", r#"{"cid":1,"#)),
        bad("cid twice, escaped", kind, tampered("{", r#"{"c\u0069d":1,"#)),
        bad("signature twice", kind, tampered("{", &format!(r#"{{"sign":"{signature}","#))),
        bad("no UTF-8", kind, latin),
        bad("byte order mark", kind, format!("\u{feff}{whole}")),
        bad("trailing garbage", kind, format!("{whole}x")),
        bad("two messages", kind, format!("{whole}{whole}")),
        bad("cut off", kind, &whole[..whole.len() - 1]),
        bad("a lone surrogate", kind, tampered("{", r#"{"zz":"\ud800","#)),
        bad("deep", kind, [vec![b'['; 8000], vec![b']'; 8000]].concat()),
    ]
}

/// Our own requests, sent back at us.
fn reflected(id: &Value, cid: i64) -> Vec<(&'static str, Fields)> {
    let create = json!({
        "pid": PID,
        "currency": "195@195",
        "address": ADDRESS,
        "amount": "1.1",
        "third_party_id": id,
        "callback_url": "https://a.example/",
        "remark": "okstatus7",
    });
    let query = json!({"pid": PID, "cid": cid});
    vec![("our create call", fields(create)), ("our query", fields(query))]
}

/// To no place of ours, or too long.
fn astray(kind: &str, whole: &str) -> Vec<Bad> {
    let to = |name, line: String, status| Bad { name, line, body: whole.into(), status };
    let long = format!("{whole}{}", " ".repeat(16 * 1024 + 1 - whole.len()));
    vec![
        Bad { status: 413, ..bad("too long by one", kind, long) },
        to("GET", format!("GET {}", path(kind)), 405),
        to("PUT", format!("PUT {}", path(kind)), 405),
        to("a plus before the project", format!("POST /callbacks/+{PID}/{kind}"), 404),
        to("a zero before the project", format!("POST /callbacks/0{PID}/{kind}"), 404),
        to(
            "a project in per cent",
            format!("POST /callbacks/%31{}/{kind}", &PID.to_string()[1..]),
            404,
        ),
        to(
            "a kind in per cent",
            format!("POST /callbacks/{PID}/%{:x}{}", kind.as_bytes()[0], &kind[1..]),
            404,
        ),
        to("an absolute URI", format!("POST http://x{}", path(kind)), 404),
        to("a slash too many", format!("POST /{}", path(kind)), 404),
        to("an unknown project", format!("POST /callbacks/7/{kind}"), 404),
        to("no project", format!("POST /callbacks/x/{kind}"), 404),
        to("an unknown path", format!("POST /callbacks/{PID}/deposit"), 404),
        to("the root", "POST /".to_owned(), 404),
    ]
}

fn is_silent((status, body): &Answer) -> bool {
    *status != 200 && !["success", "ok", "deny"].contains(&body.trim())
}

/// Two payouts that are paid at Cregis, so that a single question would move them.
async fn bait(verification: bool) -> (Whole, [(&'static str, i64); 2]) {
    let whole = Whole::with(|config| config.projects[0].verification = verification).await;
    let bound = accepted(&whole, "bound").await;
    let doubted = lost(&whole, order("doubted")).await;
    for cid in [bound, doubted] {
        assert!(whole.upstream.book.set_status(cid, 6, false));
    }
    (whole, [("bound", bound), ("doubted", doubted)])
}

async fn attack(kind: &'static str, message: fn(&str, i64) -> Fields) {
    for victim in 0..2 {
        let (whole, payouts) = bait(true).await;
        let (id, cid) = payouts[victim];
        let (before, asked) = (snapshot(&whole.shell()), whole.upstream.book.received().len());
        let cases = corpus(kind, &message(id, cid));
        for Bad { name, line, body, status } in cases {
            let answer = send(whole.service.addresses.callback, &line, &body).await;
            assert_eq!(answer.0, status, "{kind}: {name}: {answer:?}");
            assert!(is_silent(&answer), "{kind}: {name}: {answer:?}");
            assert_eq!(snapshot(&whole.shell()), before, "{kind}: {name}");
        }
        assert_eq!(whole.upstream.book.received().len(), asked, "a forgery was asked about");
        barrier(&whole, "after").await;
        assert_eq!(whole.upstream.book.received().len(), asked + 2, "the barrier's own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_malformed_or_ambiguous_notice_changes_a_row_or_hears_a_word() {
    attack("payout", |id, cid| notice(id, cid, 6)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_malformed_or_ambiguous_verification_changes_a_row_or_hears_a_word() {
    attack("verification", question).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_the_other_kind_is_refused() {
    let (whole, [(id, cid), _]) = bait(true).await;
    let before = snapshot(&whole.shell());
    for (kind, message) in [("payout", question(id, cid)), ("verification", notice(id, cid, 6))] {
        let line = format!("POST {}", path(kind));
        let answer = send(whole.service.addresses.callback, &line, &genuine(message)).await;
        assert_eq!(answer, (401, String::new()), "{kind}");
    }
    assert_eq!(snapshot(&whole.shell()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_another_project_is_refused_although_both_have_the_key() {
    let whole = Whole::with(|config| {
        let other = crate::support::project(
            config.projects[0].base_url.socket_addrs(|| None).expect("an address")[0],
        );
        config.projects.push(payoutd::config::Project { pid: 7, ..other });
    })
    .await;
    let message = genuine(notice("a", 1, 6));
    let answer = send(whole.service.addresses.callback, "POST /callbacks/7/payout", &message).await;
    assert_eq!(answer, (401, String::new()));
    let other = signed(API_KEY, with(notice("a", 1, 6), json!({"pid": 7})));
    let answer =
        send(whole.service.addresses.callback, &format!("POST {}", path("payout")), &other).await;
    assert_eq!(answer, (401, String::new()));
    assert_eq!(super::count(&whole.shell(), "notice"), 0);
}

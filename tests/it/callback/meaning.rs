//! Spelling does not count: what Cregis echoes, and what a caller repeats, is compared by meaning.

use std::time::Duration;

use payoutd::pb::{self, PayoutState};
use serde_json::{Value, json};
use tonic::{Code, Request};

use super::letter::{accepted, ask, fields, lost, notice, question, success, tell, until, with};
use crate::support::{Whole, bad_fields, metadata, order, reason, within};

const EVM: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
const EVM_LOWER: &str = "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";
const SEGWIT: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
const CASH: &str = "bitcoincash:qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a";
const CASH_BARE: &str = "qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a";
const CASH_LEGACY: &str = "1BpEi6DfDAUFd7GtittLSdBeYJvcoaVggu";
const TON: &str = "EQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_sDs";
const TON_UNBOUNCEABLE: &str = "UQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_p0p";
/// For test networks; the account is the same.
const TON_TEST: &str = "kQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_ntm";
const TON_RAW: &str = "0:b113a994b5024a16719f69139328eb759596c38a25f59028b146fecdc3621dfe";
const XRP: &str = "rn5Jyu5J6PG64543KdGvS25rQBYFQo7GLc";
const USDT: &str = "60@0xdac17f958d2ee523a2206206994597c13d831ec7";

/// A payout, and the same in other words.
struct Spelt {
    currency: &'static str,
    address: &'static str,
    amount: &'static str,
    memo: &'static str,
    /// Fields of an echo.
    other: Value,
}

fn spelt(currency: &'static str, address: &'static str, other: Value) -> Spelt {
    Spelt { currency, address, amount: "1.1", memo: "", other }
}

fn spellings() -> Vec<Spelt> {
    let upper = SEGWIT.to_uppercase();
    let sui = "0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let of = |amount, other| Spelt { amount, ..spelt("60@60", EVM, other) };
    let zeros = format!("5.{}", "0".repeat(36));
    let tagged = |memo, other| Spelt { memo, ..spelt("144@144", XRP, other) };
    vec![
        spelt("60@60", EVM, json!({"address": EVM_LOWER})),
        spelt("60@60", EVM_LOWER, json!({"address": EVM})),
        spelt(USDT, EVM, json!({"token_id": "0xdAC17F958D2ee523a2206206994597C13D831ec7"})),
        spelt("0@0", SEGWIT, json!({"address": upper})),
        spelt("5@5", CASH, json!({"address": CASH_BARE})),
        spelt("5@5", CASH_BARE, json!({"address": CASH})),
        spelt("5@5", CASH, json!({"address": CASH_LEGACY})),
        spelt(
            "2@2",
            "M7uWktm4AttpT71jJco9LVZcTnCT77yGzp",
            json!({"address": "31hNT1M6Dn3PebjqCjooWrKD95c187fi2j"}),
        ),
        spelt("2000@2000", TON, json!({"address": TON_UNBOUNCEABLE})),
        spelt("2000@2000", TON_RAW, json!({"address": TON})),
        spelt("2000@2000", TON_UNBOUNCEABLE, json!({"address": TON_RAW.to_uppercase()})),
        spelt("3000@3000", sui, json!({"address": sui.to_uppercase().replace("0X", "0x")})),
        spelt("2000@2000", TON, json!({"address": TON_TEST})),
        spelt("3000@3000", sui, json!({"address": &sui[2..]})),
        spelt("3000@3000", sui, json!({"address": sui.replacen("0x00", "0x", 1)})),
        of("0.0000001", json!({"amount": "1E-7"})),
        of("0.0000001", json!({"amount": "1e-07"})),
        of("0.0000001", json!({"amount": "1.0E-7"})),
        of("100", json!({"amount": "1E+2"})),
        of("5", json!({"amount": zeros})),
        tagged("7", json!({"memo": "007"})),
        tagged("007", json!({"memo": "7"})),
        tagged("7", json!({"memo": 7})),
    ]
}

fn request(id: &str, spelt: &Spelt) -> pb::CreatePayoutRequest {
    pb::CreatePayoutRequest {
        currency: spelt.currency.to_owned(),
        address: spelt.address.to_owned(),
        amount: spelt.amount.to_owned(),
        memo: spelt.memo.to_owned(),
        ..order(id)
    }
}

/// What Cregis writes about `request`, in the other spelling.
fn echo(request: &pb::CreatePayoutRequest, other: &Value, address: &str) -> Value {
    let (chain, token) = request.currency.split_once('@').expect("a currency");
    let mut echo = fields(json!({
        "chain_id": chain,
        "token_id": token,
        "amount": request.amount,
        "memo": request.memo,
        address: request.address,
    }));
    for (name, value) in fields(other.clone()) {
        echo.insert(if name == "address" { address.to_owned() } else { name }, value);
    }
    Value::Object(echo)
}

async fn polled(every: Duration, verification: bool) -> Whole {
    Whole::with(|config| {
        config.projects[0].poll_first = every;
        config.projects[0].verification = verification;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_in_another_spelling_ends_the_payout() {
    let whole = polled(Duration::from_millis(50), false).await;
    // As JSON numbers, too: the old Java SDK types some of these so.
    let numbers = [("0.0000001", json!({"amount": 1e-7})), ("100", json!({"amount": 100}))];
    let numbers = numbers.map(|(amount, other)| Spelt { amount, ..spelt("60@60", EVM, other) });
    let tag = Spelt { memo: "7", ..spelt("144@144", XRP, json!({"memo": 7.0})) };
    let queried = spellings().into_iter().chain(numbers).chain([tag]);
    for (number, spelt) in queried.enumerate() {
        let id = format!("p{number}");
        whole.upstream.book.clear_faults();
        let fault = json!({"on": "query", "times": 0, "fields": spelt.other});
        whole.upstream.fault(&fault.to_string());
        let cid = whole.create(request(&id, &spelt)).await.expect("OK").cid;
        assert!(whole.upstream.book.set_status(cid, 6, false));
        let paid = until(&whole, &id, PayoutState::Succeeded).await;
        assert_eq!(paid.attention, [""; 0], "{} {}", spelt.currency, spelt.other);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_and_a_verification_in_another_spelling_fit() {
    let whole = polled(Duration::from_secs(3600), true).await;
    for (number, spelt) in spellings().into_iter().enumerate() {
        let id = format!("p{number}");
        let request = request(&id, &spelt);
        let cid = whole.create(request.clone()).await.expect("OK").cid;
        let asked = with(question(&id, cid), echo(&request, &spelt.other, "to_address"));
        let answer = ask(&whole, asked).await;
        assert_eq!(answer, (200, "ok".to_owned()), "{} {}", spelt.currency, spelt.other);
        assert!(whole.upstream.book.set_status(cid, 6, false));
        let told = with(notice(&id, cid, 6), echo(&request, &spelt.other, "address"));
        assert_eq!(tell(&whole, told).await, success());
        let paid = until(&whole, &id, PayoutState::Succeeded).await;
        assert_eq!(paid.attention, [""; 0], "{} {}", spelt.currency, spelt.other);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_in_another_spelling_is_the_same_payout_and_the_first_spelling_stays() {
    let whole = Whole::start().await;
    let (upper, number) = (SEGWIT.to_uppercase(), "144@144");
    let usdt = USDT.replace("dac1", "dAC1");
    for (at, (currency, address, memo, others)) in [
        ("60@60", EVM, "", vec![("60@60", EVM_LOWER, "")]),
        (USDT, EVM, "", vec![(usdt.as_str(), EVM_LOWER, "")]),
        ("0@0", SEGWIT, "", vec![("0@0", upper.as_str(), "")]),
        ("5@5", CASH, "", vec![("5@5", CASH_BARE, ""), ("5@5", CASH_LEGACY, "")]),
        ("2000@2000", TON, "", vec![("2000@2000", TON_RAW, "")]),
        (number, XRP, "7", vec![(number, XRP, "007"), (number, XRP, "0000000007")]),
        (number, XRP, "0012", vec![(number, XRP, "12")]),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("p{at}");
        let asked = |(currency, address, memo): (&str, &str, &str)| pb::CreatePayoutRequest {
            currency: currency.to_owned(),
            address: address.to_owned(),
            memo: memo.to_owned(),
            ..order(&id)
        };
        let first = whole.create(asked((currency, address, memo))).await.expect("OK");
        for other in others {
            let again = whole.create(asked(other)).await.expect("the same payout");
            assert_eq!(again.cid, first.cid, "{other:?}");
            assert_eq!((&*again.currency, &*again.address), (currency, address), "{other:?}");
            let mut checked =
                Request::new(pb::CreatePayoutRequest { validate_only: true, ..asked(other) });
            checked.set_timeout(Duration::from_secs(5));
            within(whole.client.clone().create_payout(checked)).await.expect("the same payout");
        }
        let memo = memo.trim_start_matches('0');
        let held = whole.upstream.book.orders().remove(at);
        assert_eq!((&*first.memo, &*held.memo), (memo, memo), "one form is recorded and sent");
        assert_eq!((&*held.currency, &*held.address), (currency, address));
    }
    assert_eq!(whole.upstream.book.posts().len(), 7);
    let other = |memo: &str| pb::CreatePayoutRequest {
        currency: number.to_owned(),
        address: XRP.to_owned(),
        memo: memo.to_owned(),
        ..order("p5")
    };
    for memo in ["8", "70", ""] {
        let status = whole.create(other(memo)).await.expect_err("another tag");
        assert_eq!(reason(&status).1, "THIRD_PARTY_ID_REUSED");
        assert_eq!(metadata(&status, "fields"), "memo");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_an_older_version_recorded_with_zeros_is_still_the_same() {
    let whole = polled(Duration::from_millis(50), false).await;
    let tagged = Spelt { memo: "7", ..spelt("144@144", XRP, json!({})) };
    let first = whole.create(request("a", &tagged)).await.expect("OK");
    whole.shell().execute("UPDATE payout SET memo = '007'");
    let again = whole.create(request("a", &tagged)).await.expect("the same payout");
    assert_eq!((again.cid, &*again.memo), (first.cid, "007"));
    assert!(whole.upstream.book.set_status(first.cid, 6, false));
    let paid = until(&whole, "a", PayoutState::Succeeded).await;
    assert_eq!(paid.attention, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remark_that_comes_back_changed_raises_field_mismatch_and_stops_nothing() {
    let whole = polled(Duration::from_millis(50), true).await;
    let changed = json!({"remark": "another"});
    let with_remark = |id: &str| pb::CreatePayoutRequest { remark: "rent".to_owned(), ..order(id) };

    // By a verification, for a payout whose cid is known and for one whose reply was lost.
    let known = whole.create(with_remark("known")).await.expect("OK").cid;
    let doubt = lost(&whole, with_remark("doubt")).await;
    for (id, cid) in [("known", known), ("doubt", doubt)] {
        let asked = with(question(id, cid), changed.clone());
        assert_eq!(ask(&whole, asked).await, (200, "ok".to_owned()), "{id}");
        let paged = whole.get(id).await.expect("known");
        assert_eq!((paged.state(), paged.cid), (PayoutState::Accepted, cid));
        assert_eq!(paged.attention, ["FIELD_MISMATCH"], "{id}");
    }

    // By a notice, whose query is as ordered.
    let cid = accepted(&whole, "told").await;
    assert_eq!(tell(&whole, with(notice("told", cid, 6), changed.clone())).await, success());
    let paged = whole.get("told").await.expect("known");
    assert_eq!(paged.attention, ["FIELD_MISMATCH"]);
    assert!(whole.upstream.book.set_status(cid, 6, false));
    until(&whole, "told", PayoutState::Succeeded).await;

    // By a query.
    let fault = json!({"on": "query", "times": 0, "fields": changed});
    whole.upstream.fault(&fault.to_string());
    let cid = whole.create(with_remark("asked")).await.expect("OK").cid;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    let paid = until(&whole, "asked", PayoutState::Succeeded).await;
    assert_eq!(paid.attention, ["FIELD_MISMATCH"]);
}

/// An older version took addresses that are refused today.
#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_payout_is_answered_although_its_address_is_refused_by_now() {
    let whole = Whole::start().await;
    let nobody = "T9yD14Nj9j7xAB4dbGeiX9h8unkKHxuWwb";
    let to_nobody = |id: &str| pb::CreatePayoutRequest { address: nobody.to_owned(), ..order(id) };
    let cid = accepted(&whole, "recorded").await;
    whole.upstream.fault(r#"{"code": "E0034"}"#);
    whole.create(order("unsent")).await.expect_err("not sent");
    whole.shell().execute(&format!("UPDATE payout SET address = '{nobody}'"));

    let posts = whole.upstream.book.posts().len();
    for ask in [true, false] {
        let asked = |id| pb::CreatePayoutRequest { validate_only: ask, ..to_nobody(id) };
        let known = within(whole.client.clone().create_payout(asked("recorded"))).await;
        let known = known.expect("known").into_inner();
        assert_eq!(known.cid, if ask { 0 } else { cid });
        // These would be sent.
        for id in ["unsent", "new"] {
            let refused = within(whole.client.clone().create_payout(asked(id))).await;
            let refused = refused.expect_err("nobody could spend it");
            let expected = (Code::InvalidArgument, "INVALID_REQUEST".to_owned(), "fix".to_owned());
            assert_eq!(
                (reason(&refused), bad_fields(&refused)),
                (expected, vec!["address".into()])
            );
        }
    }
    assert_eq!(whole.upstream.book.posts().len(), posts, "nothing was sent");
}

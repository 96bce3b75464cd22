//! Who may call what: authentication, and each method's role.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use payoutd::caller::{ROLES, Role, TokenHash};
use payoutd::pb::{self, PayoutState};
use tokio_stream::iter;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::support::{
    Binary, Whole, bearing, by, caller, order, payoutd, reason, run, token, within,
};

/// Every method, and the role that it asks for.
const METHODS: &[(&str, Option<Role>)] = &[
    ("CreatePayout", Some(Role::Create)),
    ("CreatePayout validate_only", Some(Role::Create)),
    ("GetPayout", Some(Role::Read)),
    ("ListPayouts", Some(Role::Read)),
    ("WatchPayout", Some(Role::Read)),
    ("ResolvePayout", Some(Role::Operate)),
    ("SetIntake", Some(Role::Operate)),
    ("Health", None),
    ("Reflection", None),
    ("unknown", None),
];

async fn channel(whole: &Whole) -> Channel {
    let address = format!("http://{}", whole.service.addresses.grpc);
    Channel::from_shared(address).expect("an address").connect().await.expect("connected")
}

/// Calls `method` once, and returns the code and the reason of its refusal.
async fn call(whole: &Whole, method: &str, authorization: &str) -> Result<(), (Code, String)> {
    let ask = async {
        let mut payouts = whole.client.clone();
        let mut operator = whole.operator().await;
        let id = || "known".to_owned();
        match method {
            "CreatePayout" => {
                payouts.create_payout(bearing(authorization, order("known"))).await.map(drop)
            }
            "CreatePayout validate_only" => {
                let message = pb::CreatePayoutRequest { validate_only: true, ..order("known") };
                payouts.create_payout(bearing(authorization, message)).await.map(drop)
            }
            "GetPayout" => {
                let id = Some(pb::get_payout_request::Id::ThirdPartyId(id()));
                let message = pb::GetPayoutRequest { pid: 0, id };
                payouts.get_payout(bearing(authorization, message)).await.map(drop)
            }
            "ListPayouts" => {
                let message = pb::ListPayoutsRequest::default();
                payouts.list_payouts(bearing(authorization, message)).await.map(drop)
            }
            "WatchPayout" => {
                let id = Some(pb::watch_payout_request::Id::ThirdPartyId(id()));
                let message = pb::WatchPayoutRequest { pid: 0, id, after_revision: 0 };
                payouts.watch_payout(bearing(authorization, message)).await.map(drop)
            }
            "ResolvePayout" => {
                let message = pb::ResolvePayoutRequest {
                    third_party_id: id(),
                    resolution: Some(pb::resolve_payout_request::Resolution::Void(true)),
                    evidence: "seen".to_owned(),
                    pid: 0,
                };
                operator.resolve_payout(bearing(authorization, message)).await.map(drop)
            }
            "SetIntake" => {
                let message = pb::SetIntakeRequest::default();
                operator.set_intake(bearing(authorization, message)).await.map(drop)
            }
            "Health" => {
                let message = HealthCheckRequest::default();
                let mut health = HealthClient::new(channel(whole).await);
                health.check(bearing(authorization, message)).await.map(drop)
            }
            "Reflection" => {
                let message = ServerReflectionRequest {
                    message_request: Some(MessageRequest::ListServices(String::new())),
                    ..ServerReflectionRequest::default()
                };
                let mut reflection = ServerReflectionClient::new(channel(whole).await);
                let asked = bearing(authorization, iter([message]));
                reflection.server_reflection_info(asked).await.map(drop)
            }
            _ => {
                let mut grpc = tonic::client::Grpc::new(channel(whole).await);
                grpc.ready().await.expect("ready");
                let path = "/payout.v1.PayoutService/Nothing".parse().expect("a path");
                let codec = ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
                let asked = bearing(authorization, HealthCheckRequest::default());
                grpc.unary(asked, path, codec).await.map(drop)
            }
        }
    };
    within(ask).await.map_err(|status: Status| {
        // UNIMPLEMENTED is tonic's own, without a detail.
        let ours = status.code() != Code::Unimplemented;
        (status.code(), if ours { reason(&status).1 } else { String::new() })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_asks_for_its_role_and_for_no_other() {
    let whole = Whole::with(|config| {
        let named = |role: &Role| caller(role.as_str(), &[*role]);
        config.callers = ROLES.iter().map(named).collect();
        config.callers.push(caller("all", &ROLES));
    })
    .await;
    let fine = |method: &str| match method {
        "ResolvePayout" => Err((Code::FailedPrecondition, "RESOLUTION_REFUSED".to_owned())),
        "unknown" => Err((Code::Unimplemented, String::new())),
        _ => Ok(()),
    };
    let unknown = || Err((Code::Unauthenticated, "UNAUTHENTICATED".to_owned()));
    let forbidden = || Err((Code::PermissionDenied, "PERMISSION_DENIED".to_owned()));
    for (method, needs) in METHODS {
        for who in ["all", "create", "read", "operate"] {
            let may = needs.is_none_or(|role| [role.as_str(), "all"].contains(&who));
            let expected = if may { fine(method) } else { forbidden() };
            let authorization = format!("Bearer {}", token(who));
            assert_eq!(call(&whole, method, &authorization).await, expected, "{who}: {method}");
        }
        for nobody in ["", "Bearer nonsense"] {
            let expected = if *method == "Health" { fine(method) } else { unknown() };
            assert_eq!(call(&whole, method, nobody).await, expected, "{nobody:?}: {method}");
        }
    }
    assert_eq!(whole.upstream.book.posts().len(), 1, "the one payout that was allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_exactly_a_token_of_somebodys_is_nobodys() {
    let whole = Whole::with(|config| config.callers = vec![caller("a", &ROLES)]).await;
    let token = token("a");
    let good = format!("Bearer {token}");
    for also_good in [&good, &format!("bearer {token}"), &format!("BEARER {token}")] {
        assert_eq!(call(&whole, "ListPayouts", also_good).await, Ok(()), "{also_good}");
    }
    for bad in [
        format!("Bearer {}", &token[..token.len() - 1]),
        format!("Bearer {}", &token[1..]),
        format!("Bearer {token}x"),
        format!("Bearer x{token}"),
        format!("Bearer {}", token.to_uppercase()),
        format!("Bearer  {token}"),
        format!("Bearer {token} {token}"),
        format!("Bearer {token},"),
        format!("Bearer{token}"),
        format!("Basic {token}"),
        format!("Bearer {}", TokenHash::of(token.as_bytes()).to_hex()),
        token.clone(),
        "Bearer".to_owned(),
        "Bearer -".to_owned(),
        "-".to_owned(),
    ] {
        let refused = Err((Code::Unauthenticated, "UNAUTHENTICATED".to_owned()));
        assert_eq!(call(&whole, "ListPayouts", &bad).await, refused, "{bad}");
    }
    // A good token beside another one proves nothing, in whatever order.
    for pair in [[&*good, "Bearer x"], ["Bearer x", &*good], [&*good, &*good]] {
        let mut request = Request::new(pb::ListPayoutsRequest::default());
        for value in pair {
            request.metadata_mut().append("authorization", value.parse().expect("ASCII"));
        }
        let status = within(whole.client.clone().list_payouts(request)).await.expect_err("two");
        assert_eq!(reason(&status).1, "UNAUTHENTICATED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_how_to_go_on_and_carries_the_calls_id() {
    let whole = Whole::with(|config| config.callers = vec![caller("a", &[Role::Read])]).await;
    for (authorization, code) in [
        (String::new(), Code::Unauthenticated),
        (format!("Bearer {}", token("a")), Code::PermissionDenied),
    ] {
        let mut request = bearing(&authorization, order("x"));
        request.metadata_mut().insert("x-request-id", "mine-7".parse().expect("ASCII"));
        let status = within(whole.client.clone().create_payout(request)).await.expect_err("no");
        assert_eq!(status.metadata().get("x-request-id").expect("an id"), "mine-7");
        let (is, _, retry) = reason(&status);
        assert_eq!((is, retry.as_str()), (code, "fix"));
        let own = bearing(&authorization, order("x"));
        let status = within(whole.client.clone().create_payout(own)).await.expect_err("no");
        assert!(status.metadata().get("x-request-id").is_some(), "an id of ours");
    }
    assert!(whole.upstream.book.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_rotated_by_having_two_for_a_while() {
    let hash = |name: &str| TokenHash::of(token(name).as_bytes());
    let whole = Whole::with(|config| {
        let mut caller = caller("old", &ROLES);
        caller.tokens.push(hash("new"));
        config.callers = vec![caller];
    })
    .await;
    let refused = Err((Code::Unauthenticated, "UNAUTHENTICATED".to_owned()));
    let authorization = |name: &str| format!("Bearer {}", token(name));
    for name in ["old", "new"] {
        assert_eq!(call(&whole, "CreatePayout", &authorization(name)).await, Ok(()), "{name}");
    }
    let Whole { upstream, service, folder, .. } = whole;
    let mut config = service.stop().await;
    config.callers[0].tokens.remove(0);
    let service = crate::support::Service::start(config).await;
    let client = service.client().await;
    let whole = Whole { upstream, service, client, folder };
    assert_eq!(call(&whole, "CreatePayout", &authorization("old")).await, refused);
    assert_eq!(call(&whole, "CreatePayout", &authorization("new")).await, Ok(()));
    assert_eq!(whole.upstream.book.posts().len(), 1, "one caller, one payout");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_tool_shows_its_token_and_is_told_when_it_has_none() {
    let whole = Whole::with(|config| config.callers = vec![caller("night", &ROLES)]).await;
    let mut client = whole.client.clone();
    within(client.create_payout(by("night", order("a")))).await.expect("OK");
    let file = whole.folder.path().join("token");
    std::fs::write(&file, format!("{}\n", token("night"))).expect("written");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("private");
    let file = file.to_str().expect("UTF-8");
    let address = whole.service.addresses.grpc;
    for command in [&["payouts", "list"][..], &["payouts", "pause"], &["payouts", "resume"]] {
        let with = run(address, &[command, &["--token-file", file]].concat()).await;
        assert_eq!(with.status.code(), Some(0), "{command:?}: {with:?}");
        let without = run(address, command).await;
        assert_eq!(without.status.code(), Some(1), "{command:?}");
        let words = String::from_utf8_lossy(&without.stderr).into_owned();
        assert!(words.contains("UNAUTHENTICATED: no valid token or certificate"), "{words}");
    }
    let missing = run(address, &["reconcile", "--token-file", "/no/such"]).await;
    let words = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(words.contains("the file cannot be read"), "{words}");
    assert_eq!(missing.status.code(), Some(64));
    let health = run(address, &["health"]).await;
    assert_eq!(health.status.code(), Some(0), "the platform has no token");
}

/// The two lines that `payoutd token` prints.
async fn made() -> (String, String) {
    let output = within(payoutd().arg("token").output()).await.expect("ran");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let word = |name: &str| {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(1)).expect(name).to_owned()
    };
    assert_eq!(text.lines().count(), 2, "{text}");
    (word("token"), word("token_sha256"))
}

/// A service of its own, so that everything it writes can be read; with limits that only report.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_made_is_let_in_and_stands_in_no_log_at_trace() {
    let ((token, hash), (other, _)) = (made().await, made().await);
    assert_eq!((token.len(), TokenHash::of(token.as_bytes()).to_hex()), (43, hash.clone()));
    assert_ne!(token, other);

    let upstream = crate::support::Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("payoutd.toml");
    let text = format!(
        r#"
        [[caller]]
        name = "billing"
        token_sha256 = ["{hash}"]
        roles = ["create"]
        report_only = true
        [[caller.limit]]
        currency = "195@195"
        per_day = "1"
        "#
    );
    std::fs::write(&file, text).expect("written");
    let file = file.to_str().expect("UTF-8");
    let binary = Binary::start_from(upstream.address, &folder, file).await;
    let mut client = binary.client().await;
    let good = format!("Bearer {token}");
    let ask = |authorization: &str| bearing(authorization, order("a"));
    let answer = within(client.create_payout(ask(&good))).await.expect("let in").into_inner();
    assert_eq!(answer.payout.expect("a payout").state(), PayoutState::Accepted);
    for bad in [&good[..good.len() - 1], &format!("Basic {token}"), &format!("Bearer {hash}")] {
        let status = within(client.create_payout(ask(bad))).await.expect_err("refused");
        assert_eq!(reason(&status).1, "UNAUTHENTICATED");
        assert!(!format!("{status:?}").contains(&token), "{status:?}");
    }
    let id = Some(pb::get_payout_request::Id::Cid(answer.cid));
    let asked = bearing(&good, pb::GetPayoutRequest { pid: 0, id });
    within(client.get_payout(asked)).await.expect_err("may not read");

    let log = std::fs::read_to_string(&binary.log).expect("a log");
    let line = |words: &[&str]| {
        let found = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(log.lines().any(found), "{words:?} is not in\n{log}");
    };
    line(&["WARN", "call refused", "no valid token", "127.0.0.1", "CreatePayout"]);
    line(&["WARN", "call refused", "may not do this", "\"caller\":\"billing\"", "GetPayout"]);
    line(&["WARN", "policy would refuse", "\"caller\":\"billing\"", "PER_DAY_LIMIT"]);
    for secret in [&token, &hash, &token[..token.len() - 1]] {
        assert!(!log.contains(secret), "a token or its hash is in the log");
    }
    assert!(!log.to_lowercase().contains("bearer"), "a header is in the log");
}

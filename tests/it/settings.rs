//! Settings from the outside: every mistake together, exit codes, and no secret anywhere.

use std::process::Output;

use tokio::process::Command;

use crate::support::authority::{mode, private};
use crate::support::{Binary, Upstream, ledger, order, payoutd, within};

async fn run(command: &mut Command) -> Output {
    within(command.output()).await.expect("ran")
}

fn words(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[tokio::test]
async fn every_bad_setting_is_reported_together_with_exit_64() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("payoutd.toml");
    let text = r#"
        [grpc]
        listen = "nowhere"
        reflection = "perhaps"
        speed = 9
        [admin]
        listen = 7
        [ledger]
        url = "mysql://u@h/db"
        [surprise]
        [[project]]
        pid = 0
        base_url = "http://pay.example"
        api_key = "canary-4711"
        api_key_file = "/no/such"
        timeout = "soon"
        [[project]]
        api_key_file = "/no/such"
    "#;
    private(&file, text);
    for command in ["serve", "check"] {
        let output = run(payoutd().args([command, "--config"]).arg(&file)).await;
        assert_eq!(output.status.code(), Some(64), "{command}");
        let words = words(&output);
        for place in [
            "grpc.listen: must be",
            "grpc.reflection: must be",
            "grpc.speed: unknown setting",
            "admin.listen: must be",
            "ledger.url: must be",
            "surprise: unknown setting",
            "project[0].pid: must be",
            "project[0].base_url: must be",
            "project[0].api_key: must not be given beside api_key_file",
            "project[0].timeout: must be",
            "project[1].pid: is required",
            "project[1].base_url: is required",
            "project[1].api_key_file: the file cannot be read",
        ] {
            assert!(words.contains(place), "{command}: {place} is missing in\n{words}");
        }
        assert_eq!(words.lines().count(), 13, "{words}");
        assert!(!words.contains("canary-4711"), "{words}");
    }
}

#[tokio::test]
async fn a_missing_file_and_bad_usage_are_64_and_help_is_0() {
    for (arguments, code) in [
        (&["serve", "--config", "/no/such.toml"][..], 64),
        (&["serve"], 64),
        (&["fly"], 64),
        (&["serve", "--speed"], 64),
        (&[], 64),
        (&["--help"], 0),
        (&["--version"], 0),
    ] {
        let output = run(payoutd().args(arguments)).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", words(&output));
    }
}

#[tokio::test]
async fn a_port_in_use_is_1_and_said_aloud() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut serve = payoutd();
    serve.arg("serve").current_dir(folder.path()).envs([
        ("PAYOUTD_GRPC__LISTEN", upstream.address.to_string()),
        ("PAYOUTD_PROJECT__PID", "1".to_owned()),
        ("PAYOUTD_PROJECT__BASE_URL", "http://127.0.0.1:9".to_owned()),
        ("PAYOUTD_PROJECT__API_KEY", "k".to_owned()),
    ]);
    let output = run(&mut serve).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("cannot listen on"), "{}", words(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_key_appears_in_no_output_at_trace_level() {
    const CANARY: &str = "canary7f3a9b2c5d8e1046";
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    private(&key, CANARY);
    let upstream = Upstream::start().await;
    // The sandbox knows another key: even the refusal must not show ours.
    let url = format!("http://{}", upstream.address);
    for by_file in [true, false] {
        let settings = if by_file {
            ("PAYOUTD_PROJECT__API_KEY_FILE", key.to_str().expect("utf-8"))
        } else {
            ("PAYOUTD_PROJECT__API_KEY", CANARY)
        };
        let mut check = payoutd();
        check.arg("check").current_dir(folder.path()).envs([
            ("PAYOUTD_PROJECT__PID", payoutd::sandbox::PID.to_string().as_str()),
            ("PAYOUTD_PROJECT__BASE_URL", &url),
            ("PAYOUTD_LOG__LEVEL", "trace"),
            settings,
        ]);
        let output = run(&mut check).await;
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        assert!(words(&output).contains("B0001 wrong API key"), "{}", words(&output));
        assert!(!words(&output).contains(CANARY));
    }

    // The tests' key, through everything that a served payout writes.
    let binary = Binary::start(upstream.address, &folder).await;
    let mut client = binary.client().await;
    client.create_payout(order("a")).await.expect("OK");
    upstream.fault(r#"{"then": "drop"}"#);
    client.create_payout(order("b")).await.expect("OK");
    upstream.fault(r#"{"code": "B0001"}"#);
    let status = client.create_payout(order("c")).await.expect_err("refused");
    assert!(!format!("{status:?}").contains(payoutd::sandbox::API_KEY));
    let log = std::fs::read_to_string(&binary.log).expect("a log");
    assert!(log.contains("\"state\":\"ACCEPTED\"") && log.contains("\"level\":\"DEBUG\""), "{log}");
    assert!(!log.contains(payoutd::sandbox::API_KEY), "the key is in the log");
    assert!(!log.contains(crate::support::ADDRESS), "a full address is in the log");
    assert!(!log.contains("sign"), "a signature is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_what_is_wrong_apart() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let check = || {
        let mut check = payoutd();
        check.arg("check").current_dir(folder.path()).envs([
            ("PAYOUTD_PROJECT__PID", payoutd::sandbox::PID.to_string()),
            ("PAYOUTD_PROJECT__BASE_URL", format!("http://{}", upstream.address)),
            ("PAYOUTD_PROJECT__API_KEY", payoutd::sandbox::API_KEY.to_owned()),
        ]);
        check
    };
    let good = run(&mut check()).await;
    assert_eq!(good.status.code(), Some(0), "{}", words(&good));
    // A header's date has no fractions: what is asked at the end of a second is answered in the next one.
    let clock = if words(&good).contains("the clock is 1 s off") { 1 } else { 0 };
    let clock = format!("the clock is {clock} s off");
    for part in ["ok    settings", "synchronous=FULL", &clock, "E0014"] {
        assert!(words(&good).contains(part), "{part} is missing in {}", words(&good));
    }
    let date = r#""headers": {"date": "Sun, 06 Nov 1994 08:49:37 GMT"}"#;
    for (fault, expected) in [
        (r#""code": "B0001""#, "B0001 wrong API key"),
        (r#""code": "E0001", "msg": "10.1.2.3""#, "E0001 this machine's egress IP"),
        (r#""code": "E0003""#, "E0003 the project does not exist or is disabled"),
        (date, "s off Cregis's: set it"),
        (r#""status": 502, "body": "<html>""#, "HTTP status 502 is not Cregis's envelope"),
        (r#""then": "drop""#, "no answer from Cregis"),
    ] {
        upstream.fault(&format!(r#"{{"on": "query", {fault}}}"#));
        let output = run(&mut check()).await;
        assert_eq!(output.status.code(), Some(1), "{fault}: {}", words(&output));
        assert!(words(&output).contains(expected), "{fault}: {}", words(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_should_know_is_said_at_the_start_and_by_check() {
    let upstream = Upstream::start().await;
    // A file system in memory.
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let binary = Binary::start(upstream.address, &folder).await;
    within(binary.client().await.create_payout(order("open"))).await.expect("OK");
    let quiet = std::fs::read_to_string(&binary.log).expect("a log");
    binary.kill().await;
    let settings = [
        ("PAYOUTD_PROJECT__PID", "4711"),
        ("PAYOUTD_GRPC__TRUST", "mesh"),
        ("PAYOUTD_GRPC__TRUSTED_PROXIES", "127.0.0.1,0.0.0.0/0"),
        ("PAYOUTD_OPERATOR__VOID_MIN_AGE", "1ms"),
    ];
    let binary = Binary::start_with(upstream.address, &folder, &settings).await;
    let log = std::fs::read_to_string(&binary.log).expect("a log");
    let log = &log[quiet.len()..];
    binary.kill().await;
    let mut check = payoutd();
    check.arg("check").envs(settings).envs([
        ("PAYOUTD_LEDGER__URL", format!("sqlite:{}", ledger(&folder).display())),
        ("PAYOUTD_PROJECT__BASE_URL", format!("http://{}", upstream.address)),
        ("PAYOUTD_PROJECT__API_KEY", "another".to_owned()),
    ]);
    let checked = words(&run(&mut check).await);
    let lies = "the ledger lies in memory (tmpfs)";
    for warning in [
        lies,
        "grpc.trusted_proxies contains 0.0.0.0/0, which is everybody",
        "operator.void_min_age is 1ms: a doubt may be voided",
        "project 1382528827416576 has 1 open payouts and is not in the settings",
    ] {
        let said = log.lines().find(|line| line.contains(warning)).expect(warning);
        assert!(said.contains("WARN"), "{said}");
        let line = checked.lines().find(|line| line.contains(warning)).expect(warning);
        assert!(line.starts_with("WARN"), "{line}");
        assert_eq!(quiet.contains(warning), warning == lies, "{warning}");
    }
}

/// `check` with this settings file, and what it says.
async fn checked(folder: &tempfile::TempDir, text: &str, bits: u32) -> (Option<i32>, String) {
    let file = folder.path().join("payoutd.toml");
    std::fs::write(&file, text).expect("written");
    mode(&file, bits);
    let mut check = payoutd();
    check.args(["check", "--config"]).arg(&file).current_dir(folder.path());
    let output = run(&mut check).await;
    (output.status.code(), words(&output))
}

/// A project, with `more` in it.
fn settings(more: &str) -> String {
    format!("[[project]]\npid = 1\nbase_url = \"http://127.0.0.1:9\"\n{more}\n")
}

#[tokio::test]
async fn a_secret_in_a_settings_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    private(&folder.path().join("key"), "canary-4711");
    let database = "[ledger]\nurl = \"postgres://u@127.0.0.1:9/db\"\npassword = \"canary-4711\"\n";
    let key = settings("api_key_file = \"key\"");
    for (text, place) in [
        (settings("api_key = \"canary-4711\""), "project.api_key"),
        (format!("{database}{key}"), "ledger.password"),
    ] {
        for (bits, good) in [(0o600, true), (0o440, true), (0o644, false), (0o604, false)] {
            let (code, words) = checked(&folder, &text, bits).await;
            let refused = format!("payoutd: {place}: the settings file is readable by everybody");
            assert_eq!(words.contains(&refused), !good, "{bits:o}: {words}");
            assert_eq!(code, Some(if good { 1 } else { 64 }), "{bits:o}: {words}");
            assert!(!words.contains("canary"), "{words}");
        }
    }
    let (code, words) = checked(&folder, &key, 0o644).await;
    assert_eq!(code, Some(1), "a file without a secret may be read: {words}");
}

#[tokio::test]
async fn a_key_that_is_no_small_ordinary_file_or_has_control_characters_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    private(&path("large"), &"k".repeat(100_000));
    private(&path("nul"), "canary\0key");
    private(&path("escape"), "canary\u{1b}key");
    std::fs::create_dir(path("folder")).expect("made");
    mode(&path("folder"), 0o700);
    rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RUSR).expect("made");
    for (name, what) in [
        ("large", "the file is larger than 64 KiB"),
        ("nul", "must not hold control characters"),
        ("escape", "must not hold control characters"),
        ("folder", "is no ordinary file"),
        ("pipe", "is no ordinary file"),
        ("/dev/zero", "is no ordinary file"),
    ] {
        let text = settings(&format!("api_key_file = \"{name}\""));
        let (code, words) = checked(&folder, &text, 0o600).await;
        let expected = format!("payoutd: project.api_key_file: {what}");
        assert!(words.contains(&expected), "{name}: {words}");
        assert_eq!(code, Some(64), "{name}");
        assert!(!words.contains("canary"), "{words}");
    }
    let inline = settings(r#"api_key = "canary\u0007key""#);
    let (code, words) = checked(&folder, &inline, 0o600).await;
    assert!(
        words.contains("payoutd: project.api_key: must not hold control characters"),
        "{words}"
    );
    assert_eq!(code, Some(64));
}

#[tokio::test]
async fn a_path_with_a_nul_is_a_bad_setting() {
    let folder = tempfile::tempdir().expect("a folder");
    for (place, lines) in [
        ("ledger.url", r#"url = "sqlite:a\u0000b""#),
        ("ledger.witness", r#"witness = "a\u0000b""#),
    ] {
        let text = format!("[ledger]\n{lines}\n{}", settings("api_key = \"k\""));
        let (code, words) = checked(&folder, &text, 0o600).await;
        assert_eq!(code, Some(64), "{words}");
        assert!(words.contains(&format!("payoutd: {place}: must")), "{words}");
    }
    let text = settings(r#"api_key_file = "a\u0000b""#);
    let (code, words) = checked(&folder, &text, 0o600).await;
    assert_eq!(code, Some(64), "{words}");
}

/// Keys are in its memory: nobody else of its user reads that, and no core is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_leaves_no_core_and_is_not_read_by_others() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let mut serve = tokio::process::Command::new("/bin/sh");
    serve.env_clear().kill_on_drop(true).stdin(std::process::Stdio::null());
    // As nobody, where we may: what cannot be read is root's then, and not its own.
    let root = rustix::process::geteuid().is_root();
    let become_nobody = if root { "setpriv --reuid=65534 --clear-groups " } else { "" };
    mode(folder.path(), 0o777);
    serve.env("PATH", "/usr/bin:/bin");
    serve.args([
        "-c",
        &format!("ulimit -c unlimited 2>/dev/null; exec {become_nobody}\"$0\" serve"),
    ]);
    serve.arg(payoutd().as_std().get_program());
    let binary = Binary::start_as(&mut serve, upstream.address, &folder, &[]).await;
    let limits = std::fs::read_to_string(binary.proc().join("limits")).expect("limits");
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    assert_eq!(cores.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    if root {
        use std::os::unix::fs::MetadataExt;
        let environment = std::fs::metadata(binary.proc().join("environ")).expect("there");
        assert_eq!(environment.uid(), 0, "its memory is its own user's to read");
    }
}

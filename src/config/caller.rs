//! `[[caller]]`: who may call, and within which limits.

use std::num::NonZeroU32;

use toml::{Table, Value};

use super::count;
use super::reader::{Mistakes, Section, boolean, integer, tables, text};
use crate::caller::{Role, TokenHash};
use crate::policy::Limit;

/// The most tokens of one caller: the old one, the new one, and room for a mistake.
const TOKENS_MAX: usize = 4;

/// One `[[caller]]`.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `[a-z0-9-]{1,32}`; kept with its payouts.
    pub name: String,
    /// Names in its certificates, exactly as they stand there: `spiffe://...` or a DNS name.
    pub identities: Vec<String>,
    /// `token_sha256`: hashes of its bearer tokens; each of them is valid.
    pub tokens: Vec<TokenHash>,
    /// What it may do; at least one.
    pub roles: Vec<Role>,
    /// The projects it may use; empty: all.
    pub projects: Vec<i64>,
    /// Whether other callers' payouts do not exist for it, default false.
    pub own_payouts_only: bool,
    /// `CreatePayout` calls that may wait at once; default any number, up to `grpc.max_calls`.
    pub max_calls: Option<usize>,
    /// `CreatePayout` calls in a minute, repeats included; default any number.
    pub creates_per_minute: Option<NonZeroU32>,
    /// The only recipients; empty: any.
    pub allow_addresses: Vec<String>,
    /// Whether limits and recipients are only reported on, default false.
    pub report_only: bool,
    /// `[[caller.limit]]`: where there are any, all other currencies are refused.
    pub limits: Vec<Limit>,
}

impl Caller {
    /// Reads all callers; `projects` are the numbers of all projects.
    pub(super) fn read_all(
        value: Option<Value>,
        projects: &[i64],
        mistakes: &mut Mistakes,
    ) -> Vec<Self> {
        let mut callers: Vec<Self> = Vec::new();
        for (path, table) in tables(value, "caller", "caller", mistakes) {
            let Some(caller) = Self::read(table, &path, mistakes) else { continue };
            if caller.projects.iter().any(|pid| !projects.contains(pid)) {
                mistakes.add(format_args!("{path}.projects"), "must each be a [[project]], too");
            }
            let mut shared = |name: &str, is_shared: &dyn Fn(&Self) -> bool| {
                if callers.iter().any(is_shared) {
                    mistakes.add(format_args!("{path}.{name}"), "belongs to another caller, too");
                }
            };
            shared("name", &|other| other.name == caller.name);
            shared("identities", &|other| meet(&other.identities, &caller.identities));
            shared("token_sha256", &|other| meet(&other.tokens, &caller.tokens));
            callers.push(caller);
        }
        callers
    }

    fn read(table: Table, path: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let provable = table.contains_key("identities") || table.contains_key("token_sha256");
        let mut section = Section::new(table, path, mistakes);
        if !provable {
            section.mistake("identities", "is required (or token_sha256)");
        }
        let name = section.require("name", name);
        let roles = section.require("roles", |value| {
            list(value, "a list of create, read, operate", |item| Role::parse(item.as_str()?))
        });
        let limits = section.optional("limit", |value| Ok(value.clone()));
        let caller = Self {
            name: name.unwrap_or_default(),
            identities: section.get("identities", vec![], |value| {
                list(value, "a list of names such as \"billing.internal\", not empty", word)
            }),
            tokens: section.get("token_sha256", vec![], token_hashes),
            roles: roles.unwrap_or_default(),
            projects: section.get("projects", vec![], projects),
            own_payouts_only: section.get("own_payouts_only", false, boolean),
            max_calls: section.optional("max_calls", count),
            creates_per_minute: section.optional("creates_per_minute", rate),
            allow_addresses: section.get("allow_addresses", vec![], |value| {
                list(value, "a list of addresses, not empty", word)
            }),
            report_only: section.get("report_only", false, boolean),
            limits: vec![],
        };
        section.end();
        let limits = Limit::read_all(limits, &format!("{path}.limit"), mistakes);
        (!caller.name.is_empty()).then_some(Self { limits, ..caller })
    }
}

// === kinds of values ===

/// What `parse` makes of each item of a list that is not empty.
fn list<T>(
    value: &Value,
    must: &'static str,
    parse: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<T>, &'static str> {
    let items = value.as_array().filter(|items| !items.is_empty()).ok_or(must)?;
    items.iter().map(parse).collect::<Option<Vec<T>>>().ok_or(must)
}

fn name(value: &Value) -> Result<String, &'static str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let text = text(value)?;
    let good = matches!(text.len(), 1..=32) && text.bytes().all(fits);
    if good { Ok(text) } else { Err("1 to 32 of a-z, 0-9 and -") }
}

fn word(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
}

fn token_hashes(value: &Value) -> Result<Vec<TokenHash>, &'static str> {
    let must = "a list of 1 to 4 SHA-256 hashes in hexadecimal; `payoutd token` makes one";
    let hashes = list(value, must, |item| TokenHash::parse(item.as_str()?))?;
    // What hashing an unset variable gives.
    let empty = hashes.contains(&TokenHash::of(b""));
    if hashes.len() > TOKENS_MAX || empty { Err(must) } else { Ok(hashes) }
}

fn projects(value: &Value) -> Result<Vec<i64>, &'static str> {
    match value.as_array() {
        Some(none) if none.is_empty() => Ok(vec![]),
        Some(_) | None => list(value, "a list of project numbers", integer),
    }
}

fn rate(value: &Value) -> Result<NonZeroU32, &'static str> {
    let rate = u32::try_from(count(value)?).ok();
    rate.and_then(NonZeroU32::new).ok_or("an integer from 1 to 1000000")
}

fn meet<T: PartialEq>(some: &[T], others: &[T]) -> bool {
    some.iter().any(|one| others.contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::ROLES;

    const HASH: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

    fn read(text: &str) -> Result<Vec<Caller>, Vec<String>> {
        let mut root: Table = text.parse().expect("TOML");
        let mut mistakes = Mistakes::default();
        let callers = Caller::read_all(root.remove("caller"), &[7, 8], &mut mistakes);
        if mistakes.0.is_empty() { Ok(callers) } else { Err(mistakes.0) }
    }

    fn with(lines: &str) -> String {
        let good = "[[caller]]\nname = \"a\"\nidentities = [\"a.internal\"]\nroles = [\"read\"]\n";
        let name = |line: &str| line.split(" =").next().unwrap_or_default().to_owned();
        let given: Vec<_> = lines.lines().map(name).collect();
        let kept = good.lines().filter(|line| !given.contains(&name(line)));
        kept.chain(lines.lines()).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn everything_can_be_said_and_most_of_it_left_out() {
        let callers = read(&with("")).expect("good");
        let [least] = callers.as_slice() else { panic!("one") };
        assert_eq!((least.name.as_str(), least.roles.as_slice()), ("a", &[Role::Read][..]));
        assert!(least.projects.is_empty() && least.limits.is_empty() && !least.own_payouts_only);
        assert!(least.max_calls.is_none() && least.creates_per_minute.is_none());
        let text = format!(
            "[[caller]]\nname = \"team-7\"\ntoken_sha256 = [\"{HASH}\", \"{}\"]\n\
             roles = [\"create\", \"read\", \"operate\"]\nprojects = [8, 7]\nown_payouts_only = true\n\
             max_calls = 3\ncreates_per_minute = 60\nallow_addresses = [\"T1\", \"T2\"]\n\
             report_only = true\n[[caller.limit]]\ncurrency = \"195@195\"\nper_payout = \"1.50\"\n\
             [[caller.limit]]\ncurrency = \"60@60\"\nper_day = \"{}\"\n{}",
            "0".repeat(64),
            "9".repeat(36),
            with("projects = []")
        );
        let callers = read(&text).expect("good");
        let [all, other] = callers.as_slice() else { panic!("two") };
        assert_eq!(
            all.tokens,
            [TokenHash::of(b"foo"), TokenHash::parse(&"0".repeat(64)).expect("hex")]
        );
        assert_eq!((all.roles.as_slice(), all.projects.as_slice()), (&ROLES[..], &[8, 7][..]));
        assert_eq!(
            (all.max_calls, all.creates_per_minute.map(NonZeroU32::get)),
            (Some(3), Some(60))
        );
        assert!(all.own_payouts_only && all.report_only && other.projects.is_empty());
        assert_eq!((all.allow_addresses.len(), all.limits.len()), (2, 2));
        let per_payout = all.limits[0].per_payout.as_ref().expect("set");
        assert_eq!((per_payout.as_str(), &all.limits[1].per_payout), ("1.5", &None));
        assert!(!format!("{all:?}").contains("2c26"), "a hash is shown");
    }

    /// What makes a caller wrong, and how it is reported.
    const BAD: &[(&str, &str)] = &[
        ("name = \"A\"", "caller.name: must be 1 to 32"),
        ("name = \"\"", "caller.name: must be 1 to 32"),
        ("name = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", "caller.name: must be 1 to 32"),
        ("identities = []", "caller.identities: must be a list of names"),
        ("identities = [\"a b\"]", "caller.identities: must be a list of names"),
        ("identities = \"a\"", "caller.identities: must be a list of names"),
        ("token_sha256 = []", "caller.token_sha256: must be a list of 1 to 4"),
        ("token_sha256 = [\"canary\"]", "caller.token_sha256: must be a list of 1 to 4"),
        // The hash of nothing.
        (
            "token_sha256 = [\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]",
            "caller.token_sha256: must be a list of 1 to 4",
        ),
        ("roles = []", "caller.roles: must be a list of create, read, operate"),
        ("roles = [\"admin\"]", "caller.roles: must be a list of create, read, operate"),
        ("projects = [9]", "caller.projects: must each be a [[project]], too"),
        ("projects = [\"x\"]", "caller.projects: must be a list of project numbers"),
        ("own_payouts_only = 1", "caller.own_payouts_only: must be true or false"),
        ("max_calls = 0", "caller.max_calls: must be an integer from 1"),
        ("creates_per_minute = 0", "caller.creates_per_minute: must be an integer from 1"),
        ("allow_addresses = []", "caller.allow_addresses: must be a list of addresses"),
        ("report_only = \"\"", "caller.report_only: must be true or false"),
        ("limit = 1", "caller.limit: must be written [[caller.limit]]"),
        ("speed = \"canary\"", "caller.speed: unknown setting"),
        ("[[caller.limit]]\nper_day = \"1\"", "caller.limit.currency: is required"),
        ("[[caller.limit]]\ncurrency = \"TRX\"\nper_day = \"1\"", "caller.limit.currency: must be"),
        (
            "[[caller.limit]]\ncurrency = \"1@1\"",
            "caller.limit.per_day: is required (or per_payout)",
        ),
        (
            "[[caller.limit]]\ncurrency = \"1@1\"\nper_day = 1.5",
            "caller.limit.per_day: must be a text",
        ),
        (
            "[[caller.limit]]\ncurrency = \"1@1\"\nper_payout = \"-1\"",
            "caller.limit.per_payout: must be a decimal text above 0",
        ),
        (
            "[[caller.limit]]\ncurrency = \"1@1\"\nper_day = \"1\"\nper_year = \"1\"",
            "caller.limit.per_year: unknown setting",
        ),
        (
            "[[caller.limit]]\ncurrency = \"1@1\"\nper_day = \"1\"\n\
             [[caller.limit]]\ncurrency = \"1@1\"\nper_day = \"2\"",
            "caller.limit[1].currency: stands twice",
        ),
    ];

    #[test]
    fn every_mistake_is_reported_and_all_of_them_together() {
        for (lines, expected) in BAD {
            let alone = read(&with(lines)).expect_err(lines);
            assert_eq!(alone.len(), 1, "{lines}: {alone:?}");
            assert!(alone[0].starts_with(expected), "{lines}: {alone:?}");
        }
        let all: String = BAD.iter().map(|(lines, _)| with(lines)).collect();
        let together = read(&all).expect_err("all wrong");
        for (number, (lines, expected)) in BAD.iter().enumerate() {
            let expected = expected.replacen("caller", &format!("caller[{number}]"), 1);
            let found = together.iter().any(|mistake| mistake.starts_with(&expected));
            assert!(found, "{lines}: {expected} is missing in {together:#?}");
        }
        assert!(!together.concat().contains("canary"), "a value is shown");
    }

    #[test]
    fn nothing_that_tells_callers_apart_may_belong_to_two() {
        let by_token = format!("name = \"b\"\nidentities = [\"b\"]\ntoken_sha256 = [\"{HASH}\"]");
        let upper = format!("name = \"c\"\ntoken_sha256 = [\"{}\"]", HASH.to_uppercase());
        let all = [
            with(""),
            with("identities = [\"x\"]"),
            with("name = \"d\""),
            with(&by_token),
            with(&upper),
        ];
        let mut mistakes = read(&all.concat()).expect_err("shared");
        mistakes.sort();
        let twice = |place: &str| format!("{place}: belongs to another caller, too");
        let expected = [
            "caller[1].name",
            "caller[2].identities",
            "caller[4].identities",
            "caller[4].token_sha256",
        ];
        assert_eq!(mistakes, expected.map(twice));
        assert!(!mistakes.concat().to_lowercase().contains(HASH), "a hash is shown");
        let nothing = "[[caller]]\n";
        let missing = [
            "identities: is required (or token_sha256)",
            "name: is required",
            "roles: is required",
        ];
        assert_eq!(read(nothing).expect_err("nothing"), missing.map(|m| format!("caller.{m}")));
        assert_eq!(
            read("caller = 1").expect_err("no list"),
            ["caller: must be written [[caller]]"]
        );
    }
}

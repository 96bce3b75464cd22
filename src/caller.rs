//! Who calls, how that is proven, and what they may do.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::config;
use crate::policy::Terms;

/// What a caller may do. None of them includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Have payouts made.
    Create,
    /// Look at payouts.
    Read,
    /// Settle doubts, pause and resume.
    Operate,
}

/// All roles.
pub const ROLES: [Role; 3] = [Role::Create, Role::Read, Role::Operate];

impl Role {
    /// The name in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }

    /// The role with this name.
    pub fn parse(name: &str) -> Option<Self> {
        ROLES.into_iter().find(|role| role.as_str() == name)
    }
}

/// The SHA-256 of a bearer token. It is not shown: whoever has it can tell a right guess.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of `token`, as it stands in the header.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok().map(|()| Self(hash))
    }

    /// 64 hexadecimal digits, for the settings and for nothing else.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// A new random token of 256 bits, as text.
///
/// # Errors
/// Where the system has no randomness to give.
pub fn new_token() -> Result<String, getrandom::Error> {
    let mut token = [0; 32];
    getrandom::fill(&mut token)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(token))
}

/// Somebody who calls.
#[derive(Debug)]
pub struct Caller {
    terms: Arc<Terms>,
    roles: Vec<Role>,
    /// One permit per `CreatePayout` call that may wait.
    calls: Semaphore,
    rate: Option<DefaultDirectRateLimiter>,
    /// One permit per page that it may be sent at once.
    lists: Arc<Semaphore>,
}

/// Pages that one of several callers may be sent at once.
const LISTS_MAX: usize = 8;

/// Why a caller's `CreatePayout` must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Too many of its calls are waiting.
    Calls,
    /// Too many have come; the next is welcome after this time.
    Rate(Duration),
}

impl Caller {
    /// Whoever may do everything.
    fn trusted() -> Arc<Self> {
        let (terms, roles) = (Terms::open(), ROLES.to_vec());
        let [calls, lists] = [Semaphore::MAX_PERMITS; 2].map(Semaphore::new);
        Arc::new(Self { terms, roles, calls, rate: None, lists: Arc::new(lists) })
    }

    fn new(settings: &config::Caller) -> Arc<Self> {
        let terms = Terms {
            caller: settings.name.clone(),
            projects: settings.projects.clone(),
            own_payouts_only: settings.own_payouts_only,
            limits: settings.limits.clone(),
            addresses: settings.allow_addresses.clone(),
            report_only: settings.report_only,
        };
        let rate =
            settings.creates_per_minute.map(|rate| RateLimiter::direct(Quota::per_minute(rate)));
        Arc::new(Self {
            terms: Arc::new(terms),
            roles: settings.roles.clone(),
            calls: Semaphore::new(settings.max_calls.unwrap_or(Semaphore::MAX_PERMITS)),
            rate,
            lists: Arc::new(Semaphore::new(LISTS_MAX)),
        })
    }

    /// Its name; empty for whoever is not told from others.
    pub fn name(&self) -> &str {
        &self.terms.caller
    }

    /// What it may have paid, and see.
    pub fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// Whether it has the role.
    pub fn is(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// A place for one more `CreatePayout` call of this caller's.
    ///
    /// # Errors
    /// Where it must wait. Others are not concerned.
    pub fn admit(&self) -> Result<SemaphorePermit<'_>, Over> {
        let place = self.calls.try_acquire().map_err(|_| Over::Calls)?;
        if let Some(Err(until)) = self.rate.as_ref().map(|rate| rate.check()) {
            return Err(Over::Rate(until.wait_time_from(DefaultClock::default().now())));
        }
        Ok(place)
    }

    /// A place for one more page of this caller's; none where it has not taken those before.
    pub fn admit_list(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.lists).try_acquire_owned().ok()
    }
}

/// What stands in a request's `authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nothing.
    None,
    /// `Bearer` and this token.
    Token(&'a [u8]),
    /// Something else, or more than one.
    Malformed,
}

impl<'a> Credential<'a> {
    /// Reads all values of the header.
    pub fn read(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::None,
            (Some(only), None) => Self::bearer(only).map_or(Self::Malformed, Self::Token),
            (Some(_), Some(_)) => Self::Malformed,
        }
    }

    fn bearer(value: &'a [u8]) -> Option<&'a [u8]> {
        let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
        let visible = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
        (scheme.eq_ignore_ascii_case(b"Bearer ") && visible).then_some(token)
    }
}

/// Everybody who may call.
#[derive(Debug)]
pub enum Callers {
    /// Anybody, with every right: where nobody is told from others.
    Anybody(Arc<Caller>),
    /// Whoever's name the transport has proven, with every right.
    Proven(Arc<Caller>),
    /// Those of the settings.
    Listed {
        /// By a name that the transport proves.
        names: HashMap<String, Arc<Caller>>,
        /// By the hash of a token.
        tokens: Vec<(TokenHash, Arc<Caller>)>,
    },
}

impl Callers {
    /// The callers of the settings. Where there are none, `proven` tells whether the transport
    /// proves names, so that one is needed.
    pub fn new(settings: &[config::Caller], proven: bool) -> Self {
        if settings.is_empty() {
            let trusted = Caller::trusted();
            return if proven { Self::Proven(trusted) } else { Self::Anybody(trusted) };
        }
        let (mut names, mut tokens) = (HashMap::new(), Vec::new());
        for settings in settings {
            let caller = Caller::new(settings);
            let own_names = settings.identities.iter().cloned();
            names.extend(own_names.map(|name| (name, Arc::clone(&caller))));
            tokens.extend(settings.tokens.iter().map(|hash| (*hash, Arc::clone(&caller))));
        }
        Self::Listed { names, tokens }
    }

    /// Who calls with this credential, or else with these proven names; None where that is nobody
    /// known. Where callers are listed, a credential decides: names do not make up for a bad one.
    pub fn identify(&self, credential: Credential<'_>, proven: &[String]) -> Option<&Arc<Caller>> {
        match self {
            Self::Anybody(caller) => Some(caller),
            Self::Proven(caller) => (!proven.is_empty()).then_some(caller),
            Self::Listed { names, tokens } => match credential {
                Credential::Malformed => None,
                Credential::Token(token) => bearing(tokens, token),
                Credential::None => {
                    let mut found = proven.iter().filter_map(|name| names.get(name));
                    let first = found.next()?;
                    // One certificate that names two callers names neither.
                    found.all(|other| Arc::ptr_eq(first, other)).then_some(first)
                }
            },
        }
    }
}

/// Compares with every hash, in constant time.
fn bearing<'a>(tokens: &'a [(TokenHash, Arc<Caller>)], token: &[u8]) -> Option<&'a Arc<Caller>> {
    let hash = TokenHash::of(token);
    let mut found = None;
    for (known, caller) in tokens {
        if known.0.ct_eq(&hash.0).into() {
            found = Some(caller);
        }
    }
    found
}

//! What a text is as an address: one function for each kind of chain, by the rules of its own libraries.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bech32::Fe32;
use bech32::primitives::iter::{ByteIterExt, Fe32IterExt};
use blake2::Blake2b;
use blake2::digest::consts::U4;
use crc::{CRC_16_XMODEM, Crc};
use data_encoding::BASE32_NOPAD;
use sha3::{Digest, Keccak256};

use crate::coin::Chain;

/// What an address stands for; equal for all spellings of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Tells apart what the same bytes can stand for on the chain: a version, a protocol, a workchain.
    pub(super) kind: u8,
    /// The key, hash or number.
    pub(super) body: Vec<u8>,
}

/// What a text is as an address of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// An address in a form that is taken.
    Taken(Account),
    /// This account in a form that is not taken, and why not.
    Account(Account, &'static str),
    /// No address of the chain's main network, and why not.
    Wrong(&'static str),
    /// Nothing is known about addresses of the chain.
    Unchecked,
}

/// No form is longer than what an order may have, except MWEB, which is not taken.
const LONGEST: usize = 128;

const WRONG: &str = "is not an address of this chain: form or checksum is wrong";
const TEST: &str = "is an address of a test network: give one of the main network";

/// Reads `address` as one of `chain`.
pub(super) fn read(chain: Chain, address: &str) -> Reading {
    if address.len() > LONGEST {
        return if chain == Chain::Other { Reading::Unchecked } else { Reading::Wrong(WRONG) };
    }
    let reading = match chain {
        Chain::Bitcoin { versions, hrp } => bitcoin(address, versions, hrp),
        Chain::BitcoinCash => bitcoin_cash(address),
        Chain::Evm => evm(address),
        Chain::Xrp => xrp(address),
        Chain::Tron => tron(address),
        Chain::Solana => match bs58::decode(address).into_vec() {
            Ok(key) if key.len() == 32 => taken(0, &key),
            Ok(_) | Err(_) => Reading::Wrong(WRONG),
        },
        Chain::Ton => ton(address),
        Chain::Filecoin => filecoin(address),
        Chain::Sui => sui(address),
        Chain::Other => Reading::Unchecked,
    };
    match reading {
        Reading::Wrong(WRONG) if is_uri(address) => {
            Reading::Wrong("is a URI: give only the address that is in it")
        }
        Reading::Taken(_) | Reading::Account(..) | Reading::Wrong(_) | Reading::Unchecked => {
            reading
        }
    }
}

fn taken(kind: u8, body: &[u8]) -> Reading {
    Reading::Taken(account(kind, body))
}

fn account(kind: u8, body: &[u8]) -> Account {
    Account { kind, body: body.to_vec() }
}

/// Such as `bitcoin:1A1z...?amount=1`. Raw TON has a number before its colon, CashAddr its prefix.
fn is_uri(address: &str) -> bool {
    address.split_once(':').is_some_and(|(scheme, rest)| {
        let cash_addr = scheme.eq_ignore_ascii_case("bitcoincash") && !rest.contains('?');
        let named = scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphabetic());
        named && !cash_addr
    })
}

/// Exactly `count` hex digits, as bytes.
fn hex_bytes(digits: &str, count: usize) -> Option<Vec<u8>> {
    (digits.len() == count).then(|| hex::decode(digits).ok()).flatten()
}

/// The version and the hash of Base58Check with 20 bytes.
fn base58_check(address: &str) -> Option<(u8, Vec<u8>)> {
    let decoded = bs58::decode(address).with_check(None).into_vec().ok()?;
    let (version, hash) = decoded.split_first()?;
    (hash.len() == 20).then(|| (*version, hash.to_vec()))
}

// === Bitcoin and its kin ===

/// Litecoin's script addresses have a version of their own, and the one that Bitcoin has.
const SCRIPT: u8 = 0x05;
const LITECOIN_SCRIPT: u8 = 0x32;
/// Keys and scripts on the test networks of Bitcoin, Litecoin and Dogecoin.
const TEST_VERSIONS: [u8; 4] = [0x6f, 0xc4, 0x3a, 0x71];
const TEST_PREFIXES: [&str; 4] = ["tb", "bcrt", "tltc", "rltc"];
/// Set in the kind of an account whose address is Segwit; below it is the version.
const SEGWIT: u8 = 0x80;

fn bitcoin(address: &str, versions: &[u8], hrp: &str) -> Reading {
    if let Some((version, hash)) = base58_check(address) {
        return match version {
            SCRIPT if versions.contains(&LITECOIN_SCRIPT) => taken(LITECOIN_SCRIPT, &hash),
            version if versions.contains(&version) => taken(version, &hash),
            version if TEST_VERSIONS.contains(&version) => Reading::Wrong(TEST),
            _ => Reading::Wrong(WRONG),
        };
    }
    let lower = address.to_ascii_lowercase();
    if hrp == "ltc" && lower.starts_with("ltcmweb1") {
        return Reading::Wrong("is an MWEB address: give one that begins with L, M or ltc1");
    }
    let Ok((found, version, program)) = bech32::segwit::decode(&lower) else {
        return Reading::Wrong(WRONG);
    };
    let version = version.to_u8();
    match found.as_str() {
        found if TEST_PREFIXES.contains(&found) => Reading::Wrong(TEST),
        found if hrp.is_empty() || found != hrp => Reading::Wrong(WRONG),
        _ if !matches!((version, program.len()), (0, 20 | 32) | (1, 32)) => Reading::Wrong(
            "is a Segwit address that has no owner: give version 0 with 20 or 32 bytes, or version 1 \
             with 32",
        ),
        _ if in_one_case(address) => taken(SEGWIT | version, &program),
        _ => Reading::Account(account(SEGWIT | version, &program), WRONG),
    }
}

fn in_one_case(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_lowercase())
        || !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

// === Bitcoin Cash ===

/// To a key, and to a script; with and without tokens it is the same owner.
const CASH_KEY: u8 = 0;
const CASH_SCRIPT: u8 = 1;
const BITPAY: &str = "is BitPay's form: give CashAddr, or the form 1... or 3...";

fn bitcoin_cash(address: &str) -> Reading {
    match base58_check(address) {
        Some((0x00, hash)) => return taken(CASH_KEY, &hash),
        Some((0x05, hash)) => return taken(CASH_SCRIPT, &hash),
        Some((0x1c, hash)) => return Reading::Account(account(CASH_KEY, &hash), BITPAY),
        Some((0x28, hash)) => return Reading::Account(account(CASH_SCRIPT, &hash), BITPAY),
        Some((0x6f | 0xc4, _)) => return Reading::Wrong(TEST),
        Some(_) | None => {}
    }
    let lower = address.to_ascii_lowercase();
    let (prefix, payload) = lower.split_once(':').unwrap_or(("", &lower));
    let owner = match prefix {
        "" => cash_addr("bitcoincash", payload),
        prefix => cash_addr(prefix, payload),
    };
    let Some((kind, hash)) = owner else {
        let of_a_test = |prefix| cash_addr(prefix, payload).is_some();
        let test = prefix.is_empty() && ["bchtest", "bchreg"].into_iter().any(of_a_test);
        return Reading::Wrong(if test { TEST } else { WRONG });
    };
    let found = account(kind, &hash);
    match prefix {
        "bchtest" | "bchreg" => Reading::Wrong(TEST),
        "" | "bitcoincash" if !in_one_case(address) => Reading::Account(found, WRONG),
        "" if address != lower => Reading::Account(
            found,
            "is CashAddr in upper case without its prefix: give it in lower case, or with BITCOINCASH:",
        ),
        "" | "bitcoincash" if hash.len() != 20 => Reading::Account(
            found,
            "is a script address of 32 bytes, which is not taken: give a CashAddr of 20 bytes, which \
             has 42 characters behind the prefix, or the form 1... or 3...",
        ),
        "" | "bitcoincash" => Reading::Taken(found),
        _ => Reading::Wrong(WRONG),
    }
}

/// CashAddr: the BCH code of its specification over the prefix and all symbols comes to zero. Returns
/// kind and hash.
fn cash_addr(prefix: &str, payload: &str) -> Option<(u8, Vec<u8>)> {
    const GENERATOR: [u64; 5] =
        [0x98_f2bc_8e61, 0x79_b76d_99e2, 0xf3_3e5f_b3c4, 0xae_2eab_e2a8, 0x1e_4f43_e470];
    const CHECKSUM: usize = 8;
    let symbols: Vec<Fe32> = payload.chars().map(Fe32::from_char).collect::<Result<_, _>>().ok()?;
    let prefix = prefix.bytes().map(|byte| u64::from(byte & 0x1f));
    let values = symbols.iter().map(|symbol| u64::from(symbol.to_u8()));
    let check = prefix.chain([0]).chain(values).fold(1u64, |check, symbol| {
        let top = check >> 35;
        let next = ((check & 0x07_ffff_ffff) << 5) ^ symbol;
        (0..5).filter(|bit| top >> bit & 1 == 1).fold(next, |next, bit| next ^ GENERATOR[bit])
    });
    let data = &symbols[..symbols.len().checked_sub(CHECKSUM)?];
    let bytes: Vec<u8> = data.iter().copied().fes_to_bytes().collect();
    // What does not fill a byte must be zero.
    let whole = bytes.iter().copied().bytes_to_fes().eq(data.iter().copied());
    let (version, hash) = bytes.split_first()?;
    let kind = match (version, hash.len()) {
        (0x00 | 0x10, 20) => CASH_KEY,
        (0x08 | 0x18, 20) | (0x0b | 0x1b, 32) => CASH_SCRIPT,
        _ => return None,
    };
    (check == 1 && whole).then(|| (kind, hash.to_vec()))
}

// === Ethereum and its kin ===

fn evm(address: &str) -> Reading {
    if address.starts_with("XE") {
        return Reading::Wrong("is in ICAP form: give the address that begins with 0x");
    }
    let digits = address.strip_prefix("0x").or_else(|| address.strip_prefix("0X"));
    let digits = digits.unwrap_or(address);
    let Some(body) = hex_bytes(digits, 40) else { return Reading::Wrong(WRONG) };
    if !checks_by_eip55(digits) {
        // The same account all the same, where Cregis spells it.
        Reading::Account(account(0, &body), WRONG)
    } else if address.starts_with("0x") {
        taken(0, &body)
    } else {
        Reading::Account(account(0, &body), "must begin with 0x, in lower case")
    }
}

/// Mixed case must be the checksum of EIP-55; one case throughout carries none.
fn checks_by_eip55(digits: &str) -> bool {
    if in_one_case(digits) {
        return true;
    }
    let hash = hex::encode(Keccak256::digest(digits.to_ascii_lowercase()));
    digits.bytes().zip(hash.bytes()).all(|(digit, nibble)| {
        digit.is_ascii_digit() || digit.is_ascii_uppercase() == (nibble >= b'8')
    })
}

// === XRP Ledger ===

fn xrp(address: &str) -> Reading {
    let decoded = bs58::decode(address).with_alphabet(bs58::Alphabet::RIPPLE).with_check(None);
    match decoded.into_vec().as_deref() {
        Ok([0, id @ ..]) if id.len() == 20 => taken(0, id),
        Ok([0x05, 0x44, rest @ ..]) if rest.len() == 29 => {
            Reading::Wrong("is an X-address: give it as classic address and memo, which is its tag")
        }
        Ok([0x04, 0x93, rest @ ..]) if rest.len() == 29 => Reading::Wrong(TEST),
        Ok(_) | Err(_) => Reading::Wrong(WRONG),
    }
}

// === TRON ===

fn tron(address: &str) -> Reading {
    match base58_check(address) {
        Some((0x41, id)) => return taken(0x41, &id),
        Some((0xa0, _)) => return Reading::Wrong(TEST),
        Some(_) | None => {}
    }
    let digits = address.strip_prefix("0x").unwrap_or(address);
    match hex_bytes(digits, 42).as_deref() {
        Some([0x41, id @ ..]) => Reading::Account(
            account(0x41, id),
            "is TRON's hex form: give the Base58 form that begins with T",
        ),
        Some(_) | None => Reading::Wrong(WRONG),
    }
}

// === TON ===

/// In the first byte of a friendly form: asks for a bounce, asks for none, and is for test networks.
const BOUNCEABLE: u8 = 0x11;
const UNBOUNCEABLE: u8 = 0x51;
const TEST_ONLY: u8 = 0x80;
/// The workchains that run, as a byte: 0 and -1.
const WORKCHAINS: [u8; 2] = [0, 0xff];

/// Raw `workchain:hex`, or 36 bytes of Base64 (either alphabet) that end in their CRC-16.
fn ton(address: &str) -> Reading {
    if let Some((workchain, hash)) = address.split_once(':') {
        return match (workchain, hex_bytes(hash, 64)) {
            ("0", Some(hash)) => taken(WORKCHAINS[0], &hash),
            ("-1", Some(hash)) => taken(WORKCHAINS[1], &hash),
            (_, Some(_)) if workchain.parse::<i32>().is_ok() => {
                Reading::Wrong("is in a workchain that does not run: only 0 and -1 do")
            }
            (_, _) => Reading::Wrong(WRONG),
        };
    }
    let one_alphabet = URL_SAFE_NO_PAD.decode(address).or_else(|_| STANDARD_NO_PAD.decode(address));
    let mixed = || URL_SAFE_NO_PAD.decode(address.replace('+', "-").replace('/', "_"));
    let (bytes, is_mixed) = match one_alphabet {
        Ok(bytes) => (bytes, false),
        Err(_) => match mixed() {
            Ok(bytes) => (bytes, true),
            Err(_) => return Reading::Wrong(WRONG),
        },
    };
    let Some((body, sum)) = bytes.split_last_chunk::<2>() else { return Reading::Wrong(WRONG) };
    if body.len() != 34 || Crc::<u16>::new(&CRC_16_XMODEM).checksum(body).to_be_bytes() != *sum {
        return Reading::Wrong(WRONG);
    }
    match body[0] & !TEST_ONLY {
        BOUNCEABLE | UNBOUNCEABLE if !WORKCHAINS.contains(&body[1]) => {
            Reading::Wrong("is in a workchain that does not run: only 0 and -1 do")
        }
        BOUNCEABLE | UNBOUNCEABLE if is_mixed => Reading::Account(
            account(body[1], &body[2..]),
            "mixes the two alphabets of Base64: give it with - and _, or with + and /",
        ),
        BOUNCEABLE | UNBOUNCEABLE if body[0] & TEST_ONLY != 0 => {
            Reading::Account(account(body[1], &body[2..]), TEST)
        }
        BOUNCEABLE | UNBOUNCEABLE => taken(body[1], &body[2..]),
        _ => Reading::Wrong(WRONG),
    }
}

// === Filecoin ===

/// An actor's number, the hash of a key, the hash of an actor's origin, a BLS key, and what the actor
/// of a namespace has given out.
pub(super) const NUMBER: u8 = 0;
const SECP256K1: u8 = 1;
const ACTOR: u8 = 2;
const BLS: u8 = 3;
pub(super) const DELEGATED: u8 = 4;
/// The one namespace there is: of Ethereum's addresses.
const ETHEREUM: &str = "10";

fn filecoin(address: &str) -> Reading {
    if is_ethereum(address) {
        return Reading::Wrong("is in Ethereum's form: give the form that begins with f410f");
    }
    if address.strip_prefix("f4").and_then(|rest| rest.split_once('f')).is_some_and(
        |(namespace, _)| {
            namespace != ETHEREUM && namespace.bytes().all(|byte| byte.is_ascii_digit())
        },
    ) {
        return Reading::Wrong(
            "is in a namespace that nobody gives out: only f410f... of the forms f4 has owners",
        );
    }
    let Some(rest) = address.strip_prefix('f') else {
        let other = address.strip_prefix('t').map(|rest| filecoin_of_a_network(rest).is_some());
        return Reading::Wrong(if other == Some(true) { TEST } else { WRONG });
    };
    filecoin_of_a_network(rest).map_or(Reading::Wrong(WRONG), Reading::Taken)
}

/// `0x` or `0X` and 40 hex digits.
fn is_ethereum(address: &str) -> bool {
    address.get(..2).is_some_and(|head| head.eq_ignore_ascii_case("0x"))
        && hex_bytes(&address[2..], 40).is_some()
}

/// What stands behind the letter of the network.
fn filecoin_of_a_network(text: &str) -> Option<Account> {
    let (protocol, rest) = text.split_at_checked(1)?;
    match protocol {
        "0" => {
            let plain = rest.bytes().all(|byte| byte.is_ascii_digit());
            let canonical = rest == "0" || !rest.starts_with('0');
            let number = rest.parse::<i64>().ok().filter(|_| plain && canonical)?;
            Some(account(NUMBER, &number.to_be_bytes()))
        }
        "1" => checked_base32(SECP256K1, &[], rest, 20),
        "2" => checked_base32(ACTOR, &[], rest, 20),
        "3" => checked_base32(BLS, &[], rest, 48),
        "4" => {
            let (namespace, rest) = rest.split_once('f')?;
            // Nobody gives out addresses of another namespace, so nobody owns one.
            let found = checked_base32(DELEGATED, &[10], rest, 20);
            // What stands for an actor's number here is no address of Ethereum's.
            let masked = |it: &Account| it.body[0] == 0xff && it.body[1..12] == [0; 11];
            found.filter(|found| namespace == ETHEREUM && !masked(found))
        }
        _ => None,
    }
}

/// Base32 in lower case of `count` bytes and of BLAKE2b-32 over protocol, namespace and those.
fn checked_base32(protocol: u8, namespace: &[u8], text: &str, count: usize) -> Option<Account> {
    let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok()?;
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    let hash = Blake2b::<U4>::new().chain_update([protocol]).chain_update(namespace);
    let good = hash.chain_update(body).finalize()[..] == sum[..];
    (lower && good && body.len() == count).then(|| account(protocol, body))
}

// === SUI ===

fn sui(address: &str) -> Reading {
    let (prefix, digits) = match address.as_bytes() {
        [b'0', b'x' | b'X', ..] => address.split_at(2),
        _ => ("", address),
    };
    match hex_bytes(digits, 64) {
        Some(body) if prefix == "0x" => taken(0, &body),
        Some(body) => Reading::Account(account(0, &body), "must begin with 0x, in lower case"),
        // Leading zeros are dropped by some libraries, and by those who write the packages of the system.
        None if prefix == "0x" && (1..64).contains(&digits.len()) => {
            match hex_bytes(&format!("{digits:0>64}"), 64) {
                Some(body) => {
                    Reading::Account(account(0, &body), "must have all 64 hex digits behind 0x")
                }
                None => Reading::Wrong(WRONG),
            }
        }
        None => Reading::Wrong(WRONG),
    }
}

//! Recipient addresses: whether a text is one on a chain, whether two are of one account, and whether
//! anybody can spend what is sent there.
//!
//! A pre-filter, never the authority: Cregis decides. What is refused here is certainly wrong; an
//! unknown chain, and damage to what has no checksum, is let through. An address is never changed.

mod reading;
mod unspendable;

use crate::coin::{Chain, Currency};
use reading::{Account, Reading, read};

/// Tells whether `address` can be one on `chain`, in a form that is taken.
pub fn fits(chain: Chain, address: &str) -> bool {
    malformed(chain, address).is_none()
}

/// What speaks against `address` as the recipient of `currency`; it never repeats the text.
pub fn objection(currency: &Currency, address: &str) -> Option<&'static str> {
    let chain = currency.chain();
    if let Some(rule) = malformed(chain, address) {
        Some(rule)
    } else if currency.is_contract(address) {
        Some("is the contract of the token itself: nobody can spend what is sent there")
    } else if account(chain, address).is_some_and(|it| unspendable::is_unspendable(chain, &it)) {
        Some("is an address from which nobody can spend")
    } else {
        None
    }
}

/// Tells whether two addresses of `chain` are of the same account, in whatever spelling, those included
/// that are not taken. On a chain that payoutd does not know only the same text is.
pub fn same(chain: Chain, one: &str, other: &str) -> bool {
    one == other || account(chain, one).is_some_and(|it| Some(it) == account(chain, other))
}

fn malformed(chain: Chain, address: &str) -> Option<&'static str> {
    match read(chain, address) {
        Reading::Taken(_) | Reading::Unchecked => None,
        Reading::Account(_, rule) | Reading::Wrong(rule) => Some(rule),
    }
}

fn account(chain: Chain, address: &str) -> Option<Account> {
    match read(chain, address) {
        Reading::Taken(account) | Reading::Account(account, _) => Some(account),
        Reading::Wrong(_) | Reading::Unchecked => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::Currency;

    fn chain(id: &str) -> Chain {
        Currency::parse(&format!("{id}@{id}")).expect("a chain id").chain()
    }

    /// Each is taken as it stands, and refused after one character was changed.
    const GOOD: &[(&str, &str)] = &[
        ("0", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
        ("0", "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy"),
        ("0", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
        ("0", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"),
        ("3", "DH5yaieqoZN36fDVciNyRueRGvGLR3mr7L"),
        ("5", "bitcoincash:qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a"),
        ("5", "qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a"),
        ("5", "1BpEi6DfDAUFd7GtittLSdBeYJvcoaVggu"),
        ("60", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
        ("2510", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"),
        ("144", "rn5Jyu5J6PG64543KdGvS25rQBYFQo7GLc"),
        ("195", "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS"),
        ("198", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"),
        ("2000", "EQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_sDs"),
    ];

    #[test]
    fn a_checksum_catches_every_single_changed_character() {
        for (id, address) in GOOD {
            assert!(fits(chain(id), address), "{id} {address}");
            for at in 0..address.len() {
                let mut changed = address.as_bytes().to_vec();
                changed[at] = if changed[at] == b'2' { b'3' } else { b'2' };
                let changed = String::from_utf8(changed).expect("ascii");
                assert!(!fits(chain(id), &changed), "{id} {changed}");
            }
        }
    }

    #[test]
    fn shape_is_all_there_is_without_a_checksum() {
        let solana = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v";
        assert!(fits(chain("1000"), solana) && !fits(chain("1000"), &solana[8..]));
        let sui = format!("0x{}", "ab".repeat(32));
        assert!(fits(chain("3000"), &sui) && !fits(chain("3000"), &sui[1..]));
        let raw = format!("0:{}", "ab".repeat(32));
        assert!(fits(chain("2000"), &raw) && !fits(chain("2000"), &raw[..40]));
        let one_case = "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";
        assert!(fits(chain("60"), one_case) && !fits(chain("60"), &one_case[..41]));
    }

    #[test]
    fn an_address_of_another_chain_does_not_fit_and_an_unknown_chain_takes_any() {
        for (id, address) in [
            ("195", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
            ("0", "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS"),
            ("2", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
            ("144", "X7AcgcsBL6XDcUb289X4mJ8djcdyKaB5hJDWMArnXr61cqZ"),
            ("60", "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS"),
        ] {
            assert!(!fits(chain(id), address), "{id} {address}");
        }
        assert!(fits(chain("7777"), "anything-at-all"));
    }

    #[test]
    fn spellings_of_one_account_are_the_same_and_other_accounts_are_not() {
        let evm = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        let wrong_case = "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        let ton = "EQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_sDs";
        for (id, one, other) in [
            ("60", evm, wrong_case),
            ("60", evm, &evm[2..]),
            ("0", GOOD[2].1, "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4"),
            ("0", GOOD[2].1, "bc1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4"),
            ("5", GOOD[5].1, GOOD[6].1),
            ("5", GOOD[5].1, GOOD[7].1),
            ("5", GOOD[5].1, "QPM2QSZNHKS23Z7629MMS6S4CWEF74VCWVY22GDX6A"),
            ("2000", ton, "UQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_p0p"),
            ("2000", ton, "EQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id/sDs"),
            ("195", GOOD[11].1, "41f04b40f0d5efe9aa13b22131639fd3e0a10be38f"),
            ("3000", "0x2", &format!("0x{:0>64}", "2")),
            ("3000", "0x0AB", &format!("0x{:0>64}", "ab")),
            ("7777", "anything", "anything"),
        ] {
            assert!(same(chain(id), one, other) && same(chain(id), other, one), "{id} {other}");
        }
        let masterchain = format!("-1:{}", "ab".repeat(32));
        let raw = &masterchain[1..].replacen('1', "0", 1);
        for (id, one, other) in [
            ("60", evm, "0x6aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
            ("0", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy"),
            ("2000", &masterchain, raw),
            ("195", "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS", "txsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS"),
            ("1000", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", "ePjFWdd5AufqSSqeM2qN1xzyba"),
            ("7777", "anything", "Anything"),
            ("60", "x", "y"),
        ] {
            assert!(!same(chain(id), one, other), "{id} {one} {other}");
        }
    }

    /// Cregis's echoes are compared before anybody has looked at them.
    #[test]
    fn no_text_is_too_long_or_too_odd_to_be_compared() {
        let begun = std::time::Instant::now();
        let long = "1".repeat(60_000);
        let odd = [
            "", ":", "0:", "0x", "0X", "é", "0é", "fé", "f", "f4", "f4f", "f410f", "t0", "41",
            &long,
        ];
        for id in ["0", "2", "3", "5", "60", "144", "195", "1000", "2000", "2307", "3000", "7777"] {
            for text in odd {
                assert!(same(chain(id), text, text), "{id} {text:.9}");
                assert!(!same(chain(id), text, "bitcoincash:é"), "{id} {text:.9}");
                assert!(id == "7777" || !fits(chain(id), text), "{id} {text:.9}");
            }
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}

//! Recipient addresses: the checksum of each chain that has one.
//!
//! A pre-filter, never the authority: Cregis decides. What is wrong here is certainly wrong; an
//! unknown chain, Filecoin, and what has no checksum are let through. An address is never changed.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use crc::{CRC_16_XMODEM, Crc};
use sha3::{Digest, Keccak256};

use crate::coin::Chain;

/// Tells whether `address` can be one on `chain`.
pub fn fits(chain: Chain, address: &str) -> bool {
    match chain {
        Chain::Bitcoin { versions, hrp } => base58_check(address, versions) || segwit(address, hrp),
        Chain::BitcoinCash => base58_check(address, &[0x00, 0x05]) || cash_addr(address),
        Chain::Evm => evm(address),
        Chain::Xrp => {
            let decoded =
                bs58::decode(address).with_alphabet(bs58::Alphabet::RIPPLE).with_check(None);
            matches!(decoded.into_vec().as_deref(), Ok([0, rest @ ..]) if rest.len() == 20)
        }
        Chain::Tron => base58_check(address, &[0x41]),
        Chain::Solana => bs58::decode(address).into_vec().is_ok_and(|bytes| bytes.len() == 32),
        Chain::Ton => ton(address),
        Chain::Sui => hex_digits(address, 64).is_some(),
        Chain::Other => true,
    }
}

fn base58_check(address: &str, versions: &[u8]) -> bool {
    let decoded = bs58::decode(address).with_check(None).into_vec();
    matches!(decoded.as_deref(), Ok([version, rest @ ..])
        if versions.contains(version) && rest.len() == 20)
}

fn segwit(address: &str, hrp: &str) -> bool {
    bech32::segwit::decode(address)
        .is_ok_and(|(found, _, _)| found.as_str().eq_ignore_ascii_case(hrp))
}

/// The hex digits behind `0x`, if there are exactly `count`.
fn hex_digits(address: &str, count: usize) -> Option<&str> {
    let digits = address.strip_prefix("0x")?;
    (digits.len() == count && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
}

/// Mixed case must be the checksum of EIP-55; one case throughout carries none.
fn evm(address: &str) -> bool {
    let Some(digits) = hex_digits(address, 40) else { return false };
    let lower = digits.to_ascii_lowercase();
    if digits == lower || digits == digits.to_ascii_uppercase() {
        return true;
    }
    let hash = hex::encode(Keccak256::digest(&lower));
    digits.bytes().zip(hash.bytes()).all(|(digit, nibble)| {
        digit.is_ascii_digit() || digit.is_ascii_uppercase() == (nibble >= b'8')
    })
}

/// Raw `workchain:hex`, or 36 bytes of Base64 (either alphabet) that end in their CRC-16.
fn ton(address: &str) -> bool {
    if let Some((workchain, account)) = address.split_once(':') {
        return matches!(workchain, "0" | "-1")
            && account.len() == 64
            && account.bytes().all(|b| b.is_ascii_hexdigit());
    }
    let decoded = URL_SAFE_NO_PAD.decode(address).or_else(|_| STANDARD_NO_PAD.decode(address));
    let Ok(bytes) = decoded else { return false };
    let Some((body, sum)) = bytes.split_last_chunk::<2>() else { return false };
    body.len() == 34 && Crc::<u16>::new(&CRC_16_XMODEM).checksum(body).to_be_bytes() == *sum
}

/// CashAddr: the BCH code of its specification over the prefix and all symbols comes to zero.
fn cash_addr(address: &str) -> bool {
    const SYMBOLS: &[u8] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const GENERATOR: [u64; 5] =
        [0x98_f2bc_8e61, 0x79_b76d_99e2, 0xf3_3e5f_b3c4, 0xae_2eab_e2a8, 0x1e_4f43_e470];
    let one_case =
        address == address.to_ascii_lowercase() || address == address.to_ascii_uppercase();
    let lower = address.to_ascii_lowercase();
    let payload = lower.strip_prefix("bitcoincash:").unwrap_or(&lower);
    let symbols: Option<Vec<u64>> = payload
        .bytes()
        .map(|byte| SYMBOLS.iter().position(|symbol| *symbol == byte).map(|at| at as u64))
        .collect();
    let Some(symbols) = symbols else { return false };

    let prefix = b"bitcoincash".iter().map(|byte| u64::from(byte & 0x1f));
    let check = prefix.chain([0]).chain(symbols).fold(1u64, |check, symbol| {
        let top = check >> 35;
        let next = ((check & 0x07_ffff_ffff) << 5) ^ symbol;
        (0..5).filter(|bit| top >> bit & 1 == 1).fold(next, |next, bit| next ^ GENERATOR[bit])
    });
    // 20-byte hashes are the only ones that wallets pay to: 34 symbols and 8 of checksum.
    one_case && check == 1 && payload.len() == 42
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
}

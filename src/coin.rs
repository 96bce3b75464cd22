//! Coins in Cregis's notation, and what is published about them.
//!
//! The chain ids are Cregis's own, not those of EVM wallets. The tables hold what the vendor's
//! currency page listed in January 2026; a coin that is not in them is let through, because the
//! project's own list at Cregis is the authority.

use std::fmt;

use crate::address;

/// A coin as `chain_id@token_id`; the native coin of a chain repeats the chain's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Currency {
    text: String,
    at: usize,
}

/// Which rule an address on a chain follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Bitcoin, Litecoin and Dogecoin: Base58Check versions and, where not empty, the Segwit prefix.
    Bitcoin {
        /// Accepted Base58Check version bytes.
        versions: &'static [u8],
        /// Human-readable part of Segwit addresses; empty where the chain has none.
        hrp: &'static str,
    },
    /// Bitcoin Cash: CashAddr or the legacy form.
    BitcoinCash,
    /// Ethereum and its kin.
    Evm,
    /// XRP Ledger, classic addresses.
    Xrp,
    /// TRON.
    Tron,
    /// Solana: 32 bytes, no checksum.
    Solana,
    /// TON: user-friendly or raw.
    Ton,
    /// Filecoin: actors' numbers, keys, actors and Ethereum's addresses.
    Filecoin,
    /// SUI: 32 bytes, no checksum.
    Sui,
    /// Unknown: nothing is checked.
    Other,
}

impl Currency {
    /// Reads `chain_id@token_id`: decimal digits, then 1 to 128 characters of `[A-Za-z0-9_.:-]`.
    pub fn parse(text: &str) -> Option<Self> {
        let (chain, token) = text.split_once('@')?;
        let chain_fits = matches!(chain.len(), 1..=9)
            && chain.bytes().all(|b| b.is_ascii_digit())
            && (chain == "0" || !chain.starts_with('0'));
        let token_fits = matches!(token.len(), 1..=128)
            && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
        (chain_fits && token_fits).then(|| Self { text: text.into(), at: chain.len() })
    }

    /// The whole text, as it is stored, signed and sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Cregis's id of the chain.
    pub fn chain_id(&self) -> &str {
        &self.text[..self.at]
    }

    /// The chain's id again for its native coin, else the token's contract.
    pub fn token_id(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The rule for addresses on this coin's chain.
    pub fn chain(&self) -> Chain {
        match self.chain_id() {
            "0" => Chain::Bitcoin { versions: &[0x00, 0x05], hrp: "bc" },
            "2" => Chain::Bitcoin { versions: &[0x30, 0x32, 0x05], hrp: "ltc" },
            "3" => Chain::Bitcoin { versions: &[0x1e, 0x16], hrp: "" },
            "5" => Chain::BitcoinCash,
            "60" | "61" | "62" | "63" | "64" | "65" | "66" | "67" | "2510" | "2610" => Chain::Evm,
            "144" => Chain::Xrp,
            "195" | "198" => Chain::Tron,
            "1000" => Chain::Solana,
            "2000" => Chain::Ton,
            "2307" => Chain::Filecoin,
            "3000" => Chain::Sui,
            _ => Chain::Other,
        }
    }

    /// How many digits after the point the coin has, where published.
    pub fn decimals(&self) -> Option<usize> {
        published().find(|(chain, token, _)| self.is(chain, token)).map(|(_, _, decimals)| decimals)
    }

    /// Tells whether this is the coin `token_id` on the chain `chain_id`, in whatever spelling.
    pub fn is(&self, chain_id: &str, token_id: &str) -> bool {
        chain_id == self.chain_id() && self.same_contract(self.token_id(), token_id)
    }

    /// Tells whether this is a token, and `address` its contract, in whatever spelling.
    pub fn is_contract(&self, address: &str) -> bool {
        // A coin of SUI is `package::module::type`; the package is what has an address.
        let contract = self.token_id().split("::").next().unwrap_or_default();
        self.token_id() != self.chain_id() && self.same_contract(contract, address)
    }

    fn same_contract(&self, one: &str, other: &str) -> bool {
        // The chain may be unknown, but what looks like a contract of an EVM chain is one: the case of
        // its hex is only a checksum.
        let hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        address::same(self.chain(), one, other)
            || one.strip_prefix("0x").is_some_and(hex) && one.eq_ignore_ascii_case(other)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Every published coin: chain, token, decimals. The token of a native coin is its chain's id.
pub fn published() -> impl Iterator<Item = (&'static str, &'static str, usize)> {
    let native = NATIVE.iter().map(|(chain, decimals)| (*chain, *chain, *decimals));
    native.chain(TOKENS.iter().copied())
}

/// Published native coins: chain, decimals.
const NATIVE: &[(&str, usize)] = &[
    ("0", 8),
    ("2", 8),
    ("3", 8),
    ("5", 8),
    ("60", 18),
    ("61", 18),
    ("62", 18),
    ("63", 18),
    ("64", 18),
    ("65", 18),
    ("66", 18),
    ("67", 18),
    ("144", 6),
    ("195", 6),
    ("1000", 9),
    ("2000", 9),
    ("2307", 18),
    ("2510", 18),
    ("3000", 9),
];

/// Published tokens: chain, contract, decimals.
const TOKENS: &[(&str, &str, usize)] = &[
    ("60", "0xdac17f958d2ee523a2206206994597c13d831ec7", 6),
    ("60", "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", 6),
    ("62", "0xc2132d05d31c914a87c6611c10748aeb04b58e8f", 6),
    ("62", "0x3c499c542cef5e3811e1192ce70d8cc03d5c3359", 6),
    ("63", "0xfd086bc7cd5c481dcc9c85ebe478a1c0b69fcbb9", 6),
    ("63", "0xaf88d065e77c8cc2239327c5edb3a432268e5831", 6),
    ("64", "0x94b008aa00579c1307b0ef2c499ad98a8ce58e58", 6),
    ("64", "0x0b2c639c533813f4aa9d7837caf62653d097ff85", 6),
    ("65", "0x9702230a8ea53601f5cd2dc00fdbc13d4df4a8c7", 6),
    ("65", "0xb97ef9ef8734c71904d8002f8b6bc66dd9c48a6e", 6),
    ("66", "0xfde4c96c8593536e31f229ea8f37b2ada2699bb2", 6),
    ("66", "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913", 6),
    ("195", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", 6),
    ("195", "TEkxiTehnzSmSe2XqrBj4w32RUN966rdz8", 6),
    ("1000", "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB", 6),
    ("1000", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", 6),
    ("2000", "EQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_sDs", 6),
    ("2510", "0x55d398326f99059ff775485246999027b3197955", 18),
    ("2510", "0x8ac76a51cc950d9822d68b83fe1ad97b32cd580d", 18),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_currency_is_a_chain_an_at_and_a_token() {
        let usdt = Currency::parse("195@TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t").expect("well formed");
        assert_eq!((usdt.chain_id(), usdt.decimals()), ("195", Some(6)));
        assert_eq!(usdt.token_id(), "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t");
        for bad in ["", "@", "195", "195@", "@195", "USDT-TRC20", "0195@195", "195@a@b", "195@a b"]
        {
            assert_eq!(Currency::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn decimals_are_known_for_published_coins_only() {
        for (text, decimals) in [
            ("0@0", Some(8)),
            ("60@60", Some(18)),
            ("195@195", Some(6)),
            ("60@0xDAC17F958D2EE523A2206206994597C13D831EC7", Some(6)),
            ("2510@0x55d398326f99059ff775485246999027b3197955", Some(18)),
            ("195@tr7nhqjekqxgtci8q8zy4pl8otszgjlj6t", None),
            ("198@198", None),
            ("7777@7777", None),
        ] {
            assert_eq!(Currency::parse(text).expect(text).decimals(), decimals, "{text}");
        }
    }
}

//! Recipients from which certainly nobody can spend, as docs/api.md lists them.

use super::reading::{Account, DELEGATED, NUMBER, Reading, read};
use crate::coin::Chain;

/// Destroyed on purpose; both are documented by those who did so.
const BITCOIN: &[&str] =
    &["1BitcoinEaterAddressDontSendf59kuE", "1CounterpartyXXXXXXXXXXXXXXXUWLpVr"];
const DOGECOIN: &[&str] = &["DDogepartyxxxxxxxxxxxxxxxxxxw1dfzr"];
/// ERC-7528: stands for the native coin, and is nobody's; and two to which tokens are burnt.
const EVM: &[&str] = &[
    "0xEeeeeEeeeEeEeeEeEeEeeEEEeeeeEeeeeeeeEEeE",
    "0xdead000000000000000000000000000000000000",
    "0xdead000000000000000042069420694206942069",
];
/// "Special addresses" in the XRP Ledger's documentation: NaN and the name reservation.
const XRP: &[&str] = &["rrrrrrrrrrrrrrrrrrrn5RM1rHd", "rrrrrrrrrrrrrrrrrNAMEtxvNvQ"];
/// The account that TRON burns to.
const TRON: &[&str] = &["TLsV52sRDL79HXGGm9yzwKibb6BeruhUzy"];
/// Programs whose keys were searched for, and the mint of wrapped SOL.
const SOLANA: &[&str] = &[
    "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL",
    "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
    "So11111111111111111111111111111111111111112",
    "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
    "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
];
/// So many `1`s at the end of an address of Solana's are a name that was written down, as of a sysvar or a built-in
/// program: nobody can find a key for it.
const FILLED: usize = 16;
/// Filecoin's built-in actors that pay nothing out, by number, and the one that it burns to.
const FILECOIN: [i64; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 10, 99];

/// Whether certainly nobody can spend what `account` receives.
pub(super) fn is_unspendable(chain: Chain, account: &Account) -> bool {
    let named: &[&str] = match chain {
        Chain::Bitcoin { .. } => &[BITCOIN, DOGECOIN].concat(),
        Chain::BitcoinCash => BITCOIN,
        Chain::Evm => EVM,
        Chain::Xrp => XRP,
        Chain::Tron => TRON,
        Chain::Solana if is_filled(account) => return true,
        Chain::Solana => SOLANA,
        Chain::Filecoin if account.kind == NUMBER => {
            return FILECOIN.iter().any(|number| account.body == number.to_be_bytes());
        }
        Chain::Filecoin if account.kind == DELEGATED => {
            let ethereum = Account { kind: 0, body: account.body.clone() };
            return is_unspendable(Chain::Evm, &ethereum);
        }
        Chain::Ton | Chain::Filecoin | Chain::Sui | Chain::Other => &[],
    };
    is_next_to_zero(account)
        || named.iter().any(|address| match read(chain, address) {
            Reading::Taken(known) => known == *account,
            Reading::Account(..) | Reading::Wrong(_) | Reading::Unchecked => false,
        })
}

/// All but the last two bytes are zero: zero itself, built-in contracts, precompiles, `0x...dEaD`. Nobody
/// can find a key for one of these.
fn is_next_to_zero(account: &Account) -> bool {
    account.body.iter().rev().skip(2).all(|byte| *byte == 0)
}

fn is_filled(account: &Account) -> bool {
    let address = bs58::encode(&account.body).into_string();
    address.bytes().rev().take_while(|byte| *byte == b'1').count() >= FILLED
}

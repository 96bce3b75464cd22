//! Nonces that do not repeat.

use std::sync::atomic::{AtomicU64, Ordering};

/// Nonces of 6 symbols from 62: a walk over all 62^6 of them from a random start.
///
/// Cregis only asks that a nonce is fresh. A walk repeats after 5.7e10 steps; random draws would
/// repeat within hours.
pub(super) struct Nonces(AtomicU64);

impl Nonces {
    const SYMBOLS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const ALL: u64 = 62u64.pow(6);
    /// Shares no factor with 62, so that the walk visits every nonce; large, so that neighbours
    /// look nothing alike.
    const STEP: u64 = 35_104_476_161;

    pub(super) fn new() -> Self {
        Self(AtomicU64::new(getrandom::u64().unwrap_or_else(|_| super::now_ms().unsigned_abs())))
    }

    pub(super) fn next(&self) -> String {
        // The counter wraps modulo 2^64, after more nonces than there are.
        let count = self.0.fetch_add(1, Ordering::Relaxed) % Self::ALL;
        let place = u128::from(count) * u128::from(Self::STEP) % u128::from(Self::ALL);
        let mut rest = place as usize;
        let mut nonce = String::with_capacity(6);
        for _ in 0..6 {
            nonce.push(char::from(Self::SYMBOLS[rest % 62]));
            rest /= 62;
        }
        nonce
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nonces_have_6_of_62_symbols_and_do_not_repeat() {
        const { assert!(Nonces::STEP % 2 == 1 && !Nonces::STEP.is_multiple_of(31)) };
        let nonces = Nonces::new();
        let mut seen = HashSet::new();
        for _ in 0..100_000 {
            let nonce = nonces.next();
            assert!(nonce.len() == 6 && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert!(seen.insert(nonce));
        }
    }
}

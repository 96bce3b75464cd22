//! Tokens that continue a list: where it goes on, sealed, so that nobody reads how many rows others have, and bound to
//! what was asked.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use data_encoding::BASE64URL_NOPAD;
use prost::Message;

use crate::pb;

/// Seals and opens tokens.
#[derive(Debug)]
pub(super) struct Tokens(Option<LessSafeKey>);

/// What a token continues.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The request, its project resolved; a token serves pages of every size.
    pub(super) request: &'a pb::ListPayoutsRequest,
    /// Whose payouts are shown alone.
    pub(super) caller: Option<&'a str>,
}

impl Tokens {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        // It has the length that it must have.
        Self(UnboundKey::new(&AES_256_GCM_SIV, key).ok().map(LessSafeKey::new))
    }

    /// The token for what comes after `row`; none where nothing can be sealed.
    pub(super) fn seal(&self, row: i64, scope: Scope<'_>) -> Option<String> {
        let mut token = row.to_be_bytes().to_vec();
        let aad = Aad::from(scope.bytes());
        self.0.as_ref()?.seal_in_place_append_tag(nonce(), aad, &mut token).ok()?;
        Some(BASE64URL_NOPAD.encode(&token))
    }

    /// The row that `token` was sealed for; none where it is no token of ours for this.
    pub(super) fn open(&self, token: &str, scope: Scope<'_>) -> Option<i64> {
        let mut token = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
        let aad = Aad::from(scope.bytes());
        let row = self.0.as_ref()?.open_in_place(nonce(), aad, &mut token).ok()?;
        Some(i64::from_be_bytes(row.try_into().ok()?))
    }
}

/// Always the same: AES-GCM-SIV then tells no more than that two tokens are equal, which are for the same row and the
/// same request.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

impl Scope<'_> {
    fn bytes(self) -> Vec<u8> {
        let mut request = pb::ListPayoutsRequest {
            page_size: 0,
            page_token: String::new(),
            ..self.request.clone()
        };
        request.states.sort_unstable();
        request.states.dedup();
        let mut bytes =
            self.caller.map_or_else(Vec::new, |caller| [b"=", caller.as_bytes()].concat());
        // No name of a caller holds it.
        bytes.push(0);
        request.encode(&mut bytes).unwrap_or_default();
        bytes
    }
}

//! What a person should look at.

use std::time::Duration;

/// In one state for longer than this, a payout that is not final should page someone.
pub const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What a person should look at; it never hides the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Evidence that cannot be true of the state.
    Contradiction,
    /// Evidence names another id of Cregis's than the one that is bound.
    CidMismatch,
    /// Cregis named an id that belongs to another payout.
    DuplicateCid,
    /// It exists at Cregis although we had closed it as not created.
    ExistsAfterClose,
    /// Evidence disagrees with what was ordered.
    FieldMismatch,
    /// Not final, and in the same state for a day.
    Age,
}

impl Attention {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Contradiction,
        Self::CidMismatch,
        Self::DuplicateCid,
        Self::ExistsAfterClose,
        Self::FieldMismatch,
        Self::Age,
    ];

    /// The attention of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|attention| attention.as_str() == name)
    }

    /// The name in the ledger and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contradiction => "CONTRADICTION",
            Self::CidMismatch => "CID_MISMATCH",
            Self::DuplicateCid => "DUPLICATE_CID",
            Self::ExistsAfterClose => "EXISTS_AFTER_CLOSE",
            Self::FieldMismatch => "FIELD_MISMATCH",
            Self::Age => "AGE",
        }
    }
}

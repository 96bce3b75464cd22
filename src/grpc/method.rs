//! The methods that are served: a closed list, for rights and for labels.

/// A method, as its path names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Method {
    CreatePayout,
    GetPayout,
    ListPayouts,
    WatchPayout,
    ResolvePayout,
    SetIntake,
    /// `grpc.health.v1`
    Health,
    /// `grpc.reflection.v1` and `v1alpha`
    Reflection,
    /// Nothing that is served here.
    Unknown,
}

impl Method {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/payout.v1.PayoutService/CreatePayout" => Self::CreatePayout,
            "/payout.v1.PayoutService/GetPayout" => Self::GetPayout,
            "/payout.v1.PayoutService/ListPayouts" => Self::ListPayouts,
            "/payout.v1.PayoutService/WatchPayout" => Self::WatchPayout,
            "/payout.v1.OperatorService/ResolvePayout" => Self::ResolvePayout,
            "/payout.v1.OperatorService/SetIntake" => Self::SetIntake,
            path if path.starts_with("/grpc.health.v1.Health/") => Self::Health,
            path if path.starts_with("/grpc.reflection.v1.")
                || path.starts_with("/grpc.reflection.v1alpha.") =>
            {
                Self::Reflection
            }
            _ => Self::Unknown,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::CreatePayout => "CreatePayout",
            Self::GetPayout => "GetPayout",
            Self::ListPayouts => "ListPayouts",
            Self::WatchPayout => "WatchPayout",
            Self::ResolvePayout => "ResolvePayout",
            Self::SetIntake => "SetIntake",
            Self::Health => "Health",
            Self::Reflection => "Reflection",
            Self::Unknown => "unknown",
        }
    }
}

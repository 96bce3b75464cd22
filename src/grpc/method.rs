//! The methods that are served: a closed list, for rights and for labels.

/// The only stream that is open to strangers.
pub(super) const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// A method, as its path names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Unary; the one that sends.
    CreatePayout,
    /// Unary.
    GetPayout,
    /// Unary, paged.
    ListPayouts,
    /// A stream.
    WatchPayout,
    /// Unary.
    ResolvePayout,
    /// Unary.
    SetIntake,
    /// `grpc.health.v1`
    Health,
    /// `grpc.reflection.v1` and `v1alpha`
    Reflection,
    /// Nothing that is served here.
    Unknown,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 9] = [
        Self::CreatePayout,
        Self::GetPayout,
        Self::ListPayouts,
        Self::WatchPayout,
        Self::ResolvePayout,
        Self::SetIntake,
        Self::Health,
        Self::Reflection,
        Self::Unknown,
    ];

    /// The method that a request's path names.
    pub fn of(path: &str) -> Self {
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

    /// Whether the path, which is this method's, names something that is served.
    pub(super) fn is_served(self, path: &str) -> bool {
        match self {
            Self::Unknown => false,
            Self::Health => path == HEALTH_WATCH || path == "/grpc.health.v1.Health/Check",
            Self::Reflection => path.ends_with(".ServerReflection/ServerReflectionInfo"),
            Self::CreatePayout
            | Self::GetPayout
            | Self::ListPayouts
            | Self::WatchPayout
            | Self::ResolvePayout
            | Self::SetIntake => true,
        }
    }

    /// Its name, without its service's.
    pub fn as_str(self) -> &'static str {
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

    /// The service that it belongs to; empty where it is none of payoutd's own.
    pub fn service(self) -> &'static str {
        match self {
            Self::CreatePayout | Self::GetPayout | Self::ListPayouts | Self::WatchPayout => {
                "payout.v1.PayoutService"
            }
            Self::ResolvePayout | Self::SetIntake => "payout.v1.OperatorService",
            Self::Health | Self::Reflection | Self::Unknown => "",
        }
    }

    /// Whether it has one answer, and so a duration that says something.
    pub fn is_unary(self) -> bool {
        match self {
            Self::CreatePayout
            | Self::GetPayout
            | Self::ListPayouts
            | Self::ResolvePayout
            | Self::SetIntake => true,
            Self::WatchPayout | Self::Health | Self::Reflection | Self::Unknown => false,
        }
    }
}

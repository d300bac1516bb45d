//! Versions of Istio that objects are made for.

use std::fmt;
use std::str::FromStr;

/// A minor version of Istio 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IstioVersion(u8);

/// A version that objects are not made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version of Istio that is known; write one from 1.27 to 1.31")]
pub struct InvalidVersion(String);

// === impl IstioVersion ===

impl IstioVersion {
    /// All that are known.
    pub const ALL: [Self; 5] = [Self(27), Self(28), Self(29), Self(30), Self(31)];
    /// The newest that is known.
    pub const NEWEST: Self = Self(31);

    /// Whether there are TrafficExtensions. Until then there are only WasmPlugins.
    pub const fn has_traffic_extension(self) -> bool {
        self.0 >= 30
    }

    /// Whether a VM that failed can be replaced (`FAIL_RELOAD`).
    pub const fn has_reload(self) -> bool {
        self.0 >= 27
    }
}

impl FromStr for IstioVersion {
    type Err = InvalidVersion;

    /// A patch version may be there, and is not looked at.
    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let invalid = || InvalidVersion(text.to_owned());
        let rest = text.strip_prefix("1.").ok_or_else(invalid)?;
        let minor = rest.split('.').next().unwrap_or_default();
        let minor: u8 = minor.parse().map_err(|_| invalid())?;
        Self::ALL.into_iter().find(|known| known.0 == minor).ok_or_else(invalid)
    }
}

impl fmt::Display for IstioVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

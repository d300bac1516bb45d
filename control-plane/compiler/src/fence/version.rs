//! The versions of Istio that objects are made for.
//!
//! Nothing that the Fence says differs between them: it names callers by `principals`, which every version reads alike and which
//! hold the trust domain. `serviceAccounts` (any trust domain, and with dots that matched any character before 1.28.6 and
//! 1.29.2, CVE-2026-39350) and `trustDomains` (1.31, extended channel) could only say less.

use std::fmt;
use std::str::FromStr;

/// A minor version of Istio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum IstioVersion {
    /// 1.27
    V1_27,
    /// 1.28
    V1_28,
    /// 1.29
    V1_29,
    /// 1.30
    #[default]
    V1_30,
    /// 1.31
    V1_31,
}

/// Not a version that objects are made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownIstio(String);

// === impl IstioVersion ===

impl IstioVersion {
    /// All of them, the oldest first.
    pub const ALL: [Self; 5] = [Self::V1_27, Self::V1_28, Self::V1_29, Self::V1_30, Self::V1_31];

    /// The number after `1.`.
    pub const fn minor(self) -> u8 {
        match self {
            Self::V1_27 => 27,
            Self::V1_28 => 28,
            Self::V1_29 => 29,
            Self::V1_30 => 30,
            Self::V1_31 => 31,
        }
    }
}

impl fmt::Display for IstioVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor())
    }
}

impl FromStr for IstioVersion {
    type Err = UnknownIstio;

    /// Reads `1.30` or `1.30.3`.
    fn from_str(text: &str) -> Result<Self, UnknownIstio> {
        let unknown = || UnknownIstio(text.to_owned());
        let mut parts = text.split('.');
        let (Some("1"), Some(minor)) = (parts.next(), parts.next()) else { return Err(unknown()) };
        if parts.next().is_some_and(|patch| patch.parse::<u16>().is_err()) || parts.next().is_some() {
            return Err(unknown());
        }
        Self::ALL.into_iter().find(|version| version.minor().to_string() == minor).ok_or_else(unknown)
    }
}

// === impl UnknownIstio ===

impl fmt::Display for UnknownIstio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a version of Istio from 1.27 to 1.31; write e.g. `1.30`", self.0)
    }
}

impl std::error::Error for UnknownIstio {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_with_and_without_a_patch() {
        assert_eq!("1.27".parse(), Ok(IstioVersion::V1_27));
        assert_eq!("1.31.0".parse(), Ok(IstioVersion::V1_31));
        for version in IstioVersion::ALL {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
    }

    #[test]
    fn refuses_other_versions() {
        for text in ["", "1", "1.26", "1.32", "2.30", "1.030", "1.30.x", "1.30.1.1", "v1.30", "30"] {
            assert!(text.parse::<IstioVersion>().is_err(), "{text}");
        }
    }
}

//! Rollouts as they are written.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Visitor};

/// How changed rules reach the proxies of a workload: some first, the others after a while.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Which proxies get them first: a number, or a share of the workload's such as `10%`. At least one, and never all of several.
    pub canary: AmountSpec,
    /// How long the others keep the rules that they have, e.g. `5m`.
    pub hold: String,
    /// When canaries go back; absent: only where a filter refuses the rules or does not survive them.
    pub abort_on: Option<AbortOnSpec>,
}

/// When canaries go back to the rules before.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AbortOnSpec {
    /// Share of the canaries' requests, e.g. `1%`: where the changed rules refuse more of those that the rules before would have allowed.
    pub new_refusals: String,
    /// So many requests must have been compared before; absent: 100.
    pub min_requests: Option<u32>,
}

/// A number or a share; kept as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmountSpec(pub String);

// === impl AmountSpec ===

impl<'de> Deserialize<'de> for AmountSpec {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AmountVisitor;
        impl Visitor<'_> for AmountVisitor {
            type Value = AmountSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a share such as `10%`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AmountSpec, E> {
                Ok(AmountSpec(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<AmountSpec, E> {
                Ok(AmountSpec(number.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<AmountSpec, E> {
                Ok(AmountSpec(number.to_string()))
            }
        }
        deserializer.deserialize_any(AmountVisitor)
    }
}

//! `RuleTest` as it is written.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, MapAccess, SeqAccess, Visitor};

use super::OneOrMany;

/// Requests, and what must be decided about each. Never enforced, never pushed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RuleTestSpec {
    /// Where requests arrive unless a test says otherwise, `namespace/name`.
    pub workload: Option<String>,
    /// What requests are unless a test says otherwise.
    pub defaults: Option<RequestSpec>,
    /// Tokens by names that tests refer to.
    pub tokens: Option<BTreeMap<String, TestTokenFields>>,
    /// What directories list, by their names, e.g. `dataflow/acme/europe-west4/orders-etl`. A directory that is not here is
    /// out of date.
    pub directories: Option<BTreeMap<String, Vec<String>>>,
    /// The requests.
    pub tests: Vec<TestSpec>,
}

/// One request, and what must be decided.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TestSpec {
    /// A sentence; unique in its RuleTest.
    pub name: String,
    /// What is sent; absent: the defaults alone.
    pub request: Option<RequestSpec>,
    /// What must be decided.
    pub expect: ExpectationSpec,
}

/// A request.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RequestSpec {
    /// Where it arrives, `namespace/name`.
    pub workload: Option<String>,
    /// Who calls: `namespace/service-account`, a SPIFFE id, or `none`. Absent: `none`.
    pub peer: Option<String>,
    /// What is sent along: names of `tokens`, or tokens.
    pub tokens: Option<Vec<TestTokenSpec>>,
    /// Absent: `GET`.
    pub method: Option<String>,
    /// Host and path in one: `https://host/path`.
    pub url: Option<String>,
    /// Absent: that of the Guard's audience.
    pub host: Option<String>,
    /// As sent, with query. Absent: `/`.
    pub path: Option<String>,
    /// A gRPC call, `package.Service/Method`, instead of method and path.
    pub grpc: Option<String>,
    /// Further headers.
    pub headers: Option<BTreeMap<String, OneOrMany>>,
    /// A JSON body. Absent: there is no body.
    pub body: Option<BTreeMap<String, ClaimJson>>,
    /// The workload's port. Absent: the Guard's first.
    pub port: Option<u16>,
    /// When it arrives, RFC 3339. Absent: when the test runs.
    pub time: Option<String>,
}

/// A token that is sent along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestTokenSpec {
    /// One of the RuleTest's `tokens`.
    Named(String),
    /// This one.
    Token(Box<TestTokenFields>),
}

/// What a token says. Nothing is signed: it counts as verified unless `refused` is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TestTokenFields {
    /// Name of the TrustedIssuer.
    pub issuer: Option<String>,
    /// One of the RuleTest's `tokens`, from which this one differs.
    pub like: Option<String>,
    /// Claims as the token has them. `iss`, `aud`, `iat` and `exp` need not be written.
    pub claims: Option<BTreeMap<String, ClaimJson>>,
    /// Claims that `like` has and this one has not.
    pub without: Option<Vec<String>>,
    /// For whom it is meant. Absent: what the Guard demands.
    pub audience: Option<OneOrMany>,
    /// Why a filter refuses it, a reason code, e.g. `token_expired`.
    pub refused: Option<String>,
}

/// A claim's value, as JSON has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimJson {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A string.
    String(String),
    /// An array.
    List(Vec<ClaimJson>),
    /// An object.
    Map(BTreeMap<String, ClaimJson>),
}

/// What must be decided: `Allow`, `Deny`, or more exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectationSpec {
    /// Whether the request passes.
    pub decision: DecisionSpec,
    /// A reason code; absent: any.
    pub reason: Option<String>,
    /// The rule that decides, `namespace/name`; absent: any.
    pub rule: Option<String>,
    /// What Shadow rules and Guards would decide; absent: anything.
    pub shadow: Option<ShadowSpec>,
}

/// What Shadow rules and Guards would decide.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ShadowSpec {
    /// Whether the request would pass.
    pub decision: DecisionSpec,
    /// The rule that would decide, `namespace/name`; absent: any.
    pub rule: Option<String>,
}

/// Whether a request passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum DecisionSpec {
    /// It does.
    Allow,
    /// It is refused.
    Deny,
}

// === impl TestTokenSpec ===

impl<'de> Deserialize<'de> for TestTokenSpec {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TokenVisitor;
        impl<'de> Visitor<'de> for TokenVisitor {
            type Value = TestTokenSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a token, or a mapping with `issuer` or `like`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TestTokenSpec, E> {
                Ok(TestTokenSpec::Named(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TestTokenSpec, A::Error> {
                let fields = TestTokenFields::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(TestTokenSpec::Token(Box::new(fields)))
            }
        }
        deserializer.deserialize_any(TokenVisitor)
    }
}

// === impl ExpectationSpec ===

impl<'de> Deserialize<'de> for ExpectationSpec {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct Fields {
            decision: DecisionSpec,
            reason: Option<String>,
            rule: Option<String>,
            shadow: Option<ShadowSpec>,
        }

        struct ExpectationVisitor;
        impl<'de> Visitor<'de> for ExpectationVisitor {
            type Value = ExpectationSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`Allow`, `Deny`, or a mapping with `decision`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ExpectationSpec, E> {
                let decision = match text {
                    "Allow" => DecisionSpec::Allow,
                    "Deny" => DecisionSpec::Deny,
                    other => return Err(E::unknown_variant(other, &["Allow", "Deny"])),
                };
                Ok(ExpectationSpec { decision, reason: None, rule: None, shadow: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ExpectationSpec, A::Error> {
                let Fields { decision, reason, rule, shadow } =
                    Fields::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(ExpectationSpec { decision, reason, rule, shadow })
            }
        }
        deserializer.deserialize_any(ExpectationVisitor)
    }
}

// === impl ClaimJson ===

impl ClaimJson {
    /// Writes it as JSON.
    pub fn write(&self, json: &mut String) {
        match self {
            Self::Boolean(boolean) => json.push_str(if *boolean { "true" } else { "false" }),
            Self::Integer(integer) => json.push_str(&integer.to_string()),
            Self::String(text) => write_string(text, json),
            Self::List(items) => {
                json.push('[');
                for (position, item) in items.iter().enumerate() {
                    json.push_str(if position > 0 { "," } else { "" });
                    item.write(json);
                }
                json.push(']');
            }
            Self::Map(members) => write_members(members, json),
        }
    }
}

/// Writes members as a JSON object.
pub(crate) fn write_members(members: &BTreeMap<String, ClaimJson>, json: &mut String) {
    json.push('{');
    for (position, (name, value)) in members.iter().enumerate() {
        json.push_str(if position > 0 { "," } else { "" });
        write_string(name, json);
        json.push(':');
        value.write(json);
    }
    json.push('}');
}

fn write_string(text: &str, json: &mut String) {
    json.push('"');
    for character in text.chars() {
        match character {
            // RFC 8259 section 7.
            '"' | '\\' => json.extend(['\\', character]),
            '\0'..='\u{1f}' => json.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => json.push(character),
        }
    }
    json.push('"');
}

impl<'de> Deserialize<'de> for ClaimJson {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JsonVisitor;
        impl<'de> Visitor<'de> for JsonVisitor {
            type Value = ClaimJson;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "what a claim may be: a string, a whole number, `true`, `false`, a list or a mapping",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ClaimJson, E> {
                Ok(ClaimJson::String(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, boolean: bool) -> Result<ClaimJson, E> {
                Ok(ClaimJson::Boolean(boolean))
            }

            fn visit_i64<E: de::Error>(self, integer: i64) -> Result<ClaimJson, E> {
                Ok(ClaimJson::Integer(integer))
            }

            fn visit_u64<E: de::Error>(self, integer: u64) -> Result<ClaimJson, E> {
                i64::try_from(integer).map(ClaimJson::Integer).map_err(|_| {
                    E::invalid_value(de::Unexpected::Unsigned(integer), &"a whole number of at most 63 bits")
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ClaimJson, A::Error> {
                let mut values = Vec::new();
                while let Some(item) = items.next_element()? {
                    values.push(item);
                }
                Ok(ClaimJson::List(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ClaimJson, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    members.insert(name, value);
                }
                Ok(ClaimJson::Map(members))
            }
        }
        deserializer.deserialize_any(JsonVisitor)
    }
}

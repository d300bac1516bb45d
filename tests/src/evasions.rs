//! The table of evasions (`tests/corpus/evasions.yaml`): what is tried against which rule, and what must come of it.
//!
//! INVARIANT: only data and no crate of ours, so that the compiler's own tests include this file and read the same table.

use serde::Deserialize;

/// The table as it is written.
pub const TEXT: &str = include_str!("../corpus/evasions.yaml");

/// All ways around rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Objects that are there in every scene.
    pub mesh: String,
    /// The ways.
    pub ways: Vec<Way>,
}

/// One kind of evasion.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// A few words.
    pub name: String,
    /// What is demanded.
    pub why: String,
    /// Rules and what is tried against each.
    pub scenes: Vec<Scene>,
}

/// One rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// The entry of `to` of an Allow.
    pub allow: Option<String>,
    /// The entry of `to` of a Deny, beside an Allow of everything.
    pub deny: Option<String>,
    /// These pass.
    pub allowed: Vec<Entry>,
    /// These do not.
    #[serde(default)]
    pub refused: Vec<Entry>,
    /// These are refused by the Deny.
    #[serde(default)]
    pub denied: Vec<Entry>,
}

/// Requests.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// One without a body.
    Call(String),
    /// One for each of what stands for `{}`, with each of the bodies.
    Calls {
        /// `METHOD host/path`, and headers on further lines.
        call: String,
        /// What stands for `{}`.
        with: Option<Vec<String>>,
        /// Bodies; none: without one.
        bodies: Option<Vec<Body>>,
    },
}

/// A body.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Body {
    /// As it is.
    Text(String),
    /// Bytes.
    Hex {
        /// In hexadecimal digits.
        hex: String,
    },
    /// Messages of gRPC.
    Messages {
        /// Each a list of fields.
        messages: Vec<Vec<(u32, Field)>>,
    },
}

/// What a field of a message holds.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Field {
    /// A number.
    Number(u64),
    /// A string.
    Text(String),
    /// A message.
    Message(Vec<(u32, Field)>),
}

/// What must come of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It passes.
    Allowed,
    /// It does not.
    Refused,
    /// The Deny refuses it.
    Denied,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// `METHOD host/path`, and headers on further lines.
    pub call: String,
    /// Empty: none.
    pub body: Vec<u8>,
    /// What must come of it.
    pub expected: Expected,
}

// === impl Scene ===

impl Scene {
    /// The rules of the scene: all of its objects but the mesh.
    pub fn rules(&self) -> String {
        let head = |name: &str, effect: &str| {
            format!(
                "---\nkind: AccessRule\nmetadata: {{name: {name}, namespace: egress}}\nspec:\n  owner: team-billing\n  \
                 target: {{gateway: egress/external}}\n  effect: {effect}\n  mode: Enforce\n"
            )
        };
        let rule = |name, effect, to: &Option<String>| {
            let from = "  from: [{peer: {namespace: etl}}]\n";
            let to = to.as_ref().map(|to| format!("{}{from}  to: [{{{to}}}]\n", head(name, effect)));
            to.unwrap_or_default()
        };
        let all = match self.deny {
            Some(_) => format!("{}  from: [{{anyMesh: true}}]\n", head("all", "Allow")),
            None => String::new(),
        };
        format!("{}{all}{}", rule("allow", "Allow", &self.allow), rule("deny", "Deny", &self.deny))
    }

    /// Everything that is tried, what passes first.
    pub fn attempts(&self) -> Vec<Attempt> {
        let of = |entries: &[Entry], expected| {
            entries.iter().flat_map(move |entry| entry.attempts(expected)).collect()
        };
        let lists: [Vec<Attempt>; 3] = [
            of(&self.allowed, Expected::Allowed),
            of(&self.refused, Expected::Refused),
            of(&self.denied, Expected::Denied),
        ];
        lists.concat()
    }
}

// === impl Entry ===

impl Entry {
    fn attempts(&self, expected: Expected) -> Vec<Attempt> {
        let (call, with, bodies) = match self {
            Self::Call(call) => (call, None, None),
            Self::Calls { call, with, bodies } => (call, with.as_ref(), bodies.as_ref()),
        };
        let calls = match with {
            Some(with) => with.iter().map(|with| call.replace("{}", with)).collect(),
            None => vec![call.clone()],
        };
        let bodies =
            bodies.map_or_else(|| vec![Vec::new()], |bodies| bodies.iter().map(Body::bytes).collect());
        let each = |call: String| {
            bodies.clone().into_iter().map(move |body| Attempt { call: call.clone(), body, expected })
        };
        calls.into_iter().flat_map(each).collect()
    }
}

// === impl Body ===

impl Body {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Hex { hex } => hex.as_bytes().chunks(2).map(byte).collect(),
            Self::Messages { messages } => messages
                .iter()
                .flat_map(|fields| {
                    let message = encode(fields);
                    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
                    [vec![0], length.to_be_bytes().to_vec(), message].concat()
                })
                .collect(),
        }
    }
}

fn byte(digits: &[u8]) -> u8 {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        .unwrap_or_default()
}

fn encode(fields: &[(u32, Field)]) -> Vec<u8> {
    let one = |(number, field): &(u32, Field)| {
        let key = u64::from(*number) << 3;
        let bytes = |bytes: Vec<u8>| {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            [varint(key | 2), varint(length), bytes].concat()
        };
        match field {
            Field::Number(value) => [varint(key), varint(*value)].concat(),
            Field::Text(text) => bytes(text.clone().into_bytes()),
            Field::Message(fields) => bytes(encode(fields)),
        }
    };
    fields.iter().flat_map(one).collect()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(0x80 | u8::try_from(value & 0x7f).unwrap_or_default());
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or_default());
    bytes
}

//! What the targets share: issuers of every pack, ways to write tokens, and a second opinion.

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use tidegate_identity::issuer::{IssuerSetSpec, IssuerSpec, TokenHeader};
use tidegate_identity::json::Value;
use tidegate_identity::keys::Curve;
use tidegate_identity::{
    Algorithm, Authenticator, CacheLimits, Connection, IssuerSet, Jwk, PackKind, PublicKey, PureRust,
    Verdict, VerifySignature,
};

/// The tokens that the unit tests of packs bend.
#[path = "../../src/pack/golden.rs"]
pub mod golden;

/// Accepts every signature, so that what lies behind is reached.
pub struct Credulous;

/// Verifies, over a connection with this certificate.
pub struct Honest(pub Option<[u8; 32]>);

impl VerifySignature for Credulous {
    fn verify(&self, _: Algorithm, _: &PublicKey, _: &[u8], _: &[u8]) -> Verdict {
        Verdict::Valid
    }
}

impl Connection for Credulous {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        Some([0; 32])
    }
}

impl VerifySignature for Honest {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> Verdict {
        PureRust.verify(algorithm, key, input, signature)
    }
}

impl Connection for Honest {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        self.0
    }
}

pub const KEY_ID: &str = "key-1";

/// The key of all issuers here. It is worth nothing.
pub fn signer() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).expect("a scalar")
}

/// An issuer of this pack.
pub fn issuer(pack: PackKind) -> IssuerSpec {
    let point = signer().verifying_key().to_sec1_point(false);
    let (x, y) = point.as_bytes()[1..].split_at(32);
    let mut spec = IssuerSpec::new(pack.name(), golden::issuer(pack), pack);
    if pack == PackKind::Generic {
        spec.types = vec!["jwt".to_owned()];
    }
    spec.headers.push(TokenHeader { name: "x-token".to_owned(), prefix: None });
    spec.algorithms = vec![Algorithm::Es256];
    spec.valid_until = i64::MAX;
    spec.keys = vec![Jwk::ec(Some(KEY_ID.to_owned()), None, Curve::P256, x, y).expect("a point")];
    spec
}

/// These issuers in force, with rules that read everything that there is to read.
pub fn authenticator(specs: Vec<IssuerSpec>) -> Authenticator {
    let policy = specs.iter().map(|spec| (spec.name.clone(), slots(spec.pack))).collect();
    in_force(decoded(specs), policy)
}

/// An issuer of every pack in force.
pub fn all_issuers() -> Authenticator {
    static ALL: LazyLock<IssuerSet> =
        LazyLock::new(|| decoded(PackKind::ALL.into_iter().map(issuer).collect()));
    in_force(
        ALL.clone(),
        PackKind::ALL.into_iter().map(|pack| (pack.name().to_owned(), slots(pack))).collect(),
    )
}

fn decoded(specs: Vec<IssuerSpec>) -> IssuerSet {
    let section = IssuerSetSpec::new(specs).encode().expect("good issuers");
    IssuerSet::decode(&section).expect("what encodes decodes")
}

fn in_force(set: IssuerSet, policy: Vec<(String, Vec<Vec<String>>)>) -> Authenticator {
    Authenticator::new(set, policy, CacheLimits { max_entries: 4, max_bytes: 1 << 16 }).expect("all issuers")
}

fn slots(pack: PackKind) -> Vec<Vec<String>> {
    let claims = pack.claims().iter().map(|claim| claim.path.to_vec());
    let derived = pack.derived_all().map(|derived| vec![derived.name]);
    let owned = |path: Vec<&str>| path.into_iter().map(str::to_owned).collect();
    claims.chain(derived).chain([vec!["a", "b"]]).map(owned).collect()
}

/// A signed token of exactly these texts.
pub fn sign(header: &str, claims: &str) -> String {
    let input = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    let signature: Signature = signer().sign(input.as_bytes());
    format!("{input}.{}", encode(&signature.to_bytes()))
}

pub fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * at)) as usize & 63]));
        }
    }
    text
}

/// Whether both readers have read the same.
pub fn same(ours: &Value, theirs: &serde_json::Value) -> bool {
    match (ours, theirs) {
        (Value::Null, serde_json::Value::Null) => true,
        (Value::Boolean(a), serde_json::Value::Bool(b)) => a == b,
        (Value::Integer(a), serde_json::Value::Number(b)) => b.as_i64() == Some(*a),
        // Not a 64-bit integer: nothing is compared with it.
        (Value::Number(_), serde_json::Value::Number(_)) => true,
        (Value::String(a), serde_json::Value::String(b)) => a == b,
        (Value::Array(a), serde_json::Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), serde_json::Value::Object(b)) => {
            a.iter().count() == b.len()
                && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
        }
        _ => false,
    }
}

/// A JSON text, mostly.
#[derive(Debug, Clone)]
pub struct Json(pub String);

impl<'a> Arbitrary<'a> for Json {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut text = String::new();
        write_value(u, &mut text, 6)?;
        Ok(Self(text))
    }
}

/// Words that mean something to somebody.
const WORDS: [&str; 24] = [
    "ES256",
    "RS256",
    "EdDSA",
    "none",
    "HS256",
    "JWT",
    "JOSE",
    "at+jwt",
    "key-1",
    "sub",
    "aud",
    "iss",
    "x5t#S256",
    "act",
    "true",
    "11",
    "11 13",
    "api://ledger",
    "spiffe://batch.example/a",
    "system:serviceaccount:etl:orders-runner",
    "arn:aws:sts::123456789012:assumed-role/x/y",
    "repo:acme/orders:ref:refs/heads/main",
    "2.0",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
];

fn write_value(u: &mut Unstructured<'_>, text: &mut String, depth: u32) -> arbitrary::Result<()> {
    match u.int_in_range(0..=if depth == 0 { 6 } else { 8 })? {
        0 => text.push_str("null"),
        1 => text.push_str(if u.arbitrary()? { "true" } else { "false" }),
        2 => text.push_str(&u.arbitrary::<i64>()?.to_string()),
        // About when the golden tokens are valid.
        3 => text.push_str(&(golden::ISSUED + i64::from(u.arbitrary::<i16>()?)).to_string()),
        4 => write_string(u, text)?,
        5 => text.push_str(&serde_json::Value::from(*u.choose(&WORDS)?).to_string()),
        6 => {
            for byte in u.arbitrary::<[u8; 3]>()? {
                text.push(char::from(b"-+0123456789.eE"[usize::from(byte) % 15]));
            }
        }
        7 => {
            text.push('[');
            for at in 0..u.int_in_range(0..=3)? {
                text.push_str(if at == 0 { "" } else { "," });
                write_value(u, text, depth - 1)?;
            }
            text.push(']');
        }
        _ => {
            text.push('{');
            for at in 0..u.int_in_range(0..=3)? {
                text.push_str(if at == 0 { "" } else { "," });
                text.push_str(&serde_json::Value::from(*u.choose(&WORDS)?).to_string());
                text.push(':');
                write_value(u, text, depth - 1)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

fn write_string(u: &mut Unstructured<'_>, text: &mut String) -> arbitrary::Result<()> {
    let raw = u.arbitrary::<&str>()?;
    match u.arbitrary()? {
        true => text.push_str(&serde_json::Value::from(raw).to_string()),
        // Perhaps no string at all.
        false => text.push_str(&format!("\"{raw}\"")),
    }
    Ok(())
}

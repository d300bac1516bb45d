//! Attacks on a verifier of tokens: what is sent, and what must come of it. Every case runs natively and in Envoy.
//!
//! Rows are those of the list that the identity crate is tested against: forged signatures, keys smuggled in, readings
//! that differ between parsers, wrong types, wrong times, wrong audiences, and tokens in more than one place. Some cases
//! are right, so that the list cannot pass by refusing everything.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Value, json};
use tidegate::demo::client::{Call, Protocol};
use tidegate::demo::issuers::{KeyKind, SigningKey};
use tidegate_engine::Outcome;

use crate::corpus::{spiffe_id, token_of};
use crate::native::{self, Seen};
use crate::rig::{Rig, SERVICE};

/// Tokens of the cluster, for one pod's account, bound to the peer.
const RULES: &str = "
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: \"https://orders.sales.example\"}
---
kind: AccessRule
metadata: {name: orders, namespace: sales}
spec:
  owner: team-billing
  effect: Allow
  mode: Enforce
  from:
  - peer: {namespace: etl, serviceAccounts: [orders-worker]}
    tokens: [{issuer: prod-cluster}]
  to: [{http: {methods: [GET], paths: [\"/v1/orders\"]}}]
";

const PEER: &str = "etl/orders-worker";

/// The order of P-256 (FIPS 186-5), to make the other spelling of a signature.
const P256_ORDER: [u8; 32] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xBC,
    0xE6, 0xFA, 0xAD, 0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
];

/// One attack, or one right request that looks like one.
struct Attack {
    row: u32,
    name: String,
    headers: Vec<(String, Vec<u8>)>,
    /// The reason code; `allowed_by_rule` where it is none.
    reason: &'static str,
}

/// How many were tried, and what came of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// All.
    pub tried: u32,
    /// Of which refused, as they must be.
    pub refused: u32,
    /// Of which accepted, as they must be.
    pub accepted: u32,
}

struct Maker {
    rsa: Arc<SigningKey>,
    elliptic: Arc<SigningKey>,
    stranger: Arc<SigningKey>,
    /// Signed with HMAC, the public key's PEM for a secret.
    hmac: String,
    claims: Value,
    now: i64,
    attacks: Vec<Attack>,
}

/// Runs the list.
pub async fn run(rig: &Rig) -> Result<Tally> {
    let applied = rig.apply(RULES).await?;
    let attacks = Maker::new(rig)?.attacks()?;
    let endpoint = rig.service_as(&spiffe_id(PEER))?;
    let port = rig.envoy.address("service")?.port();
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    for attack in &attacks {
        tally.tried += 1;
        let is_right = attack.reason == "allowed_by_rule";
        let mut headers: Vec<(String, Vec<u8>)> = vec![
            (":method".into(), "GET".into()),
            (":path".into(), "/v1/orders".into()),
            (":authority".into(), "orders.sales.example".into()),
        ];
        headers.extend(joined(&attack.headers));
        let seen = Seen { headers, peer: Some(spiffe_id(PEER)), port };
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let (decision, _) = native::decision(rig, SERVICE, &applied.service, &seen, now)?;
        let mut call = Call::new(Method::GET, "/v1/orders").authority("orders.sales.example");
        for (name, value) in &attack.headers {
            call = call.header(name, value);
        }
        let before = rig.upstream.requests();
        // What the client itself refuses to send, or Envoy refuses to read, has not been let through either.
        let answer = endpoint.call(Protocol::Http1, call).await;
        let reached = rig.upstream.requests() > before;
        let told = answer.as_ref().map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
        let as_expected = match &told {
            Ok(told) if !is_right => told.contains(attack.reason),
            Ok(_) => true,
            Err(_) => !is_right,
        };
        let native =
            decision.reason.code() == attack.reason && (decision.outcome == Outcome::Allow) == is_right;
        if !native || reached != is_right || !as_expected {
            failures.push(format!(
                "row {} ({}): natively {}, in Envoy {told:?}, expected {}",
                attack.row, attack.name, decision.reason, attack.reason
            ));
        } else if is_right {
            tally.accepted += 1;
        } else {
            tally.refused += 1;
        }
    }
    ensure!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), tally.tried, failures.join("\n"));
    Ok(tally)
}

/// As Envoy does with headers that it knows.
fn joined(headers: &[(String, Vec<u8>)]) -> Option<(String, Vec<u8>)> {
    let values: Vec<&[u8]> = headers.iter().map(|(_, value)| value.as_slice()).collect();
    (!values.is_empty()).then(|| ("authorization".to_owned(), values.join(&b","[..])))
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// `n - s`, the other number that verifies.
fn other_spelling(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(32);
    let mut other = [0; 32];
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i16::from(P256_ORDER[at]) - i16::from(s[at]) - borrow;
        borrow = i16::from(difference < 0);
        other[at] = u8::try_from(difference.rem_euclid(256)).unwrap_or(0);
    }
    [r, &other].concat()
}

// === impl Maker ===

impl Maker {
    fn new(rig: &Rig) -> Result<Self> {
        let cluster = &rig.issuers.cluster;
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        Ok(Self {
            rsa: cluster.key(KeyKind::Rs256).context("an RSA key")?,
            elliptic: cluster.key(KeyKind::Es256).context("an elliptic-curve key")?,
            stranger: rig.issuers.gitlab.signing_key(),
            hmac: token_of(rig, "cluster")?.hmac_with_public_key().sign()?,
            claims: token_of(rig, "cluster")?.claims,
            now,
            attacks: Vec::new(),
        })
    }

    fn header(&self) -> Value {
        json!({"alg": "RS256", "kid": self.rsa.id()})
    }

    fn signed(&self, key: &SigningKey, header: &str, claims: &str) -> Result<String> {
        let input = format!("{}.{}", encode(header), encode(claims));
        let signature = key.sign(input.as_bytes())?;
        Ok(format!("{input}.{}", encode(signature)))
    }

    fn right(&self) -> Result<String> {
        self.signed(&self.rsa, &self.header().to_string(), &self.claims.to_string())
    }

    fn send(&mut self, row: u32, name: &str, value: impl Into<Vec<u8>>, reason: &'static str) {
        let headers = vec![("authorization".to_owned(), value.into())];
        self.attacks.push(Attack { row, name: name.to_owned(), headers, reason });
    }

    fn bearer(&mut self, row: u32, name: &str, token: &str, reason: &'static str) {
        self.send(row, name, format!("Bearer {token}"), reason);
    }

    /// A right token with another header, signed by the issuer.
    fn with_header(&mut self, row: u32, name: &str, header: &str, reason: &'static str) -> Result<()> {
        let token = self.signed(&self.rsa, header, &self.claims.to_string())?;
        self.bearer(row, name, &token, reason);
        Ok(())
    }

    /// A right token with further members of the header, signed by the issuer.
    fn with_member(&mut self, row: u32, member: &str, value: Value, reason: &'static str) -> Result<()> {
        let mut header = self.header();
        header[member] = value;
        self.with_header(row, &format!("`{member}` in the header"), &header.to_string(), reason)
    }

    /// Other claims, signed by the issuer.
    fn with_claims(&mut self, row: u32, name: &str, claims: &str, reason: &'static str) -> Result<()> {
        let token = self.signed(&self.rsa, &self.header().to_string(), claims)?;
        self.bearer(row, name, &token, reason);
        Ok(())
    }

    /// One other claim, signed by the issuer.
    fn with_claim(&mut self, row: u32, claim: &str, value: Value, reason: &'static str) -> Result<()> {
        let mut claims = self.claims.clone();
        claims[claim] = value.clone();
        self.with_claims(row, &format!("`{claim}` is {value}"), &claims.to_string(), reason)
    }

    fn attacks(mut self) -> Result<Vec<Attack>> {
        self.right_ones()?;
        self.signatures()?;
        self.headers()?;
        self.forms()?;
        self.claims()?;
        self.times()?;
        self.places()?;
        Ok(self.attacks)
    }

    fn right_ones(&mut self) -> Result<()> {
        const RIGHT: &str = "allowed_by_rule";
        let right = self.right()?;
        self.bearer(0, "as it should be", &right, RIGHT);
        self.send(34, "the scheme in lower case", format!("bearer {right}"), RIGHT);
        self.with_claim(30, "aud", json!(["https://other.example", "https://orders.sales.example"]), RIGHT)?;
        self.with_claim(28, "nbf", json!(self.now + 20), RIGHT)?;
        self.with_claim(26, "exp", json!(self.now - 20), "token_claims_contradict")?;
        let header = json!({"alg": "ES256", "kid": self.elliptic.id()}).to_string();
        let token = self.signed(&self.elliptic, &header, &self.claims.to_string())?;
        self.bearer(16, "ES256", &token, RIGHT);
        let (input, signature) = token.rsplit_once('.').context("three parts")?;
        let other = other_spelling(&URL_SAFE_NO_PAD.decode(signature)?);
        let other = format!("{input}.{}", encode(other));
        self.bearer(16, "the other spelling of an ES256 signature", &other, RIGHT);
        Ok(())
    }

    fn signatures(&mut self) -> Result<()> {
        let claims = self.claims.to_string();
        for algorithm in ["none", "None", "NONE", "nOnE", "", "HS256", "HS512", "RS1", "ES256K", "RS256 "] {
            let header = json!({"alg": algorithm, "kid": self.rsa.id()}).to_string();
            let input = format!("{}.{}", encode(header), encode(&claims));
            let name = format!("`alg` is `{algorithm}`");
            self.bearer(1, &format!("{name}, unsigned"), &format!("{input}."), "token_algorithm_refused");
            let signature = self.rsa.sign(input.as_bytes())?;
            let signed = format!("{input}.{}", encode(signature));
            self.bearer(1, &format!("{name}, signed"), &signed, "token_algorithm_refused");
        }
        let right = self.right()?;
        let (input, signature) = right.rsplit_once('.').context("three parts")?;
        self.bearer(1, "an empty signature", &format!("{input}."), "token_malformed");
        let mut bytes = URL_SAFE_NO_PAD.decode(signature)?;
        for at in [0, 100, 255] {
            bytes[at] ^= 0x40;
            let token = format!("{input}.{}", encode(&bytes));
            self.bearer(1, &format!("byte {at} of the signature changed"), &token, "token_bad_signature");
            bytes[at] ^= 0x40;
        }
        let shorter = format!("{input}.{}", encode(&bytes[1..]));
        self.bearer(15, "a shorter signature", &shorter, "token_bad_signature");
        let longer = format!("{input}.{}", encode([&[0], bytes.as_slice()].concat()));
        self.bearer(15, "a longer signature", &longer, "token_bad_signature");
        let hmac = self.hmac.clone();
        self.bearer(2, "HS256 with the public key for a secret", &hmac, "token_algorithm_refused");
        let header = self.header().to_string();
        let stranger = self.signed(&Arc::clone(&self.stranger), &header, &claims)?;
        self.bearer(4, "another issuer's key under this issuer's `kid`", &stranger, "token_bad_signature");
        let foreign = json!({"alg": "RS256", "kid": self.stranger.id()}).to_string();
        let stranger = self.signed(&Arc::clone(&self.stranger), &foreign, &claims)?;
        self.bearer(7, "another issuer's key under its own `kid`", &stranger, "token_key_unknown");

        let header = json!({"alg": "ES256", "kid": self.elliptic.id()}).to_string();
        let token = self.signed(&self.elliptic, &header, &claims)?;
        let (input, signature) = token.rsplit_once('.').context("three parts")?;
        let signature = URL_SAFE_NO_PAD.decode(signature)?;
        let (r, s) = signature.split_at(32);
        let zero = [0; 32];
        let der = [&[0x30, 0x44, 0x02, 0x20], r, &[0x02, 0x20], s].concat();
        let crafted: [(&str, Vec<u8>); 8] = [
            ("r and s zero", [zero, zero].concat()),
            ("r zero", [&zero, s].concat()),
            ("s zero", [r, &zero].concat()),
            ("r and s the order", [P256_ORDER, P256_ORDER].concat()),
            ("s the order", [r, &P256_ORDER].concat()),
            ("in DER form", der),
            ("r and s exchanged", [s, r].concat()),
            ("twice as long", [&zero, r, &zero, s].concat()),
        ];
        for (name, signature) in crafted {
            let token = format!("{input}.{}", encode(signature));
            self.bearer(15, &format!("an ES256 signature: {name}"), &token, "token_bad_signature");
        }
        let confused = json!({"alg": "ES256", "kid": self.rsa.id()}).to_string();
        let confused = self.signed(&self.rsa, &confused, &claims)?;
        self.bearer(2, "ES256 with an RSA key's id", &confused, "token_key_unknown");
        Ok(())
    }

    fn headers(&mut self) -> Result<()> {
        const REFUSED: &str = "token_header_refused";
        let jwk = self.stranger.jwk();
        self.with_member(3, "jwk", jwk, REFUSED)?;
        self.with_member(3, "jku", json!("https://evil.example/keys"), REFUSED)?;
        self.with_member(3, "x5u", json!("https://evil.example/cert"), REFUSED)?;
        self.with_member(3, "x5c", json!(["MIIB"]), REFUSED)?;
        for crit in [json!([]), json!(["b64"]), json!(["exp", "exp"]), json!("b64"), Value::Null] {
            self.with_member(10, "crit", crit, REFUSED)?;
        }
        self.with_member(11, "b64", json!(false), REFUSED)?;
        self.with_member(11, "b64", json!(true), REFUSED)?;
        self.with_member(12, "enc", json!("A128GCM"), REFUSED)?;
        self.with_member(13, "cty", json!("JWT"), REFUSED)?;
        self.with_member(14, "zip", json!("DEF"), REFUSED)?;
        self.with_member(4, "kid", json!("../../dev/null"), "token_key_unknown")?;
        self.with_member(4, "kid", json!("' OR 1=1 --"), "token_key_unknown")?;
        self.with_member(4, "kid", json!(""), "token_key_unknown")?;
        self.with_member(4, "kid", json!("k".repeat(2000)), "token_key_unknown")?;
        for kid in [json!(7), json!(["a"]), json!({"a": 1}), Value::Null, json!(true)] {
            self.with_member(4, "kid", kid, "token_malformed")?;
        }
        for kind in ["wit+jwt", "dpop+jwt", "secevent+jwt", "logout+jwt", "JOSE+JSON"] {
            self.with_member(32, "typ", json!(kind), "token_type_refused")?;
        }
        let kid = self.rsa.id().to_owned();
        self.with_header(
            19,
            "`alg` twice",
            &format!(r#"{{"alg":"none","alg":"RS256","kid":"{kid}"}}"#),
            "token_malformed",
        )?;
        self.with_header(
            19,
            "`alg` twice, once escaped",
            &format!(r#"{{"\u0061lg":"none","alg":"RS256","kid":"{kid}"}}"#),
            "token_malformed",
        )?;
        self.with_header(1, "no `alg`", &format!(r#"{{"kid":"{kid}"}}"#), "token_algorithm_refused")?;
        Ok(())
    }

    fn forms(&mut self) -> Result<()> {
        const MALFORMED: &str = "token_malformed";
        let right = self.right()?;
        let parts: Vec<&str> = right.split('.').collect();
        let [header, claims, signature] = parts.as_slice() else { anyhow::bail!("three parts") };
        for (name, token) in [
            ("two parts", format!("{header}.{claims}")),
            ("four parts", format!("{right}.x")),
            ("a detached payload", format!("{header}..{signature}")),
            ("a trailing dot", format!("{right}.")),
            (
                "the JSON serialisation",
                format!(r#"{{"payload":"{claims}","protected":"{header}","signature":"{signature}"}}"#),
            ),
        ] {
            let is_json = token.starts_with('{');
            self.bearer(12, name, &token, if is_json { "duplicate_header" } else { MALFORMED });
        }
        let padded = |text: &str| -> Result<String> { Ok(URL_SAFE.encode(URL_SAFE_NO_PAD.decode(text)?)) };
        let standard = |text: &str| -> Result<String> { Ok(STANDARD.encode(URL_SAFE_NO_PAD.decode(text)?)) };
        let claims_padded = padded(&encode(format!("{} ", self.claims)))?;
        self.bearer(22, "padding", &format!("{header}.{claims_padded}=.{signature}"), MALFORMED);
        self.bearer(
            22,
            "the standard alphabet",
            &format!("{header}.{claims}.{}+/", standard(signature)?),
            MALFORMED,
        );
        let mut spelled = signature.to_string();
        if let Some(last) = spelled.pop() {
            // 256 bytes end in two characters of which the last has four bits that mean nothing.
            spelled.push(match last {
                'A' => 'B',
                'Q' => 'R',
                'g' => 'h',
                _ => 'x',
            });
        }
        self.bearer(22, "bits that mean nothing", &format!("{header}.{claims}.{spelled}"), MALFORMED);
        let nested = format!(r#"{{"a":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
        let issuer = self.claims["iss"].as_str().context("iss")?.to_owned();
        let deep = nested.replacen('{', &format!(r#"{{"iss":"{issuer}","#), 1);
        self.with_claims(25, "forty levels deep", &deep, "token_too_large")?;
        let mut many = self.claims.clone();
        for number in 0..400 {
            many[format!("m{number}")] = json!(1);
        }
        self.with_claims(25, "four hundred claims", &many.to_string(), "token_too_large")?;
        let mut large = self.claims.clone();
        large["x"] = json!("x".repeat(20_000));
        self.with_claims(25, "twenty kilobytes", &large.to_string(), "token_too_large")?;
        let text = self.claims.to_string();
        for (name, claims) in [
            ("text after the claims", format!("{text}x")),
            ("a byte order mark", format!("\u{feff}{text}")),
            ("a comment", text.replacen('{', "{/**/", 1)),
            ("a trailing comma", format!("{},}}", &text[..text.len() - 1])),
            ("single quotes", text.replace('"', "'")),
            ("an array", format!("[{text}]")),
            ("nothing", String::new()),
        ] {
            self.with_claims(19, name, &claims, MALFORMED)?;
        }
        Ok(())
    }

    fn claims(&mut self) -> Result<()> {
        const WRONG: &str = "token_claim_malformed";
        let text = self.claims.to_string();
        let issuer = self.claims["iss"].as_str().context("iss")?.to_owned();
        let with = |member: &str| text.replacen('{', &format!("{{{member},"), 1);
        self.with_claims(19, "`sub` twice", &with(r#""sub":"admin""#), "token_malformed")?;
        self.with_claims(19, "`aud` twice, once escaped", &with(r#""\u0061ud":["x"]"#), "token_malformed")?;
        self.with_claims(
            19,
            "a nested claim twice",
            &text.replacen(r#""namespace":"#, r#""namespace":"kube-system","namespace":"#, 1),
            "token_malformed",
        )?;
        for issuer in [json!([issuer]), json!({"a": issuer}), json!(5), Value::Null] {
            self.with_claim(21, "iss", issuer, WRONG)?;
        }
        for near in [
            format!("{issuer}/"),
            issuer.to_uppercase(),
            issuer.replace("https", "http"),
            format!("{issuer}.evil.example"),
            format!(" {issuer}"),
        ] {
            // Of an issuer that nobody configured: not there.
            self.with_claim(7, "iss", json!(near), "token_required")?;
        }
        for (claim, values) in [
            ("exp", vec![json!("4102444800"), json!([1]), Value::Null, json!(true), json!(-1)]),
            ("nbf", vec![json!("0"), Value::Null, json!({})]),
            ("iat", vec![json!("0"), Value::Null]),
            (
                "aud",
                vec![
                    json!({"a": 1}),
                    json!(5),
                    Value::Null,
                    json!([]),
                    json!([""]),
                    json!([1]),
                    json!("https://orders.sales.example"),
                ],
            ),
            (
                "sub",
                vec![json!(["system:serviceaccount:etl:orders-worker"]), json!(5), json!(""), Value::Null],
            ),
            ("kubernetes.io", vec![json!("etl"), json!([]), json!(5)]),
        ] {
            for value in values {
                self.with_claim(21, claim, value, WRONG)?;
            }
        }
        for number in ["1e3", "4102444800.5", "1E400", "99999999999999999999", "9007199254740993"] {
            let claims =
                text.replacen(&format!(r#""exp":{}"#, self.claims["exp"]), &format!(r#""exp":{number}"#), 1);
            self.with_claims(20, &format!("`exp` is {number}"), &claims, WRONG)?;
        }
        for (name, subject) in [
            ("NUL", "system:serviceaccount:etl:orders-worker\u{0}"),
            ("a line feed", "system:serviceaccount:etl:orders-worker\n"),
            ("a right-to-left override", "system:serviceaccount:etl:\u{202e}orders-worker"),
            ("a zero-width space", "system:serviceaccount:etl:orders\u{200b}-worker"),
            ("a Cyrillic letter", "system:serviceaccount:etl:оrders-worker"),
        ] {
            let mut claims = self.claims.clone();
            claims["sub"] = json!(subject);
            let row = if name == "a Cyrillic letter" { 24 } else { 23 };
            self.with_claims(row, &format!("{name} in `sub`"), &claims.to_string(), WRONG)?;
        }
        self.with_claim(
            24,
            "sub",
            json!("system:serviceaccount:etl:Orders-Worker"),
            "token_claims_contradict",
        )?;
        self.with_claim(30, "aud", json!(["https://other.example"]), "token_wrong_audience")?;
        self.with_claim(30, "aud", json!(["https://orders.sales.example.evil"]), "token_wrong_audience")?;
        self.with_claim(30, "aud", json!(["https://orders.sales.exampl"]), "token_wrong_audience")?;
        for party in [
            "istio-ca",
            "sts.amazonaws.com",
            "pods.eks.amazonaws.com",
            "https://graph.microsoft.com",
            "https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        ] {
            self.with_claim(
                31,
                "aud",
                json!(["https://orders.sales.example", party]),
                "token_minted_for_another_party",
            )?;
        }
        self.with_claim(37, "cnf", json!({"x5t#S256": encode([7; 32])}), "token_not_bound")?;
        self.with_claim(37, "cnf", json!({"jkt": encode([7; 32])}), "token_not_bound")?;
        self.with_claim(37, "cnf", json!({}), "token_not_bound")?;
        let legacy = json!({"iss": issuer, "kubernetes.io/serviceaccount/namespace": "etl", "sub": "system:serviceaccount:etl:orders-worker"});
        self.with_claims(26, "a token as Secrets held them", &legacy.to_string(), "token_claim_missing")?;
        Ok(())
    }

    fn times(&mut self) -> Result<()> {
        let mut at = |row, name: &str, issued: i64, expires: Option<i64>, reason| {
            let mut claims = self.claims.clone();
            claims["iat"] = json!(self.now + issued);
            claims["nbf"] = json!(self.now + issued);
            match (expires, claims.as_object_mut()) {
                (Some(expires), _) => claims["exp"] = json!(self.now + expires),
                (None, Some(members)) => drop(members.remove("exp")),
                (None, None) => {}
            }
            self.with_claims(row, name, &claims.to_string(), reason)
        };
        at(26, "no `exp`", 0, None, "token_claim_missing")?;
        at(26, "over since five minutes", -3900, Some(-300), "token_expired")?;
        at(26, "over within the tolerance", -3600, Some(-15), "allowed_by_rule")?;
        at(28, "of tomorrow", 86_400, Some(90_000), "token_not_yet_valid")?;
        at(28, "of the next minute", 61, Some(3600), "token_not_yet_valid")?;
        at(27, "for a year", 0, Some(365 * 86_400), "token_lifetime_too_long")?;
        at(27, "until the year 3000", 0, Some(30_000_000_000), "token_lifetime_too_long")?;
        let mut claims = self.claims.clone();
        if let Some(members) = claims.as_object_mut() {
            members.remove("iat");
            members.remove("nbf");
        }
        self.with_claims(27, "neither `iat` nor `nbf`", &claims.to_string(), "token_claim_missing")
    }

    fn places(&mut self) -> Result<()> {
        const SEVERAL: &str = "duplicate_header";
        let right = self.right()?;
        let header = |value: String| ("authorization".to_owned(), value.into_bytes());
        for (name, values) in [
            ("the same token twice", [format!("Bearer {right}"), format!("Bearer {right}")]),
            ("another scheme beside it", [format!("Bearer {right}"), "Basic dTpw".to_owned()]),
            ("another scheme before it", ["Basic dTpw".to_owned(), format!("Bearer {right}")]),
        ] {
            let headers = values.into_iter().map(header).collect();
            self.attacks.push(Attack { row: 33, name: name.to_owned(), headers, reason: SEVERAL });
        }
        self.send(33, "a list in one value", format!("Bearer {right},Bearer {right}"), SEVERAL);
        self.send(33, "a list of tokens", format!("Bearer {right},{right}"), SEVERAL);
        for (name, value) in [
            ("two spaces", format!("Bearer  {right}")),
            ("a tab", format!("Bearer\t{right}")),
            ("another scheme", format!("Basic {right}")),
            ("no scheme", right.clone()),
            ("quotes", format!("Bearer \"{right}\"")),
            ("a parameter after it", format!("Bearer {right}; x=1")),
            ("text after it", format!("Bearer {right} x")),
            ("the DPoP scheme", format!("DPoP {right}")),
        ] {
            self.send(34, name, value, "token_malformed");
        }
        self.send(34, "no space", format!("Bearer{right}"), "token_malformed");
        Ok(())
    }
}

//! Checks that fail, in words.

use serde_json::Value;
use tidegate_engine::{Reason, TokenFault};
use tidegate_identity::PackKind;
use tidegate_identity::explain::{self, Check};
use tidegate_identity::jose::{self, is_never_bearer};
use tidegate_identity::pack::{self, ClaimKind};

use super::super::{Said, show};
use super::{Facts, relative};
use crate::clock::{self, span};

// === impl Facts ===

impl Facts<'_> {
    /// What was found where a check fails, and what to do.
    pub(super) fn failure(&self, check: Check, fault: TokenFault) -> (String, String) {
        let sentence = Reason::TokenInvalid(fault).sentence();
        let pack = self.issuer.pack();
        let (found, fix): (String, &str) = match (check, fault) {
            (Check::Framing, TokenFault::TooLarge) => (
                format!("{} bytes; at most {} are read", self.text.len(), jose::MAX_TOKEN_BYTES),
                "ask the provider to leave claims out; groups are the usual cause",
            ),
            (Check::Framing, _) => (
                format!("{} parts; a signed JWT has three, not empty", self.text.split('.').count()),
                "look whether the token was cut off, or something was added to it",
            ),
            (Check::Claims, TokenFault::ClaimMalformed) => (
                format!(
                    "`iss` is {}, not a string",
                    self.said.claims.get("iss").map(show::value).unwrap_or_default()
                ),
                "ask the provider for a token that follows RFC 7519",
            ),
            (Check::Claims, _) => (
                "the claims are no strict base64url or JSON: padding, a member twice, or something cut off"
                    .to_owned(),
                "look whether the token was changed on its way; a provider that writes this is not supported",
            ),
            (Check::Issuer, TokenFault::ClaimsContradict) => (
                format!(
                    "`sub` is {}, which is not of the trust domain `{}`",
                    self.said.claims.get("sub").map_or_else(|| "missing".to_owned(), show::value),
                    self.issuer.trust_domain().unwrap_or_default()
                ),
                "a trust bundle speaks for its own trust domain only",
            ),
            (Check::Issuer, _) => {
                ("it names no issuer (`iss`)".to_owned(), "ask the provider for a token with `iss`")
            }
            (Check::Header, TokenFault::HeaderRefused) => (
                format!(
                    "members that are never accepted: {}",
                    show::list(
                        self.members().into_iter().filter(|name| !matches!(*name, "alg" | "kid" | "typ"))
                    )
                ),
                "ask the provider for tokens without them; keys are never taken from a token, extensions are not understood",
            ),
            (Check::Header, _) => {
                ("no strict base64url or JSON".to_owned(), "look whether the token was changed on its way")
            }
            (Check::Algorithm, _) => {
                let accepted = self.issuer.algorithms().iter().map(|algorithm| algorithm.name());
                (
                    format!("{}; accepted are {}", self.header("alg"), show::list(accepted)),
                    match self.said.header.get("alg").and_then(Value::as_str) {
                        Some(name) if name.starts_with("HS") || name.eq_ignore_ascii_case("none") => {
                            "nothing: such tokens can be made by anybody; find out who made this one"
                        }
                        _ => {
                            "if the provider really signs with it, add it to `algorithms` of the TrustedIssuer"
                        }
                    },
                )
            }
            (Check::Type, _) => {
                let accepted: Vec<String> = match self.issuer.types() {
                    [] => pack.pack().types.iter().map(|kind| (*kind).to_owned()).collect(),
                    types => types.to_vec(),
                };
                let is_proof =
                    self.said.header.get("typ").and_then(Value::as_str).is_some_and(is_never_bearer);
                (
                    format!("{}; accepted are {}", self.header("typ"), show::list(accepted)),
                    match (is_proof, pack) {
                        (true, _) => "this is a proof or a statement, no credential: send the access token",
                        (false, PackKind::Generic) => {
                            "ask for an access token; if this is what the provider's access tokens look like, add this \
                             `typ` to `tokenTypes` of the TrustedIssuer"
                        }
                        (false, _) => {
                            "ask for an access token, or look whether the TrustedIssuer has the right `pack`"
                        }
                    },
                )
            }
            (Check::Standing, TokenFault::IssuerRetired) => (
                format!("the issuer was retired at {}", clock::rfc3339(self.issuer.retire_at())),
                "use a token of the issuer that replaces it",
            ),
            (Check::Standing, _) => (sentence.to_owned(), "look at `tidegate keys status`"),
            (Check::Key, _) => {
                let known = self.issuer.keys().iter().filter_map(|key| key.jwk().key_id());
                (
                    format!(
                        "no single key fits `kid` {} and `alg` {}; the issuer has {}",
                        self.header("kid"),
                        self.header("alg"),
                        show::list(known)
                    ),
                    "the keys may be older than the token (`--fetch` takes the newest); otherwise another issuer signed it",
                )
            }
            (Check::Signature, TokenFault::BadSignature) => (
                sentence.to_owned(),
                "the token was changed or cut off, or signed by somebody else who uses the same `kid`",
            ),
            (Check::Signature, _) => (sentence.to_owned(), "look whether the token was changed or cut off"),
            (Check::ClaimTypes, _) => (
                self.wrong_claims(),
                "ask the provider for tokens of this kind, or look whether the TrustedIssuer has the right `pack`",
            ),
            (Check::Revocation, _) => (
                "the TrustedIssuer revokes the token, its subject or its key".to_owned(),
                "ask whoever revoked it (`revoked` of the TrustedIssuer) why, and get a new token",
            ),
            (Check::Times, TokenFault::Expired) => (
                format!("ended {}", self.date("exp").map(|at| relative(at, self.now)).unwrap_or_default()),
                "get a new token; whoever keeps one has to renew it before it ends",
            ),
            (Check::Times, TokenFault::NotYetValid) => {
                (self.times(), "look at the clocks: of the provider, of the proxy, of this machine (`--at`)")
            }
            (Check::Times, _) => (
                "`exp`, and `iat` or `nbf`, must be there and whole numbers".to_owned(),
                "tokens that never end are not accepted; ask the provider for one that does",
            ),
            (Check::Lifetime, TokenFault::LifetimeTooLong) => (
                format!(
                    "{}; accepted are {}",
                    span(self.lifetime().unwrap_or_default()),
                    span(self.issuer.max_lifetime_s())
                ),
                "ask for a token that lives less long, or raise `maxLifetime` of the TrustedIssuer",
            ),
            (Check::Lifetime, _) => ("it ends before it begins".to_owned(), "look at the provider's clock"),
            (Check::Audience, TokenFault::MintedForAnotherParty) => {
                let party = |audience: &&str| pack::another_party(audience);
                let theirs = self.said.texts("aud");
                let party = theirs.iter().find_map(party).unwrap_or("somebody else");
                (
                    format!("it is for {party}: whoever receives it could act as its owner there"),
                    "never send this token here; ask for one with the audience of the service",
                )
            }
            (Check::Audience, TokenFault::SeveralAudiences) => (
                format!(
                    "for {} at once: each of them could use it at the others",
                    show::list(self.said.texts("aud"))
                ),
                "ask for one token per service, or set `singleAudience: false` at the TrustedIssuer",
            ),
            (Check::Audience, TokenFault::WrongAudience) => (
                format!(
                    "for {}; this TrustedIssuer is trusted for {}",
                    show::list(self.said.texts("aud")),
                    show::list(self.issuer.audiences())
                ),
                "ask for a token with the audience of the service, character by character",
            ),
            (Check::Audience, _) => (
                format!(
                    "`aud` is {}",
                    self.said.claims.get("aud").map_or_else(|| "missing".to_owned(), show::value)
                ),
                "ask for a token with the audience of the service",
            ),
            (Check::Provider, _) => provider(pack, fault, self.said),
            (Check::Binding, _) => match self.said.claims.get("cnf") {
                None => (
                    "it is bound to nothing, and the TrustedIssuer demands that it is (`requireCnf`)"
                        .to_owned(),
                    "ask the provider for a certificate-bound token (RFC 8705)",
                ),
                Some(_) => (
                    "it is bound to a key in a way that cannot be checked here; only `x5t#S256` can"
                        .to_owned(),
                    "ask for a token without proof of possession (DPoP), or for a certificate-bound one (RFC 8705)",
                ),
            },
        };
        (found, fix.to_owned())
    }

    /// Claims that are missing or of a wrong type.
    fn wrong_claims(&self) -> String {
        let wrong = explain::wrong_claims(self.text.as_bytes(), self.issuer.pack());
        let wrong = wrong.into_iter().map(|(spec, fault)| {
            let path = show::path(spec.path);
            match fault {
                TokenFault::ClaimMissing => format!("`{path}` is missing"),
                _ => format!("`{path}` is not {}", kind(spec.kind)),
            }
        });
        match wrong.collect::<Vec<_>>().join("; ") {
            none if none.is_empty() => "`sub` is empty".to_owned(),
            wrong => wrong,
        }
    }
}

/// A type of claims, in words.
fn kind(kind: ClaimKind) -> &'static str {
    match kind {
        ClaimKind::String => "a string without control or invisible characters",
        ClaimKind::Identifier => "a string of printable ASCII",
        ClaimKind::Digits => "a string of digits",
        ClaimKind::Guid => "a GUID in lower case",
        ClaimKind::BooleanString => "the string \"true\" or \"false\"",
        ClaimKind::Integer => "a whole number",
        ClaimKind::Boolean => "true or false",
        ClaimKind::Strings => "a list of strings",
        ClaimKind::StringOrStrings => "a string or a list of strings",
        ClaimKind::Structure => "an object or a list",
    }
}

/// What a pack's own check found.
fn provider(pack: PackKind, fault: TokenFault, said: &Said) -> (String, &'static str) {
    let sentence = Reason::TokenInvalid(fault).sentence().to_owned();
    match (pack, fault) {
        (PackKind::Google, TokenFault::WrongKind) => (
            "it is not a service account's own: a person's, or made by another client".to_owned(),
            "on a VM ask the metadata server; elsewhere `generateIdToken` with `includeEmail` as the account itself",
        ),
        (PackKind::Kubernetes, TokenFault::WrongKind) if said.claims.get("kubernetes.io").is_none() => (
            "it comes from a Secret: such tokens never end and are for nobody in particular".to_owned(),
            "mount a projected service account token with the service's audience",
        ),
        (PackKind::Kubernetes, TokenFault::WrongKind) => (
            "it is bound to no pod, as those of `kubectl create token`: an operator's, not a workload's"
                .to_owned(),
            "mount a projected token into the pod, or set `requirePodBinding: false` at the TrustedIssuer",
        ),
        (PackKind::Kubernetes, TokenFault::ClaimsContradict) => (
            "`sub` is not `system:serviceaccount:NAMESPACE:NAME` of the nested claims".to_owned(),
            "no API server writes that: find out who made the token",
        ),
        (_, TokenFault::WrongKind) => {
            (sentence, "ask for an access token of a workload; an ID token is for the client itself")
        }
        (_, TokenFault::ClaimsContradict) => (
            sentence,
            "the provider does not write that: find out who made the token, or whether `pack` is right",
        ),
        _ => (sentence, "compare the claims with what the provider documents"),
    }
}

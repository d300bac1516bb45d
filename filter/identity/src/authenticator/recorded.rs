//! What a decision record says of the tokens that were verified.
//!
//! Read again from the tokens when a record is made, so that requests of which none is made pay nothing for it.
//!
//! INVARIANT: only claims of tokens that were verified, and of these only [`crate::PackKind::recorded`]. A token that was
//! refused says nothing: whoever made it up chose its words.

use tidegate_engine::ClaimValue;

use super::{Authenticator, Headers, TokenOutcome};
use crate::pack;
use crate::token::{self, Reading};

/// Longest text of a recorded claim, in bytes.
const MAX_VALUE_BYTES: usize = 256;

/// A claim of a verified token that may leave the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedClaim<'a> {
    /// Name of the `TrustedIssuer`.
    pub issuer: &'a str,
    /// Member names from the outside in, or a derived attribute.
    pub path: &'static [&'static str],
    /// As text; cut at 256 bytes.
    pub value: String,
}

// === impl Authenticator ===

impl Authenticator {
    /// What of a request's tokens may be recorded. `headers` and `outcomes` are what [`Authenticator::authenticate`] was
    /// given, and what it found.
    pub fn recorded(&self, headers: &Headers<'_>, outcomes: &[TokenOutcome]) -> Vec<RecordedClaim<'_>> {
        let mut recorded = Vec::new();
        for place in &self.terms.places {
            let named = |(name, _): &&(&[u8], &[u8])| name.eq_ignore_ascii_case(place.name.as_bytes());
            let Some((scheme, text)) = headers.iter().find(named).and_then(|(_, value)| place.token(value))
            else {
                continue;
            };
            let Reading::Token(read) = token::read(text) else { continue };
            // At most one token of an issuer is accepted, and only where its tokens are looked for: this is the one that was
            // verified.
            let owner = self.terms.owner(&read).filter(|owner| scheme.issuers.contains(owner));
            let Some((owner, issuer)) = owner.and_then(|owner| Some((owner, self.terms.issuer(owner)?)))
            else {
                continue;
            };
            if !matches!(outcomes.get(owner), Some(TokenOutcome::Verified(_))) {
                continue;
            }
            for path in issuer.pack().recorded() {
                let names: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
                let value = match pack::extract(issuer.pack(), read.claims(), &names) {
                    ClaimValue::String(text) => text,
                    ClaimValue::Integer(number) => number.to_string(),
                    ClaimValue::Boolean(boolean) => boolean.to_string(),
                    // No recorded claim is a list, and what cannot be told is not told.
                    ClaimValue::Strings(_) | ClaimValue::Absent | ClaimValue::Unknown | ClaimValue::Other => {
                        continue;
                    }
                };
                recorded.push(RecordedClaim { issuer: issuer.name(), path, value: cut(value) });
            }
        }
        recorded
    }
}

fn cut(mut value: String) -> String {
    value.truncate(value.floor_char_boundary(MAX_VALUE_BYTES));
    value
}

#[cfg(test)]
mod tests {
    use crate::testing::{Gate, NOW, Signer, generic, issuer, with};
    use crate::{At, IssuerSpec, PackKind, PureRust, TokenHeader};

    fn recorded(gate: &mut Gate, headers: &[(&str, &str)]) -> Vec<(String, String)> {
        let outcomes = gate.over(headers, At::now(NOW), &PureRust);
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let recorded = gate.authenticator.recorded(&headers, &outcomes);
        recorded.into_iter().map(|claim| (claim.path.join("."), claim.value)).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn verified_tokens_say_what_is_on_the_list_and_nothing_else() {
        let signer = Signer::new(7);
        let mut gate = Gate::new(vec![issuer(PackKind::Generic, &signer)]);
        let claims = with(&generic(), &["email"], Some("ada@example.com".into()));
        let token = format!("Bearer {}", signer.token(&claims));
        let found = recorded(&mut gate, &[("authorization", &token)]);
        assert!(found.contains(&pair("sub", "robot")), "{found:?}");
        assert!(found.iter().all(|(_, value)| !value.contains("ada@")), "{found:?}");
        let long = with(&generic(), &["sub"], Some("ä".repeat(200).into()));
        let token = format!("Bearer {}", signer.token(&long));
        let found = recorded(&mut gate, &[("authorization", &token)]);
        assert!(found.contains(&pair("sub", &"ä".repeat(128))), "{found:?}");
    }

    #[test]
    fn what_was_not_verified_says_nothing() {
        let signer = Signer::new(7);
        let mut gate = Gate::new(vec![issuer(PackKind::Generic, &signer)]);
        let forged = format!("Bearer {}", Signer::new(8).token(&generic()));
        assert_eq!(recorded(&mut gate, &[("authorization", &forged)]), []);
        assert_eq!(recorded(&mut gate, &[("authorization", "Bearer opaque")]), []);
        assert_eq!(recorded(&mut gate, &[]), []);
    }

    #[test]
    fn a_forged_token_in_another_issuers_header_does_not_speak_for_the_verified_one() {
        let signer = Signer::new(7);
        let header = TokenHeader { name: "x-other".to_owned(), prefix: Some("Bearer".to_owned()) };
        let other = IssuerSpec { headers: vec![header], ..issuer(PackKind::Google, &signer) };
        let mut gate = Gate::new(vec![issuer(PackKind::Generic, &signer), other]);
        let good = format!("Bearer {}", signer.token(&generic()));
        let forged = Signer::new(8).token(&with(&generic(), &["sub"], Some("root".into())));
        let forged = format!("Bearer {forged}");
        let found = recorded(&mut gate, &[("x-other", &forged), ("authorization", &good)]);
        assert!(found.contains(&pair("sub", "robot")), "{found:?}");
        assert!(found.iter().all(|(_, value)| value != "root"), "{found:?}");
    }
}

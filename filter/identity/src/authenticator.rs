//! From a request's headers to what is known of each issuer's token.
//!
//! INVARIANT: an issuer of the policy that the keys section lacks never goes unnoticed: such a pair is
//! [`MissingIssuer`], and what was in force stays. (Tokens of it would count as absent, and a Deny on them would never
//! match.)

use std::sync::Arc;

use tidegate_engine::model::ClaimPath;
use tidegate_engine::{TokenFault, TokenState, VerifiedToken};

use crate::cache::{Kept, TokenCache};
use crate::connection::{At, Connection};
use crate::credentials::{self, Hidden, Place, Scheme};
use crate::issuer::{Issuer, IssuerSet};
use crate::keys::{MAX_KEY_ID_BYTES, PublicKey};
use crate::pack;
use crate::token::{self, Reading, UnverifiedToken, VerifiedClaims};

pub use crate::cache::CacheLimits;
pub use recorded::RecordedClaim;
pub use usage::{KeyUsage, Usage, VerifiedUse};

mod recorded;
#[cfg(test)]
mod tests;
mod usage;

/// A request's headers: names and values as bytes, in their order.
pub type Headers<'a> = [(&'a [u8], &'a [u8])];

/// What is known of one issuer's token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TokenOutcome {
    /// None was sent, or only opaque ones.
    #[default]
    Absent,
    /// One was sent that must not be accepted.
    Invalid(TokenFault),
    /// All checks but the Guard's audience hold.
    Verified(Arc<VerifiedToken>),
}

/// A key that a token was signed with, or says so, and that the issuer's set lacks or has otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedKey<'a> {
    /// Name of the `TrustedIssuer`.
    pub issuer: &'a str,
    /// The token's `kid`. From anybody.
    pub key_id: Option<&'a str>,
}

/// The policy names an issuer that the keys section does not have, or names one twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "rules name the issuer `{name}`, which the keys section does not have (or has once, and rules list it twice)"
)]
pub struct MissingIssuer {
    /// Its name.
    pub name: String,
}

/// Verifies the tokens of requests against one policy's issuers.
#[derive(Debug)]
pub struct Authenticator {
    terms: Terms,
    cache: TokenCache,
    /// Headers of the last request that must not go on, as positions in `terms.places`.
    withheld: Vec<usize>,
    /// Of the last request: an issuer, by policy index, and the `kid` that its set lacks.
    wanted: Option<(usize, Option<String>)>,
    /// Of the last request: what was verified.
    verified: Vec<VerifiedUse>,
    /// The last layout given to a list of slots.
    layouts: u32,
}

/// What is in force: replaced as a whole.
#[derive(Debug)]
struct Terms {
    set: IssuerSet,
    /// Per issuer of the policy.
    bindings: Vec<Binding>,
    places: Vec<Place>,
}

/// An issuer of the policy.
#[derive(Debug)]
struct Binding {
    /// Position in the set.
    issuer: usize,
    slots: Vec<ClaimPath>,
    /// Changes with `slots`.
    layout: u32,
    usage: Usage,
    /// Per key of the issuer.
    keys: Vec<KeyUsage>,
}

// === impl TokenOutcome ===

impl TokenOutcome {
    /// As the engine takes it.
    pub fn state(&self) -> TokenState<'_> {
        match self {
            Self::Absent => TokenState::Absent,
            Self::Invalid(fault) => TokenState::Invalid(*fault),
            Self::Verified(token) => TokenState::Verified(token),
        }
    }
}

// === impl Authenticator ===

impl Authenticator {
    /// For a policy's issuers in the policy's order: name, and the claims that rules read.
    ///
    /// # Errors
    ///
    /// [`MissingIssuer`].
    pub fn new<N: AsRef<str>>(
        set: IssuerSet,
        policy: impl IntoIterator<Item = (N, Vec<ClaimPath>)>,
        limits: CacheLimits,
    ) -> Result<Self, MissingIssuer> {
        let mut layouts = 0;
        let terms = Terms::new(set, policy, None, &mut layouts)?;
        Ok(Self {
            terms,
            cache: TokenCache::new(limits),
            withheld: Vec::new(),
            wanted: None,
            verified: Vec::new(),
            layouts,
        })
    }

    /// Puts other keys (`None`: the same) and another policy in force. Cached tokens stay if their issuer's keys and
    /// terms are the same and it does not revoke them, whatever rules read of them now; when keys end or the issuer
    /// retires changes neither.
    ///
    /// # Errors
    ///
    /// [`MissingIssuer`]; nothing has changed then.
    pub fn replace<N: AsRef<str>>(
        &mut self,
        set: Option<IssuerSet>,
        policy: impl IntoIterator<Item = (N, Vec<ClaimPath>)>,
    ) -> Result<(), MissingIssuer> {
        let set = set.unwrap_or_else(|| self.terms.set.clone());
        let terms = Terms::new(set, policy, Some(&self.terms), &mut self.layouts)?;
        let old = core::mem::replace(&mut self.terms, terms);
        let new = &self.terms;
        self.cache.retain(|at, text| {
            let before = old.issuer(at)?;
            let at = new.position(before.name())?;
            let issuer = new.issuer(at).filter(|issuer| issuer.same_terms(before))?;
            (issuer.revocations() == before.revocations() || !token::is_revoked(text, issuer)).then_some(at)
        });
        self.withheld.clear();
        self.wanted = None;
        self.verified.clear();
        Ok(())
    }

    /// The issuers in force.
    pub fn issuers(&self) -> &[Issuer] {
        self.terms.set.issuers()
    }

    /// Number of cached tokens.
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// Headers of the request last given to [`Authenticator::authenticate`] whose token its issuer does not want
    /// forwarded. They must be removed before the request goes on.
    pub fn withheld_headers(&self) -> impl Iterator<Item = &str> {
        self.withheld.iter().filter_map(|at| self.terms.places.get(*at)).map(|place| place.name.as_str())
    }

    /// The key without which a token of the request last given to [`Authenticator::authenticate`] was refused, if the
    /// issuer may have published it since: there is none of its `kid`, or that one has not made the signature.
    pub fn wanted_key(&self) -> Option<WantedKey<'_>> {
        let (at, key_id) = self.wanted.as_ref()?;
        Some(WantedKey { issuer: self.terms.issuer(*at)?.name(), key_id: key_id.as_deref() })
    }

    /// Fills `out` with one outcome per issuer of the policy.
    ///
    /// Tokens are looked for only in the headers that issuers name. Two values of such a header, a list in one value,
    /// or the same issuer's tokens in two headers are [`TokenFault::SeveralTokens`].
    pub fn authenticate(
        &mut self,
        headers: &Headers<'_>,
        at: At,
        connection: &dyn Connection,
        out: &mut Vec<TokenOutcome>,
    ) {
        let Self { terms, cache, withheld, wanted, verified, .. } = self;
        out.clear();
        out.resize_with(terms.bindings.len(), TokenOutcome::default);
        withheld.clear();
        *wanted = None;
        verified.clear();
        for position in 0..terms.places.len() {
            let Some(place) = terms.places.get(position) else { continue };
            let mut values =
                headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(place.name.as_bytes()));
            let Some((_, value)) = values.next() else { continue };
            let finding = if values.next().is_some() {
                Finding::Fault(TokenFault::SeveralTokens)
            } else {
                terms.examine(place, value, at, connection, cache, wanted)
            };
            if terms.withholds(place, &finding) {
                withheld.push(position);
            }
            match finding {
                Finding::Nothing => {}
                Finding::Fault(fault) => {
                    for issuer in &place.issuers {
                        settle(out, *issuer, TokenOutcome::Invalid(fault));
                    }
                }
                Finding::Invalid(issuer, fault) => {
                    if let Some(binding) = terms.bindings.get_mut(issuer) {
                        binding.refused();
                    }
                    settle(out, issuer, TokenOutcome::Invalid(fault));
                }
                Finding::Verified(issuer, token, key) => {
                    verified.push(VerifiedUse { issuer, key });
                    if let Some(binding) = terms.bindings.get_mut(issuer) {
                        binding.verified(key, at.now);
                    }
                    settle(out, issuer, TokenOutcome::Verified(token));
                }
            }
        }
    }
}

/// Notes an issuer's outcome. "Exactly one source per issuer": a second one that is not absent is one too many.
fn settle(out: &mut [TokenOutcome], issuer: usize, outcome: TokenOutcome) {
    if let Some(slot) = out.get_mut(issuer) {
        *slot = match slot {
            TokenOutcome::Absent => outcome,
            TokenOutcome::Invalid(_) | TokenOutcome::Verified(_) => {
                TokenOutcome::Invalid(TokenFault::SeveralTokens)
            }
        };
    }
}

/// What one header holds.
enum Finding {
    /// No token of any issuer that reads the header.
    Nothing,
    /// A fault that concerns every issuer that reads the header.
    Fault(TokenFault),
    /// A token of this issuer, by policy index, that must not be accepted.
    Invalid(usize, TokenFault),
    /// One that is, and the position of its key.
    Verified(usize, Arc<VerifiedToken>, usize),
}

// === impl Terms ===

impl Terms {
    fn new<N: AsRef<str>>(
        set: IssuerSet,
        policy: impl IntoIterator<Item = (N, Vec<ClaimPath>)>,
        before: Option<&Self>,
        layouts: &mut u32,
    ) -> Result<Self, MissingIssuer> {
        let mut terms = Self { set, bindings: Vec::new(), places: Vec::new() };
        for (name, slots) in policy {
            let name = name.as_ref();
            // Each once: of two entries for one issuer, the second would never see a token.
            let bound = |at: &usize| terms.bindings.iter().any(|binding| binding.issuer == *at);
            let issuer = terms.set.issuers().iter().position(|issuer| issuer.name() == name);
            let issuer = issuer.filter(|at| !bound(at));
            let issuer = issuer.ok_or_else(|| MissingIssuer { name: name.to_owned() })?;
            let known = before.and_then(|before| before.bindings.get(before.position(name)?));
            let usage = known.map_or_else(Usage::default, |binding| binding.usage);
            let used = |key: &PublicKey| {
                let (before, binding) = before.zip(known)?;
                let keys = before.set.issuers().get(binding.issuer)?.keys();
                binding.keys.get(keys.iter().position(|other| other == key)?).copied()
            };
            let keys = terms.set.issuers().get(issuer).map(Issuer::keys).unwrap_or_default();
            let keys = keys.iter().map(|key| used(key).unwrap_or_default()).collect();
            let layout = known.filter(|binding| binding.slots == slots).map_or_else(
                || {
                    *layouts = layouts.wrapping_add(1);
                    *layouts
                },
                |binding| binding.layout,
            );
            terms.bindings.push(Binding { issuer, slots, layout, usage, keys });
        }
        terms.places = terms.places();
        Ok(terms)
    }

    fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for at in 0..self.bindings.len() {
            for header in self.issuer(at).map(Issuer::headers).unwrap_or_default() {
                let place = match places.iter_mut().find(|place| place.name == header.name) {
                    Some(place) => place,
                    None => {
                        places.push(Place {
                            name: header.name.clone(),
                            schemes: Vec::new(),
                            issuers: Vec::new(),
                        });
                        let Some(place) = places.last_mut() else { continue };
                        place
                    }
                };
                place.issuers.push(at);
                let same = |scheme: &&mut Scheme| match (&scheme.prefix, &header.prefix) {
                    (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
                    (one, other) => one == other,
                };
                match place.schemes.iter_mut().find(same) {
                    Some(scheme) => scheme.issuers.push(at),
                    None => place.schemes.push(Scheme { prefix: header.prefix.clone(), issuers: vec![at] }),
                }
            }
        }
        places
    }

    fn issuer(&self, at: usize) -> Option<&Issuer> {
        self.set.issuers().get(self.bindings.get(at)?.issuer)
    }

    /// The policy index of the issuer with this name.
    fn position(&self, name: &str) -> Option<usize> {
        (0..self.bindings.len()).find(|at| self.issuer(*at).is_some_and(|issuer| issuer.name() == name))
    }

    /// Whether the header must not go on: nobody who reads it wants it forwarded, or it holds the token of one who
    /// does not.
    fn withholds(&self, place: &Place, finding: &Finding) -> bool {
        let hides = |at: &usize| self.issuer(*at).is_some_and(|issuer| !issuer.forward());
        place.issuers.iter().all(hides)
            || matches!(finding, Finding::Invalid(at, _) | Finding::Verified(at, ..) if hides(at))
    }

    fn examine(
        &self,
        place: &Place,
        value: &[u8],
        at: At,
        connection: &dyn Connection,
        cache: &mut TokenCache,
        wanted: &mut Option<(usize, Option<String>)>,
    ) -> Finding {
        let Some((scheme, text)) = place.token(value) else { return self.search(place, value, &[]) };
        if let Some(kept) = cache.get(text) {
            let owner = kept.issuer;
            if !scheme.issuers.contains(&owner) {
                // As if it had not been verified before.
                return misplaced(place, owner);
            }
            match self.again(kept, text, at, connection) {
                Some(Ok(token)) => return Finding::Verified(owner, token, kept.key),
                Some(Err(fault)) => return Finding::Invalid(owner, fault),
                None => cache.remove(text),
            }
        }
        let token = match token::read(text) {
            Reading::Unattributable(fault) if credentials::is_one(text) => return Finding::Fault(fault),
            Reading::Token(token) if token.is_one_credential() => token,
            Reading::Unattributable(_) | Reading::Token(_) | Reading::Opaque => {
                return self.search(place, value, text);
            }
        };
        let Some(owner) = self.owner(&token) else { return Finding::Nothing };
        if !scheme.issuers.contains(&owner) {
            return misplaced(place, owner);
        }
        let Some((issuer, binding)) = self.issuer(owner).zip(self.bindings.get(owner)) else {
            return Finding::Nothing;
        };
        match token.verify(issuer, at, connection) {
            Err(fault) => {
                if matches!(fault, TokenFault::KeyUnknown | TokenFault::BadSignature) && wanted.is_none() {
                    *wanted = token::key_id(text).filter(may_be_published).map(|key_id| (owner, key_id));
                }
                Finding::Invalid(owner, fault)
            }
            Ok(VerifiedClaims { claims, audiences, expires_at, not_before, certificate, key }) => {
                let slots =
                    binding.slots.iter().map(|path| pack::extract(issuer.pack(), &claims, path)).collect();
                let verified = Arc::new(VerifiedToken { audiences, expires_at, slots });
                let layout = binding.layout;
                let verified_again = Arc::clone(&verified);
                let kept =
                    Kept { issuer: owner, layout, not_before, certificate, key, verified: verified_again };
                cache.insert(text, kept);
                Finding::Verified(owner, verified, key)
            }
        }
    }

    /// The outcome for a token that was verified before; `None` if it has to be verified again.
    fn again(
        &self,
        kept: &mut Kept,
        text: &[u8],
        at: At,
        connection: &dyn Connection,
    ) -> Option<Result<Arc<VerifiedToken>, TokenFault>> {
        let (issuer, binding) = self.issuer(kept.issuer).zip(self.bindings.get(kept.issuer))?;
        let usable = token::check_times(issuer, at, kept.verified.expires_at, kept.not_before)
            .and_then(|()| token::check_binding(kept.certificate.as_ref(), connection));
        if let Err(fault) = usable {
            return Some(Err(fault));
        }
        if kept.layout != binding.layout {
            let claims = token::reread(text)?;
            kept.verified = Arc::new(VerifiedToken {
                audiences: kept.verified.audiences.clone(),
                expires_at: kept.verified.expires_at,
                slots: binding.slots.iter().map(|path| pack::extract(issuer.pack(), &claims, path)).collect(),
            });
            kept.layout = binding.layout;
        }
        Some(Ok(Arc::clone(&kept.verified)))
    }

    /// A value that is not "scheme, space, token"; what follows the scheme, if it has one, is `text`.
    fn search(&self, place: &Place, value: &[u8], text: &[u8]) -> Finding {
        let text = match credentials::hidden(value, &place.schemes) {
            Hidden::Nothing => text,
            Hidden::Several => return Finding::Fault(TokenFault::SeveralTokens),
            Hidden::One(text) => text,
        };
        match token::read(text) {
            Reading::Opaque => Finding::Nothing,
            Reading::Unattributable(fault) => Finding::Fault(fault),
            Reading::Token(token) => match self.owner(&token) {
                Some(owner) => misplaced(place, owner),
                None => Finding::Nothing,
            },
        }
    }

    /// The issuer of the policy whose token this would be.
    fn owner(&self, token: &UnverifiedToken<'_>) -> Option<usize> {
        let at = self.set.owner(token.issuer(), token.subject())?;
        self.bindings.iter().position(|binding| binding.issuer == at)
    }
}

/// An issuer's token that is not where, or not written as, this issuer's tokens are: its fault if the issuer reads the
/// header at all.
fn misplaced(place: &Place, owner: usize) -> Finding {
    match place.issuers.contains(&owner) {
        true => Finding::Invalid(owner, TokenFault::Malformed),
        false => Finding::Nothing,
    }
}

/// Whether a key set can have a key with this `kid`.
fn may_be_published(key_id: &Option<String>) -> bool {
    key_id.as_deref().is_none_or(|id| (1..=MAX_KEY_ID_BYTES).contains(&id.len()))
}

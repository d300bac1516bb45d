//! What an issuer's tokens are revoked by.
//!
//! INVARIANT: a revoked token is never cached, and a section that revokes more removes what it revokes from the cache.
//! So a hit need not ask again.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::json::Object;
use crate::pack::{self, PackKind};

/// Tokens that are accepted no more although nothing is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Revoked {
    /// What `value` names.
    pub kind: RevokedKind,
    /// Compared exactly.
    pub value: String,
    /// Unix seconds; 0: for ever. The `exp` of what is revoked is enough: the revocation ends when a token with this `exp`
    /// does, the issuer's clock tolerance and a lease's grace included.
    pub until: i64,
}

/// What is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RevokedKind {
    /// All tokens with this `sub`.
    Subject,
    /// The token with this id: `jti`, or what the pack has for it.
    Token,
    /// All tokens that are signed with the key of this `kid`, whether they name it or not.
    Key,
}

/// All revocations of an issuer, by what they name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Revocations(BTreeMap<RevokedKind, BTreeMap<String, i64>>);

// === impl RevokedKind ===

impl RevokedKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Subject, Self::Token, Self::Key];

    /// The name in the keys section.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Token => "token",
            Self::Key => "key",
        }
    }

    /// The kind of this exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

// === impl Revocations ===

impl Revocations {
    /// Whether any revocation that has not ended names the token: its subject, its id or the key that signed it. `late` is
    /// how long after its `exp` a token is still accepted.
    pub fn concern(
        &self,
        pack: PackKind,
        claims: &Object,
        key_id: Option<&str>,
        now: i64,
        late: i64,
    ) -> bool {
        let token_id = pack.pack().token_id.and_then(|path| pack::text(claims, path));
        let named = [
            (RevokedKind::Subject, pack::text(claims, &["sub"])),
            (RevokedKind::Token, token_id),
            (RevokedKind::Key, key_id),
        ];
        named.into_iter().any(|(kind, value)| {
            let until = self.0.get(&kind).zip(value).and_then(|(revoked, value)| revoked.get(value));
            until.is_some_and(|until| *until == 0 || now < until.saturating_add(late))
        })
    }
}

impl FromIterator<Revoked> for Revocations {
    fn from_iter<I: IntoIterator<Item = Revoked>>(revoked: I) -> Self {
        let mut all = Self::default();
        for Revoked { kind, value, until } in revoked {
            all.0.entry(kind).or_default().insert(value, until);
        }
        all
    }
}

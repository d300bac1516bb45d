//! One entry: the peer, and all tokens.

use std::collections::BTreeSet;

use tidegate_engine::model::{Operand, PeerModel, Relation};

use crate::bind::{Equality, Other, PeerPart};
use crate::context::Context;
use crate::demand::{ClaimTest, Demand};
use crate::diagnostic::Code;
use crate::mesh::{Mesh, WorkloadId};
use crate::place::{Findings, Place};
use crate::tokens::Token;
use crate::when::{ClaimName, Tree, Value};

/// Who may call: the peer, and all tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) who: Who,
    pub(crate) tokens: Vec<Token>,
    /// All of these.
    pub(crate) when: Vec<Tree>,
}

/// What is demanded of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    Mesh {
        trust_domain: Option<String>,
        namespace: String,
        service_accounts: Option<Vec<String>>,
    },
    AnyMesh,
    /// Known by tokens only, through any of these gateways, each with its service account.
    Via(Vec<(WorkloadId, String)>),
    Anyone,
}

// === impl Entry ===

impl Entry {
    pub(super) fn new(who: Who, mut tokens: Vec<Token>) -> Self {
        if who.is_caller() {
            tokens.iter_mut().for_each(Token::bind_to_peer);
        }
        Self { who, tokens, when: Vec::new() }
    }

    /// Demands what `bind` says. The tokens that it names are in the entry.
    pub(super) fn bind(
        &mut self,
        place: &Place<'_>,
        equalities: &[Equality],
        context: &Context<'_>,
        findings: &mut Findings,
    ) {
        for equality in equalities {
            let test = match &equality.other {
                Other::Claim(issuer, path) => Some(ClaimTest::Same(issuer.clone(), path.clone())),
                Other::Peer(part) => self.who.part(*part, context),
            };
            let Some(test) = test else {
                refuse_peer(place, findings);
                return;
            };
            if let Some(token) = self.tokens.iter_mut().find(|token| token.issuer == equality.issuer) {
                if matches!(test, ClaimTest::Same(..)) {
                    // Two claims that both say nothing are not the same thing.
                    let empty = ClaimTest::OneOf(BTreeSet::from([String::new()]));
                    token.demands.add_implied(Demand::Claim(equality.path.clone(), empty).not());
                }
                token.demands.add(Demand::Claim(equality.path.clone(), test));
            }
        }
    }

    /// Demands what `when` says. The tokens that it names are in the entry.
    pub(super) fn demand(&mut self, place: &Place<'_>, trees: &[Tree], findings: &mut Findings) {
        for (index, tree) in trees.iter().enumerate() {
            if tree.reads_peer() && !self.who.is_caller() {
                refuse_peer(&place.index(index), findings);
            }
        }
        self.when.extend_from_slice(trees);
    }

    /// What of the tokens' age must hold: for an Allow alone.
    pub(crate) fn ages(&self) -> impl Iterator<Item = Tree> {
        self.tokens.iter().filter_map(|token| {
            let issued_at = ClaimName { issuer: token.issuer.clone(), path: vec!["iat".to_owned()] };
            let until = Value::Plus(Box::new(Value::Claim(issued_at)), i64::from(token.max_age_s?));
            Some(Tree::Compare(Value::Request(Operand::TokenClock), Relation::LessOrEqual, until))
        })
    }

    /// This entry with more tokens: all of both.
    pub(super) fn with(&self, more: &[Token]) -> Self {
        let mut entry = self.clone();
        for token in more {
            let mut token = token.clone();
            if entry.who.is_caller() {
                token.bind_to_peer();
            }
            match entry.tokens.iter_mut().find(|known| known.issuer == token.issuer) {
                Some(known) => {
                    known.demands.merge(&token.demands);
                    known.max_age_s = known.max_age_s.into_iter().chain(token.max_age_s).min();
                }
                None => entry.tokens.push(token),
            }
        }
        entry
    }
}

fn refuse_peer(place: &Place<'_>, findings: &mut Findings) {
    findings.add(
        place,
        Code::MalformedCondition,
        "the `peer` of this entry is not the caller",
        "through a gateway the peer is the gateway, and of `anyone` nothing is known",
        "compare claims with each other, or write `peer` or `anyMesh` in the entry",
    );
}

// === impl Who ===

impl Who {
    /// Whether the peer is the caller itself, and no gateway in between.
    fn is_caller(&self) -> bool {
        match self {
            Self::Mesh { .. } | Self::AnyMesh => true,
            Self::Via(_) | Self::Anyone => false,
        }
    }

    /// A test for what the caller is as a peer; `None` where it is none.
    fn part(&self, part: PeerPart, context: &Context<'_>) -> Option<ClaimTest> {
        let own = match self {
            Self::Mesh { trust_domain, .. } => trust_domain.as_deref(),
            Self::AnyMesh => None,
            Self::Via(_) | Self::Anyone => return None,
        };
        Some(match part {
            PeerPart::Namespace => ClaimTest::PeerNamespace,
            PeerPart::ServiceAccount => ClaimTest::PeerServiceAccount,
            // The entry demands it of the peer, so it is known here. Without a mesh there is no output.
            PeerPart::TrustDomain => {
                let of_mesh = context.mesh.map(|mesh| mesh.trust_domain.as_str()).unwrap_or_default();
                ClaimTest::OneOf(BTreeSet::from([own.unwrap_or(of_mesh).to_owned()]))
            }
        })
    }

    /// What the workload sees as its peer: any of these.
    pub(crate) fn peers(&self, at: &WorkloadId, mesh: &Mesh) -> Vec<PeerModel> {
        match self {
            Self::Mesh { trust_domain, namespace, service_accounts } => vec![PeerModel::Mesh {
                trust_domain: trust_domain.as_ref().unwrap_or(&mesh.trust_domain).clone(),
                namespace: namespace.clone(),
                service_accounts: service_accounts.clone(),
            }],
            Self::AnyMesh => vec![PeerModel::AnyMesh { trust_domain: mesh.trust_domain.clone() }],
            Self::Anyone => vec![PeerModel::Anyone],
            // No peer at the gateway, the gateway's identity behind it.
            Self::Via(gateways) => gateways
                .iter()
                .map(|(id, account)| {
                    if id == at {
                        PeerModel::NoPeer
                    } else {
                        PeerModel::Mesh {
                            trust_domain: mesh.trust_domain.clone(),
                            namespace: id.namespace.clone(),
                            service_accounts: Some(vec![account.clone()]),
                        }
                    }
                })
                .collect(),
        }
    }
}

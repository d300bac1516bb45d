//! Who may call: `Caller`s and `from` entries.
//!
//! INVARIANT: every entry states its peer. Tokens and conditions of an entry are all demanded; a form of a Caller that
//! cannot be checked makes the Caller unusable, never smaller.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_engine::model::Effect;

use crate::bind;
use crate::context::Context;
use crate::diagnostic::Code;
use crate::mesh::{WorkloadId, check_account, check_namespace, not_empty};
use crate::objects::Object;
use crate::operation::repeated;
use crate::place::{Findings, Place};
use crate::revocation::is_revocation;
use crate::spec::{CallerSpec, FormSpec, FromSpec, PeerSpec, TokenOnlySpec, TokenSpec};
use crate::suggest;
use crate::syntax;
use crate::text::strings;
use crate::tokens::{self, Token, warn_default_account};
use crate::when::{self, When};

mod entry;

pub(crate) use entry::{Entry, Who};

/// A checked Caller: any of its forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) forms: Vec<Entry>,
}

/// Which fields of an entry say who the peer is.
struct Stated<'s> {
    caller: Option<&'s str>,
    peer: Option<&'s PeerSpec>,
    any_mesh: Option<bool>,
    token_only: Option<&'s TokenOnlySpec>,
    anyone: Option<bool>,
}

enum Peer<'s> {
    Caller(&'s str),
    Who(Who),
}

/// Checks all Callers; those that are wrong are left out, and known to be.
pub(crate) fn check(
    objects: &[Arc<Object<CallerSpec>>],
    context: &Context<'_>,
    findings: &mut Findings,
) -> BTreeMap<String, Option<Caller>> {
    objects
        .iter()
        .map(|object| (object.source.id.qualified_name(), check_caller(object, context, findings)))
        .collect()
}

fn check_caller(
    object: &Object<CallerSpec>,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Caller> {
    let before = findings.errors();
    let root = object.source.place();
    let spec = root.key("spec");
    let place = spec.key("anyOf");
    not_empty(&place, &object.spec.any_of, findings);
    let forms: Vec<Option<Entry>> = object
        .spec
        .any_of
        .iter()
        .enumerate()
        .map(|(index, form)| {
            check_form(&place.index(index), form, object.source.namespace(), context, findings)
        })
        .collect();
    let forms: Option<Vec<Entry>> = forms.into_iter().collect();
    forms.filter(|_| findings.errors() == before).map(|forms| Caller { forms })
}

fn check_form(
    place: &Place<'_>,
    form: &FormSpec,
    namespace: &str,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Entry> {
    let stated = Stated {
        caller: None,
        peer: form.peer.as_ref(),
        any_mesh: form.any_mesh,
        token_only: form.token_only.as_ref(),
        anyone: None,
    };
    let who = match check_peer(place, &stated, &["peer", "tokenOnly", "anyMesh"], context, findings) {
        Some(Peer::Who(who)) => Some(who),
        Some(Peer::Caller(_)) | None => None,
    };
    let at = place.key("tokens");
    let bind_at = place.key("bind");
    let written = form.tokens.as_deref().unwrap_or_default();
    let bind = bind::check(&bind_at, form.bind.as_deref(), written, context, findings);
    let when_at = place.key("when");
    let when = when::check(&when_at, form.when.as_deref(), None, written, context, findings);
    let peer_namespace = stated.peer_namespace();
    let asserted = &bind.asserted | &when.asserted;
    let entry = tokens::Entry { namespace, peer_namespace, asserted: &asserted };
    let tokens = tokens::check(&at, form.tokens.as_deref(), entry, context, findings);
    let tokens = tokens?;
    let trees = when.trees.unwrap_or_default();
    let demand_tenants = |tokens: &[Token], findings: &mut Findings| {
        for (index, token) in tokens.iter().enumerate() {
            tokens::demand_tenant(&at.index(index), token, &trees, context, findings);
        }
    };
    let Some(who) = who else {
        demand_tenants(&tokens, findings);
        return None;
    };
    if tokens.is_empty() && matches!(who, Who::AnyMesh | Who::Via(_)) {
        findings.add(
            place,
            Code::TokenRequired,
            "the form names nobody",
            "a Caller is one identity, and without a token this is everybody",
            "write `tokens`, or `peer` with a namespace",
        );
    }
    let mut entry = Entry::new(who, tokens);
    entry.bind(&bind_at, &bind.equalities?, context, findings);
    entry.demand(&when_at, &trees, findings);
    demand_tenants(&entry.tokens, findings);
    warn_any_token(place, &entry, findings);
    Some(entry)
}

/// Checks the `from` of a rule: its entries, Callers replaced by their forms. `None` if anything is wrong.
pub(crate) fn check_from(
    place: &Place<'_>,
    from: &[FromSpec],
    effect: Effect,
    namespace: &str,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Vec<Entry>> {
    not_empty(place, from, findings);
    let before = findings.errors();
    let mut entries = Some(Vec::new());
    for (index, one) in from.iter().enumerate() {
        let checked = check_from_entry(&place.index(index), one, effect, namespace, context, findings);
        entries = match (entries, checked) {
            (Some(mut entries), Some(checked)) => {
                entries.extend(checked);
                Some(entries)
            }
            _ => None,
        };
    }
    entries.filter(|_| findings.errors() == before && !from.is_empty())
}

fn check_from_entry(
    place: &Place<'_>,
    spec: &FromSpec,
    effect: Effect,
    namespace: &str,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Vec<Entry>> {
    let stated = Stated {
        caller: spec.caller.as_deref(),
        peer: spec.peer.as_ref(),
        any_mesh: spec.any_mesh,
        token_only: spec.token_only.as_ref(),
        anyone: spec.anyone,
    };
    let known = ["caller", "peer", "tokenOnly", "anyMesh", "anyone"];
    let peer = check_peer(place, &stated, &known, context, findings);
    let at = place.key("tokens");
    let bind_at = place.key("bind");
    let written = spec.tokens.as_deref().unwrap_or_default();
    let bind = bind::check(&bind_at, spec.bind.as_deref(), written, context, findings);
    let when_at = place.key("when");
    let When { trees, asserted } =
        when::check(&when_at, spec.when.as_deref(), Some(effect), written, context, findings);
    let peer_namespace = stated.peer_namespace();
    let asserted = &bind.asserted | &asserted;
    let entry = tokens::Entry { namespace, peer_namespace, asserted: &asserted };
    let tokens = tokens::check(&at, spec.tokens.as_deref(), entry, context, findings);
    refuse_ages(&at, written, effect, findings);
    let (peer, tokens) = (peer?, tokens?);
    let mut entries: Vec<Entry> = match peer {
        Peer::Caller(name) => {
            let place = place.key("caller");
            let caller = context.caller(&place, name, findings)?;
            for form in &caller.forms {
                for token in &form.tokens {
                    if let Some(issuer) = context.usable_issuer(&token.issuer) {
                        context.may_use(&place, namespace, issuer, findings);
                    }
                }
            }
            caller.forms.iter().map(|form| form.with(&tokens)).collect()
        }
        Peer::Who(who) => {
            if matches!(who, Who::Via(_)) && tokens.is_empty() {
                findings.add(
                    place,
                    Code::TokenRequired,
                    "`tokenOnly` without `tokens`",
                    "whoever reaches the gateway would match",
                    "write `tokens`",
                );
            }
            // What takes a token back takes it back from everybody.
            if matches!(who, Who::Anyone) && !tokens.is_empty() && !is_revocation(place.file()) {
                findings.add(
                    &at,
                    Code::NotExactlyOne,
                    "`anyone` cannot have tokens",
                    "`anyone` is for callers of whom nothing is known",
                    "write `anyMesh: true` or `tokenOnly` instead of `anyone`",
                );
            }
            vec![Entry::new(who, tokens.clone())]
        }
    };
    let (equalities, trees) = (bind.equalities?, trees?);
    for entry in &mut entries {
        entry.bind(&bind_at, &equalities, context, findings);
        entry.demand(&when_at, &trees, findings);
    }
    if spec.caller.is_none() && effect == Effect::Allow {
        // Forms of Callers are looked at where they are written. A Deny is meant to be wide.
        entries.iter().for_each(|entry| warn_any_token(place, entry, findings));
    }
    if effect == Effect::Allow {
        for (index, written) in tokens.iter().enumerate() {
            let place = at.index(index);
            for entry in &entries {
                for token in entry.tokens.iter().filter(|token| token.issuer == written.issuer) {
                    tokens::demand_tenant(&place, token, &entry.when, context, findings);
                }
            }
        }
    }
    Some(entries)
}

/// A Deny that held only of fresh tokens would let in whoever waits.
fn refuse_ages(place: &Place<'_>, tokens: &[TokenSpec], effect: Effect, findings: &mut Findings) {
    for (index, _) in tokens.iter().enumerate().filter(|(_, token)| token.max_token_age.is_some()) {
        if effect == Effect::Deny {
            findings.add(
                &place.index(index).key("maxTokenAge"),
                Code::MalformedValue,
                "`maxTokenAge` says nothing in a Deny",
                "a Deny that held of fresh tokens only would let in whoever waits",
                "remove it, or write it in the Allow",
            );
        }
    }
}

/// How each way to say who the peer is looks.
fn as_written(name: &str) -> &str {
    match name {
        "caller" => "caller: namespace/name",
        "peer" => "peer: {namespace: …}",
        "tokenOnly" => "tokenOnly: {via: [gateway]}",
        "anyMesh" => "anyMesh: true",
        "anyone" => "anyone: true",
        other => other,
    }
}

/// Exactly one field says who the peer is.
fn check_peer<'s>(
    place: &Place<'_>,
    stated: &Stated<'s>,
    known: &[&str],
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Peer<'s>> {
    let written: Vec<&str> = [
        ("caller", stated.caller.is_some()),
        ("peer", stated.peer.is_some()),
        ("tokenOnly", stated.token_only.is_some()),
        ("anyMesh", stated.any_mesh.is_some()),
        ("anyone", stated.anyone.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, written)| written.then_some(name))
    .collect();
    let [one] = written.as_slice() else {
        let (code, message) = if written.is_empty() {
            (Code::PeerNotStated, "the entry does not say who the peer is".to_owned())
        } else {
            (Code::NotExactlyOne, format!("{} are in the same entry", suggest::list(written)))
        };
        findings.add(
            place,
            code,
            message,
            "a token alone does not say where it may come from, and two peers are two entries",
            format!("write exactly one of {}", suggest::list(known.iter().copied().map(as_written))),
        );
        return None;
    };
    if stated.any_mesh == Some(false) || stated.anyone == Some(false) {
        findings.add(
            &place.key(one),
            Code::MalformedValue,
            format!("`{one}: false` says nothing"),
            "an entry says who the peer is, not who it is not",
            format!("write exactly one of {}", suggest::list(known.iter().copied().map(as_written))),
        );
        return None;
    }
    if let Some(name) = stated.caller {
        return Some(Peer::Caller(name));
    }
    if let Some(peer) = stated.peer {
        return check_mesh_peer(&place.key("peer"), peer, findings).map(Peer::Who);
    }
    if let Some(token_only) = stated.token_only {
        let token_only_place = place.key("tokenOnly");
        return check_via(&token_only_place.key("via"), token_only, context, findings).map(Peer::Who);
    }
    Some(Peer::Who(if stated.anyone.is_some() { Who::Anyone } else { Who::AnyMesh }))
}

fn check_mesh_peer(place: &Place<'_>, spec: &PeerSpec, findings: &mut Findings) -> Option<Who> {
    let before = findings.errors();
    check_namespace(&place.key("namespace"), &spec.namespace, findings);
    let accounts = place.key("serviceAccounts");
    let service_accounts = spec.service_accounts.as_ref().map(|list| {
        for (index, account) in list.iter().enumerate() {
            let place = accounts.index(index);
            check_account(&place, account, findings);
            warn_default_account(&place, account, findings);
        }
        strings(&accounts, list, findings)
    });
    if let Some(domain) = &spec.trust_domain
        && !syntax::is_trust_domain(domain)
    {
        findings.add(
            &place.key("trustDomain"),
            Code::MalformedValue,
            format!("`{domain}` is not a trust domain"),
            "it is compared with SPIFFE ids byte for byte",
            "write a name such as `cluster.local`, or remove it for the mesh's own",
        );
    }
    (findings.errors() == before).then(|| Who::Mesh {
        trust_domain: spec.trust_domain.clone(),
        namespace: spec.namespace.clone(),
        service_accounts,
    })
}

fn check_via(
    place: &Place<'_>,
    spec: &TokenOnlySpec,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Who> {
    not_empty(place, &spec.via, findings);
    let mut gateways: Option<Vec<(WorkloadId, String)>> = Some(Vec::new());
    for (index, text) in spec.via.iter().enumerate() {
        let place = place.index(index);
        let gateway = context
            .gateway(&place, text, findings)
            .and_then(|(id, gateway)| Some((id.clone(), gateway.service_account.clone()?)));
        gateways = match (gateways, gateway) {
            (Some(mut gateways), Some(gateway)) => {
                if gateways.contains(&gateway) {
                    repeated(&place, text, findings);
                } else {
                    gateways.push(gateway);
                }
                Some(gateways)
            }
            _ => None,
        };
    }
    gateways.filter(|gateways| !gateways.is_empty()).map(|mut gateways| {
        gateways.sort();
        Who::Via(gateways)
    })
}

fn warn_any_token(place: &Place<'_>, entry: &Entry, findings: &mut Findings) {
    let Entry { who, tokens, when } = entry;
    let why = match who {
        Who::Via(_) => "nothing but the token tells callers without a mesh certificate apart",
        Who::AnyMesh => "`anyMesh` tells nobody apart, and nothing is demanded of the token",
        Who::Mesh { .. } | Who::Anyone => return,
    };
    if !tokens.is_empty() && tokens.iter().all(|token| token.demands.is_empty()) && !reads_claims(when) {
        findings.add(
            place,
            Code::WiderThanItLooks,
            "any token of the issuer matches",
            why,
            "demand claims, e.g. a project or a service account",
        );
    }
}

/// Whether conditions demand something of tokens.
fn reads_claims(when: &[when::Tree]) -> bool {
    let mut reads = false;
    when.iter().for_each(|tree| tree.each_claim(&mut |_| reads = true));
    reads
}

// === impl Stated ===

impl<'s> Stated<'s> {
    /// The namespace that is demanded of the peer.
    fn peer_namespace(&self) -> Option<&'s str> {
        self.peer.map(|peer| peer.namespace.as_str())
    }
}

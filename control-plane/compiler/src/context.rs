//! What references in objects refer to.

use std::collections::BTreeMap;

use crate::callers::Caller;
use crate::diagnostic::Code;
use crate::issuers::TrustedIssuer;
use crate::mesh::{Mesh, Reach, Reaches, Workload, WorkloadId};
use crate::objects::Broken;
use crate::place::{Findings, Kind, ObjectId, Place};
use crate::spec::SelectorSpec;
use crate::suggest;
use crate::syntax;
use crate::when::Cache;

/// Everything that references are resolved against.
///
/// INVARIANT: what is checked in a context depends on the object and on what is here alone; on `broken` only where
/// [`Findings::ask_for_broken`] was called. What is kept from one compilation to the next rests on it: no clock here.
pub(crate) struct Context<'c> {
    /// `None`: what is wrong with it has been reported.
    pub(crate) mesh: Option<&'c Mesh>,
    pub(crate) broken: &'c Broken,
    /// `None`: the issuer is there, and what is wrong with it has been reported.
    pub(crate) issuers: &'c BTreeMap<String, Option<TrustedIssuer>>,
    /// By `namespace/name`, in the same way.
    pub(crate) callers: &'c BTreeMap<String, Option<Caller>>,
    pub(crate) cache: &'c Cache,
    /// Of the mesh.
    pub(crate) reaches: &'c Reaches,
}

// === impl Context ===

impl<'c> Context<'c> {
    /// The issuer of this name. `None` if there is none that can be used; the reason is, or has been, reported.
    pub(crate) fn issuer(
        &self,
        place: &Place<'_>,
        name: &str,
        findings: &mut Findings,
    ) -> Option<&'c TrustedIssuer> {
        match self.issuers.get(name) {
            Some(Some(issuer)) => return Some(issuer),
            Some(None) => return None,
            None => {}
        }
        let id = ObjectId { kind: Kind::TrustedIssuer, namespace: None, name: name.to_owned() };
        if !self.broken.has(&id, findings) {
            findings.add(
                place,
                Code::UnknownReference,
                format!("there is no TrustedIssuer `{name}`"),
                "tokens of issuers that nobody declared count as absent",
                match suggest::closest(name, self.issuers.keys().map(String::as_str)) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => "declare it".to_owned(),
                },
            );
        }
        None
    }

    /// The issuer of this name, without reporting anything.
    pub(crate) fn usable_issuer(&self, name: &str) -> Option<&'c TrustedIssuer> {
        self.issuers.get(name)?.as_ref()
    }

    /// Refuses a namespace that the issuer is not for.
    pub(crate) fn may_use(
        &self,
        place: &Place<'_>,
        namespace: &str,
        issuer: &TrustedIssuer,
        findings: &mut Findings,
    ) {
        let root = self.mesh.is_some_and(|mesh| mesh.root_namespace == namespace);
        let allowed = issuer
            .allowed_namespaces
            .as_ref()
            .is_none_or(|allowed| allowed.iter().any(|one| one == namespace));
        // Without a mesh it is not known which namespace is the root; that is an error of its own.
        if !allowed && !root && self.mesh.is_some() {
            findings.add(
                place,
                Code::OutOfScope,
                format!("the namespace `{namespace}` may not use the issuer `{}`", issuer.name),
                "its `allowedNamespaces` do not name the namespace",
                "use another issuer, or have the namespace added to `allowedNamespaces`",
            );
        }
    }

    /// The Caller of this name, `namespace/name`.
    pub(crate) fn caller(
        &self,
        place: &Place<'_>,
        text: &str,
        findings: &mut Findings,
    ) -> Option<&'c Caller> {
        let (namespace, name) = reference(place, text, "a Caller", findings)?;
        if let Some(caller) = self.callers.get(text) {
            return caller.as_ref();
        }
        let id =
            ObjectId { kind: Kind::Caller, namespace: Some(namespace.to_owned()), name: name.to_owned() };
        if !self.broken.has(&id, findings) {
            findings.add(
                place,
                Code::UnknownReference,
                format!("there is no Caller `{text}`"),
                "an entry that names nobody would never match",
                match suggest::closest(text, self.callers.keys().map(String::as_str)) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => "declare it, or write `peer`".to_owned(),
                },
            );
        }
        None
    }

    /// The workloads that an object of this namespace reaches with this selector. `None` without a mesh.
    pub(crate) fn reach(&self, namespace: &str, selector: Option<&SelectorSpec>) -> Option<Reach> {
        self.mesh.map(|mesh| self.reaches.get(mesh, namespace, selector))
    }

    /// The declared gateway of this name, `namespace/name`.
    pub(crate) fn gateway(
        &self,
        place: &Place<'_>,
        text: &str,
        findings: &mut Findings,
    ) -> Option<(&'c WorkloadId, &'c Workload)> {
        let (namespace, name) = reference(place, text, "a gateway", findings)?;
        let mesh = self.mesh?;
        let found = mesh.gateway(namespace, name);
        if found.is_none() {
            let known = mesh.gateway_names();
            findings.add(
                place,
                Code::UnknownReference,
                format!("there is no gateway `{text}`"),
                "only declared gateways may be named",
                match suggest::closest(text, known.iter().map(String::as_str)) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None if known.is_empty() => "declare it".to_owned(),
                    None => format!("declared are {}", suggest::list(known.iter().map(String::as_str))),
                },
            );
        }
        found
    }
}

fn reference<'t>(
    place: &Place<'_>,
    text: &'t str,
    what: &str,
    findings: &mut Findings,
) -> Option<(&'t str, &'t str)> {
    let parsed = syntax::qualified(text);
    if parsed.is_none() {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{text}` does not name {what}"),
            "references say the namespace, so that they mean the same everywhere",
            "write `namespace/name`",
        );
    }
    parsed
}

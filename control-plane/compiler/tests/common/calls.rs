//! Requests at the egress gateway of the tests, decided as the filter decides them: compiled, encoded, decoded.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use tidegate_compiler::Compiled;
use tidegate_engine::{Directories, Peer, PolicySet, Reason, Request, decide, normal};

/// The Guard of the egress gateway.
pub const EGRESS: &str = "\
kind: Guard
metadata: {name: egress, namespace: egress}
spec: {mode: Enforce, audience: 'https://egress.example'}
---
";

/// An AccessRule of the egress gateway for the workers of `etl`, with this entry of `to`.
pub fn rule(name: &str, effect: &str, to: &str) -> String {
    format!(
        "kind: AccessRule\nmetadata: {{name: {name}, namespace: egress}}\nspec:\n  owner: team-billing\n  target: \
         {{gateway: egress/external}}\n  effect: {effect}\n  mode: Enforce\n  from: [{{peer: {{namespace: etl}}}}]\n  to: \
         [{{{to}}}]\n---\n"
    )
}

/// The gateway with a rule that allows this.
pub fn allowing(to: &str) -> Gateway {
    Gateway::new(&super::compiled(&format!("{EGRESS}{}", rule("a", "Allow", to))))
}

/// The gateway with a rule that allows everything, and one that denies this.
pub fn denying(to: &str) -> Gateway {
    let all = "kind: AccessRule\nmetadata: {name: all, namespace: egress}\nspec: {owner: a, target: {gateway: \
               egress/external}, effect: Allow, mode: Enforce, from: [{anyMesh: true}]}\n---\n";
    Gateway::new(&super::compiled(&format!("{EGRESS}{all}{}", rule("d", "Deny", to))))
}

/// What the gateway enforces.
pub struct Gateway {
    set: PolicySet,
    directories: Directories,
}

impl Gateway {
    /// Of these policies.
    pub fn new(compiled: &Compiled) -> Self {
        let policy = super::policy(compiled, "egress", "external");
        Self { set: PolicySet::decode(&policy.rules).unwrap(), directories: Directories::default() }
    }

    /// Why a request passes or not: `POST host/path?query`, and further lines `name: value`.
    pub fn reason(&self, call: &str) -> Reason {
        let mut lines = call.lines().map(str::trim);
        let (method, url) = lines.next().and_then(|line| line.split_once(' ')).expect(call);
        let (host, path) = url.split_at(url.find('/').expect(call));
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":authority", host.as_bytes()),
            (b":method", method.as_bytes()),
            (b":path", path.as_bytes()),
        ];
        for line in lines {
            let (name, value) = line.split_once(": ").expect(call);
            fields.push((name.as_bytes(), value.as_bytes()));
        }
        let headers = normal::header_facts(fields.iter().copied());
        let host = normal::host(host.as_bytes());
        let read = normal::path(path.as_bytes());
        let request = Request {
            now: 1,
            expiry_grace_s: 0,
            port: 443,
            method: method.as_bytes(),
            host: host.as_deref(),
            path: &read,
            query: normal::query(path.as_bytes()),
            headers,
            fields: &fields,
            body: tidegate_engine::Body::Unread,
            peer: Peer::Mesh { trust_domain: "prod.example", namespace: "etl", service_account: "worker" },
            tokens: &[],
            directories: &self.directories,
        };
        decide(&self.set, &request).reason
    }

    /// Whether a request passes.
    pub fn lets_pass(&self, call: &str) -> bool {
        self.reason(call) == Reason::AllowedBy
    }

    /// Each of these passes.
    pub fn allows(&self, calls: &[&str]) {
        for call in calls {
            assert_eq!(self.reason(call), Reason::AllowedBy, "{call}");
        }
    }

    /// None of these passes.
    pub fn refuses(&self, calls: &[&str]) {
        for call in calls {
            assert_ne!(self.reason(call), Reason::AllowedBy, "{call}");
        }
    }

    /// Each of these is refused by the Deny, and not only because something about it is ambiguous.
    pub fn denies(&self, calls: &[&str]) {
        for call in calls {
            assert_eq!(self.reason(call), Reason::DeniedBy, "{call}");
        }
    }
}

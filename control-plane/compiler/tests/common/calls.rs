//! Requests at the egress gateway of the tests, decided as the filter decides them: compiled, encoded, decoded.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use tidegate_compiler::Compiled;
use tidegate_engine::body::{Format, Scanner, Step};
use tidegate_engine::{Body, Directories, Peer, PolicySet, Reason, Request, decide, normal, wanted_fields};

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
        self.with(call, |request| decide(&self.set, request).reason)
    }

    /// The same with a body, which is read as the filter reads it: in pieces of so many bytes, and only if the decision
    /// awaits it; it is decided at the end of each message.
    pub fn reason_of(&self, call: &str, body: &[u8], piece: usize) -> Reason {
        let header = |name: &str| call.lines().find_map(|line| line.trim().strip_prefix(name));
        // What is encoded is not read.
        let is_encoded =
            ["content-encoding: ", "content_encoding: "].iter().any(|name| header(name).is_some());
        let content_type = header("content-type: ").filter(|_| !is_encoded);
        self.with(call, |request| {
            let first = decide(&self.set, request);
            if !first.awaits_body {
                return first.reason;
            }
            if body.is_empty() {
                return decide(&self.set, &Request { body: Body::Empty, ..*request }).reason;
            }
            let fields = self.set.body_fields();
            let format = content_type.and_then(|text| Format::of(text.as_bytes()));
            let mut scanner = Scanner::new(format, fields, &wanted_fields(&self.set, request));
            let now = |scanner: &Scanner| {
                let body = Body::Read { fields, values: scanner.values() };
                decide(&self.set, &Request { body, ..*request }).reason
            };
            for mut piece in body.chunks(piece) {
                loop {
                    match scanner.feed(piece) {
                        Step::More => break,
                        Step::Broken => return now(&scanner),
                        Step::Message(rest) => match now(&scanner) {
                            Reason::AllowedBy => piece = rest,
                            refused => return refused,
                        },
                    }
                }
            }
            scanner.finish();
            now(&scanner)
        })
    }

    /// Each of these bodies passes, in whatever pieces it comes.
    pub fn allows_bodies(&self, call: &str, bodies: &[&[u8]]) {
        for body in bodies {
            for piece in [usize::MAX, 1, 3] {
                let reason = self.reason_of(call, body, piece);
                assert_eq!(reason, Reason::AllowedBy, "{call}\n{}", String::from_utf8_lossy(body));
            }
        }
    }

    /// None of these bodies passes.
    pub fn refuses_bodies(&self, call: &str, bodies: &[&[u8]]) {
        for body in bodies {
            for piece in [usize::MAX, 1, 3] {
                let reason = self.reason_of(call, body, piece);
                assert_ne!(reason, Reason::AllowedBy, "{call}\n{}", String::from_utf8_lossy(body));
            }
        }
    }

    /// Each of these bodies is refused by the Deny.
    pub fn denies_bodies(&self, call: &str, bodies: &[&[u8]]) {
        for body in bodies {
            for piece in [usize::MAX, 1, 3] {
                let reason = self.reason_of(call, body, piece);
                assert_eq!(reason, Reason::DeniedBy, "{call}\n{}", String::from_utf8_lossy(body));
            }
        }
    }

    fn with<T>(&self, call: &str, then: impl FnOnce(&Request<'_>) -> T) -> T {
        let mut lines = call.lines().map(str::trim);
        let (method, url) = lines.next().and_then(|line| line.split_once(' ')).expect(call);
        let (host, path) = url.split_at(url.find('/').expect(call));
        // As proxies do with names.
        let mut names: Vec<(String, &str)> = Vec::new();
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":authority", host.as_bytes()),
            (b":method", method.as_bytes()),
            (b":path", path.as_bytes()),
        ];
        for line in lines {
            let (name, value) = line.split_once(": ").expect(call);
            names.push((name.to_ascii_lowercase(), value));
        }
        fields.extend(names.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
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
        then(&request)
    }

    /// Whether a request passes, without a body where that decides.
    pub fn lets_pass(&self, call: &str) -> bool {
        self.reason_of(call, &[], 1) == Reason::AllowedBy
    }

    /// Each of these passes, without a body.
    pub fn allows(&self, calls: &[&str]) {
        for call in calls {
            assert_eq!(self.reason_of(call, &[], 1), Reason::AllowedBy, "{call}");
        }
    }

    /// None of these passes.
    pub fn refuses(&self, calls: &[&str]) {
        for call in calls {
            assert_ne!(self.reason_of(call, &[], 1), Reason::AllowedBy, "{call}");
        }
    }

    /// Each of these is refused by the Deny, without a body if it reads one, and not only because something about it is
    /// ambiguous.
    pub fn denies(&self, calls: &[&str]) {
        for call in calls {
            assert_eq!(self.reason_of(call, &[], 1), Reason::DeniedBy, "{call}");
        }
    }
}

/// A message of Protocol Buffers, by hand.
#[derive(Clone, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    /// With a string (or bytes) in a field.
    pub fn text(self, number: u32, text: &str) -> Self {
        self.bytes(number, text.as_bytes())
    }

    /// With a message in a field.
    pub fn message(self, number: u32, inner: &Message) -> Self {
        self.bytes(number, &inner.0)
    }

    /// With a number in a field.
    pub fn number(mut self, number: u32, value: u64) -> Self {
        self.varint(u64::from(number) << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, number: u32, bytes: &[u8]) -> Self {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A string in a field of a message that is alone.
pub fn text(number: u32, text: &str) -> Message {
    Message::default().text(number, text)
}

/// A string some messages deep.
pub fn at(path: &[u32], text: &str) -> Message {
    let (last, outer) = path.split_last().unwrap();
    let inner = Message::default().text(*last, text);
    outer.iter().rev().fold(inner, |inner, number| Message::default().message(*number, &inner))
}

/// The body of a gRPC call: each message with its length.
pub fn frames(messages: &[Message]) -> Vec<u8> {
    let mut body = Vec::new();
    for Message(bytes) in messages {
        body.push(0);
        body.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        body.extend_from_slice(bytes);
    }
    body
}

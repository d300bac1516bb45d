//! A proxy for tests: gives what it is told to, and remembers what it was asked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use tidegate_engine::Reason;

use super::{Host, Level, Metric};

/// What a test sets, and what it looks at afterwards.
#[derive(Debug, Default)]
pub struct Fake {
    pub headers: RefCell<Option<Vec<u8>>>,
    pub response: RefCell<HashMap<Vec<u8>, Vec<u8>>>,
    pub properties: RefCell<HashMap<Vec<u8>, Vec<u8>>>,
    /// Properties that were asked for.
    pub asked: RefCell<Vec<Vec<u8>>>,
    pub now_ms: Cell<u64>,
    /// Whether there is `verify_signature`.
    pub verifies: Cell<bool>,
    pub removed: RefCell<Vec<String>>,
    /// Headers that were set.
    pub set: RefCell<Vec<(String, String)>>,
    pub refuses_removal: RefCell<bool>,
    pub counted: RefCell<HashMap<Metric, u64>>,
    pub refusals: RefCell<HashMap<Reason, u64>>,
    /// What was left in filter state.
    pub told: RefCell<Vec<String>>,
    pub logged: RefCell<Vec<String>>,
    /// What chance says, instead of always the same.
    pub random: Cell<Option<u64>>,
    /// The same of what nobody sees.
    pub drawn: Cell<Option<u64>>,
    /// Calls that requests pay for.
    pub calls: Cell<usize>,
    /// Every request begins at another time unless a property says otherwise.
    requests: Cell<u64>,
}

impl Fake {
    pub fn with_headers(headers: &[(&str, &str)]) -> Self {
        Self {
            headers: RefCell::new(Some(block(headers))),
            now_ms: Cell::new(1_800_000_000_000),
            verifies: Cell::new(true),
            ..Self::default()
        }
    }

    pub fn with_peer(self, uri: &str) -> Self {
        self.with_property("connection\0uri_san_peer_certificate", uri.as_bytes())
    }

    /// Over the connection with this id.
    pub fn over(self, connection: u64) -> Self {
        self.with_property("connection\0id", &connection.to_le_bytes())
    }

    pub fn with_property(self, path: &str, value: &[u8]) -> Self {
        self.properties.borrow_mut().insert(path.as_bytes().to_vec(), value.to_vec());
        self
    }

    /// The server answers so.
    pub fn answers(&self, headers: &[(&str, &str)]) {
        let owned = |text: &str| text.as_bytes().to_vec();
        *self.response.borrow_mut() =
            headers.iter().map(|(name, value)| (owned(name), owned(value))).collect();
    }

    /// Time passes.
    pub fn wait(&self, ms: u64) {
        self.now_ms.set(self.now_ms.get() + ms);
    }
}

impl Host for Fake {
    fn request_headers(&self) -> Option<Vec<u8>> {
        self.calls.set(self.calls.get() + 1);
        self.headers.borrow().clone()
    }

    fn response_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.response.borrow().get(name).cloned()
    }

    fn property(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.calls.set(self.calls.get() + 1);
        self.asked.borrow_mut().push(path.to_vec());
        self.properties.borrow().get(path).cloned().or_else(|| {
            self.requests.set(self.requests.get() + 1);
            (path == b"request\0time").then(|| self.requests.get().to_le_bytes().to_vec())
        })
    }

    fn remove_request_header(&self, name: &[u8]) -> bool {
        self.calls.set(self.calls.get() + 1);
        self.removed.borrow_mut().push(String::from_utf8_lossy(name).into_owned());
        !*self.refuses_removal.borrow()
    }

    fn set_request_header(&self, name: &[u8], value: &[u8]) -> bool {
        self.calls.set(self.calls.get() + 1);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.set.borrow_mut().push((text(name), text(value)));
        !*self.refuses_removal.borrow()
    }

    fn now_ns(&self) -> u64 {
        self.calls.set(self.calls.get() + 1);
        self.now_ms.get() * 1_000_000
    }

    fn random(&self) -> u64 {
        self.random.get().unwrap_or(0x0123_4567_89AB_CDEF)
    }

    fn draw(&self) -> u64 {
        self.drawn.get().unwrap_or(0x0123_4567_89AB_CDEF)
    }

    fn reply(&self, _status: u16, _headers: &[(&str, &str)], _body: &[u8]) {}

    /// As Envoy does it, for P-256 with SHA-256.
    fn verify_signature(&self, hash: &str, spki: &[u8], input: &[u8], signature: &[u8]) -> Option<bool> {
        self.verifies.get().then(|| {
            let key = spki.get(26..).and_then(|point| VerifyingKey::from_sec1_bytes(point).ok());
            let signature = Signature::from_der(signature).ok();
            hash == "sha256"
                && key.zip(signature).is_some_and(|(key, signature)| key.verify(input, &signature).is_ok())
        })
    }

    fn stream_end(&self) -> Vec<u8> {
        b"because\nof \xFF this".to_vec()
    }

    fn count(&self, metric: Metric, by: u64) {
        *self.counted.borrow_mut().entry(metric).or_default() += by;
    }

    fn count_refusals(&self, reason: Reason, by: u64) {
        *self.refusals.borrow_mut().entry(reason).or_default() += by;
    }

    fn tell(&self, decision: &str) {
        self.calls.set(self.calls.get() + 1);
        self.told.borrow_mut().push(decision.to_owned());
    }

    fn log(&self, _level: Level, message: &str) {
        self.logged.borrow_mut().push(message.to_owned());
    }
}

/// Headers as Envoy serialises them.
pub fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let number = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    let mut out = number(headers.len()).to_vec();
    for (name, value) in headers {
        out.extend_from_slice(&number(name.len()));
        out.extend_from_slice(&number(value.len()));
    }
    for (name, value) in headers {
        for text in [name, value] {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
    }
    out
}

//! A proxy for tests: gives what it is told to, and remembers what it was asked.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{Host, Level, Metric};

/// What a test sets, and what it looks at afterwards.
#[derive(Debug, Default)]
pub struct Fake {
    pub headers: RefCell<Option<Vec<u8>>>,
    pub properties: RefCell<HashMap<Vec<u8>, Vec<u8>>>,
    pub now_s: RefCell<u64>,
    pub removed: RefCell<Vec<String>>,
    pub refuses_removal: RefCell<bool>,
    pub counted: RefCell<HashMap<Metric, u64>>,
    pub logged: RefCell<Vec<String>>,
}

impl Fake {
    pub fn with_headers(headers: &[(&str, &str)]) -> Self {
        Self {
            headers: RefCell::new(Some(block(headers))),
            now_s: RefCell::new(1_800_000_000),
            ..Self::default()
        }
    }

    pub fn with_peer(self, uri: &str) -> Self {
        self.properties
            .borrow_mut()
            .insert(b"connection\0uri_san_peer_certificate".to_vec(), uri.as_bytes().to_vec());
        self
    }
}

impl Host for Fake {
    fn request_headers(&self) -> Option<Vec<u8>> {
        self.headers.borrow().clone()
    }

    fn property(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.properties.borrow().get(path).cloned()
    }

    fn remove_request_header(&self, name: &[u8]) -> bool {
        self.removed.borrow_mut().push(String::from_utf8_lossy(name).into_owned());
        !*self.refuses_removal.borrow()
    }

    fn now_ns(&self) -> u64 {
        *self.now_s.borrow() * 1_000_000_000
    }

    fn random(&self) -> u64 {
        0x0123_4567_89AB_CDEF
    }

    fn reply(&self, _status: u16, _headers: &[(&str, &str)], _body: &[u8]) {}

    fn verify_signature(&self, _hash: &str, _spki: &[u8], _input: &[u8], _signature: &[u8]) -> Option<bool> {
        None
    }

    fn count(&self, metric: Metric, by: u64) {
        *self.counted.borrow_mut().entry(metric).or_default() += by;
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

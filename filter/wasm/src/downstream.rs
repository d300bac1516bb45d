//! The connection that a request came over: verifies the signatures of its tokens within the budget, and knows the
//! client's certificate.

use std::cell::{Cell, OnceCell, RefCell};

use tidegate_identity::{Algorithm, Connection, PublicKey, Verdict, VerifySignature};

use crate::budget::{Budget, Charge};
use crate::host::Host;
use crate::request::Received;
use crate::signature::Signatures;

/// The proxy's id of the connection, a little-endian `u64`.
pub const CONNECTION_ID: &[u8] = b"connection\0id";

/// A connection, during one decision.
pub struct Downstream<'d> {
    host: &'d dyn Host,
    received: &'d Received,
    signatures: Signatures<'d>,
    /// `None`: what was admitted before is looked at again, which is bounded elsewhere.
    budget: Option<&'d RefCell<Budget>>,
    now_ms: u64,
    id: OnceCell<u64>,
    charges: RefCell<Vec<Charge>>,
    checks: Cell<usize>,
}

/// What a connection was charged for checks of a request on which nothing is settled yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    connection: u64,
    charges: Vec<Charge>,
}

// === impl Unsettled ===

impl Unsettled {
    /// The request is allowed after all, and has a verified token.
    pub fn allowed(&self, budget: &mut Budget, now_ms: u64) {
        budget.accept(self.connection, &self.charges, now_ms);
    }
}

// === impl Downstream ===

impl<'d> Downstream<'d> {
    /// The connection of this request. `host` answers for it.
    pub fn new(
        host: &'d dyn Host,
        received: &'d Received,
        signatures: Signatures<'d>,
        budget: Option<&'d RefCell<Budget>>,
        now_ms: u64,
    ) -> Self {
        Self {
            host,
            received,
            signatures,
            budget,
            now_ms,
            id: OnceCell::new(),
            charges: RefCell::default(),
            checks: Cell::new(0),
        }
    }

    /// The request is allowed, and has a verified token.
    pub fn allowed(&self) {
        let Some(budget) = self.budget else { return };
        let charges = self.charges.take();
        if !charges.is_empty() || budget.borrow_mut().is_strained(self.now_ms) {
            budget.borrow_mut().accept(self.id(), &charges, self.now_ms);
        }
    }

    /// What was charged so far, if anything.
    pub fn unsettled(&self) -> Option<Unsettled> {
        let charges = self.charges.take();
        (!charges.is_empty()).then(|| Unsettled { connection: self.id(), charges })
    }

    /// The port that accepted it.
    pub fn port(&self) -> Option<u16> {
        self.received.port(self.host)
    }

    /// How many signatures were checked.
    pub fn checks(&self) -> usize {
        self.checks.get()
    }

    /// A proxy that does not tell connections apart has one for all.
    fn id(&self) -> u64 {
        *self.id.get_or_init(|| {
            let bytes = self.host.property(CONNECTION_ID).unwrap_or_default();
            <[u8; 8]>::try_from(bytes.as_slice()).map_or(u64::MAX, u64::from_le_bytes)
        })
    }
}

impl VerifySignature for Downstream<'_> {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> Verdict {
        if let Some(budget) = self.budget {
            let cost = self.signatures.cost_us(algorithm, signature.len());
            match budget.borrow_mut().charge(self.id(), cost, self.now_ms) {
                Some(charge) => self.charges.borrow_mut().push(charge),
                None => return Verdict::OverBudget,
            }
        }
        self.checks.set(self.checks.get().saturating_add(1));
        self.signatures.verify(algorithm, key, input, signature)
    }
}

impl Connection for Downstream<'_> {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        self.received.certificate_sha256(self.host)
    }
}

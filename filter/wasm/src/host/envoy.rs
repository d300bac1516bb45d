//! The proxy-wasm ABI 0.2.1, as far as the SDK's own calls do not do.
//!
//! Safety: every call hands over pointers to live memory with its length, and takes over what the host allocated through
//! the SDK's `proxy_on_memory_allocate`, which makes a `Vec<u8>` of exactly that capacity.

#![allow(clippy::as_conversions)]

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::ptr::null_mut;

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tidegate_engine::Reason;

use super::{Host, Level, Metric, refusals_name};

const OK: u32 = 0;
const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const METRIC_COUNTER: u32 = 0;
/// A key of filter state; the proxy puts `wasm.` before it.
const DECISION: &[u8] = b"tidegate.decision";

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        results: *mut *mut u8,
        results_size: *mut usize,
    ) -> u32;
    fn proxy_get_status(code: *mut u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
}

/// What Envoy's foreign function `verify_signature` answers
/// (`source/extensions/common/wasm/ext/verify_signature.proto`).
#[derive(Clone, PartialEq, prost::Message)]
struct VerifySignatureResult {
    #[prost(bool, tag = "1")]
    result: bool,
    #[prost(string, tag = "2")]
    error: String,
}

/// The proxy that runs this module.
#[derive(Debug, Default)]
pub struct Envoy {
    /// Its keys are from the host's `random_get`.
    hasher: RandomState,
    /// How many random numbers were made.
    numbers: Cell<u64>,
    /// State of a xorshift generator.
    drawn: Cell<u64>,
    /// Ids of metrics, by position; defined when first used, so that canary VMs define none.
    metrics: RefCell<[Option<u32>; Metric::ALL.len()]>,
    /// Ids of the counters of refusals; defined when first used, so that the proxy keeps none of reasons that never come.
    refusals: RefCell<Vec<(Reason, u32)>>,
}

/// Takes over what the host allocated.
fn take(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: see the module's documentation.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

impl Host for Envoy {
    fn request_headers(&self) -> Option<Vec<u8>> {
        let (mut data, mut size) = (null_mut(), 0);
        // SAFETY: both out-pointers are live.
        let status = unsafe { proxy_get_header_map_pairs(REQUEST_HEADERS, &mut data, &mut size) };
        (status == OK).then(|| take(data, size))
    }

    fn response_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        let (mut data, mut size) = (null_mut(), 0);
        // SAFETY: the name is live, both out-pointers are.
        let status = unsafe {
            proxy_get_header_map_value(RESPONSE_HEADERS, name.as_ptr(), name.len(), &mut data, &mut size)
        };
        (status == OK && !data.is_null()).then(|| take(data, size))
    }

    fn property(&self, path: &[u8]) -> Option<Vec<u8>> {
        let (mut data, mut size) = (null_mut(), 0);
        // SAFETY: the path is live, both out-pointers are.
        let status = unsafe { proxy_get_property(path.as_ptr(), path.len(), &mut data, &mut size) };
        (status == OK).then(|| take(data, size))
    }

    fn remove_request_header(&self, name: &[u8]) -> bool {
        // SAFETY: the name is live. Removing what is not there is no error.
        unsafe { proxy_remove_header_map_value(REQUEST_HEADERS, name.as_ptr(), name.len()) == OK }
    }

    fn set_request_header(&self, name: &[u8], value: &[u8]) -> bool {
        let (name, value) = ((name.as_ptr(), name.len()), (value.as_ptr(), value.len()));
        // SAFETY: name and value are live. What is not there is added.
        unsafe { proxy_replace_header_map_value(REQUEST_HEADERS, name.0, name.1, value.0, value.1) == OK }
    }

    fn now_ns(&self) -> u64 {
        let mut time = 0;
        // SAFETY: the out-pointer is live. On failure the time stays 0, at which no token is valid.
        unsafe { proxy_get_current_time_nanoseconds(&mut time) };
        time
    }

    fn random(&self) -> u64 {
        // SipHash of a counter: without the key, numbers say nothing of others.
        self.numbers.set(self.numbers.get().wrapping_add(1));
        self.hasher.hash_one(self.numbers.get())
    }

    fn draw(&self) -> u64 {
        let mut state = self.drawn.get();
        if state == 0 {
            state = self.random() | 1;
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.drawn.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn reply(&self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let headers = pairs(headers);
        // SAFETY: all buffers are live. A gRPC status of -1 lets Envoy derive it from the HTTP status.
        unsafe {
            proxy_send_local_response(
                u32::from(status),
                std::ptr::null(),
                0,
                body.as_ptr(),
                body.len(),
                headers.as_ptr(),
                headers.len(),
                -1,
            )
        };
    }

    fn verify_signature(&self, hash: &str, spki: &[u8], input: &[u8], signature: &[u8]) -> Option<bool> {
        const NAME: &str = "verify_signature";
        // `VerifySignatureArguments`: hash function, public key, signature and text are fields 1 to 4. Written here, they
        // are copied once.
        let fields = [hash.as_bytes(), spki, signature, input];
        let mut arguments = Vec::with_capacity(fields.iter().map(|field| field.len() + 6).sum());
        for (tag, field) in (1..).zip(fields) {
            encode_key(tag, WireType::LengthDelimited, &mut arguments);
            encode_varint(field.len() as u64, &mut arguments);
            arguments.extend_from_slice(field);
        }
        let (mut data, mut size) = (null_mut(), 0);
        // SAFETY: name and arguments are live, both out-pointers are.
        let status = unsafe {
            proxy_call_foreign_function(
                NAME.as_ptr(),
                NAME.len(),
                arguments.as_ptr(),
                arguments.len(),
                &mut data,
                &mut size,
            )
        };
        if status != OK {
            return None;
        }
        Some(VerifySignatureResult::decode(take(data, size).as_slice()).is_ok_and(|result| result.result))
    }

    fn stream_end(&self) -> Vec<u8> {
        let (mut code, mut data, mut size) = (0, null_mut(), 0);
        // SAFETY: all out-pointers are live.
        let status = unsafe { proxy_get_status(&mut code, &mut data, &mut size) };
        if status == OK { take(data, size) } else { Vec::new() }
    }

    fn count(&self, metric: Metric, by: u64) {
        let mut metrics = self.metrics.borrow_mut();
        let Some(slot) = metrics.get_mut(metric.position()) else { return };
        if slot.is_none() {
            *slot = define(metric.name());
        }
        increment(*slot, by);
    }

    fn count_refusals(&self, reason: Reason, by: u64) {
        let mut refusals = self.refusals.borrow_mut();
        let known = refusals.iter().find(|(known, _)| *known == reason).map(|(_, id)| *id);
        let id = known.or_else(|| define(&refusals_name(reason)).inspect(|id| refusals.push((reason, *id))));
        increment(id, by);
    }

    fn tell(&self, decision: &str) {
        // SAFETY: path and value are live. It is for logs: where it cannot be left, the decision stands all the same.
        unsafe { proxy_set_property(DECISION.as_ptr(), DECISION.len(), decision.as_ptr(), decision.len()) };
    }

    fn log(&self, level: Level, message: &str) {
        let level = match level {
            Level::Info => 2,
            Level::Warn => 3,
            Level::Error => 4,
        };
        // SAFETY: the message is live.
        unsafe { proxy_log(level, message.as_ptr(), message.len()) };
    }
}

/// The id of a counter, which is there from now on.
fn define(name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: the name is live, the out-pointer is.
    let status = unsafe { proxy_define_metric(METRIC_COUNTER, name.as_ptr(), name.len(), &mut id) };
    (status == OK).then_some(id)
}

/// Envoy refuses to add nothing.
fn increment(id: Option<u32>, by: u64) {
    if let (Some(id), Ok(by @ 1..)) = (id, i64::try_from(by)) {
        // SAFETY: no pointers.
        unsafe { proxy_increment_metric(id, by) };
    }
}

/// Envoy's serialised form of header pairs: count, lengths, then names and values, each followed by a zero byte.
fn pairs(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(
        64 + headers.iter().map(|(name, value)| name.len() + value.len() + 10).sum::<usize>(),
    );
    out.extend_from_slice(&(headers.len() as u32).to_le_bytes());
    for (name, value) in headers {
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    }
    for (name, value) in headers {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value.as_bytes());
        out.push(0);
    }
    out
}

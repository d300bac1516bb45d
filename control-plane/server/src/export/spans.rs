//! Decisions as spans: a child of the span that the request came with, as long as deciding took.
//!
//! INVARIANT: no trace is begun: without a trace id and a parent in the request there is no span, and none where the caller
//! says that its part is not recorded.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;

use super::attributes::{self, scope};
use super::logs::{hexadecimal, nanoseconds};
use crate::decisions::record::{Entry, Recorded};

/// The name of every span.
pub const NAME: &str = "tidegate.decide";

/// Whether there is a span for this.
pub fn has_span(entry: &Entry) -> bool {
    match entry {
        Entry::Decision(recorded) => trace(recorded).is_some(),
        Entry::Gap(_) => false,
    }
}

/// A request with the spans of these records.
pub fn request(resource: &Resource, entries: &[Entry]) -> Vec<u8> {
    let spans = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Decision(recorded) => span(recorded),
            Entry::Gap(_) => None,
        })
        .collect();
    let spans = ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() };
    let spans = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec()
}

/// The span of a decision. The record's time is when it was decided.
pub fn span(recorded: &Recorded) -> Option<Span> {
    let (trace_id, parent_span_id) = trace(recorded)?;
    let end = nanoseconds(recorded.time);
    Some(Span {
        span_id: id(&trace_id, &recorded.id),
        trace_id,
        parent_span_id,
        flags: recorded.trace_flags.unwrap_or(0).into(),
        name: NAME.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: end.saturating_sub(recorded.decided_in_ns),
        end_time_unix_nano: end,
        attributes: attributes::decision(recorded),
        ..Span::default()
    })
}

fn trace(recorded: &Recorded) -> Option<(Vec<u8>, Vec<u8>)> {
    // The flag `sampled` (W3C Trace Context, section 3.2.2.5.1). Filters of before did not tell it.
    if recorded.trace_flags.is_some_and(|flags| flags & 1 == 0) {
        return None;
    }
    let trace = hexadecimal(recorded.trace_id.as_deref(), 16);
    let parent = hexadecimal(recorded.span_id.as_deref(), 8);
    (!trace.is_empty() && !parent.is_empty()).then_some((trace, parent))
}

/// The same for the same decision, so that a batch that is sent twice makes no second span.
fn id(trace: &[u8], decision: &str) -> Vec<u8> {
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[trace, b"/", decision.as_bytes()].concat());
    digest.as_ref().iter().copied().take(8).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::export::attributes::testing::recorded;

    #[test]
    fn a_span_is_a_child_of_what_the_request_came_with() {
        let recorded = recorded();
        let span = span(&recorded).unwrap();
        assert_eq!(span.parent_span_id, hexadecimal(recorded.span_id.as_deref(), 8));
        assert_eq!(span.trace_id, hexadecimal(recorded.trace_id.as_deref(), 16));
        assert!(span.span_id.len() == 8 && span.span_id != span.parent_span_id);
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, recorded.decided_in_ns);
        assert_eq!(super::span(&recorded).unwrap().span_id, span.span_id);
        let mut other = recorded.clone();
        other.id = "7Q4K-M2XD-0002".to_owned();
        assert_ne!(super::span(&other).unwrap().span_id, span.span_id);
    }

    #[test]
    fn what_its_caller_does_not_record_has_no_span() {
        for (flags, has) in
            [(None, true), (Some(1), true), (Some(3), true), (Some(0), false), (Some(2), false)]
        {
            let recorded = Recorded { trace_flags: flags, ..recorded() };
            assert_eq!(has_span(&Entry::Decision(Arc::new(recorded))), has, "{flags:?}");
        }
    }

    #[test]
    fn no_trace_is_begun() {
        for (trace, parent) in
            [(None, Some("00f067aa0ba902b7")), (Some("4bf92f3577b34da6a3ce929d0e0e4736"), None)]
        {
            let mut recorded = recorded();
            recorded.trace_id = trace.map(str::to_owned);
            recorded.span_id = parent.map(str::to_owned);
            assert!(!has_span(&Entry::Decision(Arc::new(recorded))), "{trace:?} {parent:?}");
        }
    }
}

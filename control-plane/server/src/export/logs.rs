//! Decisions as log records of OpenTelemetry: one event per decision, one per gap.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::attributes::{self, scope, string};
use crate::decisions::record::{Entry, Gap, Moment, Outcome, Recorded};

/// `event.name` of a decision.
pub const DECISION: &str = "tidegate.decision";
/// `event.name` of a gap.
pub const GAP: &str = "tidegate.gap";

/// A request with these records. `now`: Unix nanoseconds.
pub fn request(resource: &Resource, entries: &[Entry], now: u64) -> Vec<u8> {
    let log_records = entries.iter().map(|entry| record(entry, now)).collect();
    let logs = ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() };
    let logs =
        ResourceLogs { resource: Some(resource.clone()), scope_logs: vec![logs], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec()
}

/// A record. `now`: Unix nanoseconds.
pub fn record(entry: &Entry, now: u64) -> LogRecord {
    match entry {
        Entry::Decision(recorded) => {
            let (severity, text) = severity(recorded);
            LogRecord {
                time_unix_nano: nanoseconds(recorded.time),
                observed_time_unix_nano: now,
                severity_number: severity.into(),
                severity_text: text.to_owned(),
                body: Some(string(sentence(recorded))),
                attributes: attributes::decision(recorded),
                trace_id: hexadecimal(recorded.trace_id.as_deref(), 16),
                span_id: hexadecimal(recorded.span_id.as_deref(), 8),
                flags: recorded.trace_flags.unwrap_or(0).into(),
                event_name: DECISION.to_owned(),
                ..LogRecord::default()
            }
        }
        Entry::Gap(gap) => LogRecord {
            time_unix_nano: nanoseconds(gap.time),
            observed_time_unix_nano: now,
            severity_number: SeverityNumber::Error.into(),
            severity_text: "ERROR".to_owned(),
            body: Some(string(missing(gap))),
            attributes: attributes::gap(gap),
            event_name: GAP.to_owned(),
            ..LogRecord::default()
        },
    }
}

/// Refusals and streams that were ended warn; everything else informs.
fn severity(recorded: &Recorded) -> (SeverityNumber, &'static str) {
    if recorded.outcome == Outcome::Allow && !recorded.ended {
        (SeverityNumber::Info, "INFO")
    } else {
        (SeverityNumber::Warn, "WARN")
    }
}

/// One line for people.
fn sentence(recorded: &Recorded) -> String {
    let did = match (recorded.outcome, recorded.ended) {
        (_, true) => "ended",
        (Outcome::Allow, _) => "allowed",
        (Outcome::Deny, _) => "refused",
        (Outcome::Unknown, _) => "decided",
    };
    let mut text =
        format!("{did} {} {}{}: {}", recorded.method, recorded.host, recorded.path, recorded.reason);
    if let Some(rule) = recorded.rule_name() {
        text.push_str(&format!(" (rule {rule})"));
    }
    text
}

fn missing(gap: &Gap) -> String {
    match gap.lost {
        Some(lost) => format!("{lost} records of decisions are missing: {}", gap.cause.words()),
        None => format!("records of decisions are missing: {}", gap.cause.words()),
    }
}

/// Since 1970; 0, which means unknown, before.
pub(super) fn nanoseconds(moment: Moment) -> u64 {
    u64::try_from(moment.0).unwrap_or(0).saturating_mul(1_000)
}

/// The bytes of an id of this length; nothing where it is none.
pub(super) fn hexadecimal(text: Option<&str>, bytes: usize) -> Vec<u8> {
    let text = text.unwrap_or_default().as_bytes();
    let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let read: Option<Vec<u8>> = text
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect();
    read.filter(|read| read.len() == bytes && read.iter().any(|byte| *byte != 0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decisions::record::GapCause;
    use crate::export::attributes::testing::recorded;

    #[test]
    fn a_refusal_is_a_warning_with_its_trace() {
        let record = record(&Entry::Decision(Arc::new(recorded())), 7);
        assert_eq!(record.severity_number, i32::from(SeverityNumber::Warn));
        assert_eq!(record.event_name, "tidegate.decision");
        assert_eq!(record.time_unix_nano, 1_795_203_600_000_000_000);
        assert_eq!(record.trace_id.len(), 16);
        assert_eq!(record.flags, 1);
        assert_eq!(record.span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        let mut allowed = recorded();
        (allowed.outcome, allowed.ended, allowed.rule) = (Outcome::Allow, false, None);
        let allowed = super::record(&Entry::Decision(Arc::new(allowed)), 7);
        assert_eq!(allowed.severity_text, "INFO");
        let expected =
            "allowed POST pubsub.googleapis.com:443/v1/projects/acme/topics/orders:publish: denied_by_rule";
        assert_eq!(allowed.body, Some(string(expected.to_owned())));
    }

    #[test]
    fn ids_that_are_none_are_left_out() {
        for (text, expected) in [
            (Some("0102030405060708"), 8),
            (Some("0000000000000000"), 0),
            (Some("010203040506070"), 0),
            (Some("01020304050607zz"), 0),
            (Some("0102"), 0),
            (None, 0),
        ] {
            assert_eq!(hexadecimal(text, 8).len(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_gap_is_an_error_that_says_how_much_is_missing() {
        let gap = Gap {
            time: Moment(1),
            workload: String::new(),
            instance: String::new(),
            cause: GapCause::ControlPlaneDropped,
            lost: Some(9),
            lost_in_full: 0,
        };
        let record = record(&Entry::Gap(gap), 7);
        assert_eq!((record.severity_text.as_str(), record.event_name.as_str()), ("ERROR", "tidegate.gap"));
        let words = "9 records of decisions are missing: the control plane could not keep up";
        assert_eq!(record.body, Some(string(words.to_owned())));
    }
}

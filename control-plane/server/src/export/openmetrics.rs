//! Reads the text that `/metrics` serves, so that what goes by OTLP is exactly what Prometheus scrapes.
//!
//! It is our own text (`prometheus-client` writes OpenMetrics): a line that is not as expected is a bug, not input.

use std::collections::BTreeMap;

/// Samples of one name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Family {
    /// Without `_total`, `_bucket` and the like.
    pub name: String,
    pub help: String,
    pub kind: Kind,
    pub samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    /// What follows the family's name: `_total`, `_sum`, …
    pub suffix: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Every family that has samples.
pub(super) fn read(text: &str) -> Vec<Family> {
    let mut families = Vec::<Family>::new();
    let mut helps = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            if let Some((name, help)) = rest.split_once(' ') {
                helps.insert(name, unescape(help.trim_end_matches('.')));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { continue };
            let kind = match kind {
                "counter" => Kind::Counter,
                "gauge" => Kind::Gauge,
                "histogram" => Kind::Histogram,
                _ => continue,
            };
            let help = helps.get(name).cloned().unwrap_or_default();
            families.push(Family { name: name.to_owned(), help, kind, samples: Vec::new() });
        } else if let Some(family) = families.last_mut()
            && let Some(sample) = sample(line, &family.name)
        {
            family.samples.push(sample);
        }
    }
    families.retain(|family| !family.samples.is_empty());
    families
}

/// `name_total{label="value"} 7`; nothing where the line is a comment or belongs to another family.
fn sample(line: &str, family: &str) -> Option<Sample> {
    let rest = line.strip_prefix(family)?;
    let end = rest.find(['{', ' '])?;
    let (suffix, rest) = rest.split_at(end);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // Exemplars and times follow the value.
    let value = value.split_whitespace().next()?;
    Some(Sample { suffix: suffix.to_owned(), labels, value: value.parse().ok()? })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, value) = rest.split_once("=\"")?;
        let end = closing_quote(value)?;
        labels.insert(name.to_owned(), unescape(value.get(..end)?));
        rest = value.get(end.checked_add(1)?..)?;
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(position),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::EncodeLabelSet;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Labels {
        rule: String,
        outcome: &'static str,
    }

    #[test]
    fn what_is_written_is_read() {
        let mut registry = Registry::with_prefix("tidegate");
        let decisions = family::Family::<Labels, Counter>::default();
        let rule = "a \"b\" } , \\ \n{=\"x\"".to_owned();
        decisions.get_or_create(&Labels { rule: rule.clone(), outcome: "deny" }).inc_by(7);
        registry.register("decisions", "Decided", decisions);
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(0.25);
        registry.register("compile_duration_seconds", "Took", gauge);
        registry.register("decisions_missing", "None", Counter::<u64>::default());
        let histogram = Histogram::new([0.1, 1.0]);
        histogram.observe(0.5);
        histogram.observe(7.0);
        registry.register("lag_seconds", "Lag", histogram);
        registry.register("empty", "Nothing", family::Family::<Labels, Gauge>::default());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();

        let families = read(&text);
        let names: Vec<&str> = families.iter().map(|family| family.name.as_str()).collect();
        let expected = [
            "tidegate_decisions",
            "tidegate_compile_duration_seconds",
            "tidegate_decisions_missing",
            "tidegate_lag_seconds",
        ];
        assert_eq!(names, expected, "{text}");
        let decided = &families[0];
        assert_eq!((decided.kind, decided.help.as_str()), (Kind::Counter, "Decided"));
        assert_eq!(decided.samples.len(), 1, "{text}");
        assert_eq!(decided.samples[0].labels["rule"], rule);
        assert_eq!((decided.samples[0].suffix.as_str(), decided.samples[0].value), ("_total", 7.0));
        assert_eq!(families[1].samples[0].value, 0.25);
        let buckets: Vec<(&str, f64)> = families[3]
            .samples
            .iter()
            .map(|sample| {
                (sample.labels.get("le").map_or(sample.suffix.as_str(), String::as_str), sample.value)
            })
            .collect();
        let expected = [("_sum", 7.5), ("_count", 2.0), ("0.1", 0.0), ("1.0", 1.0), ("+Inf", 2.0)];
        assert_eq!(buckets, expected, "{text}");
    }
}

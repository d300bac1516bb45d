//! Figures by OTLP: what `/metrics` says, at an interval, as cumulative sums, gauges and histograms.
//!
//! A name goes by the rules that OpenTelemetry has for going to and from Prometheus: `tidegate_nacks_total` is
//! `tidegate.nacks`, `tidegate_enforcement_lag_seconds` is `tidegate.enforcement_lag` in `s`, and back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::attributes::{scope, text};
use super::client::Client;
use super::deliver::{Attempts, Pace};
use super::openmetrics::{self, Family, Kind, Sample};
use super::options::Signal;
use crate::clock;
use crate::push::{Hub, stopped};

/// Sends figures at an interval.
#[derive(Debug)]
pub(super) struct Reader {
    pub client: Client,
    pub hub: Arc<Hub>,
    pub resource: Resource,
    pub interval: Duration,
    pub pace: Pace,
}

// === impl Reader ===

impl Reader {
    /// Until the hub stops; the last figures are sent then. What is not taken is in the next ones.
    pub(super) async fn run(self, grace: Duration) {
        let began = now_ns();
        let pace = Pace { patience: self.interval.min(self.pace.patience), ..self.pace };
        let mut attempts = Attempts::new(self.hub.stopping(), pace, grace);
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one is over at once.
        ticks.tick().await;
        let (mut stop, mut is_missing, mut is_last) = (self.hub.stopping(), false, false);
        while !is_last {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopped(&mut stop) => is_last = true,
            }
            let message = request(&self.resource, &self.hub.scrape(), began, now_ns());
            let word = Signal::Metrics.word();
            match attempts.try_send(&self.client, Signal::Metrics, &message, &self.hub).await {
                Ok(accepted) => {
                    self.hub.metrics.export.figures_delivered(word, clock::now());
                    if accepted.rejected > 0 {
                        let rejected = accepted.rejected;
                        warn!(
                            signal = word,
                            rejected, "the OTLP receiver did not take some figures: {}", accepted.words
                        );
                    }
                    is_missing = false;
                }
                Err(why) if !std::mem::replace(&mut is_missing, true) => {
                    warn!(signal = word, "figures are not exported; they are in the next ones: {why}");
                }
                Err(_) => {}
            }
        }
    }
}

/// A request with what `/metrics` says. `began`, `now`: Unix nanoseconds.
pub fn request(resource: &Resource, text: &str, began: u64, now: u64) -> Vec<u8> {
    let metrics = openmetrics::read(text).into_iter().map(|family| metric(family, began, now)).collect();
    let metrics = ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() };
    let metrics = ResourceMetrics {
        resource: Some(resource.clone()),
        scope_metrics: vec![metrics],
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![metrics] }.encode_to_vec()
}

/// Name and unit in OpenTelemetry of a family in Prometheus.
pub fn name(family: &str) -> (String, &'static str) {
    let inside = family.strip_prefix("tidegate_").unwrap_or(family);
    let (inside, unit) = match (inside.strip_suffix("_seconds"), inside.strip_suffix("_bytes")) {
        (Some(inside), _) => (inside, "s"),
        (_, Some(inside)) => (inside, "By"),
        (None, None) => (inside, ""),
    };
    (format!("tidegate.{inside}"), unit)
}

fn metric(family: Family, began: u64, now: u64) -> Metric {
    let (name, unit) = name(&family.name);
    let data = match family.kind {
        Kind::Counter => Data::Sum(Sum {
            data_points: family.samples.iter().map(|sample| whole(sample, began, now)).collect(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        Kind::Gauge => Data::Gauge(Gauge {
            data_points: family
                .samples
                .iter()
                .map(|sample| point(sample, Value::AsDouble(sample.value), 0, now))
                .collect(),
        }),
        Kind::Histogram => Data::Histogram(Histogram {
            data_points: histograms(&family.samples, began, now),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        }),
    };
    Metric { name, description: family.help, unit: unit.to_owned(), data: Some(data), ..Metric::default() }
}

/// Counters count whole things.
fn whole(sample: &Sample, began: u64, now: u64) -> NumberDataPoint {
    #[allow(clippy::cast_possible_truncation)]
    point(sample, Value::AsInt(sample.value as i64), began, now)
}

fn point(sample: &Sample, value: Value, began: u64, now: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(&sample.labels),
        start_time_unix_nano: began,
        time_unix_nano: now,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

/// An empty label is none to Prometheus.
fn attributes(labels: &BTreeMap<String, String>) -> Vec<KeyValue> {
    labels
        .iter()
        .filter(|(name, value)| *name != "le" && !value.is_empty())
        .map(|(name, value)| text(&format!("tidegate.{name}"), value))
        .collect()
}

/// Prometheus' buckets each hold all smaller ones; those of OTLP do not.
fn histograms(samples: &[Sample], began: u64, now: u64) -> Vec<HistogramDataPoint> {
    let mut points = Vec::<(BTreeMap<String, String>, HistogramDataPoint, u64)>::new();
    for sample in samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le");
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let count = sample.value as u64;
        if points.iter().all(|(known, ..)| *known != labels) {
            let empty = HistogramDataPoint {
                attributes: attributes(&labels),
                start_time_unix_nano: began,
                time_unix_nano: now,
                ..HistogramDataPoint::default()
            };
            points.push((labels.clone(), empty, 0));
        }
        let Some((_, point, below)) = points.iter_mut().find(|(known, ..)| *known == labels) else {
            continue;
        };
        match (sample.suffix.as_str(), bound) {
            ("_sum", _) => point.sum = Some(sample.value),
            ("_count", _) => point.count = count,
            ("_bucket", Some(bound)) => {
                if let Ok(bound) = bound.parse::<f64>()
                    && bound.is_finite()
                {
                    point.explicit_bounds.push(bound);
                }
                point.bucket_counts.push(count.saturating_sub(*below));
                *below = count;
            }
            _ => {}
        }
    }
    points.into_iter().map(|(_, point, _)| point).collect()
}

fn now_ns() -> u64 {
    u64::try_from(clock::now_us()).unwrap_or(0).saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::attributes::resource;
    use crate::metrics::{Metrics, ReasonLabel};

    fn sent(metrics: &Metrics) -> Vec<Metric> {
        let bytes = request(&resource(&[]), &metrics.text(), 1, 2);
        let request = ExportMetricsServiceRequest::decode(&*bytes).unwrap();
        request.resource_metrics[0].scope_metrics[0].metrics.clone()
    }

    fn named<'m>(metrics: &'m [Metric], name: &str) -> &'m Metric {
        metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name} in {metrics:?}"))
    }

    #[test]
    fn counters_gauges_and_histograms_are_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.nacks.get_or_create(&ReasonLabel::new("expired")).inc();
        metrics.nacks.get_or_create(&ReasonLabel::new("")).inc();
        metrics.compile_seconds.set(0.5);
        metrics.fleet.acknowledged(Duration::from_millis(200));
        metrics.fleet.acknowledged(Duration::from_secs(3_600));
        let all = sent(&metrics);
        let Some(Data::Sum(nacks)) = &named(&all, "tidegate.nacks").data else { panic!() };
        assert!(nacks.is_monotonic && nacks.aggregation_temporality == 2);
        let [point, of_none] = nacks.data_points.as_slice() else { panic!("{nacks:?}") };
        let (point, of_none) = if point.attributes.is_empty() { (of_none, point) } else { (point, of_none) };
        assert!(of_none.attributes.is_empty());
        assert_eq!(
            (point.value, point.start_time_unix_nano, point.time_unix_nano),
            (Some(Value::AsInt(1)), 1, 2)
        );
        let labels: Vec<&str> = point.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!(labels, ["tidegate.reason"]);
        let compile = named(&all, "tidegate.compile_duration");
        assert_eq!(compile.unit, "s");
        let Some(Data::Gauge(gauge)) = &compile.data else { panic!() };
        assert_eq!(gauge.data_points[0].value, Some(Value::AsDouble(0.5)));
        let Some(Data::Histogram(lag)) = &named(&all, "tidegate.enforcement_lag").data else { panic!() };
        let lag = &lag.data_points[0];
        assert_eq!((lag.count, lag.sum), (2, Some(3_600.2)));
        assert_eq!(lag.bucket_counts.len(), lag.explicit_bounds.len() + 1);
        assert_eq!(lag.bucket_counts.iter().sum::<u64>(), 2);
        assert_eq!(lag.bucket_counts.last(), Some(&1), "{lag:?}");
        assert_eq!(named(&all, "tidegate.push").unit, "By");
    }
}

//! From samples to figures.

use serde::Serialize;

use super::runs::{Measured, Sample};
use super::scenarios::NONE;

/// The middle of several differences, and where the middle half of them lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// 25th percentile.
    pub p25: f64,
    /// 75th percentile.
    pub p75: f64,
}

/// One of a sample's figures.
pub type Figure = fn(&Sample) -> f64;

/// Median of a figure.
pub fn median(samples: &[Sample], figure: Figure) -> f64 {
    quantile(samples.iter().map(figure).collect(), 0.5)
}

/// What a scenario adds to `none` in the same round.
pub fn added(of: &[Sample], none: &[Sample], figure: Figure) -> Spread {
    let differences: Vec<f64> = of.iter().zip(none).map(|(of, none)| figure(of) - figure(none)).collect();
    Spread {
        median: quantile(differences.clone(), 0.5),
        p25: quantile(differences.clone(), 0.25),
        p75: quantile(differences, 0.75),
    }
}

/// What was measured of a scenario.
pub fn find<'m>(measured: &'m [Measured], name: &str) -> Option<&'m Measured> {
    measured.iter().find(|measured| measured.name == name)
}

/// CPU per request that a scenario adds, microseconds.
pub fn added_cpu(measured: &[Measured], name: &str) -> Option<Spread> {
    Some(added(&find(measured, name)?.load, &find(measured, NONE)?.load, |sample| sample.cpu_us))
}

/// Median latency with one connection that a scenario adds, microseconds.
pub fn added_latency(measured: &[Measured], name: &str) -> Option<Spread> {
    let (of, none) = (&find(measured, name)?.single, &find(measured, NONE)?.single);
    (!of.is_empty()).then(|| added(of, none, |sample| sample.p50_us))
}

/// Linear between the two nearest.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn quantile(mut values: Vec<f64>, at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let position = at * last as f64;
    let below = position as usize;
    let above = (below + 1).min(last);
    values[below] + (values[above] - values[below]) * (position - below as f64)
}

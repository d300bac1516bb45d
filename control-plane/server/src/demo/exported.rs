//! What became of decisions that the demo exports.

use std::fmt;

use crate::export::{Options, Signal};
use crate::metrics::ExportMetrics;

/// Of all signals that are exported. It is known in the end, when the control plane has stopped.
#[derive(Debug)]
pub struct Exported {
    /// Each with where it goes.
    signals: Vec<(Signal, String)>,
    metrics: ExportMetrics,
}

// === impl Exported ===

impl Exported {
    /// By these options, counted there.
    pub fn new(options: &Options, metrics: ExportMetrics) -> Self {
        let all = [
            (Signal::Logs, &options.logs),
            (Signal::Metrics, &options.metrics),
            (Signal::Traces, &options.traces),
        ];
        let signals = all.into_iter().filter_map(|(signal, target)| {
            Some((signal, target.as_ref()?.endpoint.origin().ascii_serialization()))
        });
        Self { signals: signals.collect(), metrics }
    }
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut misses = false;
        for (signal, to) in &self.signals {
            write!(f, "\nExported to {to}: {signal}, ")?;
            match signal {
                Signal::Metrics => {
                    let took = self.metrics.took_figures(signal.word());
                    misses |= !took;
                    f.write_str(if took { "taken." } else { "not taken." })?;
                }
                Signal::Logs | Signal::Traces => {
                    let (delivered, lost) = self.metrics.so_far(signal.word());
                    misses |= lost > 0;
                    write!(f, "{delivered} records taken, {lost} lost.")?;
                }
            }
        }
        if misses { f.write_str("\n`--log warn` says why not.\n") } else { f.write_str("\n") }
    }
}

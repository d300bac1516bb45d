//! Where to export to, as command lines say it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::options::{Flags, InvalidExport, Options, Protocol, Signal};

/// Flags of the export by OTLP.
#[derive(Debug, Args)]
#[command(next_help_heading = "Export (OpenTelemetry; OTEL_EXPORTER_OTLP_* variables count too, flags win)")]
pub struct OtlpFlags {
    /// Send what filters decided to this OTLP receiver, e.g. http://collector:4317
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// How [default: grpc at port 4317, http elsewhere]
    #[arg(long, value_name = "PROTOCOL")]
    otlp_protocol: Option<ProtocolFlag>,
    /// File with headers for the receiver, `name: value` per line; read again for every request
    #[arg(long, value_name = "FILE")]
    otlp_headers_file: Option<PathBuf>,
    /// What: a log record per decision, metrics, a span per decision that belongs to a trace [default: logs,metrics]
    #[arg(long, value_name = "SIGNALS", value_delimiter = ',')]
    otlp_signals: Option<Vec<SignalFlag>>,
    /// Certificate authorities that the receiver may have, PEM [default: the system's]
    #[arg(long, value_name = "FILE")]
    otlp_ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProtocolFlag {
    Grpc,
    #[value(alias = "http/protobuf")]
    Http,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SignalFlag {
    Logs,
    Metrics,
    Traces,
}

// === impl OtlpFlags ===

impl OtlpFlags {
    /// What flags and environment say; `None`: nothing is exported.
    ///
    /// # Errors
    /// Where something cannot be used.
    pub fn options(self) -> Result<Option<Options>, InvalidExport> {
        let flags = Flags {
            endpoint: self.otlp_endpoint,
            protocol: self.otlp_protocol.map(|protocol| match protocol {
                ProtocolFlag::Grpc => Protocol::Grpc,
                ProtocolFlag::Http => Protocol::Http,
            }),
            headers_file: self.otlp_headers_file,
            signals: self.otlp_signals.map(|signals| {
                let signal = |flag: SignalFlag| match flag {
                    SignalFlag::Logs => Signal::Logs,
                    SignalFlag::Metrics => Signal::Metrics,
                    SignalFlag::Traces => Signal::Traces,
                };
                signals.into_iter().map(signal).collect()
            }),
            authorities: self.otlp_ca,
        };
        Options::read(flags, &|name| std::env::var(name).ok())
    }
}

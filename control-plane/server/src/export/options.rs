//! Where to export to: flags, and the environment variables that OpenTelemetry defines for exporters.
//!
//! A flag wins over a variable, a variable for one signal over the one for all. See "OpenTelemetry Protocol Exporter" and
//! "OpenTelemetry Environment Variable Specification".

mod values;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderMap;
use url::Url;

use self::values::{decoded, endpoint, headers, milliseconds};
use super::deliver::Pace;
use super::queue::Limits;

pub(super) use values::headers_of_file;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// A record per decision.
    Logs,
    /// Figures.
    Metrics,
    /// A span per decision, where the request belongs to a trace.
    Traces,
}

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with protobuf.
    Http,
}

/// Where one signal goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Scheme, host and port; with OTLP/HTTP the path that requests are sent to.
    pub endpoint: Url,
    /// How.
    pub protocol: Protocol,
    /// Which signal, as it names the service of gRPC.
    pub signal: Signal,
    /// Sent with every request. May hold credentials.
    pub headers: HeaderMap,
    /// A file with more of them, read again for every request.
    pub headers_file: Option<PathBuf>,
    /// How long one request may take.
    pub timeout: Duration,
    /// PEM file with the certificate authorities that the receiver may have; `None`: the system's.
    pub authorities: Option<PathBuf>,
    /// PEM files with a certificate chain and its private key, for receivers that ask.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether requests are compressed.
    pub gzip: bool,
}

/// What to export.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Records of decisions.
    pub logs: Option<Target>,
    /// Figures.
    pub metrics: Option<Target>,
    /// Spans.
    pub traces: Option<Target>,
    /// Attributes of the resource, besides `service.*`.
    pub resource: Vec<(String, String)>,
    /// How often figures are sent.
    pub interval: Duration,
    /// How much may wait, per signal.
    pub queue: Limits,
    /// How batches are made and tried again.
    pub pace: Pace,
}

/// What the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--otlp-endpoint`
    pub endpoint: Option<String>,
    /// `--otlp-protocol`
    pub protocol: Option<Protocol>,
    /// `--otlp-headers-file`
    pub headers_file: Option<PathBuf>,
    /// `--otlp-signals`
    pub signals: Option<Vec<Signal>>,
    /// `--otlp-ca`
    pub authorities: Option<PathBuf>,
}

/// Why options cannot be used. A value that may be secret is not in it.
#[derive(Debug, thiserror::Error)]
pub enum InvalidExport {
    /// Not where to send to.
    #[error("{name}: `{value}` is no endpoint: {why}; write e.g. `http://collector:4317`")]
    Endpoint {
        /// The flag or variable.
        name: String,
        /// What it says.
        value: String,
        /// What is wrong.
        why: String,
    },
    /// A word that is not known.
    #[error("{name}: `{value}` is not one of {expected}")]
    Word {
        /// The flag or variable.
        name: String,
        /// What it says.
        value: String,
        /// What it could say.
        expected: &'static str,
    },
    /// Headers that cannot be read.
    #[error("{name}: {why}")]
    Headers {
        /// The flag or variable.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Flags that need another one.
    #[error("{flag} has no effect without --otlp-endpoint or OTEL_EXPORTER_OTLP_ENDPOINT")]
    NoEndpoint {
        /// The flag.
        flag: &'static str,
    },
    /// One of two files.
    #[error("{name} needs {other} too")]
    Half {
        /// The variable.
        name: String,
        /// What is missing.
        other: String,
    },
}

// === impl Signal ===

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Metrics, Self::Traces];

    /// As flags and labels name it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Metrics => "metrics",
            Self::Traces => "traces",
        }
    }

    const fn variable(self) -> &'static str {
        match self {
            Self::Logs => "LOGS",
            Self::Metrics => "METRICS",
            Self::Traces => "TRACES",
        }
    }

    const fn http_path(self) -> &'static str {
        match self {
            Self::Logs => "v1/logs",
            Self::Metrics => "v1/metrics",
            Self::Traces => "v1/traces",
        }
    }

    const fn grpc_path(self) -> &'static str {
        match self {
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

// === impl Protocol ===

impl Protocol {
    /// For people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC",
            Self::Http => "HTTP",
        }
    }

    fn read(name: &str, value: &str) -> Result<Self, InvalidExport> {
        match value {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" | "http" => Ok(Self::Http),
            _ => Err(InvalidExport::Word {
                name: name.to_owned(),
                value: value.to_owned(),
                expected: "`grpc`, `http/protobuf`",
            }),
        }
    }

    /// Nobody said: by the port that each has by convention.
    fn by_port(endpoint: &Url) -> Self {
        if endpoint.port() == Some(4317) { Self::Grpc } else { Self::Http }
    }
}

// === impl Target ===

impl Target {
    /// Without TLS files, headers or compression.
    pub fn new(signal: Signal, protocol: Protocol, endpoint: Url) -> Self {
        Self {
            endpoint,
            protocol,
            signal,
            headers: HeaderMap::new(),
            headers_file: None,
            timeout: Duration::from_secs(10),
            authorities: None,
            identity: None,
            gzip: false,
        }
    }

    /// What requests are sent to.
    pub fn url(&self) -> Url {
        let mut url = self.endpoint.clone();
        if self.protocol == Protocol::Grpc {
            url.set_path(self.signal.grpc_path());
        }
        url
    }
}

impl fmt::Debug for Target {
    /// Without headers: they may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("endpoint", &self.endpoint.as_str())
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

// === impl Options ===

impl Options {
    /// What flags and environment say; `None` where they name no endpoint.
    ///
    /// # Errors
    /// Where something cannot be used.
    pub fn read(
        flags: Flags,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, InvalidExport> {
        let variables = Variables(environment);
        if variables.of("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            && flags.endpoint.is_none()
        {
            return Ok(None);
        }
        let mut targets = [None, None, None];
        for (slot, signal) in targets.iter_mut().zip(Signal::ALL) {
            if variables.wants(signal, &flags)? {
                *slot = variables.target(signal, &flags)?;
            }
        }
        let [logs, metrics, traces] = targets;
        if logs.is_none() && metrics.is_none() && traces.is_none() {
            let idle = [
                ("--otlp-protocol", flags.protocol.is_some()),
                ("--otlp-headers-file", flags.headers_file.is_some()),
                ("--otlp-signals", flags.signals.is_some()),
                ("--otlp-ca", flags.authorities.is_some()),
            ];
            return match idle.into_iter().find(|(_, is_given)| *is_given) {
                Some((flag, _)) => Err(InvalidExport::NoEndpoint { flag }),
                None => Ok(None),
            };
        }
        let interval = variables.milliseconds("OTEL_METRIC_EXPORT_INTERVAL")?;
        Ok(Some(Self {
            logs,
            metrics,
            traces,
            resource: variables.resource()?,
            interval: interval.unwrap_or(Duration::from_secs(60)),
            queue: Limits::default(),
            pace: Pace::default(),
        }))
    }
}

/// The environment. An empty variable is none.
struct Variables<'e>(&'e dyn Fn(&str) -> Option<String>);

// === impl Variables ===

impl Variables<'_> {
    fn of(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// A variable for this signal, or the one for all, with its name.
    fn either(&self, signal: Signal, what: &str) -> Option<(String, String)> {
        let names = [
            format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.variable()),
            format!("OTEL_EXPORTER_OTLP_{what}"),
        ];
        names.into_iter().find_map(|name| self.of(&name).map(|value| (name, value)))
    }

    fn wants(&self, signal: Signal, flags: &Flags) -> Result<bool, InvalidExport> {
        if let Some(signals) = &flags.signals {
            return Ok(signals.contains(&signal));
        }
        let name = format!("OTEL_{}_EXPORTER", signal.variable());
        match self.of(&name).as_deref() {
            // Spans only where somebody asks for them: most requests belong to a trace that nobody looks at.
            None => Ok(signal != Signal::Traces),
            Some("otlp") => Ok(true),
            Some("none") => Ok(false),
            Some(value) => {
                Err(InvalidExport::Word { name, value: value.to_owned(), expected: "`otlp`, `none`" })
            }
        }
    }

    fn target(&self, signal: Signal, flags: &Flags) -> Result<Option<Target>, InvalidExport> {
        let one = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.variable());
        let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
        // One that is for a signal alone is used as it is; to the others the signal's path is added.
        let (name, value, is_whole) = match (&flags.endpoint, self.of(&one), self.of(all)) {
            (Some(value), _, _) => ("--otlp-endpoint", value.clone(), false),
            (None, Some(value), _) => (one.as_str(), value, true),
            (None, None, Some(value)) => (all, value, false),
            (None, None, None) => return Ok(None),
        };
        let mut endpoint = endpoint(name, &value)?;
        let protocol = match (flags.protocol, self.either(signal, "PROTOCOL")) {
            (Some(protocol), _) => protocol,
            (None, Some((name, value))) => Protocol::read(&name, &value)?,
            (None, None) => Protocol::by_port(&endpoint),
        };
        if !is_whole
            && let Some(signal) = Signal::ALL
                .into_iter()
                .find(|one| endpoint.path().trim_end_matches('/').ends_with(one.http_path()))
        {
            return Err(InvalidExport::Endpoint {
                name: name.to_owned(),
                value,
                why: format!("`{}` is added by itself for each signal; leave it out", signal.http_path()),
            });
        }
        if protocol == Protocol::Http && !is_whole {
            let path = format!("{}/{}", endpoint.path().trim_end_matches('/'), signal.http_path());
            endpoint.set_path(&path);
        }
        let mut target = Target::new(signal, protocol, endpoint);
        if let Some((name, value)) = self.either(signal, "HEADERS") {
            target.headers =
                headers(value.split(','), '=', true).map_err(|why| InvalidExport::Headers { name, why })?;
        }
        if let Some(path) = &flags.headers_file {
            headers_of_file(path).map_err(|why| InvalidExport::Headers {
                name: format!("--otlp-headers-file: `{}`", path.display()),
                why,
            })?;
            target.headers_file = Some(path.clone());
        }
        if let Some((name, value)) = self.either(signal, "TIMEOUT") {
            target.timeout = milliseconds(&name, &value)?;
        }
        if let Some((name, value)) = self.either(signal, "COMPRESSION") {
            target.gzip = match value.as_str() {
                "gzip" => true,
                "none" => false,
                _ => return Err(InvalidExport::Word { name, value, expected: "`gzip`, `none`" }),
            };
        }
        target.authorities = match &flags.authorities {
            Some(path) => Some(path.clone()),
            None => self.either(signal, "CERTIFICATE").map(|(_, value)| value.into()),
        };
        let files = (self.either(signal, "CLIENT_CERTIFICATE"), self.either(signal, "CLIENT_KEY"));
        target.identity = match files {
            (Some((_, certificate)), Some((_, key))) => Some((certificate.into(), key.into())),
            (None, None) => None,
            (Some((name, _)), None) => {
                return Err(InvalidExport::Half { name, other: "OTEL_EXPORTER_OTLP_CLIENT_KEY".to_owned() });
            }
            (None, Some((name, _))) => {
                let other = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE".to_owned();
                return Err(InvalidExport::Half { name, other });
            }
        };
        Ok(Some(target))
    }

    fn milliseconds(&self, name: &str) -> Result<Option<Duration>, InvalidExport> {
        self.of(name).map(|value| milliseconds(name, &value)).transpose()
    }

    /// `OTEL_SERVICE_NAME` wins over `service.name` among `OTEL_RESOURCE_ATTRIBUTES`.
    fn resource(&self) -> Result<Vec<(String, String)>, InvalidExport> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let mut attributes = Vec::new();
        for pair in self.of(name).iter().flat_map(|value| value.split(',')).filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(InvalidExport::Headers {
                    name: name.to_owned(),
                    why: format!("`{pair}` is not `key=value`"),
                });
            };
            attributes.push((key.trim().to_owned(), decoded(value.trim())));
        }
        if let Some(service) = self.of("OTEL_SERVICE_NAME") {
            attributes.retain(|(key, _)| key != "service.name");
            attributes.push(("service.name".to_owned(), service));
        }
        Ok(attributes)
    }
}

#[cfg(test)]
mod tests;

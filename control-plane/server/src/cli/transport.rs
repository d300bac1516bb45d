//! Who may connect to the server.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use crate::transport::{QuotaOptions, Security, SidecarOptions, TlsOptions, TransportOptions, VerifiedPeer};

#[derive(Debug, Args)]
#[command(
    next_help_heading = "Who may connect (one of --tls-cert, --behind-sidecar, --insecure-no-authentication)"
)]
#[command(group(ArgGroup::new("security").required(true).args(["tls_cert", "behind_sidecar", "insecure_no_authentication"])))]
pub(super) struct TransportFlags {
    /// Demand mutual TLS. The server's certificate chain, PEM. This and the other two files are read again when they change
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The mesh's certificate authorities, PEM: who may have issued the certificates of filters and administrators
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// Believe the sidecar of this pod, which ends mutual TLS and says in x-forwarded-client-cert who calls. Its port must be
    /// STRICT. Connections from elsewhere are refused
    #[arg(long)]
    behind_sidecar: bool,
    /// Where the sidecar's connections come from [default: 127.0.0.6, ::6 (Istio)]
    #[arg(long, value_name = "IP", requires = "behind_sidecar", value_delimiter = ',')]
    sidecar_address: Vec<IpAddr>,
    /// A unix socket for the sidecar, besides --listen
    #[arg(long, value_name = "PATH", requires = "behind_sidecar")]
    sidecar_socket: Option<PathBuf>,
    /// Ask nobody who they are: every program on this machine gets every workload's Bundle. Loopback only, to try things out
    #[arg(long)]
    insecure_no_authentication: bool,
    /// Trust domain of the mesh; several for its aliases
    #[arg(long, value_name = "NAME", default_value = "cluster.local", value_delimiter = ',')]
    trust_domain: Vec<String>,
    /// Who may use the admin interface from elsewhere than this machine. Programs on this machine may, if it listens on
    /// loopback
    #[arg(long, value_name = "SPIFFE_ID", value_delimiter = ',')]
    admin_principals: Vec<VerifiedPeer>,
    /// Who may revoke, suspend and roll back by the admin interface: on this machine too, nobody else may, unless nobody is
    /// asked who they are
    #[arg(long, value_name = "SPIFFE_ID", value_delimiter = ',')]
    admin_writers: Vec<VerifiedPeer>,
    /// Serve /healthz, /readyz and /metrics here besides, to anybody and in plain text
    #[arg(long, value_name = "ADDR")]
    probes: Option<SocketAddr>,
    /// After this time a filter has to connect anew, with the certificate that it has then. At the end of its certificate it
    /// has to anyway
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = clap::value_parser!(u64).range(10..=86_400))]
    max_connection_age: u64,
    /// TLS handshakes that may be under way. When there are more, the oldest of the address that has most is given up
    #[arg(long, value_name = "NUMBER", default_value = "256", value_parser = clap::value_parser!(u16).range(4..))]
    max_handshakes: u16,
    /// Connections that there may be, of all filters together
    #[arg(long, value_name = "NUMBER", default_value_t = QuotaOptions::default().all_connections, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// Connections that the filters of one service account may have. A proxy has one per worker thread and one more
    #[arg(long, value_name = "NUMBER", default_value_t = QuotaOptions::default().connections, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections_per_principal: u32,
    /// Streams that the filters of one service account may have open. A proxy has one or two on each connection
    #[arg(long, value_name = "NUMBER", default_value_t = QuotaOptions::default().streams, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_streams_per_principal: u32,
    /// Messages per second that the filters of one service account may send, besides decision records
    #[arg(long, value_name = "NUMBER", default_value_t = QuotaOptions::default().messages_per_second, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_messages_per_principal: u32,
    /// Bytes per second that the filters of one service account may send, and as many again of decision records
    #[arg(long, value_name = "NUMBER", default_value_t = QuotaOptions::default().bytes_per_second, value_parser = clap::value_parser!(u32).range(524_288..=1_073_741_824))]
    max_bytes_per_principal: u32,
    /// Decision records per second that are taken from the filters of one service account; what is more has to wait
    #[arg(long, value_name = "NUMBER", default_value_t = QuotaOptions::default().records_per_second, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_records_per_principal: u32,
}

// === impl TransportFlags ===

impl From<TransportFlags> for TransportOptions {
    fn from(flags: TransportFlags) -> Self {
        let security = match (flags.tls_cert, flags.tls_key, flags.tls_ca) {
            (Some(certificate), Some(key), Some(authorities)) => {
                Security::Mutual(TlsOptions { certificate, key, authorities })
            }
            _ if flags.behind_sidecar => {
                let usual = SidecarOptions::default().from;
                let from = if flags.sidecar_address.is_empty() { usual } else { flags.sidecar_address };
                Security::Sidecar(SidecarOptions { from, socket: flags.sidecar_socket })
            }
            // The command line has exactly one of the three.
            _ => Security::Insecure,
        };
        Self {
            trust_domains: flags.trust_domain,
            admin_principals: flags.admin_principals,
            admin_writers: flags.admin_writers,
            probes: flags.probes,
            max_connection_age: Duration::from_secs(flags.max_connection_age),
            max_handshakes: usize::from(flags.max_handshakes),
            quotas: QuotaOptions {
                connections: flags.max_connections_per_principal,
                all_connections: flags.max_connections,
                streams: flags.max_streams_per_principal,
                messages_per_second: flags.max_messages_per_principal,
                bytes_per_second: flags.max_bytes_per_principal,
                records_per_second: flags.max_records_per_principal,
            },
            ..Self::new(security)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: TransportFlags,
    }

    fn parse(line: &str) -> Result<TransportOptions, String> {
        let words = std::iter::once("tidegate").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.flags.into()).map_err(|error| error.to_string())
    }

    const TLS: &str = "--tls-cert c.pem --tls-key k.pem --tls-ca a.pem";

    #[test]
    fn how_peers_prove_who_they_are_has_to_be_said() {
        let options = parse(TLS).unwrap();
        assert!(matches!(&options.security, Security::Mutual(files) if files.authorities.ends_with("a.pem")));
        assert_eq!(options.trust_domains, ["cluster.local"]);
        let options = parse("--behind-sidecar --trust-domain a.example,b.example").unwrap();
        assert!(
            matches!(&options.security, Security::Sidecar(sidecar) if *sidecar == SidecarOptions::default())
        );
        assert_eq!(options.trust_domains, ["a.example", "b.example"]);
        assert!(matches!(parse("--insecure-no-authentication").unwrap().security, Security::Insecure));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "",
            "--trust-domain a.example",
            "--tls-cert c.pem",
            "--tls-cert c.pem --tls-key k.pem",
            "--tls-key k.pem --tls-ca a.pem",
            "--sidecar-address 127.0.0.6",
            "--sidecar-socket /run/s",
            "--insecure-no-authentication --behind-sidecar",
            "--insecure-no-authentication --tls-cert c.pem --tls-key k.pem --tls-ca a.pem",
            "--insecure-no-authentication --admin-principals admin",
            "--insecure-no-authentication --max-connection-age 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn administrators_are_spiffe_ids() {
        let options = parse(&format!(
            "{TLS} --admin-principals spiffe://td/ns/a/sa/b,spiffe://td/ns/a/sa/c --probes 0.0.0.0:15082"
        ));
        let options = options.unwrap();
        assert_eq!(options.admin_principals.len(), 2);
        assert!(options.probes.is_some());
    }
}

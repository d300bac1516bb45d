//! Certificate authorities and certificates for the demo's mesh, made at start and kept in memory.
//!
//! INVARIANT: no private key is written to disk by this module, and none outlives the process.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

/// How long certificates are valid; Istio's default for workloads.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// How far clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(3600);

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The certificate, PEM.
    pub chain_pem: String,
    /// The private key, PKCS #8 PEM.
    pub key_pem: String,
}

/// What a certificate says.
#[derive(Debug, Clone, Default)]
pub struct CertificateSpec {
    /// URI names, in this order; a workload of a mesh has exactly one.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// The common name; a workload of a mesh has none.
    pub common_name: Option<String>,
    /// Ended an hour ago.
    pub expired: bool,
    /// Begins in an hour.
    pub not_yet_valid: bool,
    /// For servers only; those of a mesh are for clients too.
    pub for_servers_only: bool,
    /// How long it is valid yet; absent: a day.
    pub valid_for: Option<Duration>,
}

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate for `{subject}`: {source}")]
pub struct CertificateError {
    subject: String,
    source: rcgen::Error,
}

// === impl Authority ===

impl Authority {
    /// A new authority with a new key.
    pub fn new(name: &str) -> Result<Self, CertificateError> {
        let failed = |source| CertificateError { subject: name.to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = SystemTime::now();
        params.not_before = (now - VALIDITY).into();
        params.not_after = (now + 2 * VALIDITY).into();
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// The authority's own certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// For a workload of the mesh: one SPIFFE id and nothing else, as Istio's.
    pub fn workload(&self, spiffe_id: &str) -> Result<Credential, CertificateError> {
        self.issue(&CertificateSpec { uris: vec![spiffe_id.to_owned()], ..CertificateSpec::default() })
    }

    /// For a server on this machine: `localhost`, the loopback addresses, and `names`.
    pub fn loopback_server(&self, names: &[&str]) -> Result<Credential, CertificateError> {
        let dns_names =
            std::iter::once("localhost").chain(names.iter().copied()).map(str::to_owned).collect();
        let addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        self.issue(&CertificateSpec { dns_names, addresses, ..CertificateSpec::default() })
    }

    /// Whatever `spec` says, right or wrong.
    pub fn issue(&self, spec: &CertificateSpec) -> Result<Credential, CertificateError> {
        let failed = |source| CertificateError { subject: spec.subject(), source };
        let mut params = CertificateParams::default();
        params.distinguished_name = spec.common_name.as_deref().map(common_name).unwrap_or_default();
        params.subject_alt_names = spec.names().map_err(failed)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.extended_key_usages.truncate(if spec.for_servers_only { 1 } else { 2 });
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        let (from, until) =
            if spec.expired { (now - VALIDITY, now - LEEWAY) } else { (now - LEEWAY, now + VALIDITY) };
        let (from, until) = if spec.not_yet_valid { (now + LEEWAY, until) } else { (from, until) };
        let until = spec.valid_for.map_or(until, |valid_for| now + valid_for);
        params.not_before = from.into();
        params.not_after = until.into();
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Credential { chain_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

// === impl CertificateSpec ===

impl CertificateSpec {
    fn names(&self) -> Result<Vec<SanType>, rcgen::Error> {
        let uris = self.uris.iter().map(|uri| Ia5String::try_from(uri.as_str()).map(SanType::URI));
        let dns_names =
            self.dns_names.iter().map(|name| Ia5String::try_from(name.as_str()).map(SanType::DnsName));
        let addresses = self.addresses.iter().map(|address| Ok(SanType::IpAddress(*address)));
        uris.chain(dns_names).chain(addresses).collect()
    }

    fn subject(&self) -> String {
        let first = self.uris.iter().chain(&self.dns_names).chain(&self.common_name).next();
        first.cloned().unwrap_or_else(|| "nobody".into())
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

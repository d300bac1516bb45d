use super::spiffe::{Identity, InvalidIdentity};
use super::*;
use crate::demo::pki::{Authority, CertificateSpec};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const ID: &str = "spiffe://td.example/ns/a/sa/b";

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn read(spec: &CertificateSpec) -> Result<Identity, InvalidIdentity> {
    let credential = Authority::new("mesh").unwrap().issue(spec).unwrap();
    Identity::read(&der(&credential.chain_pem), &["td.example".to_owned(), "alias.example".to_owned()])
}

fn of(uris: &[&str]) -> CertificateSpec {
    CertificateSpec { uris: uris.iter().map(|uri| (*uri).to_owned()).collect(), ..CertificateSpec::default() }
}

#[test]
fn a_peer_reads_as_it_is_written() {
    let peer: VerifiedPeer = ID.parse().unwrap();
    assert_eq!((peer.trust_domain.as_str(), peer.namespace.as_str()), ("td.example", "a"));
    assert_eq!(peer.to_string(), ID);
    let long = format!("spiffe://{}\n", "a".repeat(1_000));
    let told = long.parse::<VerifiedPeer>().unwrap_err().to_string();
    assert!(told.len() < 500 && !told.contains('\n'), "{told}");
}

#[test]
fn one_uri_of_a_known_trust_domain_is_an_identity() {
    for id in [ID, "spiffe://alias.example/ns/a/sa/b"] {
        assert_eq!(read(&of(&[id])).unwrap().peer.to_string(), id);
    }
}

#[test]
fn no_other_certificate_is_an_identity() {
    use InvalidIdentity::{Malformed, NotSpiffe, OtherTrustDomain, UriCount};
    for (spec, why) in [
        (of(&[]), UriCount(0)),
        (of(&[ID, ID]), UriCount(2)),
        (of(&["https://td.example/ns/a/sa/b"]), NotSpiffe),
        (of(&["spiffe://td.example/ns/a/sa/b/"]), NotSpiffe),
        (of(&["spiffe://TD.example/ns/a/sa/b"]), NotSpiffe),
        (of(&["spiffe://other.example/ns/a/sa/b"]), OtherTrustDomain("other.example".into())),
        (of(&["spiffe://td.example.other/ns/a/sa/b"]), OtherTrustDomain("td.example.other".into())),
        (
            CertificateSpec { dns_names: vec!["td.example".into()], common_name: Some(ID.into()), ..of(&[]) },
            UriCount(0),
        ),
    ] {
        assert_eq!(read(&spec).unwrap_err(), why, "{spec:?}");
    }
    let authority = Authority::new("mesh").unwrap();
    let domains = ["td.example".to_owned()];
    assert_eq!(Identity::read(&der(authority.pem()), &domains).unwrap_err(), InvalidIdentity::Authority);
    let leaf = der(&authority.workload(ID).unwrap().chain_pem);
    assert_eq!(Identity::read(&leaf[..leaf.len() - 1], &domains).unwrap_err(), Malformed);
    assert_eq!(Identity::read(&[leaf.as_ref(), &[0]].concat(), &domains).unwrap_err(), Malformed);
}

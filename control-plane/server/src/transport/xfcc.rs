//! `x-forwarded-client-cert`, as Envoy writes it.
//!
//! Elements are separated by commas, the pairs of an element by semicolons; a value with one of these or `=` in it is
//! quoted, and a quote in it escaped (Envoy, HTTP connection manager, "x-forwarded-client-cert"). With `APPEND_FORWARD`
//! everything but the last element is what the client sent.
//!
//! INVARIANT: only the last element counts, and only of a header that is well formed from its first byte on: otherwise
//! what the client sent could decide where the last element begins.

use super::VerifiedPeer;

/// Longest header that is read, in bytes.
const MAX: usize = 16 << 10;

/// The header does not name exactly one workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidXfcc {
    /// The caller came without a certificate.
    #[error("there is no `x-forwarded-client-cert`: the call did not come by mutual TLS of the mesh")]
    Missing,
    /// The header is there more than once.
    #[error("`x-forwarded-client-cert` is there more than once")]
    Repeated,
    /// Not what Envoy writes.
    #[error("`x-forwarded-client-cert` is malformed")]
    Malformed,
    /// The last element has no URI.
    #[error("the last element of `x-forwarded-client-cert` has no `URI`; the sidecar must forward it")]
    NoUri,
    /// The last element has more than one.
    #[error("the last element of `x-forwarded-client-cert` has more than one `URI`")]
    ManyUris,
    /// The URI names no workload.
    #[error("the `URI` in `x-forwarded-client-cert` is no SPIFFE id of a workload")]
    NotSpiffe,
}

/// The workload that the sidecar next to us saw.
pub(super) fn peer<'h>(headers: impl IntoIterator<Item = &'h [u8]>) -> Result<VerifiedPeer, InvalidXfcc> {
    let mut headers = headers.into_iter();
    let header = headers.next().ok_or(InvalidXfcc::Missing)?;
    if headers.next().is_some() {
        return Err(InvalidXfcc::Repeated);
    }
    if header.len() > MAX {
        return Err(InvalidXfcc::Malformed);
    }
    let header = str::from_utf8(header).map_err(|_| InvalidXfcc::Malformed)?;
    let uris = last_uris(header)?;
    match uris.as_slice() {
        [] => Err(InvalidXfcc::NoUri),
        [uri] => uri.parse().map_err(|_| InvalidXfcc::NotSpiffe),
        _ => Err(InvalidXfcc::ManyUris),
    }
}

/// The `URI` values of the last element.
fn last_uris(header: &str) -> Result<Vec<String>, InvalidXfcc> {
    let mut rest = header;
    let mut uris = Vec::new();
    loop {
        let (key, after) = rest.split_once('=').ok_or(InvalidXfcc::Malformed)?;
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(InvalidXfcc::Malformed);
        }
        let (value, after) = value(after)?;
        // Envoy's own spelling, and any other: nobody may hide a second one.
        if key.eq_ignore_ascii_case("URI") {
            uris.push(value);
        }
        match after.split_at_checked(1) {
            None => return Ok(uris),
            Some((";", next)) => rest = next,
            Some((",", next)) => {
                uris.clear();
                rest = next;
            }
            Some(_) => return Err(InvalidXfcc::Malformed),
        }
    }
}

/// The value at the beginning, unquoted, and what follows it.
fn value(text: &str) -> Result<(String, &str), InvalidXfcc> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';']).unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(end).ok_or(InvalidXfcc::Malformed)?;
        return if value.contains('"') { Err(InvalidXfcc::Malformed) } else { Ok((value.to_owned(), rest)) };
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next().ok_or(InvalidXfcc::Malformed)? {
            '"' => return Ok((value, chars.as_str())),
            '\\' => value.push(chars.next().ok_or(InvalidXfcc::Malformed)?),
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "spiffe://prod.example/ns/sales/sa/orders";

    fn read(header: &str) -> Result<String, InvalidXfcc> {
        peer([header.as_bytes()]).map(|peer| peer.to_string())
    }

    #[test]
    fn the_last_element_names_the_peer() {
        for header in [
            &format!("By=spiffe://prod.example/ns/t/sa/t;Hash=ab12;Subject=\"\";URI={ID}"),
            &format!("Hash=ab12;URI={ID};DNS=a.example;DNS=b.example"),
            &format!("Hash=ab12;Subject=\"CN=a,O=\\\"b;URI=x\\\"\";URI={ID}"),
            &format!("Hash=ab12;URI=\"{ID}\""),
            &format!("URI=spiffe://prod.example/ns/other/sa/other,By=a;URI={ID}"),
            &format!(
                "URI=spiffe://prod.example/ns/a/sa/a;URI=spiffe://prod.example/ns/b/sa/b,Hash=a;URI={ID}"
            ),
            &format!("Hash=a==;URI={ID}"),
        ] {
            assert_eq!(read(header).as_deref(), Ok(ID), "{header}");
        }
    }

    #[test]
    fn what_the_client_sent_never_decides() {
        // Before the comma: the client. After it: Envoy, for a caller that is somebody else.
        let envoy = "By=spiffe://prod.example/ns/t/sa/t;Hash=ab12;Subject=\"\";URI=spiffe://prod.example/ns/etl/sa/evil";
        for sent in [
            format!("URI={ID}"),
            format!("URI={ID};Subject=\""),
            format!("URI={ID};Subject=\"\\"),
            format!("URI={ID};DNS="),
            format!("URI={ID};x"),
            format!("URI={ID},"),
            format!("URI=\"{ID}"),
            format!("URI={ID};Subject=\"a\"\""),
        ] {
            let read = read(&format!("{sent},{envoy}"));
            assert_ne!(read.as_deref(), Ok(ID), "{sent}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        use InvalidXfcc::*;
        for (header, why) in [
            ("", Malformed),
            ("URI", Malformed),
            ("=a", Malformed),
            ("By=a;Hash=b", NoUri),
            ("By=a,", Malformed),
            ("By=a;", Malformed),
            ("Subject=\"a", Malformed),
            ("Subject=\"a\"b;URI=spiffe://td/ns/a/sa/b", Malformed),
            ("Subject=a\"b;URI=spiffe://td/ns/a/sa/b", Malformed),
            ("U RI=spiffe://td/ns/a/sa/b", Malformed),
            ("URI=spiffe://td/ns/a/sa/b,Hash=c", NoUri),
            ("URI=spiffe://td/ns/a/sa/b;URI=spiffe://td/ns/a/sa/c", ManyUris),
            ("URI=spiffe://td/ns/a/sa/b;uri=spiffe://td/ns/a/sa/c", ManyUris),
            ("URI=", NotSpiffe),
            ("URI= spiffe://td/ns/a/sa/b", NotSpiffe),
            ("URI=spiffe://td/ns/a/sa/b/c", NotSpiffe),
            ("URI=\"spiffe://td/ns/a/sa/b,c\"", NotSpiffe),
            ("DNS=spiffe://td/ns/a/sa/b", NoUri),
            ("Subject=\"URI=spiffe://td/ns/a/sa/b\"", NoUri),
        ] {
            assert_eq!(read(header), Err(why), "{header}");
        }
        assert_eq!(peer([]), Err(Missing));
        let one = format!("URI={ID}");
        assert_eq!(peer([one.as_bytes(), one.as_bytes()]), Err(Repeated));
        assert_eq!(peer([b"URI=\xff".as_slice()]), Err(Malformed));
        let long = format!("Hash={};URI={ID}", "a".repeat(MAX));
        assert_eq!(read(&long), Err(Malformed));
    }
}

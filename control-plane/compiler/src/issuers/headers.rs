//! Headers that hold tokens.

use tidegate_identity::TokenHeader;

use crate::diagnostic::Code;
use crate::mesh::not_empty;
use crate::place::{Findings, Place};
use crate::spec::HeaderSpec;
use crate::syntax;

/// Where an issuer's tokens are.
pub(super) fn check(
    place: &Place<'_>,
    headers: Option<&[HeaderSpec]>,
    findings: &mut Findings,
) -> Vec<TokenHeader> {
    let Some(headers) = headers else { return vec![TokenHeader::authorization_bearer()] };
    not_empty(place, headers, findings);
    let mut checked: Vec<TokenHeader> = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        let place = place.index(index);
        let name = header.name.to_ascii_lowercase();
        let well_formed =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let refused = match name.as_str() {
            _ if !well_formed => {
                Some("it consists of letters, digits and dashes; servers disagree about the rest")
            }
            "host" | "cookie" | "content-type" | "content-length" | "transfer-encoding" | "connection"
            | "te" => Some("the header means something else"),
            _ if name.starts_with("x-tidegate-") || name.starts_with("x-envoy-") => {
                Some("such headers are the mesh's own, and removed before anything is decided")
            }
            _ => None,
        };
        if let Some(why) = refused {
            findings.add(
                &place.key("name"),
                Code::MalformedValue,
                format!("`{}` is not a header for tokens", header.name),
                why,
                "write `authorization`, or a header of your own such as `x-job-token`",
            );
        }
        match &header.prefix {
            Some(prefix) if !syntax::is_scheme(prefix) => findings.add(
                &place.key("prefix"),
                Code::MalformedValue,
                format!("`{prefix}` is not an authentication scheme"),
                "scheme and token are separated by one space, which is not part of the prefix",
                "write the scheme alone, e.g. `Bearer`",
            ),
            None if name == "authorization" => findings.add(
                &place.key("prefix"),
                Code::MissingField,
                "`prefix` is missing",
                "the value of `Authorization` begins with a scheme",
                "write `prefix: Bearer`",
            ),
            _ => {}
        }
        if checked.iter().any(|other| other.name == name) {
            findings.add(
                &place.key("name"),
                Code::MalformedValue,
                format!("`{name}` is there twice"),
                "a token has exactly one source",
                "keep one of them",
            );
        }
        checked.push(TokenHeader { name, prefix: header.prefix.clone() });
    }
    checked.sort_by(|a, b| a.name.cmp(&b.name));
    checked
}

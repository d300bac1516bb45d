//! `spiffe`: workloads of another trust domain, by JWT-SVID.

use super::{exact_list, is_any, malformed};
use crate::demand::Demands;
use crate::diagnostic::Code;
use crate::issuers::TrustedIssuer;
use crate::place::{Findings, Place};
use crate::spec::SpiffeSpec;
use crate::text::check_exact;

pub(super) fn check(
    place: &Place<'_>,
    spec: &SpiffeSpec,
    issuer: &TrustedIssuer,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    let fits = |place: &Place<'_>, id: &str, findings: &mut Findings| {
        let domain = issuer.issuers.first().map(String::as_str).unwrap_or_default();
        let fits = is_id_of(id, domain);
        if !fits {
            let what = format!("a SPIFFE id of `{domain}`");
            let why = "a trust domain's keys verify its own ids only, and ids are compared byte for byte";
            let fix = format!("write `{domain}/…`: letters, digits and `.-_` between slashes");
            malformed(place, id, &what, why, &fix, findings);
        }
        fits
    };
    let ids = match (&spec.id, &spec.ids) {
        (Some(id), None) => {
            let place = place.key("id");
            if check_exact(&place, id, findings) {
                fits(&place, id, findings);
            }
            vec![id.clone()]
        }
        (None, Some(ids)) => exact_list(&place.key("ids"), ids, findings, fits),
        (None, None) | (Some(_), Some(_)) => {
            findings.add(
                place,
                Code::NotExactlyOne,
                "write either `id` or `ids`",
                "a SPIFFE id is all that such a token proves",
                "write one of the two",
            );
            return;
        }
    };
    demands.add(is_any(&["sub"], ids));
}

/// Whether it is a SPIFFE id with a path (SPIFFE-ID section 2.2: letters, digits and `.-_`, no segment empty, `.` or `..`),
/// of at most 2048 bytes, in this trust domain.
fn is_id_of(id: &str, domain: &str) -> bool {
    let path = id.strip_prefix(domain).and_then(|path| path.strip_prefix('/'));
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    id.len() <= 2048 && path.is_some_and(|path| path.split('/').all(is_segment))
}

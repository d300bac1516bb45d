//! `aws`: IAM roles, by outbound identity federation.

use std::collections::BTreeMap;

use super::super::claims::refuse_asserted;
use super::{empty, malformed};
use crate::demand::{Demand, Demands};
use crate::diagnostic::Code;
use crate::place::{Findings, Place};
use crate::spec::AwsSpec;
use crate::text::{check_exact, check_text};

/// One member whose name is a URL.
const STS: &str = "https://sts.amazonaws.com/";

/// Says whether callers choose anything of what is demanded.
pub(super) fn check(
    place: &Place<'_>,
    spec: &AwsSpec,
    acknowledged: bool,
    demands: &mut Demands,
    findings: &mut Findings,
) -> bool {
    let AwsSpec { account, role, organization, principal_tags, request_tags } = spec;
    if account.is_none()
        && role.is_none()
        && organization.is_none()
        && principal_tags.is_none()
        && request_tags.is_none()
    {
        empty(place, findings);
    }
    if let Some(account) = account {
        if !is_account(account) {
            let why = "names of accounts can be changed";
            let fix = "write its twelve digits, in quotes";
            malformed(&place.key("account"), account, "the number of an account", why, fix, findings);
        }
        demands.add(Demand::is(&[STS, "aws_account"], account));
    }
    if let Some(role) = role {
        check_role(&place.key("role"), role, account.as_deref(), demands, findings);
    }
    if let Some(organization) = organization {
        let id = organization.strip_prefix("o-").unwrap_or_default();
        let is_id = (10..=32).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !is_id {
            let why = "it is compared byte for byte";
            let fix =
                "write the id that `aws organizations describe-organization` shows, e.g. `o-a1b2c3d4e5`";
            malformed(
                &place.key("organization"),
                organization,
                "the id of an organization",
                why,
                fix,
                findings,
            );
        }
        demands.add(Demand::is(&[STS, "org_id"], organization));
    }
    if let Some(tags) = principal_tags {
        let place = place.key("principalTags");
        check_tags(&place, "principal_tags", tags, demands, findings);
        findings.add(
            &place,
            Code::RenameableClaim,
            "whoever may tag a session of the role chooses them",
            "tags of the session hide those of the role",
            "allow `sts:TagSession` to nobody but those who may choose, and demand `role` as well",
        );
    }
    if let Some(tags) = request_tags {
        let place = place.key("requestTags");
        check_tags(&place, "request_tags", tags, demands, findings);
        if !acknowledged {
            refuse_asserted(&place, "requestTags", findings);
        }
    }
    request_tags.is_some()
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An ARN, or the name: within an account no two roles have the same, whatever their paths.
fn check_role(
    place: &Place<'_>,
    role: &str,
    account: Option<&str>,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    if !check_exact(place, role, findings) {
        return;
    }
    if !role.starts_with("arn:") {
        let is_name = role.len() <= 64
            && role.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte));
        if !is_name {
            let why = "names have at most 64 letters, digits and `_+=,.@-`, and no path";
            let fix = "write the name alone, or the whole ARN";
            malformed(place, role, "the name of a role", why, fix, findings);
        }
        demands.add(Demand::is(&["@role_name"], role));
        return;
    }
    let parts: Vec<&str> = role.split(':').collect();
    let of_account = match *parts.as_slice() {
        ["arn", partition, "iam", "", of, path]
            if (partition == "aws" || partition.starts_with("aws-"))
                && is_account(of)
                && path
                    .strip_prefix("role/")
                    .is_some_and(|path| path.split('/').all(|part| !part.is_empty())) =>
        {
            of
        }
        _ => {
            let why = "tokens name the role, never a session (`assumed-role`) of it";
            let fix = "write `arn:aws:iam::ACCOUNT:role/NAME`, with the role's path if it has one";
            malformed(place, role, "the ARN of a role", why, fix, findings);
            return;
        }
    };
    if account.is_some_and(|account| account != of_account) {
        let why = "the two conditions never hold together";
        malformed(place, role, "a role of this account", why, "correct `account` or `role`", findings);
    }
    demands.add(Demand::is(&["sub"], role));
}

fn check_tags(
    place: &Place<'_>,
    claim: &str,
    tags: &BTreeMap<String, String>,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    if tags.is_empty() {
        empty(place, findings);
    }
    for (key, value) in tags {
        let place = place.key(key);
        check_text(&place, key, findings);
        if check_exact(&place, value, findings) {
            demands.add(Demand::is(&[STS, claim, key], value));
        }
    }
}

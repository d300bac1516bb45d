//! AWS IAM outbound identity federation: what `sts:GetWebIdentityToken` gives
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_token_claims.html>).
//!
//! Every account has an issuer of its own; key ids are the same in all of them. `sub` is the role, so that all its
//! sessions look alike but for what the session context says. Pods of EKS have Kubernetes tokens, which is another pack.

use tidegate_engine::{ClaimValue, TokenFault};

use super::claim::{claims, is_digits, text};
use super::derived::{DerivedSpec, string};
use super::{ClaimKind, ClaimSpec, LifetimeFrom, Pack, SAME_ISSUER, TokenFacts};
use crate::json::Object;
use crate::keys::Algorithm;

/// One member whose name is a URL.
const STS: &str = "https://sts.amazonaws.com/";

const GLOBAL: &str = ".tokens.sts.global.api.aws";
const CHINA: &str = ".tokens.sts.global.api.amazonwebservices.com.cn";

const fn id(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::Identifier)
}

/// Of the session, where it applies.
const fn context(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::String)
}

pub(super) static PACK: Pack = Pack {
    claims: claims![
        id(&["iss"]).required(),
        id(&["sub"]).required(),
        // A list where the caller asked for several.
        ClaimSpec::new(&["aud"], ClaimKind::StringOrStrings).required(),
        ClaimSpec::new(&[STS, "aws_account"], ClaimKind::Digits).required(),
        context(&[STS, "source_region"]),
        id(&[STS, "org_id"]),
        // Documented as a string, seen as a list of one.
        ClaimSpec::new(&[STS, "ou_path"], ClaimKind::Strings).loose(),
        id(&[STS, "principal_id"]),
        // Tags of the session hide those of the role, and whoever may `sts:TagSession` chooses them.
        ClaimSpec::new(&[STS, "principal_tags"], ClaimKind::Structure),
        context(&[STS, "principal_tags", "*"]).renameable(),
        // Chosen by the caller, token by token.
        ClaimSpec::new(&[STS, "request_tags"], ClaimKind::Structure),
        context(&[STS, "request_tags", "*"]).caller_asserted(),
        // Set by whoever assumed the role.
        context(&[STS, "source_identity"]).caller_asserted(),
        // RFC 3339, not a NumericDate.
        context(&[STS, "original_session_exp"]),
        context(&[STS, "federated_provider"]),
        context(&[STS, "identity_store_user_id"]),
        context(&[STS, "identity_store_arn"]),
        context(&[STS, "ec2_source_instance_arn"]),
        context(&[STS, "ec2_instance_source_vpc"]),
        context(&[STS, "ec2_instance_source_private_ipv4"]).renameable(),
        context(&[STS, "ec2_role_delivery"]),
        context(&[STS, "lambda_source_function_arn"]),
        context(&[STS, "glue_credential_issuing_service"]),
    ],
    derived: &[
        DerivedSpec::new("@role_name", ClaimKind::String, |claims| {
            string(principal(claims).and_then(|principal| principal.role_name()))
        }),
        DerivedSpec::new("@account", ClaimKind::Digits, |claims| {
            string(principal(claims).map(|principal| principal.account))
        }),
        DerivedSpec::new("@partition", ClaimKind::Identifier, |claims| {
            string(principal(claims).map(|principal| principal.partition))
        }),
        DerivedSpec::new("@human_in_loop", ClaimKind::Boolean, human_in_loop),
    ],
    open: false,
    types: &["jwt"],
    strict_header: false,
    // The caller chooses one.
    algorithms: &[Algorithm::Rs256, Algorithm::Es384],
    max_lifetime_s: 3600,
    lifetime_from: LifetimeFrom::IssuedAt,
    token_id: Some(&["jti"]),
    single_audience: true,
    tenant: &[&["sub"], &[STS, "aws_account"], &[STS, "org_id"]],
    shared: &[],
    refuses_issuer: |issuer| {
        (!is_issuer(issuer)).then_some(
            "the aws pack is for the account's own issuer, `https://ID.tokens.sts.global.api.aws` (see `aws iam \
             get-outbound-web-identity-federation-info`); clusters, `https://oidc.eks.…`, are of the kubernetes pack",
        )
    },
    key_may_sign: SAME_ISSUER,
    check,
};

pub(super) fn is_issuer(issuer: &str) -> bool {
    let label = issuer.strip_prefix("https://");
    let label = label.and_then(|host| host.strip_suffix(GLOBAL).or_else(|| host.strip_suffix(CHINA)));
    label.is_some_and(|label| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    })
}

/// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME` or `…:user/PATH/NAME`, taken apart: an ARN is never compared by its end.
struct Principal<'a> {
    partition: &'a str,
    account: &'a str,
    kind: &'a str,
    name: &'a str,
}

// === impl Principal ===

impl<'a> Principal<'a> {
    fn parse(arn: &'a str) -> Result<Self, TokenFault> {
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next().ok_or(TokenFault::ClaimMalformed);
        let (arn, partition, service, region, account, resource) =
            (next()?, next()?, next()?, next()?, next()?, next()?);
        let in_partition = partition == "aws" || partition.starts_with("aws-");
        if arn != "arn" || !in_partition || !region.is_empty() || !is_account(account) {
            return Err(TokenFault::ClaimMalformed);
        }
        let (kind, path) = resource.split_once('/').unwrap_or((resource, ""));
        if service != "iam" || !matches!(kind, "role" | "user") {
            // The account's root, a session, a service.
            return Err(TokenFault::WrongKind);
        }
        if path.split('/').any(str::is_empty) || path.contains(':') {
            return Err(TokenFault::ClaimMalformed);
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        Ok(Self { partition, account, kind, name })
    }

    /// Unique within the account, whatever the path.
    fn role_name(&self) -> Option<&'a str> {
        (self.kind == "role").then_some(self.name)
    }
}

fn principal(claims: &Object) -> Option<Principal<'_>> {
    Principal::parse(text(claims, &["sub"])?).ok()
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && is_digits(text)
}

fn check(token: &TokenFacts<'_>) -> Result<(), TokenFault> {
    let claim = |path: &[&str]| text(token.claims, path).ok_or(TokenFault::ClaimMissing);
    let account = claim(&[STS, "aws_account"])?;
    let principal = Principal::parse(claim(&["sub"])?)?;
    if !is_account(account) {
        return Err(TokenFault::ClaimMalformed);
    }
    if principal.account != account || (principal.partition == "aws-cn") != token.iss.ends_with(CHINA) {
        return Err(TokenFault::ClaimsContradict);
    }
    Ok(())
}

/// A session of IAM Identity Center is a person's; one of an instance, a function or a Glue job is nobody's. Others do not
/// say.
fn human_in_loop(claims: &Object) -> ClaimValue {
    let says = |name: &'static str| text(claims, &[STS, name]).is_some_and(|text| !text.is_empty());
    if says("identity_store_user_id") {
        ClaimValue::Boolean(true)
    } else if ["ec2_source_instance_arn", "lambda_source_function_arn", "glue_credential_issuing_service"]
        .into_iter()
        .any(says)
    {
        ClaimValue::Boolean(false)
    } else {
        ClaimValue::Unknown
    }
}

//! Which pack an issuer has, as far as its name tells.

use super::PackKind;

/// What an issuer's URL consists of.
pub(super) struct Url<'u> {
    pub scheme: &'u str,
    /// With the port, if there is one.
    pub host: &'u str,
    /// Empty, or with the leading slash.
    pub path: &'u str,
}

pub(super) fn by_issuer(issuer: &str) -> Option<PackKind> {
    let url = Url::parse(issuer)?;
    let first = url.host.split('.').next().unwrap_or_default();
    let is_under = |domain: &str| url.host.strip_suffix(domain).is_some_and(|name| name.ends_with('.'));
    if url.scheme == "spiffe" {
        return Some(PackKind::Spiffe);
    }
    Some(match url.host {
        "accounts.google.com" => PackKind::Google,
        "container.googleapis.com" | "kubernetes.default.svc" | "kubernetes.default.svc.cluster.local" => {
            PackKind::Kubernetes
        }
        "gitlab.com" => PackKind::Gitlab,
        "login.microsoftonline.com"
        | "login.microsoftonline.us"
        | "login.partner.microsoftonline.cn"
        | "sts.windows.net"
        | "sts.chinacloudapi.cn" => PackKind::Entra,
        "token.actions.githubusercontent.com" => PackKind::Github,
        host if host.starts_with("token.actions.") && is_under("ghe.com") => PackKind::Github,
        _ if url.path == "/_services/token" => PackKind::Github,
        _ if is_under("ciamlogin.com") => PackKind::Entra,
        host if host.starts_with("oidc.eks") && is_under("amazonaws.com") => PackKind::Kubernetes,
        host if host.starts_with("oidc.eks") && is_under("amazonaws.com.cn") => PackKind::Kubernetes,
        _ if is_under("oic.prod-aks.azure.com") => PackKind::Kubernetes,
        _ if super::aws::is_issuer(issuer) => PackKind::Aws,
        _ if ["okta.com", "oktapreview.com", "okta-emea.com", "okta-gov.com"].into_iter().any(is_under) => {
            PackKind::Okta
        }
        _ if super::okta::is_custom_server(&url) => PackKind::Okta,
        _ if first == "gitlab" => PackKind::Gitlab,
        _ => return None,
    })
}

// === impl Url ===

impl<'u> Url<'u> {
    /// Splits and checks nothing.
    pub(super) fn parse(url: &'u str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at_checked(end)?;
        (!host.is_empty()).then_some(Self { scheme, host, path })
    }

    /// The parts of the path between slashes.
    pub(super) fn segments(&self) -> Vec<&'u str> {
        self.path.split('/').skip(1).collect()
    }
}

//! Audiences that belong to somebody else.

/// Whom else tokens with this audience are for, if they are for a known other party. Such a token is a credential for
/// that party, and it is misdirected or stolen when it arrives here.
pub fn another_party(audience: &str) -> Option<&'static str> {
    // Entra takes an App ID URI with and without the slash.
    let resource = audience.strip_suffix('/').unwrap_or(audience);
    match resource {
        "istio-ca" => Some("the mesh's certificate authority"),
        "kubernetes.default.svc"
        | "https://kubernetes.default.svc"
        | "https://kubernetes.default.svc.cluster.local" => Some("the Kubernetes API server"),
        "sts.amazonaws.com" | "sts.amazonaws.com.cn" => Some("AWS STS"),
        "pods.eks.amazonaws.com" => Some("EKS Pod Identity"),
        "api://AzureADTokenExchange"
        | "api://AzureADTokenExchangeUSGov"
        | "api://AzureADTokenExchangeChina" => Some("Microsoft Entra workload identity federation"),
        "00000003-0000-0000-c000-000000000000"
        | "https://graph.microsoft.com"
        | "https://graph.microsoft.us"
        | "https://dod-graph.microsoft.us"
        | "https://microsoftgraph.chinacloudapi.cn" => Some("Microsoft Graph"),
        "00000002-0000-0000-c000-000000000000" | "https://graph.windows.net" => Some("Azure AD Graph"),
        "797f4846-ba00-4fd7-ba43-dac1f8f63013"
        | "https://management.azure.com"
        | "https://management.core.windows.net"
        | "https://management.usgovcloudapi.net"
        | "https://management.chinacloudapi.cn" => Some("Azure Resource Manager"),
        _ => is_workload_identity_pool(resource).then_some("Google workload identity federation"),
    }
}

/// `//iam.googleapis.com/projects/N/locations/global/workloadIdentityPools/…`, with and without the scheme, and the pool
/// of a GKE cluster, `PROJECT.svc.id.goog`.
fn is_workload_identity_pool(audience: &str) -> bool {
    let path = audience.strip_prefix("https:").unwrap_or(audience).strip_prefix("//iam.googleapis.com/");
    path.is_some_and(|path| path.contains("/workloadIdentityPools/")) || audience.ends_with(".svc.id.goog")
}

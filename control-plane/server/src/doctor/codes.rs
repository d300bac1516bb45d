//! What there is to find. Codes are stable; `control-plane/docs/doctor.md` lists them.

use super::Severity;

macro_rules! codes {
    ($($name:ident = $code:literal, $severity:ident, $title:literal, $why:literal, $fix:literal;)*) => {
        /// What was found.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it is printed.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// How bad it is, unless something makes it worse.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What it is.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// Why it matters.
            pub const fn why(self) -> &'static str {
                match self { $(Self::$name => $why,)* }
            }

            /// What to do.
            pub const fn fix(self) -> &'static str {
                match self { $(Self::$name => $fix,)* }
            }
        }
    };
}

codes! {
    PluginFailsOpen = "TD0101", Error, "a plugin of ours that fails open",
        "a VM that fails would let every request pass",
        "write `failStrategy: FAIL_RELOAD`";
    OtherPluginFailsOpen = "TD0102", Warning, "another plugin that fails open",
        "what it decides is not decided while it is broken; Tidegate's filter still is there",
        "write `failStrategy: FAIL_CLOSE`, unless nothing rests on it";
    NotPinned = "TD0103", Error, "a module without its SHA-256",
        "whoever can write to the registry, or stands between, chooses what decides",
        "write `sha256`, and for OCI images the digest in `url`; `tidegate package oci` prints it";
    WrongPhase = "TD0104", Error, "a plugin of ours in another phase than AUTHZ",
        "before AUTHN tokens are not there yet, and after Istio's own policies nothing is refused before them",
        "write `phase: AUTHZ`";
    OutboundToo = "TD0105", Warning, "a plugin of ours at outbound listeners",
        "without `match` a plugin is at every listener, and the pod's own requests would be decided as if they came in",
        "write `match: [{mode: SERVER}]`";
    UnknownKey = "TD0106", Error, "a plugin that does not trust the key in use",
        "the filter refuses every Bundle, and with a new pod every request",
        "write the object anew: `tidegate plugin-config`, or let the controller do it";
    NextKeyUnknown = "TD0107", Warning, "a plugin that does not trust the next key",
        "after the keys are rotated, the filter would refuse every Bundle",
        "write the object anew before the keys are rotated";
    PortsPastProxy = "TD0201", Warning, "ports that go past the proxy",
        "requests on them meet neither filter nor Istio's policies",
        "remove the annotation, or leave in it only ports that need no rules";
    NoProxy = "TD0202", Warning, "pods without a proxy",
        "nothing is decided there, and callers are not authenticated",
        "remove the opt-out, or do not count on rules for these pods";
    HostNetwork = "TD0203", Warning, "pods in the node's network",
        "Istio cannot put a proxy in front of them",
        "remove `hostNetwork`, or do not count on rules for these pods";
    OutboundPastProxy = "TD0204", Warning, "outgoing traffic that goes past the proxy",
        "it does not reach the egress gateway, and what leaves the mesh there is not decided",
        "remove the annotation, or let the network hold it back";
    ForeignEnvoyFilter = "TD0301", Warning, "an EnvoyFilter",
        "it can remove, reorder or bypass filters, and Istio does not check what it does",
        "read it; move to supported objects what can be";
    UndeclaredPort = "TD0401", Warning, "a port that does not say what it speaks",
        "where a client sends no HTTP ALPN, Istio takes the connection for TCP, past every filter",
        "write `appProtocol: http`, `http2` or `grpc`, or name the port so";
    TcpPort = "TD0402", Note, "a port that is declared as TCP",
        "no filter sees what passes there; only identities can be required",
        "nothing, if that is meant";
    PlaintextAllowed = "TD0501", Warning, "connections without mTLS",
        "a caller without a certificate is no peer, so only tokens say who it is",
        "write `mtls: {mode: STRICT}`";
    DryRun = "TD0502", Warning, "a policy that is only tried",
        "it refuses nothing",
        "remove the annotation `istio.io/dry-run`";
    HiddenToken = "TD0503", Warning, "a RequestAuthentication that takes tokens away",
        "what is not forwarded, the filter does not see: rules with these tokens refuse everybody",
        "write `forwardOriginalToken: true` in every rule of it";
    HiddenControlPlane = "TD0504", Warning, "a Sidecar that hides the control plane",
        "filters reach it as their proxy does, and this proxy does not know it",
        "add `tidegate-system/*` to `egress.hosts`";
    OpenEgress = "TD0505", Warning, "a Sidecar that lets everything out",
        "hosts that nobody declared are reached past the egress gateway",
        "write `outboundTrafficPolicy: {mode: REGISTRY_ONLY}`";
    ForeignPeers = "TD0506", Error, "a Sidecar that takes certificates of another authority",
        "whoever has one with a peer's SPIFFE id is that peer, to rules and to Istio's own policies",
        "leave `ingress[].tls` out, so that the mesh's mTLS is demanded; let callers with other certificates come by a gateway";
    UpgradeChangesKind = "TD0701", Note, "objects of another kind after an upgrade",
        "filters are attached anew, and names of statistics and of configuration change with them",
        "first upgrade Istio, then let the controller, or `tidegate render`, write objects for it; adapt dashboards";
    UpgradeChangesObject = "TD0702", Note, "objects that say something else after an upgrade",
        "what Istio can say differs from version to version",
        "compare `tidegate render` for both versions, and write the new ones after the upgrade";
    UpgradeLeavesUnguarded = "TD0703", Error, "a workload that has no object any more after an upgrade",
        "it would not be guarded",
        "do what is said before you upgrade";
    NotReady = "TD0801", Error, "a control plane that is not ready",
        "no rules have been accepted and signed; filters go on with what they have",
        "see /diagnostics, and `tidegate check`";
    ClockSkew = "TD0802", Warning, "clocks that differ",
        "tokens and Bundles are judged by the clock: beyond 300 s requests are refused",
        "synchronise the clocks";
    Behind = "TD0803", Warning, "filters that do not enforce the newest rules",
        "they enforce older ones, or none",
        "see /fleet; a filter that has just started needs a second";
    Refusing = "TD0804", Error, "filters that refuse the newest rules",
        "they enforce older ones until they take newer ones",
        "read the refusal; keys or versions do not fit";
    MixedVersions = "TD0805", Note, "filters of several versions",
        "a rule may need what an older filter does not have",
        "finish the rollout of the module; upgrade the control plane before the filters: an older one does not tell them which \
         rules revoke, and while a Guard is suspended, who is revoked passes newer filters";
    IssuerAlert = "TD0806", Warning, "an issuer whose keys want attention",
        "when its keys end, its tokens are refused",
        "see `tidegate keys status`";
}

//! What is compared.

use anyhow::{Result, ensure};
use tidegate::plugin_config::Peers;

use super::native::Form;

/// One Envoy and the load on it.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Unique.
    pub name: &'static str,
    /// For people.
    pub about: &'static str,
    /// What the Envoy does with a request.
    pub auth: Auth,
    /// Which tokens requests have.
    pub load: Load,
    /// Whether it is measured with one connection too.
    pub latency: bool,
    /// Which build of the filter: 0 is the one that goals are about, others are compared with it.
    pub build: usize,
}

/// What an Envoy does before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Nothing.
    None,
    /// Envoy's own filters jwt_authn and RBAC.
    Native {
        /// RBAC policies; the last one matches.
        policies: usize,
        /// Whether jwt_authn keeps verified tokens.
        cache: bool,
        /// How they are configured.
        form: Form,
    },
    /// A wasm filter that lets everything pass.
    Continue,
    /// Tidegate's filter.
    Tidegate {
        /// Rules; the last one matches.
        rules: usize,
        /// Where it looks for a peer.
        peers: Peers,
    },
}

/// Which tokens requests have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// The same valid token on every request.
    Warm,
    /// The same valid token on every request, each with a path that none had before: nothing that was decided stands for it.
    Unlike,
    /// Another valid token on every request.
    FirstSight,
    /// A token whose claims are not JSON.
    Malformed,
    /// A token that is right but for one bit of its signature.
    BadSignature,
}

/// The scenario that the others are compared with.
pub const NONE: &str = "none";
/// The scenario whose added CPU is Y.
pub const YARDSTICK: &str = "native-10-cache";
/// First sight of a token, by Envoy's own filters.
pub const NATIVE_FIRST_SIGHT: &str = "native-10-first-sight";
/// First sight of a token, by Tidegate.
pub const TIDEGATE_FIRST_SIGHT: &str = "tidegate-10-first-sight";
/// A refused token whose claims are not JSON.
pub const MALFORMED: &str = "tidegate-10-malformed";
/// A refused token with a wrong signature.
pub const BAD_SIGNATURE: &str = "tidegate-10-bad-signature";
/// Warm tokens, by number of rules.
pub const WARM: [&str; 3] = ["tidegate-10", "tidegate-1000", "tidegate-100000"];
/// The same, each request unlike all before.
pub const UNLIKE: [&str; 2] = ["tidegate-10-unlike", "tidegate-1000-unlike"];

const fn scenario(name: &'static str, about: &'static str, auth: Auth, load: Load) -> Scenario {
    Scenario { name, about, auth, load, latency: false, build: 0 }
}

const fn native(policies: usize, cache: bool) -> Auth {
    Auth::Native { policies, cache, form: Form::Istio }
}

/// As in a sidecar: the filter asks for the peer of every request, also where there is none.
const fn tidegate(rules: usize) -> Auth {
    Auth::Tidegate { rules, peers: Peers::Mesh }
}

const ALL: [Scenario; 17] = [
    scenario(NONE, "no auth filter", Auth::None, Load::Warm).with_latency(),
    scenario("native-10", "jwt_authn + RBAC, 10 policies", native(10, false), Load::Warm),
    scenario(YARDSTICK, "jwt_authn with token cache + RBAC, 10 policies: Y", native(10, true), Load::Warm)
        .with_latency(),
    scenario(
        "native-10-cache-lean",
        "the same, configured as leanly as possible",
        Auth::Native { policies: 10, cache: true, form: Form::Lean },
        Load::Warm,
    )
    .with_latency(),
    scenario("native-1000", "jwt_authn + RBAC, 1 000 policies", native(1_000, false), Load::Warm),
    scenario(
        "native-1000-cache",
        "jwt_authn with token cache + RBAC, 1 000 policies",
        native(1_000, true),
        Load::Warm,
    )
    .with_latency(),
    scenario(
        NATIVE_FIRST_SIGHT,
        "jwt_authn + RBAC, 10 policies, each token new",
        native(10, false),
        Load::FirstSight,
    )
    .with_latency(),
    scenario("wasm-continue", "a wasm filter that does nothing", Auth::Continue, Load::Warm).with_latency(),
    scenario(WARM[0], "Tidegate, 10 rules", tidegate(10), Load::Warm).with_latency(),
    scenario(WARM[1], "Tidegate, 1 000 rules", tidegate(1_000), Load::Warm).with_latency(),
    scenario(WARM[2], "Tidegate, 100 000 rules", tidegate(100_000), Load::Warm).with_latency(),
    scenario(UNLIKE[0], "Tidegate, 10 rules, each request unlike all before", tidegate(10), Load::Unlike),
    scenario(UNLIKE[1], "Tidegate, 1 000 rules, each unlike all before", tidegate(1_000), Load::Unlike),
    scenario(
        "tidegate-10-gateway",
        "Tidegate, 10 rules, not asking for a peer",
        Auth::Tidegate { rules: 10, peers: Peers::None },
        Load::Warm,
    ),
    scenario(TIDEGATE_FIRST_SIGHT, "Tidegate, 10 rules, each token new", tidegate(10), Load::FirstSight)
        .with_latency(),
    scenario(MALFORMED, "Tidegate, 10 rules, claims are not JSON: 401", tidegate(10), Load::Malformed),
    scenario(BAD_SIGNATURE, "Tidegate, 10 rules, wrong signature: 401", tidegate(10), Load::BadSignature),
];

// === impl Scenario ===

impl Scenario {
    const fn with_latency(mut self) -> Self {
        self.latency = true;
        self
    }

    /// The number of the rule that matches.
    pub fn last(&self) -> usize {
        self.auth.rules() - 1
    }

    /// The request's path.
    pub fn path(&self) -> String {
        format!("/svc{}/orders/123", self.last())
    }

    /// The only status that its requests may get.
    pub fn status(&self) -> u16 {
        match self.load {
            Load::Warm | Load::Unlike | Load::FirstSight => 200,
            Load::Malformed | Load::BadSignature => 401,
        }
    }
}

// === impl Auth ===

impl Auth {
    fn is_tidegate(self) -> bool {
        matches!(self, Self::Tidegate { .. })
    }

    fn rules(self) -> usize {
        match self {
            Self::None | Self::Continue => 10,
            Self::Native { policies, .. } => policies,
            Self::Tidegate { rules, .. } => rules,
        }
    }
}

/// The scenarios that `only` names, or whose names contain one of its parts, all if there is none; `none` and the
/// yardstick in any case.
pub fn choose(only: &[String]) -> Result<Vec<Scenario>> {
    let only: Vec<&str> = only.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
    for part in &only {
        ensure!(
            ALL.iter().any(|scenario| scenario.name.contains(part)),
            "no scenario is named like `{part}`; `--list` shows all"
        );
    }
    // A whole name means that one alone: `tidegate-10` is not `tidegate-1000`.
    let means = |part: &str, name: &str| {
        if ALL.iter().any(|scenario| scenario.name == part) { name == part } else { name.contains(part) }
    };
    let wanted = |name: &str| {
        only.is_empty() || [NONE, YARDSTICK].contains(&name) || only.iter().any(|part| means(part, name))
    };
    Ok(ALL.into_iter().filter(|scenario| wanted(scenario.name)).collect())
}

/// The same with each scenario of Tidegate once more per other build of its filter, which are named so.
pub fn with_builds(chosen: Vec<Scenario>, builds: &[String]) -> Vec<Scenario> {
    let again = |scenario: &Scenario| {
        let scenario = *scenario;
        (1..).zip(builds).map(move |(build, of)| Scenario {
            // As long as the benchmark runs.
            name: format!("{}@{of}", scenario.name).leak(),
            about: format!("{} ({of})", scenario.about).leak(),
            build,
            ..scenario
        })
    };
    let more: Vec<Scenario> =
        chosen.iter().filter(|scenario| scenario.auth.is_tidegate()).flat_map(again).collect();
    [chosen, more].concat()
}

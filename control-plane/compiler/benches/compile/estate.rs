//! A large estate as people write it: namespaces with Guards, Callers and AccessRules that all differ.

use std::fmt::Write as _;

use tidegate_compiler::SourceFile;

/// How the rules are laid out.
#[derive(Clone, Copy)]
pub struct Layout {
    pub name: &'static str,
    pub rules: usize,
    pub workloads: usize,
    pub rules_per_file: usize,
}

/// Workloads of a namespace.
const PER_NAMESPACE: usize = 5;

const ISSUERS: &str = "\
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {name: prod-cluster}
spec: {issuer: 'https://kubernetes.prod.example', pack: kubernetes, keys: {discovery: true}, maxLifetime: 1h}
---
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {name: google}
spec: {issuer: 'https://accounts.google.com', pack: google, keys: {jwksUri: 'https://www.googleapis.com/oauth2/v3/certs'}}
---
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {name: gitlab}
spec: {issuer: 'https://gitlab.com', pack: gitlab, keys: {discovery: true}, headers: [{name: X-Job-Token}]}
";

impl Layout {
    fn namespace(self, workload: usize) -> String {
        format!("team-{:03}", workload / PER_NAMESPACE)
    }

    fn namespaces(self) -> usize {
        self.workloads.div_ceil(PER_NAMESPACE)
    }

    /// The files: the base, one of Callers for each namespace, and those of rules.
    pub fn files(self) -> Vec<SourceFile> {
        let mut files = vec![self.base()];
        files.extend((0..self.namespaces()).map(callers));
        let rules: Vec<usize> = (0..self.rules).collect();
        files.extend(rules.chunks(self.rules_per_file).enumerate().map(|(file, rules)| SourceFile {
            path: format!("rules/{file:06}.yaml"),
            text: rules.iter().map(|at| self.rule(*at)).collect::<Vec<_>>().join("---\n"),
        }));
        files
    }

    fn base(self) -> SourceFile {
        let mut text = format!("{ISSUERS}---\n");
        text.push_str(
            "apiVersion: tidegate.dev/v1alpha1\nkind: Mesh\nmetadata: {name: prod}\nspec:\n  trustDomain: prod.example\n  \
             rootNamespace: mesh-config\n  workloads:\n",
        );
        for workload in 0..self.workloads {
            let namespace = self.namespace(workload);
            let _ = writeln!(
                text,
                "  - {{namespace: {namespace}, name: svc-{workload}, labels: {{app: svc-{workload}, tier: backend}}, \
                 serviceAccount: svc-{workload}}}"
            );
        }
        text.push_str(
            "  gateways:\n  - {namespace: ingress, name: dataflow-in, labels: {gateway: in}, serviceAccount: dataflow-in}\n",
        );
        for namespace in 0..self.namespaces() {
            let _ = write!(
                text,
                "---\napiVersion: tidegate.dev/v1alpha1\nkind: Guard\nmetadata: {{name: all, namespace: team-{namespace:03}}}\n\
                 spec: {{mode: Enforce, audience: 'https://team-{namespace:03}.example'}}\n"
            );
        }
        SourceFile { path: "base.yaml".to_owned(), text }
    }

    /// One rule; each differs from all others.
    pub fn rule(self, at: usize) -> String {
        // Rules of a workload are next to each other.
        let workload = at * self.workloads / self.rules;
        let namespace = self.namespace(workload);
        let effect = if at % 20 == 19 { "Deny" } else { "Allow" };
        let mode = if at % 33 == 32 { "Shadow" } else { "Enforce" };
        let mut text = format!(
            "apiVersion: tidegate.dev/v1alpha1\nkind: AccessRule\nmetadata:\n  name: rule-{at:06}\n  namespace: {namespace}\n\
             spec:\n  owner: {namespace}\n  contact: \"#{namespace}-oncall\"\n  \
             target: {{selector: {{matchLabels: {{app: svc-{workload}}}}}}}\n  effect: {effect}\n  mode: {mode}\n"
        );
        if at % 50 == 7 {
            let _ = writeln!(text, "  notAfter: 2031-{:02}-{:02}", 1 + at % 12, 1 + at % 28);
        }
        let peer = format!("peer: {{namespace: etl-{}, serviceAccounts: [worker-{at}]}}", at % 97);
        let gitlab = format!(
            "tokens: [{{issuer: gitlab, as: job, gitlab: {{project: {}, protectedRef: true, environment: production}}}}]",
            4000 + at
        );
        let from = match at % 10 {
            0..=3 => format!("  - {peer}\n"),
            4 | 5 => format!("  - {peer}\n    {gitlab}\n"),
            6 => format!("  - {peer}\n    tokens: [{{issuer: prod-cluster}}]\n"),
            7 => format!("  - caller: {namespace}/etl-{}\n  - {peer}\n", at % 5),
            8 => format!(
                "  - {peer}\n    {gitlab}\n    when: ['job.user_access_level in [\"maintainer\", \"owner\"]']\n"
            ),
            _ => format!(
                "  - {peer}\n    {gitlab}\n    when: ['job.pipeline_source == \"push\" || job.job_id == \"{at}\"']\n"
            ),
        };
        let _ = writeln!(
            text,
            "  from:\n{from}  to:\n  - http: {{methods: [GET, POST], paths: [\"/v1/svc-{workload}/orders-{at}/{{id}}\"]}}"
        );
        text
    }
}

fn callers(namespace: usize) -> SourceFile {
    let mut text = String::new();
    for caller in 0..5 {
        let _ = write!(
            text,
            "---\napiVersion: tidegate.dev/v1alpha1\nkind: Caller\nmetadata: {{name: etl-{caller}, namespace: team-{namespace:03}}}\n\
             spec:\n  anyOf:\n  - peer: {{namespace: etl-{caller}, serviceAccounts: [orders-{namespace}]}}\n    \
             tokens: [{{issuer: prod-cluster}}]\n  - tokenOnly: {{via: [ingress/dataflow-in]}}\n    \
             tokens: [{{issuer: google, dataflowJob: {{name: orders-{namespace}-{caller}, project: acme, region: europe-west4}}}}]\n"
        );
    }
    SourceFile { path: format!("callers/{namespace:03}.yaml"), text }
}

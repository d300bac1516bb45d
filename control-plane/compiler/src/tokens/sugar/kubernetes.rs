//! `kubernetes`: service accounts. `tekton`: the pods of a pipeline or task.

use super::{empty, malformed};
use crate::demand::{ClaimTest, Demand, Demands};
use crate::diagnostic::Code;
use crate::directory::{DirectoryQuery, TektonKind, is_tekton_name};
use crate::issuers::TrustedIssuer;
use crate::mesh::{check_account, check_namespace};
use crate::place::{Findings, Place};
use crate::spec::{KubernetesSpec, TektonSpec};

/// A Kubernetes service account.
pub(super) fn check(
    place: &Place<'_>,
    spec: &KubernetesSpec,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    if let Some(namespace) = &spec.namespace {
        check_namespace(&place.key("namespace"), namespace, findings);
        demands.add(Demand::is(&["kubernetes.io", "namespace"], namespace));
    }
    match (&spec.namespace, &spec.service_account) {
        (None, None) => empty(place, findings),
        (None, Some(account)) => findings.add(
            &place.key("serviceAccount"),
            Code::MissingField,
            format!("the namespace of `{account}` is missing"),
            "other namespaces have accounts of the same name",
            "write `namespace` as well",
        ),
        (Some(_), Some(account)) => {
            let place = place.key("serviceAccount");
            check_account(&place, account, findings);
            warn_default_account(&place, account, findings);
            demands.add(Demand::is(&["kubernetes.io", "serviceaccount", "name"], account));
        }
        (Some(_), None) => {}
    }
}

/// The pods of a Tekton pipeline or task.
///
/// Labels are not in the token, so the pod's UID is looked up in the directory that the control plane keeps. The namespace is
/// demanded besides, so that an entry of the directory can never stand for a pod elsewhere.
pub(super) fn check_tekton(
    place: &Place<'_>,
    spec: &TektonSpec,
    issuer: &TrustedIssuer,
    demanded: Option<&str>,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    let before = findings.errors();
    let (field, kind, name) = match (&spec.pipeline, &spec.task) {
        (Some(pipeline), None) => ("pipeline", TektonKind::Pipeline, pipeline),
        (None, Some(task)) => ("task", TektonKind::Task, task),
        (None, None) | (Some(_), Some(_)) => {
            findings.add(
                place,
                Code::NotExactlyOne,
                "write either `pipeline` or `task`",
                "the pods of a pipeline's tasks belong to both, each under its own name",
                "write one of the two; for alternatives, write two entries",
            );
            return;
        }
    };
    if !is_tekton_name(name) {
        let what = format!("the name of a {field}");
        let fix = "write its name; patterns are not supported";
        malformed(&place.key(field), name, &what, "no pod has such a label", fix, findings);
    }
    if let Some(namespace) = &spec.namespace {
        check_namespace(&place.key("namespace"), namespace, findings);
    }
    let Some(namespace) = spec.namespace.as_deref().or(demanded) else {
        findings.add(
            &place.key("namespace"),
            Code::MissingField,
            format!("the namespace of `{name}` is missing"),
            format!("other namespaces can have a {field} of the same name"),
            "write `namespace`",
        );
        return;
    };
    if findings.errors() > before {
        return;
    }
    demands.add_implied(Demand::is(&["kubernetes.io", "namespace"], namespace));
    demands.add(Demand::claim(
        &["kubernetes.io", "pod", "uid"],
        ClaimTest::Listed(DirectoryQuery::TektonRun {
            issuer: issuer.name.clone(),
            namespace: namespace.to_owned(),
            kind,
            name: name.clone(),
        }),
    ));
}

/// Reports the account that pods without one of their own run as.
pub(crate) fn warn_default_account(place: &Place<'_>, account: &str, findings: &mut Findings) {
    if account == "default" {
        findings.add(
            place,
            Code::DefaultAccount,
            "`default` is the account of every pod that names none",
            "unrelated workloads share it",
            "run the workload as an account of its own",
        );
    }
}

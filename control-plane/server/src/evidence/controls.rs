//! Which file answers which control, and what none answers.

use super::Inputs;
use super::decided::Decided;

/// SOC 2: Trust Services Criteria of 2017 with points of focus of 2022 (AICPA TSP section 100). ISO: ISO/IEC 27001:2022,
/// annex A.
const CONTROLS: [(&str, &str, &str, &str); 6] = [
    (
        "SOC 2 CC6.1",
        "logical access to protected information is restricted",
        "who-can.csv, rules-in-force.csv, decisions.csv, decisions-by-resource.csv, exceptions.csv, \
         interventions.csv",
        "who may call what, under which conditions, in the rules on offer when this was made; that requests were decided so; \
         and where they were not",
    ),
    (
        "SOC 2 CC6.3",
        "access is authorised, modified and removed by roles and least privilege",
        "rule-history.csv, rules-in-force.csv, who-can.csv, exceptions.csv, interventions.csv",
        "which rule files changed when, with commit and author where rules are in Git; grants that nobody uses; what was \
         revoked, by whom, and how that ended. Who approved a change is in the system that holds the rules, not here",
    ),
    (
        "SOC 2 CC7.2",
        "systems are monitored for anomalies",
        "decisions.csv, decisions-by-identity.csv, decisions-by-run.csv, record-gaps.csv, exceptions.csv",
        "refusals by caller, run and reason; proxies that do not enforce; where nothing was seen. That somebody looked at it \
         is not here",
    ),
    (
        "ISO/IEC 27001:2022 A.5.15",
        "rules to control access are established and implemented",
        "rules-in-force.csv, who-can.csv, exceptions.csv",
        "the rules, their owners, and what is exempt from them",
    ),
    (
        "ISO/IEC 27001:2022 A.5.18",
        "access rights are provisioned, reviewed, modified and removed",
        "rule-history.csv, rules-in-force.csv, decisions-by-identity.csv",
        "changes of rules; for a review: who used what, and grants that were not used. That a review took place is not here",
    ),
    (
        "ISO/IEC 27001:2022 A.8.15",
        "logs are produced, stored, protected and analysed",
        "decisions.csv, record-gaps.csv, chain.csv, manifest.json, signature.json",
        "the records, where some are missing, and that nothing was changed since this was made",
    ),
];

const FILES: [(&str, &str); 13] = [
    (
        "decisions.csv",
        "every record of the time, in the order of arrival, the latest first; gaps are lines of it",
    ),
    (
        "decisions-by-identity.csv",
        "the same, by caller; a request counts for each identity that its caller proved",
    ),
    ("decisions-by-run.csv", "the same, by run of a pipeline"),
    ("decisions-by-resource.csv", "the same, by resource, or host where the catalogue knows no resource"),
    ("record-gaps.csv", "decisions without a record, and times of which nobody knows"),
    ("rules-in-force.csv", "the rules on offer when this was made; use since the beginning of the time"),
    (
        "rule-history.csv",
        "rule sets that were accepted, file by file, with SHA-256 of the text before and after",
    ),
    ("who-can.csv", "every entry of the rules on offer when this was made; a Deny that matches wins"),
    ("exceptions.csv", "what is not, or was not, as the rules would have it"),
    (
        "interventions.csv",
        "what people revoked, suspended and pinned, as far as it was in force in the time: by whom, why, until when, and how it ended",
    ),
    ("chain.csv", "the hashes of all lines, 256 at a time, each with those before"),
    ("manifest.json", "the digest of every file and the end of the chain"),
    ("signature.json", "the control plane's signature over the manifest"),
];

/// Kinds of exceptions. Those that passed or would have been refused are counted from records; the others are as of when the
/// export was made.
const KINDS: [(&str, &str); 23] = [
    (
        "passed-unenforced",
        "requests that passed although they would have been refused: a Guard is in Shadow mode or was suspended",
    ),
    ("shadow-would-refuse", "requests that passed and that a rule in Shadow mode would have refused"),
    (
        "passed-without-directory",
        "requests that were allowed without the answer of a directory, because the rule says so",
    ),
    ("passed-unguarded", "requests that passed because no Guard covers the port"),
    ("time-of-record-refused", "records whose time was absurd; when they came counts"),
    ("(others)", "more than 100 000 kinds of requests in this table"),
    ("guard-in-shadow", "a Guard that reports and refuses nothing"),
    ("rule-in-shadow", "a rule that reports and is not enforced"),
    ("fail-open", "an Allow that holds while a directory cannot be asked"),
    ("outlives-token", "an Allow whose streams go on after their token has expired"),
    ("unguarded", "a workload that no Guard covers"),
    ("unguarded-port", "a port that passes as TCP"),
    ("suspended", "a workload whose Guards only report for a time, by hand"),
    ("revoked", "something that is taken back for a time, by hand"),
    (
        "changed-rules-held-back",
        "a workload where canaries try changed rules, and other proxies enforce those before",
    ),
    (
        "changed-rules-given-up",
        "a workload where changed rules were tried and given up: those before are enforced",
    ),
    ("revocation-not-in-force", "something that is to be taken back, and is not"),
    (
        "rules-held-back-by-revocation",
        "newer rules that are not in force, because something is revoked that does not go together with them",
    ),
    ("pinned", "earlier rules are in force, by hand"),
    ("not-enforcing", "a proxy that does not enforce what is on offer, or is not heard of"),
    ("no-proxy-known", "a guarded workload without a connected proxy"),
    ("bypassed", "a pod without a proxy that could refuse anything"),
    ("bypassed-not-known", "this control plane does not see pods"),
];

/// Filters that are cut off keep records for a while, in microseconds.
const ON_THEIR_WAY_US: i64 = 3_600 * 1_000_000;

/// The text.
pub(super) fn text(inputs: &Inputs, decided: &Decided) -> String {
    let Inputs { from, to, made, .. } = inputs;
    let mut text = format!(
        "# Evidence of {from} to {to}\n\nMade {made} by tidegate {}. Times are UTC; the first counts, the last does not any \
         more. Nothing in here says that a control is effective: it is what an auditor needs to judge that.\n\n\
         `tidegate evidence verify DIR --fingerprint SHA256` finds every change; the fingerprint has to come from somebody \
         you trust, not from this folder (`tidegate evidence key`).\n\n## Which file answers which control\n\n\
         | control | is about | files | say |\n| --- | --- | --- | --- |\n",
        env!("CARGO_PKG_VERSION")
    );
    for (control, about, files, say) in CONTROLS {
        text.push_str(&format!("| {control} | {about} | {files} | {say} |\n"));
    }
    text.push_str("\n## Files\n\n| file | has |\n| --- | --- |\n");
    for (file, has) in FILES {
        text.push_str(&format!("| {file} | {has} |\n"));
    }
    text.push_str("\n## Kinds in exceptions.csv\n\n| kind | is |\n| --- | --- |\n");
    for (kind, is) in KINDS {
        text.push_str(&format!("| {kind} | {is} |\n"));
    }
    text.push_str("\n## Limits of this export\n\n");
    for limit in limits(inputs, decided) {
        text.push_str(&format!("- {limit}\n"));
    }
    text
}

/// What this export does not prove.
fn limits(inputs: &Inputs, decided: &Decided) -> Vec<String> {
    let Decided { records, samples, gaps, lost, .. } = decided;
    let mut limits = vec![
        format!(
            "Records are what filters say of themselves, over the connection of a verified workload. Who controls a proxy \
             controls what it says. {records} records are here."
        ),
        format!(
            "Of what rules with `audit: sampled` allow, about one in a hundred has a record, by chance, and fewer where a rule \
             allows more than 5 000 in a second. Of refusals of callers that have proven nothing, beyond 100 of one reason in a \
             second and filter, one of 64 has. {samples} records here stand for more requests than one, and the counts of samples \
             are estimates (column `estimated`). All other refusals, and what rules with `audit: full` or `required` allow, have a \
             record each, but for gaps."
        ),
        format!(
            "{gaps} gaps are known, with at least {lost} decisions without a record; record-gaps.csv has them. A gap is told when \
             it was noticed: what is missing was decided before."
        ),
        "A record may be there twice with the same id and time: filters send again what they do not know to have arrived."
            .to_owned(),
        "Rules, who can do what, proxies, and exceptions that are not counted from records are as they were when this was made. What \
         people suspended, revoked and pinned in the time, and how it ended, is in interventions.csv, as far as it is kept: its \
         first line says where it is not. Requests that passed because a Guard was suspended have records (`passed-unenforced` in \
         exceptions.csv). Changed rules that were held back or given up, and are no longer, are not in here."
            .to_owned(),
        "rule-history.csv says which rules were accepted; while earlier ones were pinned by hand (interventions.csv), those were in \
         force."
            .to_owned(),
        "Traffic that passes no guarded proxy is not seen: managed machines that call a service directly, pods without a \
         proxy, ports that no Guard covers."
            .to_owned(),
        "The signature says that this control plane made the export, not that what it was told is true; until then nothing but \
         file permissions protected the records."
            .to_owned(),
    ];
    if inputs.made.0.saturating_sub(inputs.to.0) < ON_THEIR_WAY_US {
        limits.push(
            "It was made soon after the end of the time: records may still have been on their way. Export again later."
                .to_owned(),
        );
    }
    if inputs.rules.is_none() {
        limits.push(
            "No rules were on offer when this was made: rules-in-force.csv and who-can.csv are empty."
                .to_owned(),
        );
    }
    if inputs.sources.is_empty() {
        limits.push(
            "Where rules are written, and who changed them, is not known: they are in no Git folder, and no annotation \
             says it."
                .to_owned(),
        );
    }
    if inputs.sources.values().any(|source| source.by_annotations) {
        limits.push(
            "Commit and author of rules that are objects of a cluster (`file` begins with `kube/`) are annotations: whoever may \
             write the object wrote them, and nothing was looked up."
                .to_owned(),
        );
    }
    if inputs.bypassed.is_none() {
        limits.push(
            "This control plane does not see pods; whether some have no proxy is not known here.".to_owned(),
        );
    }
    match inputs.store {
        None => {
            limits.push("Decisions are not kept by this control plane: there are no records here.".to_owned())
        }
        Some(store) if store.since.is_none_or(|since| since > inputs.from) || store.is_catching_up => {
            limits.push(
                "The store does not reach back to the beginning of the time: see record-gaps.csv.".to_owned(),
            );
        }
        Some(_) => {}
    }
    if decided.has_failed {
        limits.push("A file of the store could not be read: records are missing.".to_owned());
    }
    limits
}

//! What the compiler says about rules on resources and launches that cannot be enforced, or that mean nothing.

mod common;

use common::calls::{EGRESS, rule};
use common::{refused, warned};

fn allow(to: &str) -> String {
    format!("{EGRESS}{}", rule("r", "Allow", to))
}

fn deny(to: &str) -> String {
    format!("{EGRESS}{}", rule("r", "Deny", to))
}

fn pubsub(more: &str) -> String {
    allow(&format!("resources: {{service: pubsub, {more}}}"))
}

const TOPIC: &str = "names: ['projects/acme/topics/orders']";

refused! {
    refuses_services_that_are_not_in_the_catalogue: format!("{}{}",
        allow("resources: {service: pubsubb, actions: [publish], names: ['projects/acme/topics/a']}"),
        rule("b", "Allow", "resources: {service: payroll, actions: [read], names: ['**']}"));
    refuses_actions_that_the_service_does_not_have:
        pubsub(&format!("actions: [publsh, reading, topics.publsh, frobnicate], {TOPIC}"));
    refuses_names_that_no_resource_has: format!("{}{}",
        pubsub("actions: [publish], names: ['projects/acme/subscriptions/orders', 'projects/acme/topics/orders'], protocols: [http]"),
        rule("b", "Allow", "resources: {service: pubsub, actions: [publish, topics.list], names: ['projects/acme/topics/a'], protocols: [http]}"));
    refuses_names_that_cannot_be_read: pubsub("actions: [publish], names: ['//pubsub.googleapis.com/projects/acme/topics/a', \
        'projects/acme/topics/', 'projects/**/a', 'projects/a/topics/{id}', 'projects/a/topics/a%2Fb', '', 'projects//a']");
    refuses_a_handle_for_one_table: allow(
        "resources: {service: bigquerystorage, actions: [ReadRows], names: ['projects/acme/locations/eu/sessions/a/streams/*']}");
    refuses_grpc_methods_where_only_http_is_meant:
        pubsub("actions: [StreamingPull], names: ['projects/*/subscriptions/*'], protocols: [http]");
    refuses_jobs_whose_tables_are_in_the_body:
        allow("resources: {service: bigquery, actions: [jobs.insert], names: ['projects/acme/jobs'], protocols: [http]}");
    refuses_wildcards_among_encoded_slashes:
        allow("resources: {service: storage, actions: [objects.get], names: ['projects/_/buckets/lake/objects/*/2026/**'], protocols: [http]}");
    refuses_copies_without_the_right_to_read:
        allow("resources: {service: storage, actions: [objects.copy], names: ['projects/_/buckets/lake/objects/**'], protocols: [http]}");
    refuses_methods_that_no_rule_can_allow:
        allow("resources: {service: storage, actions: [batch, xml.object.get], names: ['**']}");
    refuses_classes_that_stand_for_nothing:
        allow("resources: {service: iamcredentials, actions: [launch], names: ['projects/-/serviceAccounts/a@b.iam.gserviceaccount.com']}");
    refuses_hosts_of_others: format!("{}{}",
        pubsub(&format!("actions: [publish], {TOPIC}, hosts: [storage.googleapis.com, '*.googleapis.com', pubsub-x.p.googleapis.com]")),
        rule("b", "Allow", "resources: {service: gitlab, actions: [pipelines.get], names: ['projects/7/pipelines/*']}"));
    refuses_to_leave_open_what_is_not_there:
        pubsub(&format!("actions: [topics.create], {TOPIC}, unchecked: [kmskey, sink], protocols: [http]"));
    refuses_a_deny_that_is_narrower_than_its_service: deny(
        "resources: {service: pubsub, actions: [publish], names: ['projects/acme/topics/a'], hosts: [pubsub.googleapis.com], \
         protocols: [http], unchecked: [sink]}");
    refuses_resources_without_service_actions_and_names: allow("resources: {service: pubsub, actions: [], names: []}");
    refuses_fields_that_resources_do_not_have:
        pubsub(&format!("action: [publish], {TOPIC}, protocols: [grpcs], prcision: body"));
    refuses_resources_at_a_sidecar: "\
kind: AccessRule
metadata: {name: sidecar, namespace: sales}
spec:
  owner: a
  target: {selector: {matchLabels: {app: orders-api}}}
  effect: Allow
  mode: Enforce
  from: [{peer: {namespace: etl}}]
  to:
  - resources: {service: pubsub, actions: [publish], names: ['projects/*/topics/*']}
  - launch: {service: dataflow, project: acme, region: europe-west4, methods: [templates.launch], protocols: [http], unchecked: [runAs, parameters, replacesRunningJob, template, staging]}
";
    refuses_what_nobody_should_leave_to_a_default: format!("{}{}",
        pubsub("actions: [subscriptions.create], names: ['projects/acme/subscriptions/orders']"),
        rule("b", "Allow", "resources: {service: spanner, actions: [executeSql], names: ['projects/acme/instances/i/databases/d/sessions/*']}"));
    refuses_jobs_that_read_or_write_nothing: format!("{}{}{}",
        allow("launch: {service: bigquery, project: acme, kinds: [load, extract], sources: ['gs://lake/*', orders]}"),
        rule("b", "Allow", "launch: {service: bigquery, project: acme, kinds: [copy], sources: ['gs://lake/*'], destinations: ['projects/a/datasets/b/tables/c']}"),
        rule("c", "Deny", "launch: {service: bigquery, project: acme, kinds: [copy]}"));
    refuses_what_no_method_can_say:
        allow("launch: {service: dataflow, project: acme, region: eu, template: 'gs://a/b', runAs: a, methods: [jobs.create]}");
    refuses_launches_of_one_method_whose_account_is_open: allow(
        "launch: {service: dataflow, project: acme, region: europe-west4, template: 'gs://acme-templates/orders/*', methods: \
         [templates.launch], protocols: [http]}");
    refuses_fields_of_other_launchers: format!("{}{}{}",
        allow("launch: {service: dataflow, project: acme, namespace: ci, template: orders}"),
        rule("b", "Allow", "launch: {service: tekton, project: acme, hosts: [api.prod.example]}"),
        rule("c", "Allow", "launch: {service: gitlab, project: group/orders, ref: main, runAs: me}"));
    refuses_launchers_that_are_unknown: allow("launch: {service: airflow, project: acme}");
    refuses_methods_that_start_nothing:
        allow("launch: {service: dataflow, project: acme, region: '*', methods: [templates.lauch, jobs.get]}");
    refuses_what_is_stated_and_left_open: allow(
        "launch: {service: dataflow, project: acme, region: '*', template: 'gs://a/b', methods: [templates.launch], protocols: \
         [http], unchecked: [template, runAs, parameters, replacesRunningJob]}");
    refuses_the_ref_of_a_pipeline: allow("launch: {service: gitlab, project: '4711', ref: main, hosts: [gitlab.example]}");
}

warned! {
    warns_of_a_deny_that_covers_whole_methods: deny(
        "resources: {service: pubsub, actions: [publish], names: ['projects/acme/topics/secret']}");
    warns_of_launches_as_a_default_account: allow(
        "launch: {service: dataflow, project: acme, region: eu, template: 'gs://acme-templates/*', runAs: default}");
    warns_of_a_deny_of_launches: deny(
        "launch: {service: dataflow, project: acme, region: '*', template: 'gs://acme-templates/*'}");
    warns_of_resources_that_are_there_twice: pubsub(
        "actions: [publish, publish], names: ['projects/*/topics/*', 'projects/*/topics/*']");
}

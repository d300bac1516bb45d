//! What the real issuers put into their tokens: every claim, with its real type.
//!
//! Sources: Google, "Verifying the identity of instances"; GitLab, "OpenID Connect (OIDC) Authentication Using ID
//! Tokens"; Kubernetes, `pkg/serviceaccount/claims.go`.

use serde_json::{Value, json};

use super::draft::now;
use super::{Draft, Issuer};

/// A Compute Engine VM, for example a Dataflow worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleInstance {
    /// The service account that the VM runs as.
    pub email: String,
    /// The service account's numeric id.
    pub subject: String,
    /// Project id.
    pub project: String,
    /// Project number.
    pub project_number: u64,
    /// As `europe-west4-b`.
    pub zone: String,
    /// The VM's id: a 64-bit number, which Google sends as a string.
    pub instance_id: String,
    /// The VM's name.
    pub instance_name: String,
}

/// A job of GitLab CI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitLabJob {
    /// The project's id; GitLab sends ids as strings.
    pub project_id: String,
    /// As `data/orders`.
    pub project_path: String,
    /// The namespace's id.
    pub namespace_id: String,
    /// The project whose code the job runs; another one in merge requests from forks.
    pub job_project_id: String,
    /// As `main`.
    pub branch: String,
    /// Whether the branch is protected; GitLab sends booleans as strings.
    pub protected: bool,
    /// As `push` or `merge_request_event`.
    pub source: String,
    /// The deployment environment, if the job has one.
    pub environment: Option<String>,
    /// As `developer`, `maintainer`.
    pub user_access_level: String,
}

/// A pod of a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesPod {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its name.
    pub pod: String,
}

impl Issuer {
    /// What the metadata server of `instance` gives for `format=full`: an identity token with `google.compute_engine`.
    pub fn instance_token(&self, instance: &GoogleInstance, audience: &str) -> Draft {
        self.service_account_token(instance, audience).claim(
            "google",
            json!({"compute_engine": {
                "project_id": instance.project,
                "project_number": instance.project_number,
                "zone": instance.zone,
                "instance_id": instance.instance_id,
                "instance_name": instance.instance_name,
                "instance_creation_timestamp": now() - 1000,
            }}),
        )
    }

    /// What `generateIdToken` gives for the account of `instance`: the same without `google.compute_engine`.
    pub fn service_account_token(&self, instance: &GoogleInstance, audience: &str) -> Draft {
        let now = now();
        self.draft(json!({
            "iss": self.url(),
            "aud": audience,
            "azp": instance.subject,
            "sub": instance.subject,
            "email": instance.email,
            "email_verified": true,
            "iat": now,
            "exp": now + 3600,
        }))
    }

    /// What a job gets from its `id_tokens:`.
    pub fn job_token(&self, job: &GitLabJob, audience: &str) -> Draft {
        let now = now();
        let namespace_path = job.project_path.split('/').next().unwrap_or_default();
        let host = self.url().trim_start_matches("https://");
        let mut claims = json!({
            "iss": self.url(),
            "aud": audience,
            "sub": format!("project_path:{}:ref_type:branch:ref:{}", job.project_path, job.branch),
            "iat": now,
            "nbf": now - 5,
            "exp": now + 300,
            "jti": "0b2f3c1a-0000-4000-8000-000000000002",
            "namespace_id": job.namespace_id,
            "namespace_path": namespace_path,
            "project_id": job.project_id,
            "project_path": job.project_path,
            "project_visibility": "private",
            "job_project_id": job.job_project_id,
            "job_project_path": job.project_path,
            "job_namespace_id": job.namespace_id,
            "job_namespace_path": namespace_path,
            "user_id": "9",
            "user_login": "sam",
            "user_email": "sam@example.com",
            "user_access_level": job.user_access_level,
            "pipeline_id": "574",
            "pipeline_source": job.source,
            "job_id": "302",
            "job_source": job.source,
            "ref": job.branch,
            "ref_type": "branch",
            "ref_path": format!("refs/heads/{}", job.branch),
            "ref_protected": job.protected.to_string(),
            "runner_id": 1,
            "runner_environment": "self-hosted",
            "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
            "ci_config_ref_uri":
                format!("{host}/{}//.gitlab-ci.yml@refs/heads/{}", job.project_path, job.branch),
            "ci_config_sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
        });
        if let (Some(environment), Some(members)) = (&job.environment, claims.as_object_mut()) {
            members.insert("environment".into(), environment.as_str().into());
            members.insert("environment_protected".into(), job.protected.to_string().into());
            members.insert("deployment_tier".into(), "production".into());
            members.insert("environment_action".into(), "start".into());
        }
        self.draft(claims)
    }

    /// What a projected volume of `pod` holds.
    pub fn pod_token(&self, pod: &KubernetesPod, audience: &str) -> Draft {
        let now = now();
        self.draft(json!({
            "aud": [audience],
            "iss": self.url(),
            "sub": format!("system:serviceaccount:{}:{}", pod.namespace, pod.service_account),
            "exp": now + 3600,
            "iat": now,
            "nbf": now,
            "jti": "6f6b8a5e-0000-4000-8000-000000000001",
            "kubernetes.io": {
                "namespace": pod.namespace,
                "serviceaccount": {
                    "name": pod.service_account,
                    "uid": "11111111-1111-4111-8111-111111111111",
                },
                "pod": {"name": pod.pod, "uid": "22222222-2222-4222-8222-222222222222"},
                "node": {"name": "node-1", "uid": "33333333-3333-4333-8333-333333333333"},
                "warnafter": now + 3607,
            },
        }))
    }

    /// Like [`Issuer::draft`], for claims that none of the other functions make; `iss` and the times are added.
    pub fn other_token(&self, mut claims: Value, lifetime_s: i64) -> Draft {
        let now = now();
        if let Some(members) = claims.as_object_mut() {
            members.insert("iss".into(), self.url().into());
            members.insert("iat".into(), now.into());
            members.insert("exp".into(), now.saturating_add(lifetime_s).into());
        }
        self.draft(claims)
    }
}

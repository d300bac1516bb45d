//! What further providers put into their tokens: every claim, with its real type.
//!
//! Sources: Microsoft, "Access token claims reference"; Okta, "Validate access tokens"; AWS, "Understanding token
//! claims" of outbound identity federation; GitHub, "OpenID Connect reference"; SPIFFE, `JWT-SVID.md`; RFC 9068.

use serde_json::json;

use super::draft::now;
use super::{Draft, Issuer, Shape};

impl Issuer {
    /// What a daemon gets from Entra with its own credential: a v2 token without a user.
    pub fn entra_app_token(&self, app: &str, audience: &str) -> Draft {
        let now = now();
        self.draft(json!({
            "aud": audience,
            "iss": self.url(),
            "iat": now,
            "nbf": now,
            "exp": now + 4500,
            "azp": app,
            "azpacr": "2",
            "idtyp": "app",
            "oid": "99999999-0000-4000-8000-000000000007",
            "sub": "99999999-0000-4000-8000-000000000007",
            "tid": Shape::ENTRA_TENANT,
            "roles": ["Ledger.Write"],
            "uti": "synthetic-0001",
            "ver": "2.0",
        }))
    }

    /// What a client gets from Okta with its own credential.
    pub fn okta_client_token(&self, client: &str, audience: &str) -> Draft {
        let now = now();
        self.draft(json!({
            "ver": 1,
            "jti": "AT.synthetic",
            "iss": self.url(),
            "aud": audience,
            "iat": now,
            "exp": now + 3600,
            "cid": client,
            "scp": ["orders.write"],
            "sub": client,
        }))
    }

    /// What `sts:GetWebIdentityToken` gives to a role of account 123456789012.
    pub fn aws_role_token(&self, role: &str, audience: &str) -> Draft {
        let now = now();
        self.draft(json!({
            "iss": self.url(),
            "aud": audience,
            "sub": format!("arn:aws:iam::123456789012:role/{role}"),
            "iat": now,
            "exp": now + 300,
            "jti": "synthetic-1",
            "https://sts.amazonaws.com/": {
                "aws_account": "123456789012",
                "source_region": "eu-west-1",
                "org_id": "o-example1234",
                "ou_path": "o-example1234/r-ab12/ou-ab12-11111111/",
                "principal_tags": {"team": "data"},
                "request_tags": {"job-id": "J-1"},
                "original_session_exp": "2026-11-21T10:00:00Z",
            },
        }))
    }

    /// What a job of the workflow `release.yml` on `main` of repository 456 gets.
    pub fn github_job_token(&self, audience: &str) -> Draft {
        let now = now();
        self.draft(json!({
            "iss": self.url(),
            "aud": audience,
            "sub": "repo:acme/orders:environment:production",
            "iat": now,
            "nbf": now - 5,
            "exp": now + 300,
            "jti": "example-id",
            "actor": "octocat",
            "actor_id": "12",
            "base_ref": "",
            "environment": "production",
            "event_name": "push",
            "head_ref": "",
            "job_workflow_ref": "acme/orders/.github/workflows/release.yml@refs/heads/main",
            "job_workflow_sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
            "ref": "refs/heads/main",
            "ref_type": "branch",
            "repository": "acme/orders",
            "repository_id": "456",
            "repository_owner": "acme",
            "repository_owner_id": "123",
            "repository_visibility": "private",
            "run_id": "30433642",
            "run_number": "1",
            "run_attempt": "1",
            "runner_environment": "github-hosted",
            "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
            "workflow": "release",
            "workflow_ref": "acme/orders/.github/workflows/release.yml@refs/heads/main",
            "workflow_sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
        }))
    }

    /// A JWT-SVID of the trust domain.
    pub fn jwt_svid(&self, path: &str, audience: &str) -> Draft {
        let now = now();
        self.draft(json!({
            "sub": format!("{}{path}", self.url()),
            "aud": [audience],
            "iat": now,
            "exp": now + 300,
        }))
    }

    /// An access token as RFC 9068 §2.2 has it.
    pub fn access_token(&self, client: &str, audience: &str) -> Draft {
        let now = now();
        self.draft(json!({
            "iss": self.url(),
            "aud": audience,
            "sub": client,
            "client_id": client,
            "iat": now,
            "exp": now + 600,
            "jti": "synthetic-2",
            "scope": "orders.read orders.write",
        }))
    }
}

//! What the demo has on disk, in one temporary folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::{AUDIENCE, orders_machine, orders_pod, release_job};
use crate::demo::issuers::Issuers;
use crate::demo::pki::Credential;
use crate::transport::TlsOptions;

/// Files that rules consist of, below the folder of rules.
const RULES: [(&str, &str); 4] = [
    ("issuers.yaml", include_str!("rules/issuers.yaml")),
    ("callers.yaml", include_str!("rules/callers.yaml")),
    ("guards.yaml", include_str!("rules/guards.yaml")),
    ("orders.yaml", include_str!("rules/orders.yaml")),
];

const MESH: &str = include_str!("rules/mesh.yaml");

/// The folder; dropping it removes it.
#[derive(Debug)]
pub struct WorldFiles {
    folder: tempfile::TempDir,
}

impl WorldFiles {
    /// Everything but the rules, which need the ports of what starts later.
    pub(super) fn create(issuers: &Issuers, edge_authority: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("tidegate-demo-")
            .tempdir()
            .context("cannot make a temporary folder; `TMPDIR` chooses another place")?;
        let files = Self { folder };
        make_folder(&files.rules())?;
        make_folder(&files.tokens())?;
        write(&files.rules().join("mesh.yaml"), MESH)?;
        write(&files.values(), "{}")?;
        let id = orders_machine().instance_id;
        write(&files.directory(), &json!({"dataflow/acme/europe-west4/orders-etl": [id]}).to_string())?;
        write(&files.issuer_authority(), issuers.authority_pem())?;
        write(&files.edge_authority(), edge_authority)?;
        let module = files.module();
        fs::write(&module, crate::FILTER_WASM).with_context(|| cannot_write(&module))?;
        files.write_tokens(issuers)?;
        Ok(files)
    }

    /// The rules, all at once, and the values that they refer to.
    pub(super) fn write_rules(&self, issuers: &Issuers, orders_port: u16) -> Result<()> {
        let values = json!({
            "googleKeys": issuers.google.jwks_uri(),
            "gitlab": issuers.gitlab.url(),
            "cluster": issuers.cluster.url(),
            "project": orders_machine().project,
            "ordersPort": orders_port.to_string(),
        });
        write(&self.values(), &format!("{values:#}"))?;
        // Names that begin with a dot are not read.
        let staging = self.rules().join(".new");
        make_folder(&staging)?;
        for (name, text) in RULES {
            write(&staging.join(name), text)?;
        }
        let place = self.rules().join("demo");
        fs::rename(&staging, &place).with_context(|| cannot_write(&place))
    }

    /// Tokens for people to use, fresh for some minutes.
    pub fn write_tokens(&self, issuers: &Issuers) -> Result<()> {
        let tokens = [
            ("pod", issuers.cluster.pod_token(&orders_pod(), AUDIENCE)),
            ("vm", issuers.google.instance_token(&orders_machine(), AUDIENCE)),
            ("job", issuers.gitlab.job_token(&release_job(), AUDIENCE)),
        ];
        for (name, draft) in tokens {
            write(&self.tokens().join(name), &draft.sign()?)?;
        }
        Ok(())
    }

    /// Changes the rules about orders: `before` becomes `after`. As editors do it: the new file takes the old one's place.
    pub fn edit_orders(&self, before: &str, after: &str) -> Result<()> {
        let path = self.orders_rules();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        anyhow::ensure!(text.contains(before), "`{}` has no `{before}` to change", path.display());
        let staging = path.with_file_name(".orders.yaml.new");
        write(&staging, &text.replacen(before, after, 1))?;
        fs::rename(&staging, &path).with_context(|| cannot_write(&path))
    }

    /// The control plane's certificate and its key, and whose certificates it takes.
    pub(super) fn write_identity(&self, credential: &Credential, authorities: &str) -> Result<()> {
        let files = self.identity();
        write(&files.certificate, &credential.chain_pem)?;
        write(&files.key, &credential.key_pem)?;
        write(&files.authorities, authorities)
    }

    /// Where they are. The folder is for this user only.
    pub fn identity(&self) -> TlsOptions {
        TlsOptions {
            certificate: self.at("control-plane.pem"),
            key: self.at("control-plane.key.pem"),
            authorities: self.at("mesh.pem"),
        }
    }

    /// The folder that the control plane watches.
    pub fn rules(&self) -> PathBuf {
        self.at("rules")
    }

    /// The rules about orders.
    pub fn orders_rules(&self) -> PathBuf {
        self.rules().join("demo").join("orders.yaml")
    }

    /// The control plane's state.
    pub fn state(&self) -> PathBuf {
        self.at("state")
    }

    /// Decisions that filters made.
    pub fn decisions(&self) -> PathBuf {
        self.at("decisions")
    }

    /// Which VMs belong to which job.
    pub fn directory(&self) -> PathBuf {
        self.at("directory.json")
    }

    /// Values for `${env.name}`.
    pub fn values(&self) -> PathBuf {
        self.at("values.json")
    }

    /// The authority of the issuers' servers, PEM.
    pub fn issuer_authority(&self) -> PathBuf {
        self.at("issuers.pem")
    }

    /// The authority of the gateway's server, PEM.
    pub fn edge_authority(&self) -> PathBuf {
        self.at("gateway.pem")
    }

    /// The filter.
    pub fn module(&self) -> PathBuf {
        self.at("filter.wasm")
    }

    /// Tokens for people to use: `pod`, `vm`, `job`.
    pub fn tokens(&self) -> PathBuf {
        self.at("tokens")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| cannot_write(path))
}

fn make_folder(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| cannot_write(path))
        }
        _ => Ok(()),
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`; is there space, and may this user write there?", path.display())
}

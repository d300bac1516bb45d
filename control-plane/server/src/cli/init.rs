//! `tidegate init`.

use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::asking::Who;
use super::{Ending, complain, folder, print};

mod decision;
mod token;

/// What is guarded if nobody says it.
const DEFAULT_WORKLOAD: &str = "sales/orders-api";
/// Who calls if nobody says it.
const DEFAULT_PEER: &str = "etl/orders-worker";

/// Write a first folder of rules, or a Shadow rule for what was refused; with their tests
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate init rules
  tidegate init rules --workload sales/orders-api --peer etl/orders-worker
  tidegate init rules --from-token token.txt
  tidegate init rules --from-decision error.json --request curl.txt --peer etl/orders-worker
  tidegate init rules --from-decision error.json --method POST --url https://orders.sales.example/v1/orders/7 \\
      --peer ci/runner --token-file token.txt

The Guard and the rule begin in Shadow mode: nothing is refused until you write Enforce. With --from-token the rule asks for such a
token, the issuer is declared, and the test has the token's claims; the token itself and its signature are not written anywhere.
Files that are there are never overwritten.

With --from-decision the folder has rules already. The file holds the error body that a refused caller got, or what `tidegate
explain -o json` wrote; the curl command line may be in it as well. An error body does not say what was asked or by whom. Rule and test
are decided by the engine before they are written. Where another Allow would not help (a Deny, a token that is refused), nothing is
written, and what helps is said.

Exit codes: 0 written; 1 a file is there already, the token cannot be used, or the decision tells too little; 2 the command line is
wrong; 3 the folder cannot be written, or holds no rules.")]
pub(super) struct Arguments {
    /// Folder to write; made if it is not there
    #[arg(value_name = "DIR", default_value = "rules")]
    folder: PathBuf,
    /// The workload that is guarded [default: sales/orders-api; with --from-decision the one that the URL's host is about]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: Option<String>,
    /// The mesh's trust domain
    #[arg(long, default_value = "cluster.local")]
    trust_domain: String,
    /// File with a token of the caller; - for standard input
    #[arg(long, value_name = "FILE")]
    from_token: Option<PathBuf>,
    /// File with an error body, or with a decision that `tidegate explain -o json` wrote; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "from_token")]
    from_decision: Option<PathBuf>,
    /// File with the curl command line that was refused
    #[arg(long, value_name = "FILE", requires = "from_decision", conflicts_with = "url")]
    request: Option<PathBuf>,
    /// Method of the request that was refused [default: GET]
    #[arg(long, requires = "url")]
    method: Option<String>,
    /// URL of the request that was refused
    #[arg(long, requires = "from_decision")]
    url: Option<String>,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE", requires = "from_decision")]
    env: Option<PathBuf>,
    #[command(flatten)]
    who: Who,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let names = |text: &str, flag: &str| match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(anyhow::anyhow!("`{flag} {text}`: write `namespace/name`")),
    };
    if let Some(file) = &arguments.from_decision {
        return from_decision(arguments, file);
    }
    let Who { token, token_file, at, directory, .. } = &arguments.who;
    if !token.is_empty() || !token_file.is_empty() || at.is_some() || directory.is_some() {
        bail!(
            "--token, --token-file, --at and --directory are for --from-decision; a token to begin with is given with --from-token"
        );
    }
    let workload = names(arguments.workload.as_deref().unwrap_or(DEFAULT_WORKLOAD), "--workload")?;
    let token = match &arguments.from_token {
        None => None,
        Some(file) => match token::read(&input(file)?) {
            Ok(token) => Some(token),
            Err(why) => {
                complain(&why);
                return Ok(Ending::Refused);
            }
        },
    };
    let of_token = token.as_ref().and_then(|token| token.peer.clone());
    let peer = arguments.who.peer.clone().or(of_token).unwrap_or_else(|| DEFAULT_PEER.to_owned());
    let peer = names(&peer, "--peer")?;
    let files = files(&workload, &peer, &arguments.trust_domain, token.as_ref());
    let files: Vec<(String, String)> =
        files.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
    write_all(&arguments.folder, &files)
}

/// A rule for what was refused, beside those that are there.
fn from_decision(arguments: &Arguments, file: &Path) -> anyhow::Result<Ending> {
    let told = String::from_utf8_lossy(&input(file)?).into_owned();
    let request = arguments.request.as_deref().map(input).transpose()?;
    let request = request.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let opened = match folder::open(&arguments.folder, arguments.env.as_deref())? {
        Ok(opened) => opened,
        Err(ending) => return Ok(ending),
    };
    let given = decision::Given {
        told: &told,
        request: request.as_deref(),
        method: arguments.method.as_deref(),
        url: arguments.url.as_deref(),
        workload: arguments.workload.as_deref(),
        who: &arguments.who,
    };
    match decision::draft(&given, &opened, &arguments.folder)? {
        Ok(draft) => {
            draft.notes.iter().for_each(|note| complain(note));
            write_all(&arguments.folder, &draft.files)
        }
        Err(why) => {
            complain(&why);
            Ok(Ending::Refused)
        }
    }
}

fn write_all(folder: &Path, files: &[(String, String)]) -> anyhow::Result<Ending> {
    for (name, _) in files {
        if folder.join(name).exists() {
            complain(&format!("`{}` is there already; nothing was written", folder.join(name).display()));
            return Ok(Ending::Refused);
        }
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    let mut told = String::new();
    for (name, text) in files {
        write(&folder.join(name), text)?;
        told.push_str(&format!("wrote {}\n", folder.join(name).display()));
    }
    let folder = folder.display();
    told.push_str(&format!("next: tidegate check {folder} && tidegate test {folder}\n"));
    print(&told)?;
    Ok(Ending::Done)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = opened.with_context(|| format!("cannot write `{}`", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write `{}`", path.display()))
}

fn input(file: &Path) -> anyhow::Result<Vec<u8>> {
    const MAX: u64 = 1 << 20;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        if std::io::stdin().is_terminal() {
            complain("paste the token, then press Ctrl-D on a line of its own");
        }
        std::io::stdin().lock().take(MAX).read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        let opened = fs::File::open(file).with_context(|| format!("cannot read `{}`", file.display()))?;
        opened
            .take(MAX)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read `{}`", file.display()))?;
    }
    if bytes.is_empty() {
        bail!("there is nothing in it");
    }
    Ok(bytes)
}

/// Names and contents.
fn files(
    (namespace, name): &(String, String),
    (peer_namespace, account): &(String, String),
    trust_domain: &str,
    token: Option<&token::Known>,
) -> Vec<(&'static str, String)> {
    let mesh = format!(
        "\
# Which workloads there are. In Kubernetes this will be read from the cluster.
apiVersion: tidegate.dev/v1alpha1
kind: Mesh
metadata: {{name: mesh}}
spec:
  trustDomain: {trust_domain}
  rootNamespace: istio-system
  workloads:
  - {{namespace: {namespace}, name: {name}, labels: {{app: {name}}}, serviceAccount: {name}}}
---
# What no rule allows is refused, once this says Enforce. Shadow only reports.
apiVersion: tidegate.dev/v1alpha1
kind: Guard
metadata: {{name: {namespace}, namespace: {namespace}}}
spec: {{mode: Shadow, audience: \"{audience}\"}}
",
        audience = token
            .and_then(|token| token.audience.clone())
            .unwrap_or_else(|| format!("https://{name}.{namespace}.example")),
    );
    let tokens = token.map(|token| format!("\n    tokens: [{}]", token.demand)).unwrap_or_default();
    let caller = format!(
        "\
# Who calls, by whatever they are known.
apiVersion: tidegate.dev/v1alpha1
kind: Caller
metadata: {{name: {account}, namespace: {namespace}}}
spec:
  anyOf:
  - peer: {{namespace: {peer_namespace}, serviceAccounts: [{account}]}}{tokens}
---
# Evaluated and reported, not enforced: write Enforce when its test and its reports are as you want them.
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {{name: {account}-reads, namespace: {namespace}}}
spec:
  owner: team-{namespace}
  target: {{selector: {{matchLabels: {{app: {name}}}}}}}
  effect: Allow
  mode: Shadow
  from: [{{caller: {namespace}/{account}}}]
  to: [{{http: {{methods: [GET], paths: [\"/v1/{{**}}\"]}}}}]
"
    );
    let mut files = vec![("mesh.yaml", mesh), ("first.yaml", caller)];
    files.extend(token.map(|token| ("issuer.yaml", token.declaration.clone())));
    let claims = token.map(|token| token.read_by(&files)).unwrap_or_default();
    let (named, sent) = match token {
        Some(token) => (
            format!("\n  tokens:\n    own: {{issuer: {}, claims: {claims}}}", token.issuer),
            ", tokens: [own]",
        ),
        None => (String::new(), ""),
    };
    let test = format!(
        "\
apiVersion: tidegate.dev/v1alpha1
kind: RuleTest
metadata: {{name: {account}}}
spec:
  workload: {namespace}/{name}
  defaults: {{peer: {peer_namespace}/{account}, path: /v1/things/7{sent}}}{named}
  tests:
  # The Guard is in Shadow mode: everything passes, and what Enforce would do is in `shadow`.
  - name: the caller reads
    expect: {{decision: Allow, shadow: {{decision: Allow}}}}
  - name: it does not delete
    request: {{method: DELETE}}
    expect: {{decision: Allow, shadow: {{decision: Deny}}}}
  - name: another account does not read
    request: {{peer: {peer_namespace}/somebody-else}}
    expect: {{decision: Allow, shadow: {{decision: Deny}}}}
"
    );
    files.push(("first.test.yaml", test));
    files
}

#[cfg(test)]
mod tests;

//! `tidegate issuer add`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tidegate_identity::PackKind;
use tidegate_identity::keys::KeySelection;
use url::Url;

use self::asked::Asked;
use self::draft::Draft;
use self::guess::pack_of;
use crate::cli::fetching::FetchOptions;
use crate::cli::text::visible;
use crate::cli::{Ending, print, runtime};
use crate::clock;
use crate::keys::{FetchError, Fetcher, KeySource, ProviderMetadata, fit_keys};

mod asked;
mod draft;
mod guess;

/// Ask an issuer what it says of itself, and print a TrustedIssuer
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate issuer add https://gitlab.example > rules/gitlab.yaml
  tidegate issuer add https://login.microsoftonline.com/bbbbbbbb-0000-4000-8000-000000000002/v2.0 --name entra
  tidegate issuer add https://gitlab.corp.example --allow-issuer-network 10.20.0.0/16 --issuer-ca corp-ca.pem
  kubectl get --raw /openid/v1/jwks > keys.json
  tidegate issuer add https://kubernetes.default.svc --keys keys.json --name prod-cluster
  tidegate issuer add spiffe://batch.example --jwks-uri https://spire.batch.example/bundle

The issuer is asked as the control plane will ask it: over https, only at public addresses and those that are allowed here.
Nothing is written: what is printed is to be read, and put beside the rules.

Exit codes: 0 printed; 2 the command line is wrong; 3 the issuer cannot be asked, or cannot be trusted as it is.")]
pub(super) struct Arguments {
    /// The `iss` of its tokens: an https URL, or spiffe://TRUST-DOMAIN
    #[arg(value_name = "URL")]
    issuer: Asked,
    /// What rules call it [default: from the URL]
    #[arg(long, value_name = "NAME", value_parser = draft::name)]
    name: Option<String>,
    /// File with its key set (JWKS), to be written into the rules. For issuers that the control plane does not reach
    #[arg(long, value_name = "FILE", conflicts_with = "jwks_uri")]
    keys: Option<PathBuf>,
    /// Where its key set is. For issuers without a discovery document
    #[arg(long, value_name = "URL")]
    jwks_uri: Option<String>,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
    #[command(flatten)]
    fetching: FetchOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// With comments that say what to do next
    Yaml,
    /// For programs
    Json,
}

/// What was found out.
struct Found {
    /// Its own name, as tokens have it.
    issuer: String,
    pack: PackKind,
    source: KeySource,
    /// The key set as it is published.
    document: String,
    keys: KeySelection,
    /// Where the keys were found.
    at: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let asked = &arguments.issuer;
    asked.check_password()?;
    let found = match (&arguments.keys, &arguments.jwks_uri) {
        (Some(file), _) => from_file(asked, file)?,
        (None, jwks_uri) => {
            let fetcher = arguments.fetching.fetcher()?;
            runtime()?.block_on(from_network(asked, jwks_uri.as_deref(), &fetcher))?
        }
    };
    if let Some(why) = found.pack.refuses_issuer(&found.issuer) {
        bail!("`{}` cannot be trusted: {why}", visible(&found.issuer));
    }
    if let Some(warning) = other_host(&asked.issuer, &found.issuer) {
        eprintln!("ATTENTION: {warning}");
    }
    let draft = Draft::new(found, arguments.name.clone());
    match arguments.output {
        Output::Yaml => print(&draft.yaml(clock::now()))?,
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&draft.object())?))?,
    }
    Ok(Ending::Done)
}

fn from_file(asked: &Asked, file: &std::path::Path) -> anyhow::Result<Found> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let pack = pack_of(&asked.issuer, None);
    let keys = fit_keys(&text, pack).map_err(|why| {
        anyhow::anyhow!(
            "`{}`: {why}; it must be a JSON Web Key Set, {{\"keys\": […]}}, as the issuer publishes it",
            file.display()
        )
    })?;
    let source = KeySource::Inline(text.clone());
    let (issuer, at) = (asked.issuer.clone(), file.display().to_string());
    Ok(Found { issuer, pack, source, document: text, keys, at })
}

async fn from_network(asked: &Asked, jwks_uri: Option<&str>, fetcher: &Fetcher) -> anyhow::Result<Found> {
    let (issuer, pack, source) = match jwks_uri {
        Some(url) => (asked.issuer.clone(), pack_of(&asked.issuer, None), KeySource::Url(url.to_owned())),
        None => {
            let metadata = discover(asked, fetcher).await?;
            let pack = pack_of(&metadata.issuer, Some(&metadata));
            (metadata.issuer.clone(), pack, KeySource::Discovery(metadata.issuer))
        }
    };
    let fetched = fetcher.keys(&source, None).await.map_err(|error| unreachable(asked, &error))?;
    let document = fetched.document.unwrap_or_default();
    let keys =
        fit_keys(&document, pack).map_err(|why| anyhow::anyhow!("`{}`: {}", fetched.url, visible(&why)))?;
    Ok(Found { issuer, pack, source, document, keys, at: fetched.url })
}

/// What the issuer says of itself, under the name that it gives itself.
async fn discover(asked: &Asked, fetcher: &Fetcher) -> anyhow::Result<ProviderMetadata> {
    asked.has_metadata()?;
    let first = fetcher.discover(&asked.issuer).await.map_err(|error| unreachable(asked, &error))?;
    if first.issuer == asked.issuer {
        return Ok(first);
    }
    // A slash more or less, or a tenant's domain instead of its id: what it calls itself is what tokens say. But only if it
    // says so there too.
    let again = fetcher.discover(&first.issuer).await;
    match again {
        Ok(again) if again.issuer == first.issuer => Ok(again),
        _ => bail!(
            "`{}` says that the issuer is `{}`, where nothing says so; ask for the issuer as its tokens name it (`iss`)",
            first.url,
            visible(&first.issuer)
        ),
    }
}

/// What to say when another host's issuer would be trusted than the one that was asked for: whoever serves a discovery
/// document can name any issuer in it, also one that gives tokens to everybody.
fn other_host(asked: &str, named: &str) -> Option<String> {
    let place = |issuer: &str| {
        let url = Url::parse(issuer).ok()?;
        Some((url.host_str()?.to_owned(), url.port_or_known_default()))
    };
    let is_same = asked == named || place(asked).is_some_and(|asked| place(named) == Some(asked));
    (!is_same).then(|| {
        format!(
            "`{}` says that its issuer is `{}`, at another host. Whoever makes tokens there would be trusted; use what is \
             printed only if you know that host to be the issuer",
            visible(asked),
            visible(named)
        )
    })
}

/// What to do about an issuer that cannot be asked.
fn unreachable(asked: &Asked, error: &FetchError) -> anyhow::Error {
    let told = visible(&error.to_string());
    let fix = match error {
        FetchError::Status { status: 404, .. } => {
            "; the issuer has no discovery document there: check the URL, or say with --jwks-uri or --keys where its keys are"
        }
        FetchError::Address(_) => "; or give its keys with --keys FILE",
        FetchError::Transport { .. } if told.contains("certificate") => {
            "; if a private certificate authority has signed it, --issuer-ca names the authority's PEM file"
        }
        FetchError::Transport { .. } => "; check the URL, or give its keys with --keys FILE",
        FetchError::Document { .. } if told.contains("not provider metadata") => {
            "; is this the issuer? Its `iss` is in its tokens: `tidegate token explain`"
        }
        _ => "",
    };
    let kubernetes = match pack_of(&asked.issuer, None) {
        PackKind::Kubernetes => " (`kubectl get --raw /openid/v1/jwks` prints those of a cluster)",
        _ => "",
    };
    anyhow::anyhow!("{told}{fix}{kubernetes}")
}

#[cfg(test)]
mod tests;

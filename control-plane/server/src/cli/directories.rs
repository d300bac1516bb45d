//! Where directories are read.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::directories::{ApiOptions, ClusterOptions, GoogleOptions, Options};

#[derive(Debug, Args)]
#[command(next_help_heading = "Directories")]
pub(super) struct DirectoryOptions {
    /// JSON file with directories: {"dataflow/acme/europe-west4/orders-etl": ["4570…"], …}. What it lists is not read
    /// anywhere else
    #[arg(long, value_name = "FILE")]
    pub(super) directory: Option<PathBuf>,
    /// How often the workers of Dataflow jobs and the pods of Tekton runs that rules name are read
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    directory_interval: u64,
    /// How long a reading counts. When no other follows, every answer is unknown: an Allow does not match, a Deny does
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = clap::value_parser!(u64).range(4..=86_400))]
    directory_freshness: u64,
    /// The Dataflow API
    #[arg(long, value_name = "URL", default_value_t = GoogleOptions::default().dataflow)]
    dataflow_api: String,
    /// The Compute Engine API
    #[arg(long, value_name = "URL", default_value_t = GoogleOptions::default().compute)]
    compute_api: String,
    /// The metadata server, which gives the credentials for both
    #[arg(long, value_name = "URL", default_value_t = GoogleOptions::default().metadata)]
    metadata_server: String,
    /// The Kubernetes API of the cluster whose tokens a TrustedIssuer stands for. Only the name: the cluster that this runs
    /// in. May be given several times
    #[arg(long, value_name = "ISSUER[=URL][,token=FILE][,ca=FILE]")]
    tekton_cluster: Vec<ClusterOptions>,
}

// === impl DirectoryOptions ===

impl From<DirectoryOptions> for Options {
    fn from(options: DirectoryOptions) -> Self {
        Self {
            every: Duration::from_secs(options.directory_interval),
            fresh_for: Duration::from_secs(options.directory_freshness),
            google: GoogleOptions {
                dataflow: options.dataflow_api,
                compute: options.compute_api,
                metadata: options.metadata_server,
            },
            clusters: options.tekton_cluster,
        }
    }
}

impl FromStr for ClusterOptions {
    type Err = String;

    /// `ISSUER`, or `ISSUER=URL` with `,token=FILE` and `,ca=FILE` in any order.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let (issuer, url) = match first.split_once('=') {
            Some((issuer, url)) => (issuer, Some(url)),
            None => (first, None),
        };
        if issuer.is_empty() {
            return Err("begins with the name of a TrustedIssuer".to_owned());
        }
        let (mut token, mut ca) = (None, None);
        for part in parts {
            let (place, file) = match part.split_once('=') {
                Some(("token", file)) => (&mut token, file),
                Some(("ca", file)) => (&mut ca, file),
                _ => return Err(format!("`{part}` is neither `token=FILE` nor `ca=FILE`")),
            };
            if file.is_empty() || place.replace(PathBuf::from(file)).is_some() {
                return Err(format!("`{part}`: one file, once"));
            }
        }
        let api = match url {
            Some(url) => Some(ApiOptions { url: url.to_owned(), token, ca }),
            None if token.is_some() || ca.is_some() => {
                return Err(format!(
                    "without an address the pod's own files are used; write `{issuer}=https://HOST:PORT,…`"
                ));
            }
            None => None,
        };
        Ok(Self { issuer: issuer.to_owned(), api })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ClusterOptions, String> {
        text.parse()
    }

    #[test]
    fn a_cluster_is_this_one_or_has_an_address() {
        assert_eq!(parse("prod").unwrap(), ClusterOptions { issuer: "prod".into(), api: None });
        let api = |url: &str, token: Option<&str>, ca: Option<&str>| {
            Some(ApiOptions { url: url.into(), token: token.map(Into::into), ca: ca.map(Into::into) })
        };
        assert_eq!(parse("a=https://h:6443").unwrap().api, api("https://h:6443", None, None));
        let both = api("https://h", Some("/t"), Some("/c"));
        assert_eq!(parse("a=https://h,token=/t,ca=/c").unwrap().api, both);
        assert_eq!(parse("a=https://h,ca=/c,token=/t").unwrap().api, both);
    }

    #[test]
    fn what_is_no_cluster_says_why() {
        for (text, why) in [
            ("", "name of a TrustedIssuer"),
            ("=https://h", "name of a TrustedIssuer"),
            ("a=https://h,token=", "one file"),
            ("a=https://h,token=/t,token=/u", "once"),
            ("a=https://h,key=/k", "neither"),
            ("a=https://h,", "neither"),
            ("a,token=/t", "without an address"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}

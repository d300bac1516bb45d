//! `tidegate evidence`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::decisions::{moment, query};
use super::running::{AdminTls, DEFAULT_ADMIN, answered, ask, base};
use super::text::{count, labelled};
use super::{Ending, complain, folder, print, runtime};
use crate::admin::{EvidenceKey, Frame};
use crate::evidence::{Verified, verify};

/// How long the control plane may say nothing: it looks through a store that may be large.
const SILENCE: Duration = Duration::from_secs(120);
/// How long an export may take.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);
/// Longest line of the control plane, in bytes.
const MAX_LINE: usize = 4 << 20;

/// Export what auditors ask for, so that nobody can change it unnoticed: decisions, rules, who can do what, exceptions, gaps
#[derive(Debug, Args)]
#[command(
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  tidegate evidence --from 2026-10-01T00:00:00Z --to 2026-11-01T00:00:00Z -o evidence-october
  tidegate evidence --from 7d --to 0s                         # the last week
  tidegate evidence key                                       # the fingerprint; tell it to the auditor by another way
  tidegate evidence verify evidence-october --fingerprint 9f3c…

The folder has tables (CSV, RFC 4180; no cell is a formula), CONTROLS.md, which says what answers which control of SOC 2 and
ISO/IEC 27001 and where the limits are, and a signed chain of hashes over every line. Decisions of the time from --from until
before --to are in it as far as they are kept (`tidegate serve --decisions…`); where records are missing, that is in
record-gaps.csv. Claims that are not marked safe, tokens and secrets are not in it. Rules and who can do what are as of now.

Exit codes: 0 it is written; 2 the command line is wrong; 3 the control plane does not answer, or the folder cannot be written."
)]
pub(super) struct Arguments {
    /// Decided then or later: 2026-10-01T00:00:00Z, or how long ago, e.g. 30d
    #[arg(long, value_name = "TIME", required = true)]
    from: Option<String>,
    /// Decided before then
    #[arg(long, value_name = "TIME", required = true)]
    to: Option<String>,
    /// Folder that is made
    #[arg(short, long, value_name = "DIR", default_value = "evidence")]
    output: PathBuf,
    #[command(flatten)]
    asked: Asked,
    #[command(subcommand)]
    command: Option<Command>,
}

/// The control plane that is asked.
#[derive(Debug, Args)]
struct Asked {
    /// Admin address of a running control plane
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,
    #[command(flatten)]
    tls: AdminTls,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(VerifyArguments),
    Key(KeyArguments),
}

/// Find out whether anything was changed in an export, and who signed it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate evidence verify evidence-october --fingerprint 9f3c1e…    # of `tidegate evidence key`, told by another way
  tidegate evidence verify evidence-october --any-key                # whole, whoever signed it

Every byte of every file is looked at, and files that are missing or do not belong there are told. Without the fingerprint of the
right key somebody could have changed everything and signed it anew.

Exit codes: 0 nothing was changed; 1 something was, or another key signed it; 2 the command line is wrong; 3 the folder cannot be
read.")]
struct VerifyArguments {
    /// Folder of an export
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// SHA-256 of the public key that must have signed it, hexadecimal
    #[arg(long, value_name = "SHA256", required_unless_present = "any_key", conflicts_with = "any_key")]
    fingerprint: Option<String>,
    /// Do not look at whose key it is
    #[arg(long)]
    any_key: bool,
}

/// Say which key signs exports
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate evidence key
  tidegate evidence key -o json | jq -r .fingerprint

It is the key that signs what filters enforce; a signature of one kind is none of the other.

Exit codes: 0 it is told; 2 the command line is wrong; 3 the control plane does not answer.")]
struct KeyArguments {
    #[command(flatten)]
    asked: Asked,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people: the fingerprint
    Text,
    /// For programs
    Json,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    match (&arguments.command, &arguments.from, &arguments.to) {
        (Some(Command::Verify(arguments)), ..) => check(arguments),
        (Some(Command::Key(KeyArguments { asked, output })), ..) => {
            let key: EvidenceKey = ask(&asked.admin, &asked.tls, "/evidence/key")?;
            match output {
                Output::Json => folder::print_json(&key)?,
                Output::Text => print(&format!("{}\n", key.fingerprint))?,
            }
            Ok(Ending::Done)
        }
        (None, Some(from), Some(to)) => export(arguments, from, to),
        (None, ..) => Ok(Ending::Usage),
    }
}

fn check(arguments: &VerifyArguments) -> anyhow::Result<Ending> {
    let folder = &arguments.folder;
    let cannot = || format!("cannot read `{}`", folder.display());
    match verify(folder).with_context(cannot)? {
        Err(wrong) => {
            for why in &wrong {
                complain(why);
            }
            complain(&format!("`{}` is not as it was exported", folder.display()));
            Ok(Ending::Refused)
        }
        Ok(verified) => {
            let wanted = arguments.fingerprint.as_deref().map(|print| print.trim().to_ascii_lowercase());
            if let Some(wanted) = wanted.filter(|wanted| *wanted != verified.fingerprint) {
                complain(&format!(
                    "it was signed with the key {}, and not with {wanted}: somebody else made it",
                    verified.fingerprint
                ));
                return Ok(Ending::Refused);
            }
            print(&told(&verified, arguments.any_key))?;
            Ok(Ending::Done)
        }
    }
}

fn told(verified: &Verified, any_key: bool) -> String {
    let Verified { manifest, fingerprint } = verified;
    let mut text = format!("Nothing was changed: {}.\n", count(manifest.files.len(), "file"));
    text.push_str(&labelled("from", &manifest.from.to_string()));
    text.push_str(&labelled("to", &manifest.to.to_string()));
    text.push_str(&labelled("made", &format!("{} by {}", manifest.made, manifest.made_by)));
    let whose = if any_key { " (whose that is was not looked at)" } else { "" };
    text.push_str(&labelled("key", &format!("{fingerprint}{whose}")));
    text
}

fn export(arguments: &Arguments, from: &str, to: &str) -> anyhow::Result<Ending> {
    let folder = &arguments.output;
    if folder.exists() {
        complain(&format!(
            "`{}` is there already; exports are not mixed: name another --output",
            folder.display()
        ));
        return Ok(Ending::Usage);
    }
    let pairs = [("from", moment("--from", from)?.to_string()), ("to", moment("--to", to)?.to_string())];
    let url = format!("{}{}", base(&arguments.asked.admin), query("/evidence", &pairs));
    let client = arguments.asked.tls.client(&url)?;
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let staged = tempfile::Builder::new().prefix(".evidence-").tempdir_in(parent);
    let staged = staged.with_context(|| format!("cannot write into `{}`", parent.display()))?;
    runtime()?.block_on(fetch(&client, &url, staged.path()))?;
    let verified = verify(staged.path())?
        .map_err(|wrong| anyhow!("what came is not whole, nothing is kept: {}", wrong.join("; ")))?;
    let staged = staged.keep();
    fs::rename(&staged, folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let lines = |name: &str| {
        let file = verified.manifest.files.iter().find(|file| file.name == name);
        usize::try_from(file.map_or(0, |file| file.lines.saturating_sub(1))).unwrap_or(usize::MAX)
    };
    let folder = folder.display();
    print(&format!(
        "{folder}: {}, {}, {}\nsigned with {}\nnext: read {folder}/CONTROLS.md; tidegate evidence verify {folder} --fingerprint {}\n",
        count(lines("decisions.csv"), "record"),
        count(lines("record-gaps.csv"), "gap"),
        count(lines("exceptions.csv"), "exception"),
        verified.fingerprint,
        verified.fingerprint
    ))?;
    Ok(Ending::Done)
}

/// Writes the files of an export into a folder.
async fn fetch(client: &reqwest::Client, url: &str, folder: &Path) -> anyhow::Result<()> {
    let asked = || {
        format!(
            "no export of {url}; `--admin` must be the admin address of a running `tidegate serve` of this version"
        )
    };
    let response = client.get(url).timeout(PATIENCE).send().await.with_context(asked)?;
    let mut response = answered(response).await.with_context(asked)?;
    let mut file: Option<BufWriter<File>> = None;
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let chunk = tokio::time::timeout(SILENCE, response.chunk()).await;
        let chunk = chunk.map_err(|_| anyhow!("the control plane says nothing any more"))?;
        let Some(chunk) = chunk.context("the connection broke")? else {
            bail!("the control plane ended before the export was whole");
        };
        buffer.extend_from_slice(&chunk);
        let mut begin = 0;
        while let Some(end) = buffer[begin..].iter().position(|byte| *byte == b'\n').map(|at| begin + at) {
            let frame = serde_json::from_slice(&buffer[begin..end]);
            begin = end + 1;
            let frame = frame.context("the control plane says something else; is it another version?")?;
            match frame {
                Frame::File(name) => {
                    close(file.take())?;
                    file = Some(create(folder, &name)?);
                }
                Frame::Text(text) => match &mut file {
                    Some(file) => file.write_all(text.as_bytes())?,
                    None => bail!("the control plane sends text of no file"),
                },
                Frame::Failed(why) => bail!("the control plane cannot make it: {why}"),
                Frame::End => return Ok(close(file.take())?),
            }
        }
        buffer.drain(..begin);
        if buffer.len() > MAX_LINE {
            bail!("the control plane sends a line without an end; is it another version?");
        }
    }
}

fn close(file: Option<BufWriter<File>>) -> io::Result<()> {
    match file {
        None => Ok(()),
        Some(file) => file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all(),
    }
}

/// A file of the export, and never one elsewhere.
fn create(folder: &Path, name: &str) -> anyhow::Result<BufWriter<File>> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_plain) {
        bail!("the control plane names a file `{}`, which is none of an export", super::text::visible(name));
    }
    let path = folder.join(name);
    let file = File::create_new(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(BufWriter::new(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_an_export_are_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "..", "../x", "/etc/passwd", "a/b", ".hidden", "a\\b", "a\u{0}"] {
            assert!(create(folder.path(), name).is_err(), "{name:?}");
        }
        create(folder.path(), "decisions.csv").unwrap();
        assert!(create(folder.path(), "decisions.csv").is_err(), "not twice");
    }
}

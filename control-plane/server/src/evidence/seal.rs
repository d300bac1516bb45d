//! What makes that a change is found.
//!
//! Lines are hashed in blocks; each block's hash goes into the next link of one chain over all files. `chain.csv` has the
//! links, so that what was changed is found to within a block; `manifest.json` has each file's digest and the last link, and
//! `signature.json` a signature over the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Inputs, Sink, row};
use crate::bundle::{EvidenceSignature, TrustedKey, hex, sha256};
use crate::decisions::record::Moment;

/// The signed list of files.
pub const MANIFEST: &str = "manifest.json";
/// Its signature.
pub const SIGNATURE: &str = "signature.json";
/// The links of the chain.
pub const CHAIN: &str = "chain.csv";
/// The form of an export.
const FORMAT: &str = "tidegate.evidence/1";
/// Lines per block.
const BLOCK: u64 = 256;
/// Longest line, manifest or signature that is read, in bytes.
const MAX_READ: u64 = 16 << 20;

/// What an export consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// `tidegate.evidence/1`.
    pub format: String,
    /// Decided then or later.
    pub from: Moment,
    /// Decided before then.
    pub to: Moment,
    /// When it was made.
    pub made: Moment,
    /// The version of the control plane that made it.
    pub made_by: String,
    /// Number and digest of the rules that were on offer then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<(u64, String)>,
    /// Every file but this one and its signature, in the order in which they were written.
    pub files: Vec<FileSeal>,
    /// The last link of the chain, hexadecimal.
    pub chain: String,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSeal {
    /// Its name.
    pub name: String,
    /// How many lines it has.
    pub lines: u64,
    /// And bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// What is in `signature.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignatureFile {
    /// For people: what was signed, and how.
    pub algorithm: String,
    /// The key. Whose it is, the export itself cannot prove.
    pub key: TrustedKey,
    /// SHA-256 of the public key, hexadecimal.
    pub fingerprint: String,
    /// Base64.
    pub signature: String,
}

/// An export in which nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What it says.
    pub manifest: Manifest,
    /// Of the key that signed it.
    pub fingerprint: String,
}

/// Writes files and hashes them.
pub struct Writer<'s> {
    sink: &'s mut dyn Sink,
    span: (Moment, Moment),
    link: [u8; 32],
    /// Lines of `chain.csv`.
    links: Vec<String>,
    files: Vec<FileSeal>,
    current: Option<Hashing>,
}

/// A file that is being hashed.
struct Hashing {
    name: String,
    whole: Context,
    block: Context,
    /// Lines in the block.
    pending: u64,
    lines: u64,
    bytes: u64,
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    name: String,
    /// The first line of the block, from 1.
    first: u64,
    lines: u64,
    sha256: [u8; 32],
}

// === impl Link ===

impl Link {
    fn after(&self, before: &[u8; 32]) -> [u8; 32] {
        let mut content = before.to_vec();
        content.extend_from_slice(self.name.as_bytes());
        content.push(0);
        content.extend_from_slice(&self.first.to_be_bytes());
        content.extend_from_slice(&self.lines.to_be_bytes());
        content.extend_from_slice(&self.sha256);
        sha256(&content)
    }
}

fn first_link((from, to): (Moment, Moment)) -> [u8; 32] {
    sha256(format!("{FORMAT}\0{from}\0{to}").as_bytes())
}

fn digest(context: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    let digest = context.finish();
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    bytes
}

// === impl Hashing ===

impl Hashing {
    fn new(name: &str) -> Self {
        let (whole, block) = (Context::new(&SHA256), Context::new(&SHA256));
        Self { name: name.to_owned(), whole, block, pending: 0, lines: 0, bytes: 0 }
    }

    /// A line, with its end. A block that is full is a link.
    fn line(&mut self, line: &[u8]) -> Option<Link> {
        self.whole.update(line);
        self.block.update(line);
        self.bytes = self.bytes.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        self.lines = self.lines.saturating_add(1);
        self.pending = self.pending.saturating_add(1);
        (self.pending >= BLOCK).then(|| self.link())
    }

    fn link(&mut self) -> Link {
        let block = std::mem::replace(&mut self.block, Context::new(&SHA256));
        let lines = std::mem::take(&mut self.pending);
        let first = self.lines.saturating_sub(lines).saturating_add(1);
        Link { name: self.name.clone(), first, lines, sha256: digest(block) }
    }

    /// The last link, if lines are left, and what there is to say of the file.
    fn end(mut self) -> (Option<Link>, FileSeal) {
        let link = (self.pending > 0).then(|| self.link());
        let seal = FileSeal {
            name: self.name,
            lines: self.lines,
            bytes: self.bytes,
            sha256: hex(&digest(self.whole)),
        };
        (link, seal)
    }
}

// === impl Writer ===

impl<'s> Writer<'s> {
    pub(super) fn new(sink: &'s mut dyn Sink, span: (Moment, Moment)) -> Self {
        let link = first_link(span);
        Self { sink, span, link, links: Vec::new(), files: Vec::new(), current: None }
    }

    /// Writes a file.
    pub(super) fn file<T>(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        self.sink.open(name)?;
        self.current = Some(Hashing::new(name));
        let done = write(self)?;
        if let Some(current) = self.current.take() {
            let (link, seal) = current.end();
            if let Some(link) = link {
                self.add(&link);
            }
            self.files.push(seal);
        }
        Ok(done)
    }

    /// Writes a line of it, which has its end.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        self.sink.write(line)?;
        if let Some(link) = self.current.as_mut().and_then(|current| current.line(line.as_bytes())) {
            self.add(&link);
        }
        Ok(())
    }

    fn add(&mut self, link: &Link) {
        self.link = link.after(&self.link);
        let Link { name, first, lines, sha256 } = link;
        self.links.push(row(&[
            name.clone(),
            first.to_string(),
            lines.to_string(),
            hex(sha256),
            hex(&self.link),
        ]));
    }

    /// Writes the chain, and says what the manifest has to say.
    pub(super) fn end(mut self, inputs: &Inputs) -> io::Result<Manifest> {
        let chain = hex(&self.link);
        let links = std::mem::take(&mut self.links);
        self.sink.open(CHAIN)?;
        let mut hashing = Hashing::new(CHAIN);
        let head = row(&["file", "firstLine", "lines", "sha256", "chain"]);
        for line in std::iter::once(&head).chain(&links) {
            self.sink.write(line)?;
            // It has the links, and is none of them.
            let _ = hashing.line(line.as_bytes());
        }
        self.files.push(hashing.end().1);
        let (from, to) = self.span;
        Ok(Manifest {
            format: FORMAT.to_owned(),
            from,
            to,
            made: inputs.made,
            made_by: format!("tidegate {}", env!("CARGO_PKG_VERSION")),
            rules: inputs.rules.as_ref().map(|rules| (rules.set.number, rules.set.digest.clone())),
            files: self.files,
            chain,
        })
    }
}

// === impl Manifest ===

impl Manifest {
    /// What is signed.
    ///
    /// # Errors
    /// Never, in fact.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

// === impl SignatureFile ===

impl SignatureFile {
    /// As it is written.
    ///
    /// # Errors
    /// Never, in fact.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads one that is written as this program does and that is over this manifest.
    fn of(text: &[u8], manifest: &[u8]) -> Option<Self> {
        let read: Self = serde_json::from_slice(text).ok()?;
        let signature = STANDARD.decode(&read.signature).ok()?;
        let is_by_key = read.key.has_signed_evidence(manifest, &signature);
        let written = Self::from(EvidenceSignature { key: read.key, signature });
        let is_its_id = written.fingerprint.starts_with(&written.key.id);
        (is_by_key && is_its_id && written.bytes().ok()? == text).then_some(written)
    }
}

impl From<EvidenceSignature> for SignatureFile {
    fn from(signed: EvidenceSignature) -> Self {
        Self {
            algorithm: format!(
                "ECDSA P-256 with SHA-256, r || s, over `tidegate.v1.Evidence`, a zero byte, and the bytes of {MANIFEST}"
            ),
            fingerprint: signed.key.fingerprint().unwrap_or_default(),
            key: signed.key,
            signature: STANDARD.encode(signed.signature),
        }
    }
}

/// Looks at every byte of an export. `Err` inside: everything that is not as it was exported.
///
/// # Errors
/// When the folder cannot be read.
pub fn verify(folder: &Path) -> io::Result<Result<Verified, Vec<String>>> {
    let mut wrong = Vec::new();
    let there = names(folder)?;
    let read = |name: &str| -> io::Result<Option<Vec<u8>>> {
        if !there.contains(name) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        File::open(folder.join(name))?.take(MAX_READ).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    };
    let Some(bytes) = read(MANIFEST)? else {
        return Ok(Err(vec![format!("`{MANIFEST}` is missing: this is no export of evidence")]));
    };
    let fingerprint = match read(SIGNATURE)? {
        None => Err(format!("`{SIGNATURE}` is missing: anybody may have made this")),
        Some(text) => SignatureFile::of(&text, &bytes).map(|signed| signed.fingerprint).ok_or_else(|| {
            format!("`{SIGNATURE}` is no signature over `{MANIFEST}`: one of them was changed")
        }),
    };
    let fingerprint = fingerprint.map_err(|why| wrong.push(why)).ok();
    let manifest: Manifest = match serde_json::from_slice(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => {
            wrong.push(format!("`{MANIFEST}` is none: {error}"));
            return Ok(Err(wrong));
        }
    };
    if manifest.format != FORMAT {
        wrong.push(format!(
            "`{MANIFEST}` is of the form `{}`; this program knows `{FORMAT}`",
            manifest.format
        ));
        return Ok(Err(wrong));
    }
    let listed: BTreeSet<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    if listed.len() != manifest.files.len() {
        wrong.push(format!("`{MANIFEST}` lists a file twice"));
    }
    for name in &there {
        if ![MANIFEST, SIGNATURE].contains(&name.as_str()) && !listed.contains(name.as_str()) {
            wrong.push(format!("`{name}` is no part of the export"));
        }
    }
    check_files(folder, &there, &manifest, &mut wrong)?;
    Ok(match fingerprint {
        Some(fingerprint) if wrong.is_empty() => Ok(Verified { manifest, fingerprint }),
        _ => Err(wrong),
    })
}

/// Compares every file with the manifest, and with the chain where that tells more.
fn check_files(
    folder: &Path,
    there: &BTreeSet<String>,
    manifest: &Manifest,
    wrong: &mut Vec<String>,
) -> io::Result<()> {
    let mut link = first_link((manifest.from, manifest.to));
    // By file: the hash of the block that begins at a line.
    let mut known: Option<BTreeMap<String, BTreeMap<u64, String>>> = None;
    // The chain comes last, and says where in the others something was changed.
    let mut found = Vec::new();
    for file in &manifest.files {
        if !there.contains(&file.name) {
            wrong.push(format!("`{}` is missing", file.name));
            continue;
        }
        let (links, seal) = hash(&folder.join(&file.name), &file.name)?;
        if file.name == CHAIN {
            known = if seal == *file { Some(read_chain(&folder.join(CHAIN))?) } else { None };
        } else {
            for one in &links {
                link = one.after(&link);
            }
        }
        found.push((file, seal, links));
    }
    for (file, seal, links) in &found {
        if seal == *file {
            continue;
        }
        let blocks = known.as_ref().and_then(|known| known.get(&file.name));
        let changed = blocks.and_then(|blocks| {
            let is_right = |one: &&Link| blocks.get(&one.first).is_some_and(|hash| *hash == hex(&one.sha256));
            links.iter().find(|one| !is_right(one))
        });
        wrong.push(match changed {
            Some(one) => format!(
                "`{}` was changed; the first change is in lines {} to {}",
                file.name,
                one.first,
                one.first.saturating_add(one.lines).saturating_sub(1)
            ),
            None => {
                format!("`{}` was changed: it has {} lines, and had {}", file.name, seal.lines, file.lines)
            }
        });
    }
    if wrong.is_empty() && hex(&link) != manifest.chain {
        wrong.push("the chain does not end as the manifest says: files were exchanged".to_owned());
    }
    Ok(())
}

/// Names of everything in the folder.
fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        names.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn lines(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(MAX_READ).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        each(&line);
    }
}

fn hash(path: &Path, name: &str) -> io::Result<(Vec<Link>, FileSeal)> {
    let mut hashing = Hashing::new(name);
    let mut links = Vec::new();
    lines(path, |line| links.extend(hashing.line(line)))?;
    let (last, seal) = hashing.end();
    links.extend(last);
    Ok((links, seal))
}

fn read_chain(path: &Path) -> io::Result<BTreeMap<String, BTreeMap<u64, String>>> {
    let mut known = BTreeMap::<String, BTreeMap<u64, String>>::new();
    lines(path, |line| {
        let line = String::from_utf8_lossy(line);
        let mut cells = line.trim_end().split(',');
        if let (Some(name), Some(Ok(first)), Some(_), Some(hash)) =
            (cells.next(), cells.next().map(str::parse), cells.next(), cells.next())
        {
            known.entry(name.to_owned()).or_default().insert(first, hash.to_owned());
        }
    })?;
    Ok(known)
}

//! One file of the store: compressed blocks of entries, and an index from terms to blocks.
//!
//! Terms that hardly two entries share (ids) are not in the index: they would be as many keys as there are entries, all over
//! the tree. They are kept in order per block, and looked through.
//!
//! A file is written for a while, then only read, and at last removed as a whole: that is how the store is bounded.
//!
//! INVARIANT: whatever is wrong with a file is an error here, never a panic: the database is asked behind
//! [`std::panic::catch_unwind`], and every block carries a checksum of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use redb::backends::FileBackend;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};

use super::tally::Tally;
use crate::decisions::filter::{self, Term};
use crate::decisions::record::{Entry, Moment};

/// Blocks by the number of their first entry: count, earliest and latest time, then zlib of JSON lines.
const BLOCKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks");
/// Which blocks have entries with a term.
const TERMS: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("terms");
/// By the number of a block its rare terms in order, eight bytes each. Files of before have them in `terms`.
const RARE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rare");
/// By workload, how many bytes of decisions there are, roughly: all of them, and what is precious. Files of before lack it.
const TALLIES: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("tallies");
/// By workload, the rest of its [`Tally`]: bytes of what is required, and how many are precious. Files of before lack it: what
/// is required in them is as any other that is precious.
const REQUIRED: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("required");
/// What the file is.
const ABOUT: TableDefinition<'_, &str, i64> = TableDefinition::new("about");

/// Changes when files of before cannot be read any more.
const FORMAT: i64 = 1;
/// Most entries in a block.
const BLOCK: usize = 256;
/// What a block's header takes: count, earliest, latest.
const HEADER: usize = 4 + 8 + 8;
/// No block is longer when it is unpacked, in bytes.
const MAX_BLOCK_BYTES: u64 = 64 << 20;
/// What the database may keep of a file in memory, in bytes.
const CACHE: usize = 8 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// What is in it is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The system refuses: no room, no permission.
    #[error("{0}")]
    Unavailable(String),
}

/// A file of the store.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    database: Database,
    created: Moment,
    /// Blocks before this number have moved to the next file.
    moved_until: AtomicU64,
}

/// A block, unpacked.
pub type Numbered = Vec<(u64, Entry)>;

// === impl SegmentError ===

impl SegmentError {
    /// One of few words, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Damaged(_) => "damaged",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl From<redb::Error> for SegmentError {
    fn from(error: redb::Error) -> Self {
        use std::io::ErrorKind as K;
        match &error {
            redb::Error::Io(io)
                if !matches!(io.kind(), K::InvalidData | K::UnexpectedEof | K::InvalidInput) =>
            {
                Self::Unavailable(error.to_string())
            }
            redb::Error::PreviousIo | redb::Error::DatabaseAlreadyOpen => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Damaged(error.to_string()),
        }
    }
}

/// Asks the database; a panic of it is a damaged file.
fn ask<T>(what: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, SegmentError> {
    match catch_unwind(AssertUnwindSafe(what)) {
        Ok(result) => result.map_err(SegmentError::from),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            Err(SegmentError::Damaged(format!("the database cannot make sense of it: {text}")))
        }
    }
}

// === impl Segment ===

impl Segment {
    /// A new file; readable by its owner only.
    pub fn create(path: &Path, now: Moment) -> Result<Self, SegmentError> {
        let unavailable = |error: std::io::Error| SegmentError::Unavailable(error.to_string());
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let file = options.open(path).map_err(unavailable)?;
        let database = ask(|| {
            let database =
                Database::builder().set_cache_size(CACHE).create_with_backend(FileBackend::new(file)?)?;
            let writing = database.begin_write()?;
            writing.open_table(BLOCKS)?;
            writing.open_table(TERMS)?;
            writing.open_table(RARE)?;
            let mut about = writing.open_table(ABOUT)?;
            about.insert("format", FORMAT)?;
            about.insert("created", now.0)?;
            drop(about);
            writing.commit()?;
            Ok(database)
        })?;
        Ok(Self { path: path.to_owned(), database, created: now, moved_until: AtomicU64::new(0) })
    }

    /// A file that is there, looked at from beginning to end.
    pub fn open(path: &Path) -> Result<Self, SegmentError> {
        let (database, format, created) = ask(|| {
            let mut database = Database::builder().set_cache_size(CACHE).open(path)?;
            if !database.check_integrity()? {
                return Err(redb::Error::Corrupted("checksums differ".to_owned()));
            }
            let reading = database.begin_read()?;
            let about = reading.open_table(ABOUT)?;
            let read = |name: &str| -> Result<i64, redb::Error> {
                Ok(about.get(name)?.map(|value| value.value()).unwrap_or_default())
            };
            let (format, created) = (read("format")?, read("created")?);
            reading.open_table(BLOCKS)?;
            reading.open_table(TERMS)?;
            Ok((database, format, created))
        })?;
        if format != FORMAT {
            return Err(SegmentError::Damaged(format!(
                "its format is {format}, this version writes {FORMAT}"
            )));
        }
        let moved_until = AtomicU64::new(0);
        Ok(Self { path: path.to_owned(), database, created: Moment(created), moved_until })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When it was begun; everything in it came later.
    pub fn created(&self) -> Moment {
        self.created
    }

    /// Bytes on disk.
    pub fn size(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |about| about.len())
    }

    /// The number that the next entry would have; `None`: it is empty.
    pub fn next_number(&self) -> Result<Option<u64>, SegmentError> {
        let last = ask(|| {
            let blocks = self.database.begin_read()?.open_table(BLOCKS)?;
            Ok(blocks.last()?.map(|(first, block)| (first.value(), block.value().to_vec())))
        })?;
        let Some((first, block)) = last else { return Ok(None) };
        let (count, _, _) = header(&block).ok_or_else(short)?;
        Ok(Some(first.saturating_add(u64::from(count))))
    }

    /// Writes entries, the first with this number. They are on disk when it returns.
    pub fn append(&self, first: u64, entries: &[Entry]) -> Result<(), SegmentError> {
        let mut numbered = Vec::new();
        let mut number = first;
        for chunk in entries.chunks(BLOCK) {
            numbered.push((number, chunk));
            number = number.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        }
        self.write(&numbered)
    }

    /// Writes entries of another file that come before those of this one: the numbers that they had there grow. They are on
    /// disk when it returns.
    pub fn prepend(&self, numbers: &[u64], entries: &[Entry]) -> Result<(), SegmentError> {
        // Those after the first of a block are numbered without gaps here, which are no numbers of later ones.
        let firsts = numbers.chunks(BLOCK).filter_map(|numbers| numbers.first().copied());
        self.write(&firsts.zip(entries.chunks(BLOCK)).collect::<Vec<_>>())
    }

    /// Writes blocks, each with the number of its first entry.
    fn write(&self, numbered: &[(u64, &[Entry])]) -> Result<(), SegmentError> {
        if numbered.is_empty() {
            return Ok(());
        }
        let tallies = Tally::by_workload(numbered.iter().flat_map(|(_, entries)| *entries));
        let mut blocks = Vec::new();
        let mut index: BTreeSet<(Term, u64)> = BTreeSet::new();
        for (number, entries) in numbered {
            let rare: BTreeSet<Term> = entries.iter().flat_map(filter::rare_terms).collect();
            let rare: Vec<u8> = rare.into_iter().flat_map(Term::to_be_bytes).collect();
            blocks.push((*number, pack(entries)?, rare));
            index.extend(entries.iter().flat_map(filter::terms).map(|term| (term, *number)));
        }
        ask(|| {
            let writing = self.database.begin_write()?;
            let (mut table, mut rare) = (writing.open_table(BLOCKS)?, writing.open_table(RARE)?);
            for (number, block, terms) in &blocks {
                table.insert(number, block.as_slice())?;
                rare.insert(number, terms.as_slice())?;
            }
            drop((table, rare));
            count(&writing, &tallies, Tally::and)?;
            let mut table = writing.open_table(TERMS)?;
            // Sorted, so that neighbours are written together.
            for entry in &index {
                table.insert(entry, ())?;
            }
            drop(table);
            writing.commit()?;
            Ok(())
        })
    }

    /// Numbers of the blocks before this number in which every term is, or a gap; the last first. `rare`: those of the terms
    /// that are.
    pub fn blocks(
        &self,
        terms: &BTreeSet<Term>,
        rare: &BTreeSet<Term>,
        before: u64,
    ) -> Result<Vec<u64>, SegmentError> {
        ask(|| {
            let reading = self.database.begin_read()?;
            let first = self.moved_until.load(Ordering::Acquire);
            if terms.is_empty() {
                let blocks = reading.open_table(BLOCKS)?;
                return blocks
                    .range(first..before.max(first))?
                    .rev()
                    .map(|block| Ok(block?.0.value()))
                    .collect();
            }
            let index = reading.open_table(TERMS)?;
            let of = |term: Term| -> Result<BTreeSet<u64>, redb::Error> {
                index.range((term, 0)..(term, before))?.map(|entry| Ok(entry?.0.value().1)).collect()
            };
            let rares = table(&reading, RARE)?;
            let mut common: Option<BTreeSet<u64>> = None;
            for term in terms {
                let mut blocks = of(*term)?;
                if let (Some(rares), true) = (&rares, rare.contains(term)) {
                    for block in rares.range(..before)? {
                        let (number, terms) = block?;
                        if has_term(terms.value(), *term) {
                            blocks.insert(number.value());
                        }
                    }
                }
                common = Some(match common {
                    Some(common) => common.intersection(&blocks).copied().collect(),
                    None => blocks,
                });
            }
            let mut common = common.unwrap_or_default();
            common.extend(of(filter::gap_term())?);
            Ok(common.into_iter().rev().filter(|number| *number >= first).collect())
        })
    }

    /// How much there is of whom.
    pub fn tallies(&self) -> Result<Vec<(String, Tally)>, SegmentError> {
        ask(|| {
            let reading = self.database.begin_read()?;
            let Some(tallies) = table(&reading, TALLIES)? else { return Ok(Vec::new()) };
            let required = table(&reading, REQUIRED)?;
            let mut found = Vec::new();
            for row in tallies.iter()? {
                let workload = row?.0.value().to_owned();
                let tally = tally_of(&workload, &tallies, required.as_ref())?;
                found.push((workload, tally));
            }
            Ok(found)
        })
    }

    /// Blocks before this number have moved to the next file, as far as anybody needs them: they are not here any more.
    pub fn moved_until(&self, number: u64) {
        self.moved_until.store(number, Ordering::Release);
    }

    /// Empties the blocks at its beginning in which everything is older: those that came from another file.
    pub fn expire(&self, oldest: Moment) -> Result<(), SegmentError> {
        let empty = pack(&[])?;
        let is_old = |block: &[u8]| header(block).is_some_and(|(_, _, latest)| latest < oldest.0);
        let old = ask(|| {
            let mut old = Vec::new();
            for block in self.database.begin_read()?.open_table(BLOCKS)?.iter()? {
                let (number, block) = block?;
                if !is_old(block.value()) {
                    break;
                }
                if block.value().len() > empty.len() {
                    old.push((number.value(), block.value().to_vec()));
                }
            }
            Ok(old)
        })?;
        if old.is_empty() {
            return Ok(());
        }
        // What cannot be read any more stays counted.
        let entries: Vec<Entry> =
            old.iter().flat_map(|(_, block)| unpack(block).unwrap_or_default()).collect();
        let tallies = Tally::by_workload(&entries);
        ask(|| {
            let writing = self.database.begin_write()?;
            let mut table = writing.open_table(BLOCKS)?;
            for (number, _) in &old {
                table.insert(number, empty.as_slice())?;
            }
            drop(table);
            count(&writing, &tallies, Tally::without)?;
            writing.commit()?;
            Ok(())
        })
    }

    /// The entries of a block with their numbers, if any of them may lie between the two times.
    pub fn block(&self, first: u64, since: Moment, until: Moment) -> Result<Numbered, SegmentError> {
        let block = ask(|| {
            let blocks = self.database.begin_read()?.open_table(BLOCKS)?;
            Ok(blocks.get(first)?.map(|block| block.value().to_vec()))
        })?;
        // The index knows a block that is not there.
        let block = block.ok_or_else(|| SegmentError::Damaged(format!("there is no block {first}")))?;
        let (_, earliest, latest) = header(&block).ok_or_else(short)?;
        if latest < since.0 || earliest >= until.0 {
            return Ok(Vec::new());
        }
        Ok((first..).zip(unpack(&block)?).collect())
    }

    /// How often each term is there, for tests.
    #[cfg(test)]
    pub fn index(&self) -> std::collections::BTreeMap<Term, usize> {
        let table = self.database.begin_read().unwrap().open_table(TERMS).unwrap();
        table.iter().unwrap().fold(std::collections::BTreeMap::new(), |mut all, entry| {
            *all.entry(entry.unwrap().0.value().0).or_default() += 1;
            all
        })
    }

    /// Lets go of the file; of a damaged one that may fail, which nobody needs to know.
    pub fn close(self) {
        let _ = ask(move || {
            drop(self);
            Ok(())
        });
    }
}

/// Counts more or less of some workloads.
fn count(
    writing: &WriteTransaction,
    tallies: &BTreeMap<&str, Tally>,
    change: fn(Tally, Tally) -> Tally,
) -> Result<(), redb::Error> {
    let (mut table, mut required) = (writing.open_table(TALLIES)?, writing.open_table(REQUIRED)?);
    for (workload, tally) in tallies {
        let now = change(tally_of(workload, &table, Some(&required))?, *tally);
        table.insert(workload, (now.all, now.precious))?;
        required.insert(workload, (now.required, now.count))?;
    }
    Ok(())
}

fn tally_of(
    workload: &str,
    tallies: &impl ReadableTable<&'static str, (u64, u64)>,
    required: Option<&impl ReadableTable<&'static str, (u64, u64)>>,
) -> Result<Tally, redb::Error> {
    let (all, precious) = tallies.get(workload)?.map_or((0, 0), |row| row.value());
    let row = required.map(|table| table.get(workload)).transpose()?.flatten();
    let (required, count) = row.map_or((0, 0), |row| row.value());
    Ok(Tally { all, precious, required, count })
}

/// A table that files of before do not have.
fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
    reading: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, redb::Error> {
    match reading.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a term is among those of a block.
fn has_term(terms: &[u8], term: Term) -> bool {
    let (terms, _) = terms.as_chunks::<{ size_of::<Term>() }>();
    terms.binary_search(&term.to_be_bytes()).is_ok()
}

fn short() -> SegmentError {
    SegmentError::Damaged("a block is cut off".to_owned())
}

/// Count, earliest and latest time.
fn header(block: &[u8]) -> Option<(u32, i64, i64)> {
    let (count, rest) = block.split_first_chunk()?;
    let (earliest, rest) = rest.split_first_chunk()?;
    let (latest, _) = rest.split_first_chunk()?;
    Some((u32::from_le_bytes(*count), i64::from_le_bytes(*earliest), i64::from_le_bytes(*latest)))
}

fn pack(entries: &[Entry]) -> Result<Vec<u8>, SegmentError> {
    let failed = |error: std::io::Error| SegmentError::Unavailable(error.to_string());
    let times = || entries.iter().map(|entry| entry.time().0);
    let mut block = Vec::with_capacity(HEADER + 64 * entries.len());
    block.extend(u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    block.extend(times().min().unwrap_or_default().to_le_bytes());
    block.extend(times().max().unwrap_or_default().to_le_bytes());
    // In one piece: a compressor that is handed every comma by itself takes several times as long.
    let mut lines = Vec::with_capacity(512 * entries.len());
    for entry in entries {
        serde_json::to_writer(&mut lines, entry)
            .map_err(|error| SegmentError::Unavailable(error.to_string()))?;
        lines.push(b'\n');
    }
    let mut packed = ZlibEncoder::new(block, Compression::fast());
    packed.write_all(&lines).map_err(failed)?;
    packed.finish().map_err(failed)
}

fn unpack(block: &[u8]) -> Result<Vec<Entry>, SegmentError> {
    let damaged = |why: String| SegmentError::Damaged(format!("a block cannot be read: {why}"));
    let (count, _, _) = header(block).ok_or_else(short)?;
    let mut text = String::new();
    let packed = ZlibDecoder::new(block.get(HEADER..).unwrap_or_default());
    packed.take(MAX_BLOCK_BYTES).read_to_string(&mut text).map_err(|error| damaged(error.to_string()))?;
    let entries: Result<Vec<Entry>, _> = text.lines().map(serde_json::from_str).collect();
    let entries = entries.map_err(|error| damaged(error.to_string()))?;
    match u32::try_from(entries.len()) == Ok(count) {
        true => Ok(entries),
        false => Err(damaged(format!("it has {} entries instead of {count}", entries.len()))),
    }
}

//! Directories: named sets of ids that change faster than rules (a Dataflow job's instance ids, a pipeline's pods).
//!
//! A section of its own: magic, version, then for each directory its name, until when it is fresh, and its ids, sorted.
//! All numbers little-endian; strings are a `u32` length and UTF-8 bytes.
//!
//! INVARIANT: a missing or stale directory answers [`Truth::Unknown`], never "not listed": a Deny on it matches, an
//! Allow does not.

use crate::truth::Truth;

const MAGIC: &[u8; 8] = b"TGDIRECT";
const VERSION: u32 = 1;

/// A directory as the control plane writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryModel {
    /// E.g. `dataflow/acme/europe-west4/orders-etl`.
    pub name: String,
    /// The listed ids; order and duplicates do not matter.
    pub ids: Vec<String>,
    /// Unix seconds; afterwards every answer is unknown.
    pub fresh_until: i64,
}

/// Decoded directories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directories {
    entries: Vec<Directory>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Directory {
    name: String,
    fresh_until: i64,
    ids: Vec<String>,
}

/// Why a directory section was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDirectories {
    /// Not a directory section, or of another version.
    #[error("directory section: not a directory section of version {VERSION}")]
    Header,
    /// It ends in the middle of something.
    #[error("directory section: truncated at byte {0}")]
    Truncated(usize),
    /// Bytes follow the last directory.
    #[error("directory section: {0} bytes after the last directory")]
    Trailing(usize),
    /// A string is not UTF-8.
    #[error("directory section: text at byte {0} is not UTF-8")]
    Text(usize),
    /// Names or ids are not in ascending order.
    #[error("directory section: `{0}` is out of order or listed twice")]
    Order(String),
}

/// Writes a directory section. The same directories give the same bytes, in whatever order they come.
pub fn encode_directories(directories: &[DirectoryModel]) -> Vec<u8> {
    let mut sorted: Vec<&DirectoryModel> = directories.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    sorted.dedup_by(|a, b| a.name == b.name);
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    put_count(&mut out, sorted.len());
    for directory in sorted {
        put_text(&mut out, &directory.name);
        out.extend_from_slice(&directory.fresh_until.to_le_bytes());
        let mut ids: Vec<&String> = directory.ids.iter().collect();
        ids.sort_unstable();
        ids.dedup();
        put_count(&mut out, ids.len());
        for id in ids {
            put_text(&mut out, id);
        }
    }
    out
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

// === impl Directories ===

impl Directories {
    /// When the first of those that are fresh now ceases to be, in Unix seconds: `fresh_until` is the last second that
    /// counts. `i64::MAX` if none does.
    pub fn next_stale(&self, now: i64) -> i64 {
        let ends = self.entries.iter().map(|directory| directory.fresh_until.saturating_add(1));
        ends.filter(|end| *end > now).min().unwrap_or(i64::MAX)
    }

    /// Reads a directory section.
    ///
    /// # Errors
    /// When it is not exactly what [`encode_directories`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidDirectories> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.take(MAGIC.len())? != MAGIC || reader.number()? != VERSION {
            return Err(InvalidDirectories::Header);
        }
        let count = reader.number()?;
        let mut entries: Vec<Directory> = Vec::new();
        for _ in 0..count {
            let name = reader.text()?;
            let fresh_until = reader.time()?;
            let mut ids: Vec<String> = Vec::new();
            for _ in 0..reader.number()? {
                let id = reader.text()?;
                if ids.last().is_some_and(|last| *last >= id) {
                    return Err(InvalidDirectories::Order(id));
                }
                ids.push(id);
            }
            if entries.last().is_some_and(|last| last.name >= name) {
                return Err(InvalidDirectories::Order(name));
            }
            entries.push(Directory { name, fresh_until, ids });
        }
        match bytes.len().saturating_sub(reader.at) {
            0 => Ok(Self { entries }),
            trailing => Err(InvalidDirectories::Trailing(trailing)),
        }
    }

    fn get(&self, name: &str) -> Option<&Directory> {
        let at = self.entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        self.entries.get(at)
    }

    /// Whether there is one of this name, however old.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether the directory lists the id now (`now` in Unix seconds).
    pub fn lists(&self, name: &str, id: &str, now: i64) -> Truth {
        let Some(directory) = self.get(name) else { return Truth::Unknown };
        if now > directory.fresh_until {
            return Truth::Unknown;
        }
        Truth::from(directory.ids.binary_search_by(|listed| listed.as_str().cmp(id)).is_ok())
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], InvalidDirectories> {
        let end = self.at.checked_add(length).ok_or(InvalidDirectories::Truncated(self.at))?;
        let taken = self.bytes.get(self.at..end).ok_or(InvalidDirectories::Truncated(self.at))?;
        self.at = end;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, InvalidDirectories> {
        let at = self.at;
        self.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| InvalidDirectories::Truncated(at))
    }

    fn time(&mut self) -> Result<i64, InvalidDirectories> {
        let at = self.at;
        self.take(8)?.try_into().map(i64::from_le_bytes).map_err(|_| InvalidDirectories::Truncated(at))
    }

    fn text(&mut self) -> Result<String, InvalidDirectories> {
        let at = self.at;
        let length = usize::try_from(self.number()?).map_err(|_| InvalidDirectories::Truncated(at))?;
        let text = core::str::from_utf8(self.take(length)?).map_err(|_| InvalidDirectories::Text(at))?;
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<DirectoryModel> {
        vec![
            DirectoryModel {
                name: "b".into(),
                ids: vec!["2".into(), "1".into(), "2".into()],
                fresh_until: 100,
            },
            DirectoryModel { name: "a".into(), ids: vec![], fresh_until: 100 },
        ]
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[test]
    fn answers_yes_no_and_unknown() {
        let directories = Directories::decode(&encode_directories(&sample())).unwrap();
        assert_eq!(directories.lists("b", "1", 100), Truth::True);
        assert_eq!(directories.lists("b", "3", 100), Truth::False);
        assert_eq!(directories.lists("a", "1", 100), Truth::False);
        assert_eq!(directories.lists("b", "1", 101), Truth::Unknown, "stale");
        assert_eq!(directories.lists("c", "1", 0), Truth::Unknown, "missing");
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[test]
    fn every_truncation_and_every_extension_is_refused() {
        let bytes = encode_directories(&sample());
        for length in 0..bytes.len() {
            assert!(Directories::decode(&bytes[..length]).is_err(), "truncated to {length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Directories::decode(&longer), Err(InvalidDirectories::Trailing(1)));
    }
}

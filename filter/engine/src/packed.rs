//! Tables whose fields are one to four bytes wide, or none: as wide as the largest value that the table has in them.
//!
//! A record is its fields, one behind the other, and takes the same number of bytes as every other record of its table.
//! A value lies there increased by one, little-endian, so that [`NONE`] is 0 and a field that no record uses takes no byte.
//!
//! | table | a record |
//! | --- | --- |
//! | rules | id, head, froms, operations |
//! | heads | flags and grace after expiry, owner, contact |
//! | froms | peer, accounts, demand, the value of the demand's claim |
//! | peers | kind, trust domain, namespace |
//! | demands | list of issuers, the claim that has the from's value, condition besides |
//! | operations | frame, paths, condition |
//! | frames | flags, method bits, list of other methods, list of ports, list of hosts |
//! | nodes | kind and string of a segment, what follows; ends of paths are shared |
//! | clauses | rule, from, operation: what the index points to where a rule has many |
//! | starts | the first entry of a bucket of the index |
//! | entries | tag, target |
//!
//! Froms, accounts, operations and paths are one thing or a list of them: twice its position, or twice the list's and one.
//!
//! INVARIANT: reading never fails; a record that is not there consists of [`NONE`].

use crate::layout::{InvalidRules, NONE, size, word};

/// Most fields of a record.
pub(crate) const MOST_FIELDS: usize = 5;

/// How many bytes from a record's beginning on a reader looks at, whatever the record's size.
const WINDOW: usize = 36;

/// The tables, in the order in which they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Packed {
    Rules,
    Heads,
    Froms,
    Peers,
    Demands,
    Operations,
    Frames,
    Nodes,
    Clauses,
    Starts,
    Entries,
}

/// Where a table is and how its records are cut.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pack {
    offset: usize,
    stride: usize,
    count: usize,
    columns: [Column; MOST_FIELDS],
}

/// Where a field is in its record, and which bits of four bytes belong to it.
#[derive(Debug, Clone, Copy, Default)]
struct Column {
    at: u32,
    mask: u32,
}

// === impl Packed ===

impl Packed {
    pub const ALL: [Self; 11] = [
        Self::Rules,
        Self::Heads,
        Self::Froms,
        Self::Peers,
        Self::Demands,
        Self::Operations,
        Self::Frames,
        Self::Nodes,
        Self::Clauses,
        Self::Starts,
        Self::Entries,
    ];

    /// Fields per record.
    pub const fn fields(self) -> usize {
        match self {
            Self::Starts => 1,
            Self::Nodes | Self::Entries => 2,
            Self::Operations | Self::Heads | Self::Peers | Self::Demands | Self::Clauses => 3,
            Self::Rules | Self::Froms => 4,
            Self::Frames => 5,
        }
    }

    pub const fn position(self) -> usize {
        match self {
            Self::Rules => 0,
            Self::Heads => 1,
            Self::Froms => 2,
            Self::Peers => 3,
            Self::Demands => 4,
            Self::Operations => 5,
            Self::Frames => 6,
            Self::Nodes => 7,
            Self::Clauses => 8,
            Self::Starts => 9,
            Self::Entries => 10,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Heads => "heads",
            Self::Froms => "froms",
            Self::Peers => "peers",
            Self::Demands => "demands",
            Self::Operations => "operations",
            Self::Frames => "frames",
            Self::Nodes => "nodes",
            Self::Clauses => "clauses",
            Self::Starts => "starts",
            Self::Entries => "entries",
        }
    }
}

// === impl Pack ===

impl Pack {
    /// Of a table that begins at `offset`, with the widths that its directory entry gives (one byte per field).
    pub fn new(table: Packed, offset: usize, count: u32, widths: [u8; 8]) -> Result<Self, InvalidRules> {
        let mut pack =
            Self { offset, stride: 0, count: size(count), columns: [Column::default(); MOST_FIELDS] };
        let (used, unused) = widths.split_at_checked(table.fields()).ok_or(InvalidRules::Tables)?;
        if unused.iter().any(|width| *width != 0) {
            return Err(InvalidRules::Tables);
        }
        let mut at = 0;
        for (column, width) in pack.columns.iter_mut().zip(used) {
            let mask = match width {
                0 => 0,
                1 => 0xFF,
                2 => 0xFFFF,
                3 => 0xFF_FFFF,
                4 => u32::MAX,
                _ => return Err(InvalidRules::Tables),
            };
            *column = Column { at, mask };
            at += u32::from(*width);
        }
        pack.stride = size(at);
        // Records that take no bytes could be any number of them.
        if (pack.stride == 0) != (pack.count == 0) {
            return Err(InvalidRules::Tables);
        }
        Ok(pack)
    }

    /// How many records there are.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many bytes all of them take.
    pub fn length(&self) -> Option<usize> {
        self.stride.checked_mul(self.count)
    }

    #[inline]
    pub fn record<const FIELDS: usize>(&self, bytes: &[u8], position: u32) -> [u32; FIELDS] {
        let mut record = [NONE; FIELDS];
        let position = size(position);
        if position >= self.count {
            return record;
        }
        let at = self.offset.wrapping_add(position.wrapping_mul(self.stride));
        let rest = bytes.get(at..).unwrap_or_default();
        let end;
        let window = match rest.first_chunk::<WINDOW>() {
            Some(window) => window,
            None => {
                end = last_window(rest);
                &end
            }
        };
        for (value, column) in record.iter_mut().zip(&self.columns) {
            // A record has at most 20 bytes; said so that the compiler sees it, too.
            if let Some(there) = window.get(size(column.at & 31)..).and_then(|rest| rest.first_chunk::<4>()) {
                *value = (u32::from_le_bytes(*there) & column.mask).wrapping_sub(1);
            }
        }
        record
    }
}

/// Fewer bytes than a reader looks at, and zeros behind them.
#[cold]
fn last_window(rest: &[u8]) -> [u8; WINDOW] {
    let mut window = [0; WINDOW];
    for (byte, there) in window.iter_mut().zip(rest) {
        *byte = *there;
    }
    window
}

/// Writes a table's records (as many words each as it has fields): count and widths, and the bytes.
pub(crate) fn pack(table: Packed, values: &[u32]) -> (u32, [u8; 8], Vec<u8>) {
    let fields = table.fields();
    let mut largest = [0u32; 8];
    for record in values.chunks(fields) {
        for (largest, value) in largest.iter_mut().zip(record) {
            *largest = (*largest).max(value.wrapping_add(1));
        }
    }
    let widths = largest.map(|largest| match largest {
        0 => 0,
        1..=0xFF => 1,
        0x100..=0xFFFF => 2,
        0x1_0000..=0xFF_FFFF => 3,
        _ => 4,
    });
    let stride: usize = widths.into_iter().map(usize::from).sum();
    // Four bytes are written at a time: of those behind a field the next one is written over them, or nothing is there.
    let length = stride * (values.len() / fields);
    let mut bytes = vec![0; length + 4];
    let mut at = 0;
    for record in values.chunks(fields) {
        for (value, width) in record.iter().zip(widths) {
            if let Some(four) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
                *four = value.wrapping_add(1).to_le_bytes();
            }
            at += usize::from(width);
        }
    }
    bytes.truncate(length);
    (word(values.len() / fields), widths, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[test]
    fn what_was_packed_is_read_again_whatever_it_is() {
        let interesting = [0, 1, 254, 255, 256, 65_534, 65_535, 65_536, 0xFF_FFFE, 0xFF_FFFF, NONE - 1, NONE];
        for largest in interesting {
            let values = [0, largest, NONE, 7];
            let (count, widths, mut bytes) = pack(Packed::Entries, &values);
            let pack = Pack::new(Packed::Entries, 0, count, widths).unwrap();
            assert_eq!(pack.length(), Some(bytes.len()));
            // Whatever follows.
            for _ in 0..50 {
                assert_eq!(pack.record(&bytes, 0), [0, largest], "{largest}");
                assert_eq!(pack.record(&bytes, 1), [NONE, 7], "{largest}");
                assert_eq!(pack.record(&bytes, 2), [NONE, NONE], "beyond the end");
                bytes.push(0xA5);
            }
        }
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[test]
    fn fields_are_as_narrow_as_they_can_be() {
        let (count, widths, bytes) = pack(Packed::Demands, &[NONE, 254, 255, NONE, 0, 0]);
        assert_eq!((count, widths, bytes.len()), (2, [0, 1, 2, 0, 0, 0, 0, 0], 6));
        assert!(Pack::new(Packed::Demands, 0, 1, [5, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(Pack::new(Packed::Demands, 0, 1, [1, 1, 1, 1, 0, 0, 0, 0]).is_err());
        // Any number of records without a byte would take any time to look at.
        assert!(Pack::new(Packed::Demands, 0, u32::MAX, [0; 8]).is_err());
        assert!(Pack::new(Packed::Demands, 0, 0, [1, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(Pack::new(Packed::Demands, 0, 0, [0; 8]).is_ok());
    }
}

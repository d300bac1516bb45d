//! An archive with one file, as POSIX.1-1988 (ustar) has it.

const BLOCK: usize = 512;

/// The archive. Owner and time are zero, so that equal content is an equal archive.
pub(super) fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(BLOCK);
    field(&mut header, 100, name);
    field(&mut header, 8, "0000644");
    field(&mut header, 8, "0000000");
    field(&mut header, 8, "0000000");
    field(&mut header, 12, &format!("{:011o}", content.len()));
    field(&mut header, 12, "00000000000");
    let before = header.len();
    // The sum is taken with spaces in its own place.
    header.extend_from_slice(b"        ");
    field(&mut header, 1, "0");
    field(&mut header, 100, "");
    header.extend_from_slice(b"ustar\x0000");
    header.resize(BLOCK, 0);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (place, byte) in header.iter_mut().skip(before).zip(format!("{sum:06o}\0 ").bytes()) {
        *place = byte;
    }
    let mut archive = header;
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    // Two empty blocks end it.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn field(header: &mut Vec<u8>, width: usize, text: &str) {
    let end = header.len() + width;
    header.extend(text.bytes().take(width));
    header.resize(end, 0);
}

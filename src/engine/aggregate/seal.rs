//! The checksum of a Parquet file, kept in the file's own metadata, so that it survives copying and
//! renaming: eight hexadecimal digits, the CRC-32 of all bytes of the file with zeros in place of
//! these digits.

use memchr::memmem;
use std::ops::Range;

/// The key of the checksum in the metadata.
pub(crate) const CHECKSUM_KEY: &str = "ringest.crc32";
/// Its value until the file is sealed.
pub(super) const BLANK: &str = "00000000";

/// The metadata is at the end of the file; only what other programs put behind it comes later.
const SEARCHED_BYTES: usize = 1 << 20;
const MAGIC: &[u8] = b"PAR1";

/// Whether the content of a file can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seal {
    /// The checksum is that of the content.
    Intact,
    /// The file has no checksum: another program has written it.
    Absent,
}

/// Puts the checksum into a file that was written with a blank one.
///
/// # Panics
/// If the file has no checksum.
pub(super) fn seal(file: &mut [u8]) {
    let digits = digits(file).expect("the file was written with a checksum");
    let sum = checksum(file, &digits);
    file[digits].copy_from_slice(sum.as_bytes());
}

/// Compares a file with its checksum.
///
/// # Errors
/// How the file is damaged.
pub(super) fn check(file: &[u8]) -> Result<Seal, String> {
    if file.len() < 3 * MAGIC.len() || !file.starts_with(MAGIC) || !file.ends_with(MAGIC) {
        return Err("it is cut off or not Parquet".to_owned());
    }
    let Some(digits) = digits(file) else { return Ok(Seal::Absent) };
    let sum = checksum(file, &digits);
    match file[digits.clone()] == *sum.as_bytes() {
        true => Ok(Seal::Intact),
        false => {
            let recorded = file[digits].escape_ascii();
            Err(format!("its checksum is {sum}, but {recorded} was recorded"))
        }
    }
}

/// Where the digits are. Metadata is Thrift in its compact form: a string of 13 bytes, then one of
/// eight, each behind a byte for its type and one for its length.
fn digits(file: &[u8]) -> Option<Range<usize>> {
    let entry = [b"\x18\x0d", CHECKSUM_KEY.as_bytes(), b"\x18\x08"].concat();
    let from = file.len().saturating_sub(SEARCHED_BYTES);
    let at = from + memmem::rfind(&file[from..], &entry)? + entry.len();
    (at + BLANK.len() <= file.len()).then(|| at..at + BLANK.len())
}

fn checksum(file: &[u8], digits: &Range<usize>) -> String {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&file[..digits.start]);
    sum.update(BLANK.as_bytes());
    sum.update(&file[digits.end..]);
    format!("{:08x}", sum.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> Vec<u8> {
        [b"PAR1", content, b"\x18\x0dringest.crc32\x18\x0800000000\x00more PAR1"].concat()
    }

    #[test]
    fn a_sealed_file_is_intact_until_a_bit_of_it_changes() {
        let mut sealed = file(b"content");
        assert!(check(&sealed).unwrap_err().contains("00000000 was recorded"));
        seal(&mut sealed);
        assert_eq!(check(&sealed), Ok(Seal::Intact));
        // Of the bytes with zeros for the digits, by another implementation: zlib.crc32 of Python.
        assert!(sealed.windows(8).any(|digits| digits == b"ecd1c998"), "{}", sealed.escape_ascii());
        for bit in 0..8 * sealed.len() {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(check(&damaged), Ok(Seal::Intact), "bit {bit}");
        }
    }

    #[test]
    fn a_file_without_a_checksum_is_told_apart() {
        assert_eq!(check(b"PAR1 and so on PAR1"), Ok(Seal::Absent));
        for cut in [&b"PAR1"[..], b"", b"PAR1 and so on"] {
            assert!(check(cut).unwrap_err().contains("cut off"));
        }
    }
}

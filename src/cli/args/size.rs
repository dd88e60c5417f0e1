//! Sizes on the command line, such as `64KiB`.

use bytesize::ByteSize;

/// Reads a number of bytes, with a unit or without.
///
/// # Errors
/// What is wrong with the text, with an example of a right one.
pub(crate) fn size<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}; write e.g. 64KiB"))?;
    N::try_from(size.as_u64()).map_err(|_| format!("{} bytes are too many", size.as_u64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("64KiB"), Ok(65_536_u64));
        assert_eq!(size("4096"), Ok(4096_usize));
        assert_eq!(size("1MB"), Ok(1_000_000_u64));
        assert!(size::<u64>("many").unwrap_err().contains("64KiB"));
        assert!(size::<u64>("-1").is_err());
        assert_eq!(size::<u16>("64KiB").unwrap_err(), "65536 bytes are too many");
    }
}

//! Finds the zero bytes among 32, as a bit mask.

/// Four little-endian words.
pub(crate) type Words = [u64; 4];

/// A bit for each zero byte, the lowest bit for the first byte.
#[inline(always)]
pub(crate) fn zero_bytes(words: &Words) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return by_compare(words);
    #[cfg(not(target_arch = "x86_64"))]
    by_words(words)
}

/// Uses SSE2: a fifth of the instructions that the portable version takes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn by_compare(words: &Words) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_setzero_si128};
    let half = |low: u64, high: u64| {
        // SAFETY: these instructions are part of SSE2, which every x86-64 processor has.
        #[allow(unused_unsafe, reason = "newer compilers know that they are safe")]
        unsafe {
            let bytes = _mm_set_epi64x(high as i64, low as i64);
            _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_setzero_si128())) as u32
        }
    };
    half(words[0], words[1]) | half(words[2], words[3]) << 16
}

/// The portable version, a word at a time.
#[cfg_attr(target_arch = "x86_64", allow(dead_code, reason = "used by tests"))]
fn by_words(words: &Words) -> u32 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let bits = |word: u64| {
        // The lowest bit of each byte tells whether any of its bits is set; the product gathers
        // the eight.
        let any = [4, 2, 1].iter().fold(word, |any, shift| any | any >> shift) & LOW;
        (!(any.wrapping_mul(0x0102_0408_1020_4080) >> 56) & 0xff) as u32
    };
    words.iter().rev().fold(0, |all, &word| all << 8 | bits(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_versions_agree_with_a_loop_over_bytes(
            bytes in proptest::array::uniform32(prop_oneof![Just(0u8), Just(1), any::<u8>()]),
        ) {
            let (words, _) = bytes.as_chunks::<8>();
            let words: Words = std::array::from_fn(|i| u64::from_le_bytes(words[i]));
            let zero = (0..32).filter(|&i| bytes[i] == 0).fold(0u32, |bits, i| bits | 1 << i);
            prop_assert_eq!(zero_bytes(&words), zero);
            prop_assert_eq!(by_words(&words), zero);
        }
    }
}

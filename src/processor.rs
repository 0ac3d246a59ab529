//! What processors can do and stable Rust has no safe word for.

/// Has the cache line at an address brought into the processor's cache. The address may be any: a
/// wrong one costs the time of a load. Does nothing where stable Rust has no such instruction.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64; the instruction reads nothing that a program can see, and
        // faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// A bit for each of twelve bytes that equals `byte`, the lowest byte of `low` first.
#[inline(always)]
pub(crate) fn equal_bytes(low: u64, high: u32, byte: u8) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        // SAFETY: SSE2 is part of x86-64.
        let equal = unsafe { equal_bytes_sse2(low, high, byte) };
        equal & 0xfff
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    equal_bytes_anywhere(low, high, byte)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "sse2")]
#[inline]
fn equal_bytes_sse2(low: u64, high: u32, byte: u8) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
    let bytes = _mm_set_epi64x(high.into(), low as i64);
    _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8))) as u32
}

#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
fn equal_bytes_anywhere(low: u64, high: u32, byte: u8) -> u32 {
    let bytes = low.to_le_bytes().into_iter().chain(high.to_le_bytes());
    bytes.enumerate().map(|(at, found)| u32::from(found == byte) << at).sum()
}

/// A bit for each of eight numbers that equals `number`, the first of them lowest.
#[inline(always)]
pub(crate) fn equal_numbers(numbers: [u16; 8], number: u16) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { equal_numbers_sse2(numbers, number) }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    equal_numbers_anywhere(numbers, number)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "sse2")]
#[inline]
fn equal_numbers_sse2(numbers: [u16; 8], number: u16) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16, _mm_setzero_si128,
    };
    // SAFETY: both are 16 bytes, and any bytes are a vector of numbers.
    let numbers = unsafe { std::mem::transmute::<[u16; 8], std::arch::x86_64::__m128i>(numbers) };
    let equal = _mm_cmpeq_epi16(numbers, _mm_set1_epi16(number as i16));
    _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())) as u32
}

#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
fn equal_numbers_anywhere(numbers: [u16; 8], number: u16) -> u32 {
    numbers.iter().enumerate().map(|(at, &found)| u32::from(found == number) << at).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_names_each_equal_byte() {
        for position in 0..12 {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = [byte ^ 1; 16];
                bytes[position] = byte;
                let [low, high] = [0, 8].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()));
                assert_eq!(equal_bytes(low, high as u32, byte), 1 << position);
                assert_eq!(equal_bytes_anywhere(low, high as u32, byte), 1 << position);
            }
        }
        assert_eq!(equal_bytes(u64::MAX, u32::MAX, 0xff), 0xfff);
        assert_eq!(equal_bytes(0, 0, 0), 0xfff, "the four bytes beyond the twelve are none");
    }

    #[test]
    fn equal_numbers_names_each_equal_number() {
        for position in 0..8 {
            for number in [0, 1, 0x7fff, 0x8000, 0xff00, 0xffff] {
                let mut numbers = [number ^ 1; 8];
                numbers[position] = number;
                assert_eq!(equal_numbers(numbers, number), 1 << position);
                assert_eq!(equal_numbers_anywhere(numbers, number), 1 << position);
            }
        }
        assert_eq!(equal_numbers([7; 8], 7), 0xff);
    }
}

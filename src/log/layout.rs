//! What every format here has in common: versions, magics, and little-endian numbers, at fixed
//! places or of as many bytes as they need. The layouts themselves are told in docs/format.md and nowhere else.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// STATE's version stands for the whole directory: raised when an older release must not touch it.
pub(crate) const STATE_VERSION: u16 = 1;
pub(crate) const SEGMENT_VERSION: u16 = 1;
pub(crate) const JOURNAL_VERSION: u16 = 1;
pub(crate) const SNAPSHOT_VERSION: u16 = 1;

pub(crate) const LOCK_TEXT: &[u8] = b"embercache lock\n";
pub(crate) const STATE_MAGIC: [u8; 8] = *b"EMBSTATE";
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"EMBSEGMT";
pub(crate) const TRAILER_MAGIC: [u8; 8] = *b"EMBFOOTR";
pub(crate) const JOURNAL_MAGIC: [u8; 8] = *b"EMBJOURN";
pub(crate) const SNAPSHOT_MAGIC: [u8; 8] = *b"EMBINDEX";

/// The check of `bytes`: xxh3 under a seed that ties them to their place.
pub(crate) fn check(bytes: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// Puts the check of all bytes before the last eight into the last eight.
pub(crate) fn put_check(bytes: &mut [u8], seed: u64) {
    let end = bytes.len() - 8;
    let sum = check(&bytes[..end], seed);
    put(bytes, end, sum.to_le_bytes());
}

/// Whether the last eight bytes are the check of all before them.
pub(crate) fn is_checked(bytes: &[u8], seed: u64) -> bool {
    let end = bytes.len() - 8;
    u64_at(bytes, end) == check(&bytes[..end], seed)
}

pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// # Panics
///
/// If the slice is too short; callers pass arrays, or slices of a length that they have checked.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// Takes bytes off the front; `None` if there are fewer.
pub(crate) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (&array, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(array)
}

/// Appends a number below 2^63: seven bits a byte, the lowest first, and a top bit where more follow.
pub(crate) fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    debug_assert!(number >> 63 == 0, "{number} would not be taken back");
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes such a number off the front; `None` if it has no end within nine bytes.
#[inline]
pub(crate) fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Or-ed in stretches, which becomes wide instructions: a journal file ends in a million zeros.
    bytes.chunks(256).all(|stretch| stretch.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_the_bytes_they_need_and_come_back() {
        let corners = [(0, 1), (0x7f, 1), (0x80, 2), (0x3fff, 2), (0x4000, 3), (u64::MAX >> 1, 9)];
        for (number, len) in corners {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            assert_eq!(bytes.len(), len, "{number:#x}");
            assert_eq!(take_number(&mut &bytes[..len - 1]), None, "cut");
            bytes.push(0xff);
            let mut rest = &bytes[..];
            assert_eq!(take_number(&mut rest), Some(number));
            assert_eq!(rest, [0xff], "what lies behind stays");
        }
        assert_eq!(take_number(&mut &[0xff; 20][..]), None, "no end");
    }
}

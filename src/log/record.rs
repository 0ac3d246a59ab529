//! One record of a segment: header, key, value, padding.

use super::layout::{check, put, u16_at, u32_at, u64_at};
use crate::location::{RECORD_ALIGN, Seq};

pub(crate) const HEADER_BYTES: usize = 32;
const KIND_VALUE: u8 = 1;
/// The expiry is an idle deadline: each hit would have moved it on.
const FLAG_IDLE: u8 = 1;

/// A record's header, its kind and flags known to this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) payload_check: u64,
    pub(crate) seq: Seq,
    pub(crate) value_len: u32,
    /// Seconds of cache time since 1970; 0 is never.
    pub(crate) expiry: u32,
    pub(crate) key_len: u16,
    pub(crate) idle: bool,
}

impl RecordHeader {
    /// `place` is [`place`] of the record: a header is valid in that segment at that offset only.
    pub(crate) fn encode(&self, place: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put(&mut bytes, 0, self.payload_check.to_le_bytes());
        put(&mut bytes, 8, self.seq.0.to_le_bytes());
        put(&mut bytes, 16, self.value_len.to_le_bytes());
        put(&mut bytes, 20, self.expiry.to_le_bytes());
        put(&mut bytes, 24, self.key_len.to_le_bytes());
        bytes[26] = KIND_VALUE;
        bytes[27] = if self.idle { FLAG_IDLE } else { 0 };
        let sum = check(&bytes[..28], place) as u32;
        put(&mut bytes, 28, sum.to_le_bytes());
        bytes
    }

    /// `None` if the check fails, or the kind or a flag is one that this release does not know.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], place: u64) -> Option<RecordHeader> {
        if u32_at(bytes, 28) != check(&bytes[..28], place) as u32 {
            return None;
        }
        let (kind, flags) = (bytes[26], bytes[27]);
        if kind != KIND_VALUE || flags & !FLAG_IDLE != 0 {
            return None;
        }
        Some(RecordHeader {
            payload_check: u64_at(bytes, 0),
            seq: Seq(u64_at(bytes, 8)),
            value_len: u32_at(bytes, 16),
            expiry: u32_at(bytes, 20),
            key_len: u16_at(bytes, 24),
            idle: flags & FLAG_IDLE != 0,
        })
    }

    /// The record's whole extent, padding included.
    pub(crate) fn record_bytes(&self) -> u64 {
        record_bytes(usize::from(self.key_len), self.value_len as usize)
    }

    /// Whether these are the key and value that the record was made of.
    pub(crate) fn verifies(&self, key: &[u8], value: &[u8], place: u64) -> bool {
        self.payload_check == payload_check(key, value, place)
    }
}

/// What seeds a record's checks, so that a frame of another life, file or offset never validates.
pub(crate) fn place(salt: u64, offset: u32) -> u64 {
    salt ^ u64::from(offset)
}

/// The check of key and value, made so that the two can lie in different buffers.
pub(crate) fn payload_check(key: &[u8], value: &[u8], place: u64) -> u64 {
    check(value, check(key, place))
}

/// The extent of a record with a key and value of these sizes, padding included.
pub(crate) fn record_bytes(key_len: usize, value_len: usize) -> u64 {
    (HEADER_BYTES as u64)
        .saturating_add(key_len as u64)
        .saturating_add(value_len as u64)
        .next_multiple_of(u64::from(RECORD_ALIGN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RecordHeader {
        let payload_check = payload_check(b"key", b"value", 77);
        RecordHeader { payload_check, seq: Seq(u64::MAX), value_len: 5, expiry: 9, key_len: 3, idle: true }
    }

    #[test]
    fn every_flip_and_every_other_place_is_rejected() {
        let bytes = header().encode(77);
        assert_eq!(RecordHeader::decode(&bytes, 77), Some(header()));
        assert_eq!(RecordHeader::decode(&bytes, 78), None);
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&flipped, 77), None, "bit {bit}");
        }
        assert!(header().verifies(b"key", b"value", 77));
        assert!(!header().verifies(b"kez", b"value", 77));
        assert!(!header().verifies(b"key", b"valuf", 77));
        assert!(!header().verifies(b"key", b"value", 78));
    }

    #[test]
    fn what_this_release_does_not_know_is_a_miss() {
        for (at, value) in [(26, 2), (27, 2), (27, 0x80)] {
            let mut bytes = header().encode(77);
            bytes[at] = value;
            let sum = check(&bytes[..28], 77) as u32;
            put(&mut bytes, 28, sum.to_le_bytes());
            assert_eq!(RecordHeader::decode(&bytes, 77), None);
        }
    }

    #[test]
    fn records_are_whole_multiples_of_eight() {
        assert_eq!(record_bytes(0, 0), 32);
        assert_eq!(record_bytes(1, 0), 40);
        assert_eq!(record_bytes(4, 4), 40);
        assert_eq!(record_bytes(4, 5), 48);
        assert_eq!(record_bytes(16, 200), 248);
    }
}

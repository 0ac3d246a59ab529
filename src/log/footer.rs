//! The list of a sealed segment's records, behind them in the same file, so that recovery reads
//! two bytes in a hundred of the log.

use super::layout::{TRAILER_MAGIC, check, is_checked, put, put_check, u32_at, u64_at};
use super::segment;
use crate::{
    hash::KeyHash,
    location::{Location, RECORD_ALIGN, SegmentId, Seq},
};

pub(crate) const ENTRY_BYTES: usize = 24;
pub(crate) const TRAILER_BYTES: usize = 64;

/// One record, as the footer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FooterEntry {
    pub(crate) hash: KeyHash,
    pub(crate) seq: Seq,
    pub(crate) location: Location,
    /// The record's extent in the file, padding included.
    pub(crate) len: u32,
    pub(crate) expiry: u32,
}

impl FooterEntry {
    /// # Panics
    ///
    /// If `seq` is 2^32 or more behind `base_seq`: the appender seals long before.
    pub(crate) fn encode(&self, base_seq: Seq) -> [u8; ENTRY_BYTES] {
        let delta = u32::try_from(self.seq.0 - base_seq.0).expect("the appender seals before this");
        let mut bytes = [0; ENTRY_BYTES];
        put(&mut bytes, 0, self.hash.0.to_le_bytes());
        put(&mut bytes, 8, delta.to_le_bytes());
        put(&mut bytes, 12, (self.location.offset() / RECORD_ALIGN).to_le_bytes());
        put(&mut bytes, 16, self.len.to_le_bytes());
        put(&mut bytes, 20, self.expiry.to_le_bytes());
        bytes
    }

    /// `None` if the record would not lie within the segment's data.
    fn decode(bytes: &[u8], id: SegmentId, base_seq: Seq, data_end: u32) -> Option<FooterEntry> {
        let offset = u32_at(bytes, 12).checked_mul(RECORD_ALIGN)?;
        let len = u32_at(bytes, 16);
        if offset.checked_add(len)? > data_end || offset >= Location::SEGMENT_BYTES_MAX {
            return None;
        }
        Some(FooterEntry {
            hash: KeyHash(u64_at(bytes, 0)),
            seq: Seq(base_seq.0.checked_add(u64::from(u32_at(bytes, 8)))?),
            location: Location::new(id, offset),
            len,
            expiry: u32_at(bytes, 20),
        })
    }
}

/// The last bytes of a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// The end of the records and the start of the footer's entries.
    pub(crate) data_end: u32,
    pub(crate) count: u32,
    pub(crate) first_seq: Seq,
    pub(crate) max_seq: Seq,
    /// Of the entries, seeded by the segment's salt.
    entries_check: u64,
}

impl Trailer {
    /// Describes encoded entries, of which there is at least one.
    pub(crate) fn of(entries: &[u8], base_seq: Seq, data_end: u32, salt: u64) -> Trailer {
        let seq_of = |entry: &[u8]| Seq(base_seq.0 + u64::from(u32_at(entry, 8)));
        let (mut first_seq, mut max_seq) = (Seq(u64::MAX), Seq(0));
        for seq in entries.chunks_exact(ENTRY_BYTES).map(seq_of) {
            first_seq = first_seq.min(seq);
            max_seq = max_seq.max(seq);
        }
        let count = (entries.len() / ENTRY_BYTES) as u32;
        Trailer { data_end, count, first_seq, max_seq, entries_check: check(entries, salt) }
    }

    pub(crate) fn encode(&self, salt: u64) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        put(&mut bytes, 0, TRAILER_MAGIC);
        put(&mut bytes, 8, self.data_end.to_le_bytes());
        put(&mut bytes, 12, self.count.to_le_bytes());
        put(&mut bytes, 16, self.first_seq.0.to_le_bytes());
        put(&mut bytes, 24, self.max_seq.0.to_le_bytes());
        put(&mut bytes, 32, self.entries_check.to_le_bytes());
        put_check(&mut bytes, salt);
        bytes
    }

    /// `None` if this is not the trailer of the segment with that salt in a file of that length.
    pub(crate) fn decode(bytes: &[u8; TRAILER_BYTES], salt: u64, file_bytes: u64) -> Option<Trailer> {
        let trailer = Trailer {
            data_end: u32_at(bytes, 8),
            count: u32_at(bytes, 12),
            first_seq: Seq(u64_at(bytes, 16)),
            max_seq: Seq(u64_at(bytes, 24)),
            entries_check: u64_at(bytes, 32),
        };
        let fits = bytes[..8] == TRAILER_MAGIC
            && is_checked(bytes, salt)
            && trailer.data_end as usize >= segment::HEADER_BYTES
            && trailer.data_end <= Location::SEGMENT_BYTES_MAX
            && trailer.file_bytes() == file_bytes;
        fits.then_some(trailer)
    }

    pub(crate) fn entries_bytes(&self) -> usize {
        self.count as usize * ENTRY_BYTES
    }

    fn file_bytes(&self) -> u64 {
        let entries_bytes = u64::from(self.count) * ENTRY_BYTES as u64;
        u64::from(self.data_end) + entries_bytes + TRAILER_BYTES as u64
    }

    /// The entries in the order of their records; `None` if any byte of them is not as written.
    pub(crate) fn entries(
        &self,
        bytes: &[u8],
        id: SegmentId,
        base_seq: Seq,
        salt: u64,
    ) -> Option<Vec<FooterEntry>> {
        if bytes.len() != self.entries_bytes() || check(bytes, salt) != self.entries_check {
            return None;
        }
        let decode = |entry| FooterEntry::decode(entry, id, base_seq, self.data_end);
        bytes.chunks_exact(ENTRY_BYTES).map(decode).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_is_rejected() {
        let id = SegmentId::new(3).unwrap();
        let entries = [(0xaa, 10, 64), (0xbb, 12, 112)].map(|(hash, seq, offset)| FooterEntry {
            hash: KeyHash(hash),
            seq: Seq(seq),
            location: Location::new(id, offset),
            len: 48,
            expiry: 5,
        });
        let bytes = entries.map(|entry| entry.encode(Seq(9))).concat();
        let trailer = Trailer::of(&bytes, Seq(9), 160, 77);
        assert_eq!((trailer.first_seq, trailer.max_seq), (Seq(10), Seq(12)));
        assert_eq!(trailer.entries(&bytes, id, Seq(9), 77).unwrap(), entries);
        let encoded = trailer.encode(77);
        let file_bytes = 160 + 48 + 64;
        assert_eq!(Trailer::decode(&encoded, 77, file_bytes), Some(trailer));
        assert_eq!(Trailer::decode(&encoded, 78, file_bytes), None);
        assert_eq!(Trailer::decode(&encoded, 77, file_bytes + 1), None);
        for bit in 0..TRAILER_BYTES * 8 {
            let mut flipped = encoded;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::decode(&flipped, 77, file_bytes), None, "bit {bit}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(trailer.entries(&flipped, id, Seq(9), 77), None, "bit {bit}");
        }
    }

    #[test]
    fn an_entry_outside_the_data_is_rejected_however_well_it_is_signed() {
        let id = SegmentId::new(3).unwrap();
        let location = Location::new(id, 144);
        let entry = FooterEntry { hash: KeyHash(1), seq: Seq(1), location, len: 48, expiry: 0 };
        let bytes = entry.encode(Seq(1));
        let trailer = Trailer::of(&bytes, Seq(1), 160, 77);
        assert_eq!(trailer.entries(&bytes, id, Seq(1), 77), None);
    }
}

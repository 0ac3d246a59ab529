//! The list of a sealed segment's records, behind them in the same file, so that recovery reads
//! some bytes of each instead of all.

use super::{
    layout::{
        TRAILER_MAGIC, check, is_checked, put, put_check, put_number, take_array, take_number, u32_at, u64_at,
    },
    record, segment,
};
use crate::{
    hash::KeyHash,
    location::{Location, RECORD_ALIGN, SegmentId, Seq},
};

/// A hash, and three numbers of a byte.
const ENTRY_BYTES_MIN: usize = 8 + 3;
/// A hash, and numbers of 63, 24 and 32 bits.
pub(crate) const ENTRY_BYTES_MAX: usize = 8 + 9 + 4 + 5;
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
    /// Takes the next entry off the front of `bytes`; `None` if its record would not lie between
    /// `offset` and `data_end`.
    fn take(
        bytes: &mut &[u8],
        id: SegmentId,
        offset: u32,
        data_end: u32,
        last_seq: Seq,
    ) -> Option<FooterEntry> {
        let hash = KeyHash(u64::from_le_bytes(take_array(bytes)?));
        let seq = Seq(last_seq.0.checked_add(take_number(bytes)?)?);
        let len = u32::try_from(take_number(bytes)?).ok()?.checked_mul(RECORD_ALIGN)?;
        let expiry = u32::try_from(take_number(bytes)?).ok()?;
        let fits = len >= record::HEADER_BYTES as u32 && len <= data_end - offset;
        fits.then(|| FooterEntry { hash, seq, location: Location::new(id, offset), len, expiry })
    }
}

/// The entries of a segment's records, encoded as these are appended.
#[derive(Debug)]
pub(crate) struct Footer {
    bytes: Vec<u8>,
    extent: FooterExtent,
}

/// How many records a footer describes, and what it takes from the last for the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FooterExtent {
    bytes: usize,
    count: u32,
    data_end: u32,
    max_seq: Seq,
}

impl Footer {
    /// Of a segment without records.
    pub(crate) fn new(base_seq: Seq) -> Footer {
        let extent =
            FooterExtent { bytes: 0, count: 0, data_end: segment::HEADER_BYTES as u32, max_seq: base_seq };
        Footer { bytes: Vec::new(), extent }
    }

    /// Begins that of another segment, with the memory of this one.
    pub(crate) fn restart(&mut self, base_seq: Seq) {
        let bytes = std::mem::take(&mut self.bytes);
        *self = Footer { bytes, ..Footer::new(base_seq) };
        self.bytes.clear();
    }

    /// Makes room for so many entries, so that to push them does not allocate.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.bytes.reserve(entries * ENTRY_BYTES_MAX);
    }

    /// # Panics
    ///
    /// If the record does not begin where the one before ends, or has a lower seq.
    pub(crate) fn push(&mut self, entry: &FooterEntry) {
        let FooterExtent { count, data_end, max_seq, .. } = self.extent;
        assert_eq!(entry.location.offset(), data_end, "records lie one behind the other");
        let seqs = entry.seq.0.checked_sub(max_seq.0).expect("seqs rise with the offsets");
        self.bytes.extend_from_slice(&entry.hash.0.to_le_bytes());
        put_number(&mut self.bytes, seqs);
        put_number(&mut self.bytes, u64::from(entry.len / RECORD_ALIGN));
        put_number(&mut self.bytes, u64::from(entry.expiry));
        self.extent = FooterExtent {
            bytes: self.bytes.len(),
            count: count + 1,
            data_end: data_end + entry.len,
            max_seq: entry.seq,
        };
    }

    /// How far it has come, for [`Footer::truncate`].
    pub(crate) fn extent(&self) -> FooterExtent {
        self.extent
    }

    /// Forgets what was pushed since.
    pub(crate) fn truncate(&mut self, to: FooterExtent) {
        self.bytes.truncate(to.bytes);
        self.extent = to;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is written behind it.
    pub(crate) fn trailer(&self, salt: u64) -> Trailer {
        let FooterExtent { bytes, count, data_end, max_seq } = self.extent;
        let entries_check = check(&self.bytes, salt);
        Trailer { data_end, entries_bytes: bytes as u32, count, max_seq, entries_check }
    }
}

/// The last bytes of a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// The end of the records and the start of the footer's entries.
    pub(crate) data_end: u32,
    /// How long the entries are.
    pub(crate) entries_bytes: u32,
    pub(crate) count: u32,
    pub(crate) max_seq: Seq,
    /// Of the entries, seeded by the segment's salt.
    entries_check: u64,
}

impl Trailer {
    pub(crate) fn encode(&self, salt: u64) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        put(&mut bytes, 0, TRAILER_MAGIC);
        put(&mut bytes, 8, self.data_end.to_le_bytes());
        put(&mut bytes, 12, self.entries_bytes.to_le_bytes());
        put(&mut bytes, 16, self.count.to_le_bytes());
        put(&mut bytes, 24, self.max_seq.0.to_le_bytes());
        put(&mut bytes, 32, self.entries_check.to_le_bytes());
        put_check(&mut bytes, salt);
        bytes
    }

    /// `None` if this is not the trailer of the segment with that salt in a file of that length.
    pub(crate) fn decode(bytes: &[u8; TRAILER_BYTES], salt: u64, file_bytes: u64) -> Option<Trailer> {
        let trailer = Trailer {
            data_end: u32_at(bytes, 8),
            entries_bytes: u32_at(bytes, 12),
            count: u32_at(bytes, 16),
            max_seq: Seq(u64_at(bytes, 24)),
            entries_check: u64_at(bytes, 32),
        };
        let fits = bytes[..8] == TRAILER_MAGIC
            && is_checked(bytes, salt)
            && trailer.data_end as usize >= segment::HEADER_BYTES
            && trailer.data_end <= Location::SEGMENT_BYTES_MAX
            && trailer.file_bytes() == file_bytes
            && trailer.count as usize <= trailer.entries_bytes as usize / ENTRY_BYTES_MIN
            // However well signed, a seq out of reach would end the counter.
            && trailer.max_seq <= Seq::MAX;
        fits.then_some(trailer)
    }

    fn file_bytes(&self) -> u64 {
        u64::from(self.data_end) + u64::from(self.entries_bytes) + TRAILER_BYTES as u64
    }

    /// The entries in the order of their records; `None` if any byte of them is not as written.
    pub(crate) fn entries(
        &self,
        mut bytes: &[u8],
        id: SegmentId,
        base_seq: Seq,
        salt: u64,
    ) -> Option<Vec<FooterEntry>> {
        if check(bytes, salt) != self.entries_check {
            return None;
        }
        let (mut offset, mut seq) = (segment::HEADER_BYTES as u32, base_seq);
        // As long as the entries need, which `decode` has made sure of.
        let mut entries = Vec::with_capacity(self.count as usize);
        for _ in 0..self.count {
            let entry = FooterEntry::take(&mut bytes, id, offset, self.data_end, seq)?;
            (offset, seq) = (offset + entry.len, entry.seq);
            entries.push(entry);
        }
        let are_all = bytes.is_empty() && offset == self.data_end && seq == self.max_seq;
        are_all.then_some(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 77;
    const BASE: Seq = Seq(9);

    fn id() -> SegmentId {
        SegmentId::new(3).unwrap()
    }

    /// Entries of records with these extents, one behind the other.
    fn entries(records: &[(u64, u32, u32)]) -> Vec<FooterEntry> {
        let mut offset = 64;
        let entry = |(&(seq, len, expiry), hash): (&(u64, u32, u32), u64)| {
            let location = Location::new(id(), offset);
            offset += len;
            FooterEntry { hash: KeyHash(!hash), seq: Seq(seq), location, len, expiry }
        };
        records.iter().zip(0..).map(entry).collect()
    }

    fn footer(entries: &[FooterEntry]) -> Footer {
        let mut footer = Footer::new(BASE);
        entries.iter().for_each(|entry| footer.push(entry));
        footer
    }

    #[test]
    fn every_flip_and_what_cannot_be_is_rejected() {
        let entries = entries(&[(10, 48, 5), (12, 40, 0)]);
        let footer = footer(&entries);
        let trailer = footer.trailer(SALT);
        assert_eq!((trailer.data_end, trailer.count, trailer.max_seq), (152, 2, Seq(12)));
        assert_eq!(trailer.entries(footer.bytes(), id(), BASE, SALT).unwrap(), entries);
        let encoded = trailer.encode(SALT);
        let file_bytes = 152 + 2 * ENTRY_BYTES_MIN as u64 + 64;
        assert_eq!(Trailer::decode(&encoded, SALT, file_bytes), Some(trailer));
        assert_eq!(Trailer::decode(&encoded, SALT + 1, file_bytes), None);
        assert_eq!(Trailer::decode(&encoded, SALT, file_bytes + 1), None);
        for bit in 0..TRAILER_BYTES * 8 {
            let mut flipped = encoded;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::decode(&flipped, SALT, file_bytes), None, "bit {bit}");
        }
        for (count, max_seq) in [(3, 12), (u32::MAX, 12), (2, Seq::MAX.0 + 1), (2, u64::MAX)] {
            let claim = Trailer { count, max_seq: Seq(max_seq), ..trailer };
            assert_eq!(Trailer::decode(&claim.encode(SALT), SALT, file_bytes), None, "{claim:?}");
        }
        for bit in 0..footer.bytes().len() * 8 {
            let mut flipped = footer.bytes().to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(trailer.entries(&flipped, id(), BASE, SALT), None, "bit {bit}");
        }
    }

    #[test]
    fn the_longest_and_shortest_entries_come_back() {
        let long = Location::SEGMENT_BYTES_MAX - 64 - 32;
        let entries = entries(&[(9, 32, 0), (Seq::MAX.0, long, u32::MAX)]);
        let footer = footer(&entries);
        assert_eq!(footer.bytes().len(), ENTRY_BYTES_MIN + ENTRY_BYTES_MAX);
        let trailer = footer.trailer(SALT);
        assert_eq!(trailer.entries(footer.bytes(), id(), BASE, SALT).unwrap(), entries);
    }

    #[test]
    fn what_is_cut_off_leaves_nothing_behind() {
        let entries = entries(&[(10, 48, 5), (1 << 40, 400_000, 1 << 30)]);
        let mut footer = footer(&entries[..1]);
        let (bytes, extent) = (footer.bytes().to_vec(), footer.extent());
        for _ in 0..2 {
            footer.push(&entries[1]);
            footer.truncate(extent);
            assert_eq!((footer.bytes(), footer.trailer(SALT).max_seq), (&bytes[..], Seq(10)));
        }
        footer.restart(Seq(1 << 50));
        assert!(footer.is_empty());
        footer.push(&FooterEntry { seq: Seq(1 << 50), ..entries[0] });
        assert_eq!((footer.bytes().len(), footer.trailer(SALT).count), (ENTRY_BYTES_MIN, 1));
    }

    /// Entries that are signed, and not what the trailer says.
    #[test]
    fn entries_outside_the_data_are_rejected_however_well_they_are_signed() {
        let honest = footer(&entries(&[(10, 48, 0), (12, 40, 0)]));
        let believed = |change: &dyn Fn(&mut Trailer, &mut Vec<u8>)| {
            let (mut trailer, mut bytes) = (honest.trailer(SALT), honest.bytes().to_vec());
            change(&mut trailer, &mut bytes);
            trailer.entries_check = check(&bytes, SALT);
            trailer.entries(&bytes, id(), BASE, SALT).is_some()
        };
        assert!(believed(&|_, _| {}));
        for behind in [1, 8, u32::MAX - 152] {
            assert!(!believed(&|trailer, _| trailer.data_end += behind), "a gap of {behind} behind");
        }
        for less in [1, 8, 40, 88] {
            assert!(!believed(&|trailer, _| trailer.data_end -= less), "{less} bytes too far");
        }
        for count in [0, 1, 3, u32::MAX / 64] {
            assert!(!believed(&|trailer, _| trailer.count = count), "{count} entries");
        }
        for max_seq in [9, 11, 13] {
            assert!(!believed(&|trailer, _| trailer.max_seq = Seq(max_seq)), "up to {max_seq}");
        }
        let extents =
            |first, second| believed(&|_, bytes| (bytes[9], bytes[9 + ENTRY_BYTES_MIN]) = (first, second));
        assert!(extents(7, 4));
        for (first, second) in [(6, 6), (6, 4), (0x7f, 5), (11, 0), (8, 3), (0, 11)] {
            assert!(!extents(first, second), "records of {first} and {second} times 8 bytes");
        }
        let wide = |number: u64| {
            let mut bytes = honest.bytes()[..9].to_vec();
            put_number(&mut bytes, number);
            bytes
        };
        for number in [1 << 25, 1 << 29, (1 << 29) + 6, 1 << 32 | 6, u64::MAX >> 1] {
            let long = |_: &mut Trailer, bytes: &mut Vec<u8>| {
                *bytes = [&wide(number)[..], &bytes[10..]].concat();
            };
            assert!(!believed(&long), "a record of {number} times 8 bytes");
        }
        for len in 0..honest.bytes().len() {
            assert!(!believed(&|_, bytes| bytes.truncate(len)), "cut at {len}");
        }
        assert!(!believed(&|_, bytes| bytes.push(0)), "longer");
    }
}

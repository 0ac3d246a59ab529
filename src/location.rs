//! Where a record lies on disk: the one word in which shard and log meet.

use std::fmt;

/// Records start at multiples of this many bytes, so an offset is kept as a count of them.
pub(crate) const RECORD_ALIGN: u32 = 8;

/// The number of a segment file. Numbers rise and are never used twice in a directory's life, so
/// a stale [`Location`] can name a segment that is gone, never a wrong one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SegmentId(u32);

impl SegmentId {
    const BITS: u32 = 30;
    /// The last number there is: after 64 TiB written in the smallest segments, 4 PiB in the default
    /// ones of a log of 64 MiB and more. The appender stops there with an error instead of starting over.
    pub(crate) const MAX: SegmentId = SegmentId((1 << Self::BITS) - 1);

    pub(crate) fn new(id: u32) -> Option<SegmentId> {
        (id <= Self::MAX.0).then_some(SegmentId(id))
    }

    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seg-{:08x}", self.0)
    }
}

/// A segment and a record's offset in it, in 54 bits.
///
/// ```text
///  63      54 53                       24 23                        0
/// +----------+---------------------------+---------------------------+
/// |    0     |      segment id (30)      |   offset / 8 (24)         |
/// +----------+---------------------------+---------------------------+
/// ```
///
/// Ten bits stay free for the cold index's marks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Location(u64);

impl Location {
    pub(crate) const BITS: u32 = SegmentId::BITS + Self::OFFSET_BITS;
    const OFFSET_BITS: u32 = 24;
    /// The largest segment whose every record an offset can name: 128 MiB.
    pub(crate) const SEGMENT_BYTES_MAX: u32 = RECORD_ALIGN << Self::OFFSET_BITS;

    /// # Panics
    ///
    /// If `offset` is not a multiple of 8 or not below 128 MiB: the appender hands out no such offset.
    pub(crate) fn new(segment: SegmentId, offset: u32) -> Location {
        assert!(
            offset.is_multiple_of(RECORD_ALIGN) && offset < Self::SEGMENT_BYTES_MAX,
            "no record can start at offset {offset}"
        );
        Location(u64::from(segment.0) << Self::OFFSET_BITS | u64::from(offset / RECORD_ALIGN))
    }

    pub(crate) fn segment(self) -> SegmentId {
        SegmentId((self.0 >> Self::OFFSET_BITS) as u32)
    }

    pub(crate) fn offset(self) -> u32 {
        (self.0 as u32 & ((1 << Self::OFFSET_BITS) - 1)) * RECORD_ALIGN
    }

    /// The 54 bits, for the cold index and the snapshot.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// The inverse of [`Location::to_bits`]; bits above the 54 are ignored.
    pub(crate) fn from_bits(bits: u64) -> Location {
        Location(bits & ((1 << Self::BITS) - 1))
    }
}

const _: () = assert!(Location::BITS == 54);
// What files say of lengths and offsets, in 32 bits at most, is used as `usize`.
const _: () = assert!(usize::BITS >= u32::BITS);
const _: () = assert!(Location::SEGMENT_BYTES_MAX == 128 << 20);

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}+{}", self.segment(), self.offset())
    }
}

/// The place of an event in the one order of all appends and invalidations (rule R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Seq(pub(crate) u64);

impl Seq {
    /// No honest directory gets here; a file that says so is not believed, lest the counter wrap.
    pub(crate) const MAX: Seq = Seq(u64::MAX >> 1);
}

/// How far the journal has come in this run: so many entries. What a stripe has journaled last, an
/// acknowledgement that must outlive the machine waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JournalEnd(pub(crate) u64);

impl JournalEnd {
    /// Before the first entry: there is nothing to wait for.
    pub(crate) const START: JournalEnd = JournalEnd(0);
    /// Behind every entry there can be.
    pub(crate) const MAX: JournalEnd = JournalEnd(u64::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corners_survive_packing() {
        let top = Location::SEGMENT_BYTES_MAX - RECORD_ALIGN;
        for (segment, offset) in [(0, 0), (0, top), (SegmentId::MAX.0, 0), (SegmentId::MAX.0, top)] {
            let location = Location::new(SegmentId::new(segment).unwrap(), offset);
            assert_eq!((location.segment().get(), location.offset()), (segment, offset));
            assert_eq!(Location::from_bits(location.to_bits() | 0x3ff << 54), location);
        }
        assert_eq!(SegmentId::new(SegmentId::MAX.0 + 1), None);
    }
}

//! One log file: appended to while active, immutable once sealed, unlinked once reclaimed.

use std::{io, sync::Arc};

use super::{
    footer::{FooterEntry, Trailer},
    layout::{SEGMENT_MAGIC, SEGMENT_VERSION, is_checked, put, put_check, u16_at, u32_at, u64_at},
    open_files::LazyFile,
    record::{self, RecordHeader, place},
    scan::scan,
};
use crate::{
    io::{IoFile, Map},
    location::{Location, SegmentId, Seq},
    sync::{
        AtomicBool, AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
};

pub(crate) const HEADER_BYTES: usize = 64;
/// The rest of a longer record the processor brings near itself, once it sees the copy go on and on.
const PREFETCHED_BYTES_MAX: usize = 4608;

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: SegmentId,
    pub(crate) epoch: u64,
    /// Random; seeds every check in the file.
    pub(crate) salt: u64,
    /// No record in the file has a lower seq; the footer counts from here.
    pub(crate) base_seq: Seq,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put(&mut bytes, 0, SEGMENT_MAGIC);
        put(&mut bytes, 8, SEGMENT_VERSION.to_le_bytes());
        put(&mut bytes, 12, self.id.get().to_le_bytes());
        put(&mut bytes, 16, self.epoch.to_le_bytes());
        put(&mut bytes, 24, self.salt.to_le_bytes());
        put(&mut bytes, 32, self.base_seq.0.to_le_bytes());
        put_check(&mut bytes, 0);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<SegmentHeader> {
        let known =
            bytes[..8] == SEGMENT_MAGIC && u16_at(bytes, 8) == SEGMENT_VERSION && is_checked(bytes, 0);
        known.then_some(SegmentHeader {
            id: SegmentId::new(u32_at(bytes, 12))?,
            epoch: u64_at(bytes, 16),
            salt: u64_at(bytes, 24),
            base_seq: Seq(u64_at(bytes, 32)),
        })
    }
}

/// Where a segment's bytes are read.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// While active.
    File(Arc<dyn IoFile>),
    /// Once sealed. The file's descriptor is closed.
    Map(Map),
    /// Once sealed, in strict mode, and where the file system cannot map.
    Lazy(LazyFile),
}

impl Bytes {
    pub(crate) fn read_to(&self, offset: u32, out: &mut [u8]) -> io::Result<()> {
        match self {
            Bytes::File(file) => file.read_exact_at(out, u64::from(offset)),
            Bytes::Map(map) => map.copy_to(offset as usize, out).map_err(past_end),
            Bytes::Lazy(file) => file.get()?.read_exact_at(out, u64::from(offset)),
        }
    }

    /// The caller has checked that `len` bytes from `offset` lie within the file.
    pub(crate) fn read_vec(&self, offset: u32, len: usize) -> io::Result<Vec<u8>> {
        match self {
            Bytes::Map(map) => map.copy_vec(offset as usize, len).map_err(past_end),
            Bytes::File(_) | Bytes::Lazy(_) => {
                let mut out = vec![0; len];
                self.read_to(offset, &mut out)?;
                Ok(out)
            }
        }
    }
}

fn past_end(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, error)
}

/// One log file, as its readers see it. When the appender seals it, the log's table gets a new
/// `Segment` over the same file; whoever holds the old one reads on through its descriptor.
/// Whoever holds one that was unlinked reads on as well, unless its file is a lazy one that was closed meanwhile.
///
/// # Invariants
///
/// 1. Bytes below `readable` were written before it was raised and never change again.
/// 2. Only the appender raises `readable`, and only after its write returned.
/// 3. A mapped file keeps its length until it is unlinked: no mapped page is past its end.
/// 4. No id is used again that a record was in, so a stale `Location` can name a missing segment, never a wrong one.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) bytes: Bytes,
    /// The end of the records. Acquire; pairs with the Release in `publish`.
    readable: AtomicU32,
    /// `None` while active, and for good where the footer could not be written.
    pub(crate) trailer: Option<Trailer>,
    /// The highest seq of its records; while active, higher than any.
    pub(crate) max_seq: Seq,
    pub(crate) file_bytes: u64,
    hash_seed: u64,
    /// How much is brought near before a record is read: what one takes in the mean.
    prefetched_bytes: usize,
    /// Whether the file is known to outlive the machine. Relaxed, as the next: the one thread that
    /// appends sets and asks it.
    pub(crate) synced: AtomicBool,
    /// A sync has failed. Nobody knows what of the file is on disk, and a second sync would not tell.
    pub(crate) sync_failed: AtomicBool,
    /// Records found damaged. Relaxed: a hint to retire the segment.
    pub(crate) damaged: AtomicU32,
}

/// What a read of one record found.
#[derive(Debug)]
pub(crate) enum Read {
    /// The value stored under that key.
    Hit(Value),
    /// A whole record, of another key with the same hash.
    OtherKey,
    /// The segment was reclaimed, or the record can never be served again.
    Gone,
    /// A check failed, or the record is of a kind that this release does not know.
    Damaged,
    /// The disk refused.
    Failed(io::Error),
    /// The process has no descriptor left to read it by; that says nothing about the record.
    NotNow(io::Error),
}

/// A value copied from disk and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) bytes: Vec<u8>,
    pub(crate) expiry: u32,
    pub(crate) idle: bool,
}

/// A whole record copied from disk and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) expiry: u32,
    pub(crate) idle: bool,
}

impl Segment {
    /// A segment without records that the appender is about to fill.
    pub(crate) fn active(
        header: SegmentHeader,
        file: Arc<dyn IoFile>,
        file_bytes: u64,
        hash_seed: u64,
    ) -> Segment {
        let end = HEADER_BYTES as u32;
        Segment::new(header, Bytes::File(file), end, file_bytes, hash_seed)
    }

    /// A segment that nobody appends to any more, with a footer or at least its highest seq.
    pub(crate) fn finished(
        header: SegmentHeader,
        bytes: Bytes,
        end: u32,
        footer: Result<Trailer, Seq>,
        file_bytes: u64,
        hash_seed: u64,
    ) -> Segment {
        let mean_bytes = footer.as_ref().map_or(0, |trailer| end as usize / trailer.count.max(1) as usize);
        Segment {
            prefetched_bytes: mean_bytes.min(PREFETCHED_BYTES_MAX),
            max_seq: footer.as_ref().map_or_else(|&max_seq| max_seq, |trailer| trailer.max_seq),
            trailer: footer.ok(),
            ..Segment::new(header, bytes, end, file_bytes, hash_seed)
        }
    }

    fn new(header: SegmentHeader, bytes: Bytes, end: u32, file_bytes: u64, hash_seed: u64) -> Segment {
        Segment {
            header,
            bytes,
            readable: AtomicU32::new(end),
            trailer: None,
            max_seq: Seq(u64::MAX),
            file_bytes,
            hash_seed,
            prefetched_bytes: 0,
            synced: AtomicBool::new(false),
            sync_failed: AtomicBool::new(false),
            damaged: AtomicU32::new(0),
        }
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.header.id
    }

    /// Makes the file outlive the machine. An error is for good.
    pub(crate) fn sync(&self, file: &dyn IoFile) -> io::Result<()> {
        if self.sync_failed.load(Relaxed) {
            return Err(io::Error::other("an earlier sync failed"));
        }
        let synced = file.sync();
        self.sync_failed.store(synced.is_err(), Relaxed);
        self.synced.store(synced.is_ok(), Relaxed);
        synced
    }

    /// Lets readers see the records below `end`.
    pub(crate) fn publish(&self, end: u32) {
        // Release; pairs with the Acquire in `end`: whoever reads the new end reads written bytes.
        self.readable.store(end, Release);
    }

    /// The end of the records.
    pub(crate) fn end(&self) -> u32 {
        self.readable.load(Acquire)
    }

    /// Has a record brought near, as long as they are in the mean: all its lines at a time, where a read
    /// waits for its header, then for its key, then for its value.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u32) {
        if let Bytes::Map(map) = &self.bytes {
            map.prefetch(offset as usize, self.prefetched_bytes);
        }
    }

    /// The value at `at`, if the record there is `key`'s. Copies first and verifies the copies.
    pub(crate) fn read(&self, at: Location, key: &[u8]) -> Read {
        /// Header and key of nearly every record, on the stack.
        const SMALL_BYTES: usize = 256;
        let (offset, end) = (at.offset(), self.end());
        let wanted = record::HEADER_BYTES + key.len();
        // The record may be of a shorter key and the last one.
        let head_bytes = wanted.min(end.saturating_sub(offset) as usize);
        if head_bytes < record::HEADER_BYTES {
            return Read::Damaged;
        }
        let (mut small, mut large);
        let head: &mut [u8] = if head_bytes <= SMALL_BYTES {
            small = [0; SMALL_BYTES];
            &mut small[..head_bytes]
        } else {
            large = vec![0; head_bytes];
            &mut large
        };
        if let Err(error) = self.bytes.read_to(offset, head) {
            return Read::Failed(error);
        }
        let Some((header, found)) = self.decode(head, offset) else {
            return Read::Damaged;
        };
        if usize::from(header.key_len) != key.len() || found != key {
            return Read::OtherKey;
        }
        let value = self.bytes.read_vec(offset + wanted as u32, header.value_len as usize);
        match value {
            Err(error) => Read::Failed(error),
            Ok(bytes) if !header.verifies(key, &bytes, self.place(offset)) => Read::Damaged,
            Ok(bytes) => Read::Hit(Value { bytes, expiry: header.expiry, idle: header.idle }),
        }
    }

    /// The whole record at `at`; `None` if it cannot be read or a check fails.
    pub(crate) fn record(&self, at: Location) -> Option<Record> {
        let offset = at.offset();
        let mut head = [0; record::HEADER_BYTES];
        self.bytes.read_to(offset, &mut head).ok()?;
        let (header, _) = self.decode(&head, offset)?;
        let key_at = offset + record::HEADER_BYTES as u32;
        let key = self.bytes.read_vec(key_at, usize::from(header.key_len)).ok()?;
        let value_at = key_at + u32::from(header.key_len);
        let value = self.bytes.read_vec(value_at, header.value_len as usize).ok()?;
        let whole = header.verifies(&key, &value, self.place(offset));
        let RecordHeader { expiry, idle, .. } = header;
        whole.then_some(Record { key, value, expiry, idle })
    }

    /// The records in the order in which they were appended: from the footer, or, without a whole
    /// one, from the records themselves up to the first bad one. Ends there with `false` if records
    /// that were once written lie behind.
    pub(crate) fn entries(&self) -> io::Result<(Vec<FooterEntry>, bool)> {
        if let Some(trailer) = &self.trailer {
            let bytes = self.bytes.read_vec(trailer.data_end, trailer.entries_bytes as usize)?;
            let header = &self.header;
            if let Some(entries) = trailer.entries(&bytes, header.id, header.base_seq, header.salt) {
                return Ok((entries, true));
            }
        }
        let end = self.end();
        let (entries, scanned_end) = scan(&self.bytes, &self.header, end, self.hash_seed)?;
        Ok((entries, scanned_end == end))
    }

    /// A record's header, if `head` starts with a good one and the record ends within the data; and
    /// what `head` holds of the key.
    fn decode<'a>(&self, head: &'a [u8], offset: u32) -> Option<(RecordHeader, &'a [u8])> {
        let (header, rest) = head.split_first_chunk()?;
        let header = RecordHeader::decode(header, self.place(offset))?;
        let ends = u64::from(offset) + header.record_bytes() <= u64::from(self.end());
        ends.then(|| (header, &rest[..rest.len().min(usize::from(header.key_len))]))
    }

    fn place(&self, offset: u32) -> u64 {
        place(self.header.salt, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_of_the_header_is_rejected() {
        let header = SegmentHeader { id: SegmentId::new(7).unwrap(), epoch: 1, salt: 2, base_seq: Seq(3) };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), None, "bit {bit}");
        }
    }
}

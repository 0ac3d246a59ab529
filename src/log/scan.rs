//! Finding records without a footer: from the first one on, up to the first that is not whole.

use std::io;

use super::{
    footer::FooterEntry,
    record::{self, RecordHeader, place},
    segment::{self, Bytes, SegmentHeader},
};
use crate::{
    hash::KeyHash,
    location::{Location, Seq},
};

/// How much is read at once; a larger record is read alone.
const WINDOW_BYTES: u32 = 1 << 20;

/// The whole records below `limit`, payloads verified and seqs rising, and where they end. Behind the
/// first bad one nothing is looked for: there is no telling where the next would start.
pub(crate) fn scan(
    bytes: &Bytes,
    header: &SegmentHeader,
    limit: u32,
    hash_seed: u64,
) -> io::Result<(Vec<FooterEntry>, u32)> {
    let mut window = Window { bytes, limit, start: 0, content: Vec::new() };
    let mut entries = Vec::new();
    let (mut offset, mut seq) = (segment::HEADER_BYTES as u32, header.base_seq);
    while let Some(entry) = next(&mut window, header, offset, seq, hash_seed)? {
        entries.push(entry);
        (offset, seq) = (offset + entry.len, entry.seq);
    }
    Ok((entries, offset))
}

fn next(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
    offset: u32,
    min_seq: Seq,
    hash_seed: u64,
) -> io::Result<Option<FooterEntry>> {
    if offset >= Location::SEGMENT_BYTES_MAX {
        return Ok(None);
    }
    let place = place(segment.salt, offset);
    let Some(head) = window.get(offset, record::HEADER_BYTES as u64)? else {
        return Ok(None);
    };
    let head = head.try_into().expect("the window returns the length asked for");
    let Some(header) = RecordHeader::decode(head, place) else {
        return Ok(None);
    };
    let Some(record) = window.get(offset, header.record_bytes())? else {
        return Ok(None);
    };
    let len = record.len() as u32;
    let payload = &record[record::HEADER_BYTES..];
    let (key, rest) = payload.split_at(usize::from(header.key_len));
    let is_next = (min_seq..=Seq::MAX).contains(&header.seq);
    if !is_next || !header.verifies(key, &rest[..header.value_len as usize], place) {
        return Ok(None);
    }
    Ok(Some(FooterEntry {
        hash: KeyHash::of(key, hash_seed),
        seq: header.seq,
        location: Location::new(segment.id, offset),
        len,
        expiry: header.expiry,
    }))
}

/// A stretch of the file in memory. Never larger than the file, whatever a header claims.
struct Window<'a> {
    bytes: &'a Bytes,
    limit: u32,
    start: u32,
    content: Vec<u8>,
}

impl Window<'_> {
    /// `len` bytes from `offset`; `None` if they do not end below the limit.
    fn get(&mut self, offset: u32, len: u64) -> io::Result<Option<&[u8]>> {
        let end = u64::from(offset) + len;
        if end > u64::from(self.limit) {
            return Ok(None);
        }
        let len = len as usize;
        let content_end = u64::from(self.start) + self.content.len() as u64;
        if offset < self.start || end > content_end {
            let wanted = (WINDOW_BYTES.min(self.limit - offset) as usize).max(len);
            self.content = self.bytes.read_vec(offset, wanted)?;
            self.start = offset;
        }
        let at = (offset - self.start) as usize;
        Ok(Some(&self.content[at..at + len]))
    }
}

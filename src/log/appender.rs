//! Writing segments: one owner, no lock.

use std::{collections::VecDeque, io, sync::Arc};

use super::{
    Log,
    directory::failed,
    footer::{self, Footer, FooterEntry, FooterExtent, Trailer},
    journal::Event,
    record::{self, RecordHeader, place, record_bytes},
    segment::{self, Bytes, Segment},
};
use crate::{
    error::Error,
    hash::KeyHash,
    io::IoFile,
    location::{Location, SegmentId, Seq},
    sync::Ordering::Relaxed,
};

/// Fills segments with batches of records. Owned by the one thread that writes values.
///
/// Records are staged (built and summed up, no lock held), then accepted in that order (under the
/// key's stripe lock, which is what makes rule R2 one step) or unstaged, and written with their batch.
///
/// # Invariants
///
/// 1. The batch holds whole accepted records, and behind them the staged ones, in the order of `staged`.
/// 2. `footer` describes every record of the active segment: up to `footer_written` those on disk,
///    from there on those in the batch.
/// 3. A batch that failed is dead on disk before `write` returns (R6), unless it returns
///    [`Error::NotDurable`].
/// 4. Where the log has to outlive the machine, a trailer is written over synced records only: to
///    believe it is to believe them.
#[derive(Debug)]
pub(crate) struct Appender {
    log: Arc<Log>,
    active: Option<Active>,
    batch: Vec<u8>,
    staged: VecDeque<Staged>,
    /// Kept between segments for its memory.
    footer: Footer,
    footer_written: FooterExtent,
}

#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    file: Arc<dyn IoFile>,
    /// Where the batch will go.
    end: u32,
}

#[derive(Debug)]
struct Staged {
    /// Its offset in the batch.
    start: usize,
    hash: KeyHash,
    header: RecordHeader,
}

impl Appender {
    pub(crate) fn new(log: Arc<Log>) -> Appender {
        let batch = Vec::with_capacity(log.options.batch_bytes);
        let footer = Footer::new(Seq(0));
        let footer_written = footer.extent();
        Appender { log, active: None, batch, staged: VecDeque::new(), footer, footer_written }
    }

    /// Whether there is an active segment.
    pub(crate) fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// Whether there is an active segment with room for such a record and its footer entry, behind what is staged.
    pub(crate) fn fits(&self, key_len: usize, value_len: usize) -> bool {
        let Some(active) = &self.active else {
            return false;
        };
        // What is staged has no seq yet, which the length of its entry depends on.
        let entries_bytes = self.footer.bytes().len() + (self.staged.len() + 1) * footer::ENTRY_BYTES_MAX;
        let footer_bytes = entries_bytes + footer::TRAILER_BYTES;
        let end = u64::from(active.end)
            + self.batch.len() as u64
            + record_bytes(key_len, value_len)
            + footer_bytes as u64;
        end <= u64::from(self.log.options.segment_bytes)
    }

    /// Whether the active segment has room for all that another one holds, and as much again.
    pub(crate) fn fits_all_of(&self, segment: &Segment) -> bool {
        let Some(active) = &self.active else {
            return false;
        };
        let taken = u64::from(active.end) + (self.batch.len() + self.footer.bytes().len()) as u64;
        taken + 2 * segment.file_bytes <= u64::from(self.log.options.segment_bytes)
    }

    /// Whether such a record is never stored: it would take more than a quarter of a segment.
    pub(crate) fn too_large(&self, key_len: usize, value_len: usize) -> bool {
        key_len > usize::from(u16::MAX)
            || record_bytes(key_len, value_len) > u64::from(self.log.options.segment_bytes / 4)
    }

    /// Builds a record at the batch's end.
    ///
    /// # Panics
    ///
    /// If it does not fit.
    pub(crate) fn stage(&mut self, hash: KeyHash, key: &[u8], value: &[u8], expiry: u32, idle: bool) {
        assert!(self.fits(key.len(), value.len()), "the record does not fit: roll first");
        let start = self.batch.len();
        let payload_check = record::payload_check(key, value, self.place(start));
        let header = RecordHeader {
            payload_check,
            seq: Seq(0),
            value_len: u32::try_from(value.len()).expect("a value that fits a segment"),
            expiry,
            key_len: u16::try_from(key.len()).expect("the caller asked too_large"),
            idle,
        };
        self.batch.extend_from_slice(&[0; record::HEADER_BYTES]);
        self.batch.extend_from_slice(key);
        self.batch.extend_from_slice(value);
        self.batch.resize(start + header.record_bytes() as usize, 0);
        // So that `accept` need not allocate.
        self.footer.reserve(self.staged.len() + 1);
        self.staged.push_back(Staged { start, hash, header });
    }

    /// Keeps the oldest staged record, as of `seq`. The caller holds the key's stripe lock, under which
    /// it drew `seq` and found the value still current.
    ///
    /// # Panics
    ///
    /// If nothing is staged.
    pub(crate) fn accept(&mut self, seq: Seq) -> Location {
        let Staged { start, hash, mut header } = self.staged.pop_front().expect("a staged record");
        header.seq = seq;
        let place = self.place(start);
        self.batch[start..start + record::HEADER_BYTES].copy_from_slice(&header.encode(place));
        let active = self.active.as_ref().expect("stage() found one");
        let location = Location::new(active.segment.id(), active.end + start as u32);
        let len = header.record_bytes() as u32;
        self.footer.push(&FooterEntry { hash, seq, location, len, expiry: header.expiry });
        location
    }

    /// Drops the staged records but for the oldest `kept`. One alone cannot go out of their middle:
    /// those behind it are summed up for their places.
    pub(crate) fn unstage(&mut self, kept: usize) {
        if let Some(first) = self.staged.get(kept) {
            self.batch.truncate(first.start);
            self.staged.truncate(kept);
        }
    }

    /// How many records are staged.
    pub(crate) fn staged(&self) -> usize {
        self.staged.len()
    }

    #[cfg(test)]
    pub(crate) fn is_batch_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Whether the batch is as large as a write should be, staged records included.
    pub(crate) fn batch_full(&self) -> bool {
        self.batch.len() >= self.log.options.batch_bytes
    }

    /// Writes the batch. Afterwards every accepted location can be read, or, on an error, none of
    /// the batch ever will, and the next record needs a new segment.
    ///
    /// # Panics
    ///
    /// If a record is staged.
    pub(crate) fn write(&mut self) -> Result<(), Error> {
        assert!(self.staged.is_empty(), "accept or unstage the staged records first");
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if self.batch.is_empty() {
            return Ok(());
        }
        match active.file.write_all_at(&self.batch, u64::from(active.end)) {
            Ok(()) => {
                active.end += self.batch.len() as u32;
                active.segment.publish(active.end);
                active.segment.synced.store(false, Relaxed);
                self.log.counters.record_bytes.fetch_add(self.batch.len() as u64, Relaxed);
                self.footer_written = self.footer.extent();
                self.empty_batch();
                Ok(())
            }
            Err(error) => self.discard(error),
        }
    }

    /// Seals the active segment, if there is one.
    ///
    /// # Panics
    ///
    /// If the batch is not empty.
    pub(crate) fn seal(&mut self) -> Result<(), Error> {
        assert!(self.batch.is_empty(), "write the batch before sealing");
        let Some(active) = self.active.take() else {
            return Ok(());
        };
        if self.footer.is_empty() {
            self.log.remove_segment(active.segment.id());
            return Ok(());
        }
        self.finish(&active)
    }

    /// Forgets the active segment if it is this one, which is dead.
    ///
    /// # Panics
    ///
    /// If the batch is not empty.
    pub(crate) fn forsake(&mut self, segment: SegmentId) {
        assert!(self.batch.is_empty(), "write the batch before giving its segment up");
        if self.active.as_ref().is_some_and(|active| active.segment.id() == segment) {
            self.active = None;
        }
    }

    /// Seals the active segment and starts the next.
    ///
    /// # Panics
    ///
    /// If the batch is not empty.
    pub(crate) fn roll(&mut self) -> Result<(), Error> {
        // A segment that could not be sealed is readable and complete: it costs a scan, no more.
        // Whether the disk takes a new one is told by trying.
        let _ = self.seal();
        let (segment, file) = self.log.create_segment()?;
        self.footer.restart(segment.header.base_seq);
        self.footer_written = self.footer.extent();
        self.active = Some(Active { segment, file, end: segment::HEADER_BYTES as u32 });
        Ok(())
    }

    /// Writes footer and trailer, and puts the sealed segment in the active one's place. If the
    /// disk refuses, the segment stays readable without them.
    fn finish(&self, active: &Active) -> Result<(), Error> {
        let segment::SegmentHeader { salt, id, .. } = active.segment.header;
        let trailer = self.footer.trailer(salt);
        assert_eq!(trailer.data_end, active.end, "the footer describes what was written (invariant 2)");
        let synced = self.log.sync_records(&active.segment, &*active.file);
        let result = synced.and_then(|()| write_footer(&*active.file, self.footer.bytes(), &trailer, salt));
        let sealed = match &result {
            Ok(file_bytes) => {
                let written = file_bytes - u64::from(active.end);
                self.log.counters.footer_bytes.fetch_add(written, Relaxed);
                Segment::finished(
                    active.segment.header,
                    self.log.files.readable(active.segment.header, &*active.file, *file_bytes),
                    active.end,
                    Ok(trailer),
                    *file_bytes,
                    self.log.hash_seed,
                )
            }
            Err(_) => {
                // Gives back what was reserved; if that fails too, the file is only too long.
                let _ = active.file.set_len(u64::from(active.end));
                Segment::finished(
                    active.segment.header,
                    Bytes::File(Arc::clone(&active.file)),
                    active.end,
                    Err(trailer.max_seq),
                    active.file.file_len().unwrap_or(active.segment.file_bytes),
                    self.log.hash_seed,
                )
            }
        };
        sealed.sync_failed.store(active.segment.sync_failed.load(Relaxed), Relaxed);
        self.log.replace_segment(sealed);
        result.map(drop).map_err(|error| self.failed("sealing", id, error))
    }

    /// Makes the failed batch dead on disk and gives the segment up.
    fn discard(&mut self, error: io::Error) -> Result<(), Error> {
        self.empty_batch();
        self.footer.truncate(self.footer_written);
        let active = self.active.as_ref().expect("write() found one");
        let (id, end) = (active.segment.id(), active.end);
        // Cut off, a part of the batch that did reach the file cannot come back.
        let cut = active.file.set_len(u64::from(end)).and_then(|()| active.file.file_len());
        let error = self.failed("writing", id, error);
        let dead = match cut {
            // The cut alone would be undone by a loss of power.
            Ok(len) if len == u64::from(end) && !self.log.outlives_power() => Ok(()),
            _ => self.log.journal_durably(Event::TailDead(id, end)).map(drop),
        };
        // What the segment holds from before is as good as ever, with a footer or without.
        let _ = self.seal();
        dead.and(Err(error))
    }

    fn empty_batch(&mut self) {
        self.batch.clear();
        // One record larger than the batch must not keep its memory for ever.
        self.batch.shrink_to(self.log.options.batch_bytes * 2);
    }

    /// What seeds the checks of the record at `start` of the batch.
    fn place(&self, start: usize) -> u64 {
        let active = self.active.as_ref().expect("stage() found one");
        place(active.segment.header.salt, active.end + start as u32)
    }

    fn failed(&self, action: &'static str, id: SegmentId, error: io::Error) -> Error {
        failed(action, &self.log.directory.segment(id), error)
    }
}

/// Writes footer and trailer behind the data and cuts the file to that length, which it returns.
pub(super) fn write_footer(
    file: &dyn IoFile,
    entries: &[u8],
    trailer: &Trailer,
    salt: u64,
) -> io::Result<u64> {
    let bytes = [entries, &trailer.encode(salt)].concat();
    let data_end = u64::from(trailer.data_end);
    file.write_all_at(&bytes, data_end)?;
    let file_bytes = data_end + bytes.len() as u64;
    file.set_len(file_bytes)?;
    Ok(file_bytes)
}

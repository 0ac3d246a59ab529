//! Which segments there are: created, put in place, and removed.

use std::{io, sync::Arc};

use crossbeam_epoch as epoch;

use super::{
    Log,
    directory::failed,
    segment::{self, Segment, SegmentHeader},
    table::Table,
};
use crate::{
    error::Error,
    io::{IoFile, OpenMode},
    location::{SegmentId, Seq},
    sync::Ordering::Relaxed,
};

/// So many damaged records, and a segment is given up.
const DAMAGED_MAX: u32 = 3;
/// So many segments that hold little are left as they are: each that was being filled at a close, a kill or a
/// failed write is one.
const SMALL_SEGMENTS_MAX: usize = 16;
/// What they hold at the most.
const SMALL_BYTES: u32 = 1 << 20;

impl Log {
    /// What the segment files take.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.table.read().file_bytes()
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.table.read().len()
    }

    /// The oldest segment that is not being appended to.
    pub(crate) fn oldest_sealed(&self) -> Option<Arc<Segment>> {
        self.table.read().sealed().next().cloned()
    }

    /// Whether no older segment is there, from which records of this one may have been written again.
    pub(crate) fn is_oldest(&self, segment: SegmentId) -> bool {
        self.table.read().all().next().is_none_or(|oldest| oldest.id() >= segment)
    }

    /// A segment in which so many records were damaged that the rest is not to be trusted.
    pub(crate) fn damaged_segment(&self) -> Option<Arc<Segment>> {
        let is_damaged = |segment: &&Arc<Segment>| segment.damaged.load(Relaxed) >= DAMAGED_MAX;
        self.table.read().sealed().find(is_damaged).cloned()
    }

    /// The oldest of the segments that hold little, if there are too many. They take little room, so no want
    /// of that would ever end them.
    pub(crate) fn surplus_segment(&self) -> Option<Arc<Segment>> {
        let small_bytes = u64::from(SMALL_BYTES.min(self.options.segment_bytes / 8));
        let table = self.table.read();
        let mut small = table.sealed().filter(|segment| segment.file_bytes < small_bytes);
        let oldest = small.next()?;
        (small.count() >= SMALL_SEGMENTS_MAX).then(|| Arc::clone(oldest))
    }

    /// The segments that a barrier has killed as a whole.
    pub(crate) fn segments_below(&self, barrier: Seq) -> Vec<Arc<Segment>> {
        let table = self.table.read();
        table.sealed().filter(|segment| segment.max_seq < barrier).cloned().collect()
    }

    /// Removes a segment that is dead on disk (R6). Readers that hold it keep its bytes.
    pub(crate) fn unlink(&self, segment: SegmentId) {
        self.remove_segment(segment);
        self.trim_journal();
    }

    /// Lets go of segments that nobody reads any more. The thread that appends calls it now and then: to
    /// unmap one takes longer than a look-up.
    pub(crate) fn release_segments(&self) {
        epoch::pin().flush();
        drop(self.readable.take_retired());
    }

    /// Creates the file of the next segment and makes it the active one.
    pub(super) fn create_segment(&self) -> Result<(Arc<Segment>, Arc<dyn IoFile>), Error> {
        let (id, base_seq) = {
            let mut table = self.table.write();
            let Some(id) = SegmentId::new(table.next_id) else {
                return Err(Error::Unsupported { what: "more than 2^30 segments in a directory" });
            };
            table.next_id += 1;
            // Under the lock: `trim_journal` sees the bound before a record can need it.
            let base_seq = self.peek_seq();
            table.creating = Some(base_seq);
            (id, base_seq)
        };
        match self.create_segment_file(id, base_seq) {
            Ok((segment, file)) => {
                self.change_table(|table| table.push_active(Arc::clone(&segment)));
                Ok((segment, file))
            }
            Err(error) => {
                self.table.write().creating = None;
                let path = self.directory.segment(id);
                // Without a whole header it is deleted at the next start.
                let _ = self.io.unlink(&path);
                Err(failed("creating", &path, error))
            }
        }
    }

    fn create_segment_file(
        &self,
        id: SegmentId,
        base_seq: Seq,
    ) -> io::Result<(Arc<Segment>, Arc<dyn IoFile>)> {
        let file = self.io.open(&self.directory.segment(id), OpenMode::CreateNew)?;
        let file_bytes = u64::from(self.options.segment_bytes);
        file.allocate(file_bytes)?;
        let salt = getrandom::u64().map_err(io::Error::other)?;
        let header = SegmentHeader { id, epoch: self.epoch, salt, base_seq };
        file.write_all_at(&header.encode(), 0)?;
        self.counters.footer_bytes.fetch_add(segment::HEADER_BYTES as u64, Relaxed);
        if self.outlives_power() {
            self.sync_names().map_err(io::Error::other)?;
        }
        let segment = Segment::active(header, Arc::clone(&file), file_bytes, self.hash_seed);
        Ok((Arc::new(segment), file))
    }

    /// Puts a finished segment in the active one's place.
    pub(super) fn replace_segment(&self, segment: Segment) {
        self.change_table(|table| table.replace(Arc::new(segment)));
    }

    pub(super) fn remove_segment(&self, id: SegmentId) {
        let removed = self.change_table(|table| table.remove(id));
        for id in removed {
            match self.io.unlink(&self.directory.segment(id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, ?id, "a segment that is dead cannot be unlinked; it is tried again with the next");
                }
                _ => self.table.write().forget(id),
            }
        }
    }

    /// Changes which segments there are, for look-ups, too.
    fn change_table<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        // Before the lock, since to pin may run deferred drops.
        let guard = &epoch::pin();
        let mut table = self.table.write();
        let result = change(&mut table);
        self.readable.replace(table.readable(), guard);
        drop(table);
        // What is replaced may hold an open file, and the epoch would let sixty of them gather.
        guard.flush();
        drop(self.readable.take_retired());
        result
    }
}

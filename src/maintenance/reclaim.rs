//! Making room on disk: the oldest segment goes, and what is still read of it is written again.
//!
//! The order is R6's: survivors are re-appended and written, the segment is marked dead in the
//! journal, the index forgets the rest, the file is unlinked, and the last reader's handle unmaps
//! it. To forget first would be a stale read: an insert in the gap sees no copy on disk, skips the
//! journal, and a SIGKILL brings the old value back.

use std::sync::Arc;

use crossbeam_epoch as epoch;

use super::{Maintenance, spill::InFlight};
use crate::{
    codec::{Key, Value},
    hash::KeyHash,
    location::{Location, SegmentId},
    log::{FooterEntry, Segment},
    shard::{DiskState, Shard, counts::Counts},
};

/// The fewest records looked at between two batches.
const STEP_MIN: usize = 64;

/// What an entry of the index takes, at the least.
const INDEX_ENTRY_BYTES: u64 = 18;

/// A segment on its way out.
pub(super) struct Reclaim {
    segment: Arc<Segment>,
    entries: Vec<FooterEntry>,
    /// Whether `entries` are all there are; else the index must be searched for the others.
    is_complete: bool,
    /// The first entry not yet looked at.
    next: usize,
    /// Entries looked at between two batches: so many that the reclaim is over before the active
    /// segment is full, and what is written again still has its place there.
    step: usize,
    keeps: Keeps,
    /// What may still be written again.
    bytes_left: u64,
}

/// What is written again of a segment that goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// It has begun to rot.
    Nothing,
    /// It makes room.
    WhatIsRead,
    /// It is one of many: all that is alive and can be read is written again, or it stays.
    Everything,
}

impl Reclaim {
    pub(super) fn is_of(&self, segment: SegmentId) -> bool {
        self.segment.id() == segment
    }
}

impl<K: Key, V: Value> Maintenance<K, V> {
    /// Goes a step towards room for the next segment, if there is none.
    pub(super) fn reclaim_if_due(&mut self) {
        if self.reclaim.is_none() {
            self.reclaim =
                self.log().damaged_segment().map(|segment| self.reclaim_of(segment, Keeps::Nothing));
        }
        if self.reclaim.is_none() {
            let surplus = self.log().surplus_segment().filter(|segment| self.appender.fits_all_of(segment));
            let merge = surplus.map(|segment| self.reclaim_of(segment, Keeps::Everything));
            // One that cannot be read now goes when its place is needed.
            self.reclaim = merge.filter(|merge| merge.is_complete);
        }
        if self.reclaim.is_none() && self.is_disk_full() && self.may_make_room() {
            self.warn_of_full_index();
            if !self.appender.is_active() {
                // Or nothing would be written again. If the disk has no room for it, it is to be made first.
                let _ = self.appender.roll();
            }
            self.start_reclaim();
        }
        if self.reclaim.is_some() {
            self.reclaim_step();
        }
    }

    /// Makes room for one more segment now.
    pub(super) fn make_room(&mut self) {
        while self.is_disk_full() && self.may_make_room() {
            if self.reclaim.is_none() && !self.start_reclaim() {
                return;
            }
            while self.reclaim.is_some() {
                if !self.reclaim_step() {
                    return;
                }
            }
        }
    }

    pub(super) fn disk_state(&self) -> DiskState {
        if self.has_wrapped { DiskState::Wrapped } else { DiskState::Filling }
    }

    /// Whether a segment may go that makes room. Not while the disk takes nothing, as nothing would be written again;
    /// but where the log takes more than its capacity and what is being written, that comes first.
    fn may_make_room(&self) -> bool {
        let log = self.log();
        self.health.is_good() || log.disk_bytes() > log.capacity_bytes() + u64::from(log.segment_bytes())
    }

    /// Whether what is kept of the segment has to wait for a disk that takes it.
    fn must_wait(&self, reclaim: &Reclaim) -> bool {
        match reclaim.keeps {
            Keeps::Nothing => false,
            Keeps::WhatIsRead => !self.may_make_room(),
            Keeps::Everything => !self.health.is_good(),
        }
    }

    /// Whether there is no room for one more segment, on disk or in the index.
    fn is_disk_full(&self) -> bool {
        let log = self.log();
        log.disk_bytes() + u64::from(log.segment_bytes()) > log.capacity_bytes() || self.is_index_full()
    }

    /// The index shrinks later than what it holds, so both are asked.
    fn is_index_full(&self) -> bool {
        let budget = &self.tiers.budget;
        if !budget.is_index_full() {
            return false;
        }
        self.tiers.disk_entries() * INDEX_ENTRY_BYTES > budget.index_max()
    }

    /// Says once which sizes would fit each other.
    fn warn_of_full_index(&mut self) {
        if self.has_warned || !self.is_index_full() {
            return;
        }
        self.has_warned = true;
        let disk_capacity = self.log().capacity_bytes();
        let disk_fits = self.tiers.indexable_disk_bytes();
        let index_max = self.tiers.budget.index_max();
        let ram_factor = disk_capacity as f64 / disk_fits.max(1) as f64;
        tracing::warn!(
            index_max,
            disk_capacity,
            disk_fits,
            ram_factor,
            "the index's share of RAM is full before the disk: the oldest entries leave early; \
             `disk_fits` bytes of disk, or `ram_factor` times the RAM, would fit"
        );
    }

    /// `false` if there is nothing to reclaim.
    fn start_reclaim(&mut self) -> bool {
        let Some(segment) = self.log().oldest_sealed() else { return false };
        if !self.has_wrapped {
            self.has_wrapped = true;
            if self.health.is_good() {
                self.tell_stripes(DiskState::Wrapped);
            }
        }
        self.reclaim = Some(self.reclaim_of(segment, Keeps::WhatIsRead));
        true
    }

    /// So much of what the segment takes, its frame included, may be written again that what is new is the rest of all
    /// that is written.
    fn reclaim_of(&self, segment: Arc<Segment>, keeps: Keeps) -> Reclaim {
        let reinserted_max_percent = match keeps {
            Keeps::Nothing => 0,
            Keeps::WhatIsRead => self.reinserted_percent,
            Keeps::Everything => 100,
        };
        let (entries, is_complete) = segment.entries().unwrap_or_else(|error| {
            tracing::warn!(%error, "a segment is reclaimed unread");
            (Vec::new(), false)
        });
        let batches = (self.log().segment_bytes() as usize / self.log().batch_bytes()).max(1);
        let record_bytes: u64 = entries.iter().map(|entry| u64::from(entry.len)).sum();
        let frame_bytes = segment.file_bytes.saturating_sub(record_bytes);
        let bytes_left = (segment.file_bytes * reinserted_max_percent / 100).saturating_sub(frame_bytes);
        let step = (entries.len() * 4 / batches).max(STEP_MIN);
        Reclaim { segment, entries, is_complete, next: 0, step, keeps, bytes_left }
    }

    /// `false` if the segment cannot go now.
    fn reclaim_step(&mut self) -> bool {
        let Some(mut reclaim) = self.reclaim.take() else { return false };
        let end = reclaim.entries.len().min(reclaim.next + reclaim.step);
        for entry in &reclaim.entries[reclaim.next..end] {
            self.reinsert(entry, &mut reclaim.bytes_left, reclaim.keeps == Keeps::Everything);
        }
        if self.must_wait(&reclaim) {
            // It begins anew then: not all may have found its place.
            return false;
        }
        if reclaim.keeps == Keeps::Everything && !self.appender.fits_all_of(&reclaim.segment) {
            // As above, in another segment.
            return true;
        }
        reclaim.next = end;
        if end == reclaim.entries.len() {
            return self.bury(&reclaim);
        }
        self.reclaim = Some(reclaim);
        true
    }

    /// Writes a record again, if it is live, and `always` or if it was read since it was written and is not in RAM.
    fn reinsert(&mut self, entry: &FooterEntry, bytes_left: &mut u64, always: bool) {
        let len = u64::from(entry.len);
        let is_wanted = len <= *bytes_left && {
            let guard = &epoch::pin();
            let shard = self.tiers.shard(entry.hash, guard);
            let is_worth_it = || shard.is_marked_read(entry.hash) && !shard.is_resident(entry.hash);
            shard.may_be_rewritten(entry.hash, entry.location) && (always || is_worth_it())
        };
        if !is_wanted || !self.health.is_good() || self.tiers.expiry.has_expired_on_disk(entry.expiry) {
            return;
        }
        let Some(record) = self.log().read_record(entry.location) else { return };
        // Not `ensure_fits`: that would wait for this very reclaim.
        if !self.appender.fits(record.key.len(), record.value.len()) {
            return;
        }
        self.appender.stage(entry.hash, &record.key, &record.value, record.expiry, record.idle);
        let tiers = &self.tiers;
        let guard = &epoch::pin();
        let shard = tiers.shard(entry.hash, guard);
        if !shard.may_be_rewritten(entry.hash, entry.location) {
            return self.appender.unstage(0);
        }
        let seq = tiers.log.as_ref().expect("there is a log to reclaim").next_seq();
        let to = self.appender.accept(seq);
        drop(shard);
        self.in_flight.push(InFlight::Reinsertion { hash: entry.hash, from: entry.location, to, len });
        *bytes_left -= len;
        if self.appender.batch_full() {
            self.write_batch();
        }
    }

    /// The rest of R6's order; `false` if the disk does not let it.
    fn bury(&mut self, reclaim: &Reclaim) -> bool {
        self.write_batch();
        // What was written again is durable before the segment is dead.
        self.sync_if_promised();
        if self.must_wait(reclaim) {
            return false;
        }
        let id = reclaim.segment.id();
        if let Err(error) = self.log().mark_dead(id) {
            // It stays in the index and on disk, and is tried again.
            tracing::warn!(%error, "a segment could not be marked dead");
            return false;
        }
        let is_oldest = self.log().is_oldest(id);
        for entry in &reclaim.entries {
            let guard = &epoch::pin();
            let mut shard = self.tiers.shard(entry.hash, guard);
            let forgotten = self.forget_dead(&mut shard, entry.hash, entry.location, is_oldest);
            if forgotten && !shard.is_resident(entry.hash) {
                shard.counts().reclaimed += 1;
            }
        }
        if !reclaim.is_complete {
            self.forget_segment(id, |counts| &mut counts.reclaimed);
        }
        self.log().unlink(id);
        self.buried += 1;
        true
    }

    /// Forgets every copy in a segment that is marked dead, whatever its list of records says, and counts them.
    pub(super) fn forget_segment(&self, id: SegmentId, count: fn(&mut Counts) -> &mut u64) {
        let is_oldest = self.log().is_oldest(id);
        self.tiers.for_each_shard(|shard| {
            for (hash, location) in shard.copies_in(id) {
                let forgotten = self.forget_dead(shard, hash, location, is_oldest);
                *count(shard.counts()) += u64::from(forgotten);
            }
        });
    }

    /// Forgets a copy in a segment that is marked dead; whether it had not moved. If that is not the oldest, it may be
    /// there once more, in what it was written again from: that one must not be taken for the key's, either.
    fn forget_dead(
        &self,
        shard: &mut Shard<'_, K, V>,
        hash: KeyHash,
        location: Location,
        is_oldest: bool,
    ) -> bool {
        if !is_oldest && shard.is_at(hash, location) && self.tiers.invalidate(shard, hash).is_err() {
            // The index goes on naming it, so that a change is journaled.
            return false;
        }
        shard.forget(hash, location)
    }
}

//! The way to disk: encode, stage, check and accept in one step, write, commit.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crossbeam_epoch as epoch;

use super::{Maintenance, SWEEPS};
use crate::{
    codec::{Key, Value},
    error::Error,
    hash::KeyHash,
    location::Location,
    log::Appender,
    processor::prefetch,
    shard::{
        DiskState, Queued, Shard,
        entry::{Meta, Resident},
        hot::collect,
        pending::Pending,
    },
    tiers::Tiers,
};

/// Copies that are taken or accepted under one lock: so many that the lock costs each little, so few that an
/// insert into the stripe waits for some microseconds at most.
const GROUP_ENTRIES: usize = 32;
/// The same for commits, each of which waits for memory.
const COMMIT_ENTRIES: usize = 8;

/// A record in the batch.
#[derive(Clone, Copy, Debug)]
pub(super) enum InFlight {
    /// A copy of an entry in RAM.
    Copy { hash: KeyHash, location: Location },
    /// A live record, out of a segment that is reclaimed.
    Reinsertion { hash: KeyHash, from: Location, to: Location, len: u64 },
}

/// What came of staging a copy, before it is asked whether it is still wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Staging {
    Staged,
    Refused(Refusal),
}

/// Why a copy is never written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Encoding failed or panicked, the user's filter said no, or it is about to expire.
    Unspillable,
    TooLarge,
}

/// The active segment has no place for a record of this size, or there is no active segment.
struct NoRoom {
    key_len: usize,
    value_len: usize,
}

/// Whether write-behind copies this entry now: it was hit, and this is the last sweep but one before
/// it is as old as the interval. Called once a sweep, which is how the entry ages.
pub(super) fn is_due(meta: &Meta) -> bool {
    let age = meta.age();
    if u32::from(age) + 2 < SWEEPS {
        meta.set_age(age + 1);
        return false;
    }
    meta.was_hit()
}

impl<K: Key, V: Value> Maintenance<K, V> {
    /// Writes everything that is queued.
    pub(super) fn spill(&mut self) {
        if !self.health.is_good() {
            return self.drop_queued();
        }
        for stripe in 0..self.tiers.stripes.len() {
            self.spill_stripe(stripe);
        }
        self.write_batch();
    }

    /// Brings what a stripe has queued by now into the batch, and writes that whenever it is full. Not what comes
    /// meanwhile: others may fill the queue for ever.
    pub(super) fn spill_stripe(&mut self, stripe: usize) {
        let mut left = self.tiers.shard_at(stripe, &epoch::pin()).queued_len();
        while left > 0
            && self.health.is_good()
            && let Some((done, spilled)) = self.spill_group(stripe)
        {
            left = left.saturating_sub(done);
            // Here, since a flush may take minutes, and all of it be refused.
            self.log().keep_time();
            if let Err(NoRoom { key_len, value_len }) = spilled {
                if let Err(error) = self.ensure_fits(key_len, value_len) {
                    self.note_failure(error);
                }
            } else if self.appender.batch_full() {
                self.write_batch();
                self.reclaim_if_due();
            }
        }
    }

    /// Brings some of what a stripe has queued into the batch, until that is full or the segment has no
    /// room, with two short stays under the stripe's lock. How many have left the queue; `None` if nothing is queued.
    fn spill_group(&mut self, stripe: usize) -> Option<(usize, Result<(), NoRoom>)> {
        let tiers = Arc::clone(&self.tiers);
        let guard = &epoch::pin();
        let queued = tiers.shard_at(stripe, guard).next_copies(GROUP_ENTRIES);
        if queued.is_empty() {
            return None;
        }
        tiers.budget.note_spilling();
        queued.iter().for_each(|copy| prefetch(copy.resident.entry));
        let mut spilled = Ok(());
        let mut stagings = Vec::with_capacity(queued.len());
        for Queued { resident, .. } in &queued {
            match stage(&tiers, &mut self.appender, *resident, &mut self.key_bytes) {
                Ok(staging) => stagings.push(staging),
                Err(no_room) => {
                    spilled = Err(no_room);
                    break;
                }
            }
            if self.appender.batch_full() {
                break;
            }
        }
        let done = self.accept(tiers.shard_at(stripe, guard), &queued, &stagings);
        if stagings.iter().any(|staging| *staging != Staging::Staged) {
            tiers.bell.made_room();
        }
        Some((done, spilled))
    }

    /// Check, seq and acceptance in one step under the lock (R2), for each copy that was looked at.
    /// One that is not wanted any more takes the records behind it out of the batch; they are staged again. How many
    /// have left the queue.
    fn accept(
        &mut self,
        mut shard: Shard<'_, K, V>,
        queued: &[Queued<'_, K, V>],
        stagings: &[Staging],
    ) -> usize {
        let log = self.tiers.log.as_ref().expect("there is a log to write to");
        let (appender, in_flight) = (&mut self.appender, &mut self.in_flight);
        let mut done = 0;
        for (&Queued { hash, copy, .. }, &staging) in queued.iter().zip(stagings) {
            done += 1;
            if let Staging::Refused(refusal) = staging {
                refuse(&mut shard, hash, copy, refusal);
                continue;
            }
            let take = || {
                let location = appender.accept(log.next_seq());
                in_flight.push(InFlight::Copy { hash, location });
                location
            };
            if !shard.accept(hash, copy, take) {
                appender.unstage(0);
                break;
            }
        }
        shard.queue_again(&queued[done..]);
        done
    }

    /// Rolls to a new segment if the active one has no room for such a record. What is kept of the oldest segment
    /// is written to the new one first: later it might find no room there. It may fill that one before a large
    /// record, seldom twice: what has just been written counts as unread. Where the disk fails meanwhile, it is over.
    pub(super) fn ensure_fits(&mut self, key_len: usize, value_len: usize) -> Result<(), Error> {
        while self.health.is_good() && !self.appender.fits(key_len, value_len) {
            self.write_batch();
            // Without an active segment, what is kept of one that makes room would find no place.
            let has_begun = !self.appender.is_active() && self.appender.roll().is_ok();
            if !has_begun {
                self.make_room();
                self.appender.roll()?;
            }
            self.reclaim_if_due();
        }
        Ok(())
    }

    /// Writes the batch and commits its records; where that fails they are forgotten, which the
    /// appender has made safe (R6).
    pub(super) fn write_batch(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let written = self.appender.write();
        let tiers = &self.tiers;
        let stripe = |record: &InFlight| record.hash().stripe(tiers.stripe_bits);
        // By turns: who waits for a stripe gets its lock while the other stripes have theirs.
        let runs = self.in_flight.chunk_by(|a, b| stripe(a) == stripe(b));
        let mut runs: Vec<_> = runs.map(|run| run.chunks(COMMIT_ENTRIES)).collect();
        while !runs.is_empty() {
            runs.retain_mut(|run| {
                let Some(group) = run.next() else { return false };
                end_group(tiers, stripe(&group[0]), group, written.is_ok());
                true
            });
        }
        self.in_flight.clear();
        tiers.bell.made_room();
        match written {
            Ok(()) => self.health.note_success(),
            Err(error) => self.note_failure(error),
        }
    }

    pub(super) fn note_failure(&mut self, error: Error) {
        tracing::warn!(%error, "the disk tier pauses");
        self.health.note_failure(error);
        self.tell_stripes(DiskState::Failing);
        self.drop_queued();
    }

    /// What is queued for a disk that fails is forgotten, so that nobody waits for it.
    fn drop_queued(&mut self) {
        self.tiers.for_each_shard(|shard| {
            let dropped = shard.drop_queued();
            shard.counts().write_failures += dropped;
        });
        self.tiers.bell.made_room();
    }

    /// Lets the stripes spill to a disk that failed; whether it works shows then.
    pub(super) fn retry_disk(&mut self) {
        if !self.health.is_good() {
            self.health.try_again();
            self.tell_stripes(self.disk_state());
        }
    }
}

/// Stages the record of an entry. User code: no lock is held, and a panic is as good as an error.
fn stage<K: Key, V: Value>(
    tiers: &Tiers<K, V>,
    appender: &mut Appender,
    Resident { entry, times }: Resident<'_, K, V>,
    key_bytes: &mut Vec<u8>,
) -> Result<Staging, NoRoom> {
    let unspillable = Ok(Staging::Refused(Refusal::Unspillable));
    let Some((expiry_s, idle)) = tiers.expiry.on_disk(times) else {
        return unspillable;
    };
    let before = appender.staged();
    let mut staging = unspillable;
    let encoded = catch_unwind(AssertUnwindSafe(|| {
        if tiers.disk_filter.as_ref().is_some_and(|may_spill| !may_spill(&entry.key, &entry.value)) {
            return Ok(());
        }
        key_bytes.clear();
        entry.key.with_bytes(|key| key_bytes.extend_from_slice(key))?;
        entry.value.with_bytes(|value| {
            let (key_len, value_len) = (key_bytes.len(), value.len());
            staging = if appender.too_large(key_len, value_len) {
                Ok(Staging::Refused(Refusal::TooLarge))
            } else if appender.fits(key_len, value_len) {
                appender.stage(entry.meta.hash, key_bytes, value, expiry_s, idle);
                Ok(Staging::Staged)
            } else {
                Err(NoRoom { key_len, value_len })
            };
        })
    }));
    if let Ok(Ok(())) = encoded {
        return staging;
    }
    // It may have failed after it had lent the bytes.
    appender.unstage(before);
    Ok(Staging::Refused(Refusal::Unspillable))
}

/// Ends a copy that is never written, and counts that if it is still wanted.
fn refuse<K: Key, V: Value>(shard: &mut Shard<'_, K, V>, hash: KeyHash, copy: Pending, refusal: Refusal) {
    if shard.cancel(hash, copy) {
        match refusal {
            Refusal::Unspillable => shard.counts().unspillable += 1,
            Refusal::TooLarge => shard.counts().too_large += 1,
        }
    }
}

/// Ends copies of one stripe that were written, or could not be.
fn end_group<K: Key, V: Value>(tiers: &Tiers<K, V>, stripe: usize, group: &[InFlight], written: bool) {
    let guard = &epoch::pin();
    let mut shard = tiers.shard_at(stripe, guard);
    shard.prefetch_commits(group.iter().map(|record| record.hash()));
    for record in group {
        if written {
            record.commit(&mut shard, tiers);
        } else {
            record.roll_back(&mut shard);
        }
    }
    drop(shard);
    tiers.budget.note_spilling();
    collect(guard);
}

impl InFlight {
    fn hash(self) -> KeyHash {
        match self {
            InFlight::Copy { hash, .. } | InFlight::Reinsertion { hash, .. } => hash,
        }
    }

    fn commit<K: Key, V: Value>(&self, shard: &mut Shard<'_, K, V>, tiers: &Tiers<K, V>) {
        match *self {
            InFlight::Copy { hash, location } => {
                // Two keys of one hash: the index can name one, recovery would find the younger. Neither stays.
                if shard.commit(hash, location).is_err() && tiers.invalidate(shard, hash).is_ok() {
                    shard.forget_copies(hash);
                }
            }
            InFlight::Reinsertion { hash, from, to, len } => {
                shard.counts().reinsertions += u64::from(shard.relocate(hash, from, to));
                shard.counts().reinserted_bytes_written += len;
            }
        }
    }

    /// Of a reinsertion the old record is still there.
    fn roll_back<K: Key, V: Value>(&self, shard: &mut Shard<'_, K, V>) {
        if let InFlight::Copy { hash, location } = *self
            && shard.forget_in_flight(hash, location)
        {
            shard.counts().write_failures += 1;
        }
    }
}

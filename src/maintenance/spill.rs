//! The way to disk: encode, stage, check and accept in one step, write, commit.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_epoch as epoch;

use super::{Maintenance, SWEEPS};
use crate::{
    codec::{Key, Value},
    error::Error,
    hash::KeyHash,
    location::Location,
    log::Log,
    shard::{
        DiskState, Shard,
        entry::{Entry, Meta},
        pending::Pending,
    },
    sync::Ordering::Relaxed,
    tiers::Tiers,
};

/// A record in the batch.
#[derive(Clone, Copy, Debug)]
pub(super) enum InFlight {
    /// A copy of an entry in RAM.
    Copy { hash: KeyHash, location: Location },
    /// A live record, out of a segment that is reclaimed.
    Reinsertion { hash: KeyHash, from: Location, to: Location, len: u64 },
}

/// Why a copy is not written.
enum Obstacle {
    /// Encoding failed or panicked, the user's filter said no, or it is about to expire.
    Unspillable,
    TooLarge,
    Disk(Error),
}

/// Whether write-behind copies this entry now: it was hit, and this is the last sweep but one before
/// it is as old as the interval. Called once a sweep, which is how the entry ages.
pub(super) fn is_due(meta: &Meta) -> bool {
    let age = meta.age();
    if u32::from(age) + 2 < SWEEPS {
        meta.set_age(age + 1);
        return false;
    }
    meta.refs.load(Relaxed) > 0 || meta.freq.load(Relaxed) > 0
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

    /// Brings what a stripe has queued into the batch, and writes that whenever it is full.
    pub(super) fn spill_stripe(&mut self, stripe: usize) {
        loop {
            let (hash, copy, encoded) = {
                let guard = &epoch::pin();
                let next = self.tiers.shard_at(stripe, guard).next_copy();
                let Some((hash, copy, entry)) = next else { return };
                (hash, copy, encode(&self.tiers, entry, &mut self.key_bytes, &mut self.value_bytes))
            };
            let staged = encoded.and_then(|(expiry_s, idle)| self.stage(hash, expiry_s, idle));
            match staged {
                Ok(()) => self.accept(hash, copy),
                Err(obstacle) => self.give_up(hash, copy, obstacle),
            }
            if self.appender.batch_full() {
                self.write_batch();
                self.reclaim_if_due();
            }
        }
    }

    /// Builds the record at the batch's end, in a segment that has room for it.
    fn stage(&mut self, hash: KeyHash, expiry_s: u32, idle: bool) -> Result<(), Obstacle> {
        if self.appender.too_large(self.key_bytes.len(), self.value_bytes.len()) {
            return Err(Obstacle::TooLarge);
        }
        self.make_fit(self.key_bytes.len(), self.value_bytes.len()).map_err(Obstacle::Disk)?;
        self.appender.stage(hash, &self.key_bytes, &self.value_bytes, expiry_s, idle);
        Ok(())
    }

    /// Rolls to a new segment if the active one has no room for such a record. What the oldest segment
    /// has to be written again comes first into the new one: begun later, it finds no room there.
    /// Before a large record it may take all of the room, seldom twice: it is unread after that.
    pub(super) fn make_fit(&mut self, key_len: usize, value_len: usize) -> Result<(), Error> {
        while !self.appender.fits(key_len, value_len) {
            self.write_batch();
            self.finish_reclaim();
            self.appender.roll()?;
            self.reclaim_if_due();
        }
        Ok(())
    }

    /// Check, seq and acceptance in one step under the lock (R2).
    fn accept(&mut self, hash: KeyHash, copy: Pending) {
        let tiers = &self.tiers;
        let guard = &epoch::pin();
        let mut shard = tiers.shard(hash, guard);
        if shard.is_wanted(hash, copy) {
            let seq = tiers.log.as_ref().expect("there is a log to write to").next_seq();
            let location = self.appender.accept(seq);
            shard.accept(hash, location);
            self.in_flight.push(InFlight::Copy { hash, location });
        } else {
            self.appender.abandon();
        }
    }

    fn give_up(&mut self, hash: KeyHash, copy: Pending, obstacle: Obstacle) {
        {
            let guard = &epoch::pin();
            let mut shard = self.tiers.shard(hash, guard);
            if shard.cancel(hash, copy) {
                let counts = shard.counts();
                match obstacle {
                    Obstacle::Unspillable => counts.unspillable += 1,
                    Obstacle::TooLarge => counts.too_large += 1,
                    Obstacle::Disk(_) => counts.write_failures += 1,
                }
            }
        }
        self.tiers.bell.made_room();
        if let Obstacle::Disk(error) = obstacle {
            self.note_failure(error);
        }
    }

    /// Writes the batch and commits its records; where that fails they are forgotten, which the
    /// appender has made safe (R6).
    pub(super) fn write_batch(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let written = self.appender.write();
        let tiers = &self.tiers;
        for record in self.in_flight.drain(..) {
            let guard = &epoch::pin();
            let mut shard = tiers.shard(record.hash(), guard);
            match written {
                Ok(()) => record.commit(&mut shard, tiers.log.as_deref()),
                Err(_) => record.roll_back(&mut shard),
            }
            drop(shard);
            tiers.collect(record.hash(), guard);
        }
        tiers.bell.made_room();
        match written {
            Ok(()) => self.health.note_success(),
            Err(error) => self.note_failure(error),
        }
    }

    fn note_failure(&mut self, error: Error) {
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

/// Encodes an entry, and works out its deadline on disk. User code: no lock is held, and a panic is
/// as good as an error.
fn encode<K: Key, V: Value>(
    tiers: &Tiers<K, V>,
    entry: &Entry<K, V>,
    key_bytes: &mut Vec<u8>,
    value_bytes: &mut Vec<u8>,
) -> Result<(u32, bool), Obstacle> {
    key_bytes.clear();
    value_bytes.clear();
    let encoded = catch_unwind(AssertUnwindSafe(|| {
        tiers.disk_filter.as_ref().is_none_or(|may_spill| may_spill(&entry.key, &entry.value))
            && entry.key.encode(key_bytes).is_ok()
            && entry.value.encode(value_bytes).is_ok()
    }));
    match (encoded, tiers.expiry.on_disk(&entry.meta)) {
        (Ok(true), Some(expiry)) => Ok(expiry),
        _ => Err(Obstacle::Unspillable),
    }
}

impl InFlight {
    fn hash(self) -> KeyHash {
        match self {
            InFlight::Copy { hash, .. } | InFlight::Reinsertion { hash, .. } => hash,
        }
    }

    fn commit<K: Key, V: Value>(self, shard: &mut Shard<'_, K, V>, log: Option<&Log>) {
        match self {
            InFlight::Copy { hash, location } => {
                if shard.commit(hash, location).is_err() {
                    // Two keys of one hash: the index can name one, recovery would find the
                    // younger. Neither stays.
                    if log.is_some_and(|log| log.invalidate(hash).is_ok()) {
                        shard.forget_copies(hash);
                    }
                }
            }
            InFlight::Reinsertion { hash, from, to, len } => {
                shard.counts().reinsertions += u64::from(shard.relocate(hash, from, to));
                shard.counts().reinserted_bytes_written += len;
            }
        }
    }

    /// Of a reinsertion the old record is still there.
    fn roll_back<K: Key, V: Value>(self, shard: &mut Shard<'_, K, V>) {
        if let InFlight::Copy { hash, location } = self
            && shard.forget_in_flight(hash, location)
        {
            shard.counts().write_failures += 1;
        }
    }
}

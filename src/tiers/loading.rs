//! How stripes come by what the last run left: from its snapshot, or from the footers of its segments.

use std::{ops::Range, panic, thread};

use crossbeam_epoch::{self as epoch, Guard};

use super::Tiers;
use crate::{
    codec::{Key, Value},
    error::Error,
    hash::KeyHash,
    location::Location,
    log::{Log, SnapshotReader},
    shard::{
        Stripe,
        cold::{Filling, Packed},
    },
};

/// Records on disk from which on a second thread is worth its start.
const PARALLEL_RECOVERY_MIN: u64 = 1 << 16;

impl<K: Key, V: Value> Tiers<K, V> {
    /// Reads a stripe's part of the snapshot, or where that is damaged, of the footers; and with it those of the
    /// stripes that share its blocks, so that each block is read once.
    #[cold]
    pub(super) fn load(&self, stripe: usize, guard: &Guard) {
        let _loading = self.loading.lock();
        if self.stripes[stripe].is_loaded() {
            return;
        }
        let (Some(log), Some(reader)) = (&self.log, self.snapshot.lock().clone()) else {
            unreachable!("a stripe without a snapshot is loaded at open")
        };
        let siblings = reader.siblings(stripe, self.stripe_bits);
        let entries = reader.len_of(stripe, self.stripe_bits);
        let most = if siblings.len() == 1 { entries } else { most_of_mean(entries / siblings.len()) };
        let mut indexes: Vec<_> = siblings.clone().map(|_| Filling::new(most)).collect();
        let read = reader.read(stripe, self.stripe_bits, |hash, bits| {
            indexes[hash.stripe(self.stripe_bits) - siblings.start].add(hash, bits);
        });
        match read {
            Ok(()) => {
                for (stripe, index) in self.stripes[siblings.clone()].iter().zip(indexes) {
                    stripe.lock(guard).load_index(index.finish());
                }
                self.stripes[siblings].iter().for_each(Stripe::set_loaded);
            }
            Err(_) => self.load_damaged(log, &reader, siblings),
        }
    }

    /// Loads stripes that have damage in the snapshot from the footers, and with them all others that have: each
    /// would take a pass over these by itself. What is whole stays for the snapshot, which knows more.
    fn load_damaged(&self, log: &Log, reader: &SnapshotReader, known: Range<usize>) {
        let mut is_damaged = vec![false; self.stripes.len()];
        for first in (0..self.stripes.len()).step_by(known.len()) {
            let is_whole = || reader.read(first, self.stripe_bits, |_, _| {}).is_ok();
            if first == known.start || !self.stripes[first].is_loaded() && !is_whole() {
                is_damaged[first..first + known.len()].fill(true);
            }
        }
        self.recover(log, |stripe| is_damaged[stripe])
            .unwrap_or_else(|error| log.give_up_past(&error.to_string()));
        let damaged = (0..self.stripes.len()).filter(|&stripe| is_damaged[stripe]);
        damaged.for_each(|stripe| self.stripes[stripe].set_loaded());
    }

    /// Where the snapshot has a hash whose stripe is not loaded yet, as long as the maintenance thread is about
    /// to load it. The stripe has not changed since, or it would be loaded: what was completed before this
    /// was called is not missed.
    #[inline]
    pub(crate) fn find_unloaded(&self, hash: KeyHash) -> Option<Location> {
        if self.stripe(hash).is_loaded() { None } else { self.find_in_snapshot(hash) }
    }

    #[cold]
    fn find_in_snapshot(&self, hash: KeyHash) -> Option<Location> {
        if !self.takes_writes() {
            // Nobody loads what is not loaded here.
            return None;
        }
        let reader = self.snapshot.lock().clone()?;
        let packed = Packed::from_bits(reader.find(hash).ok()??)?;
        Some(packed.location())
    }

    /// Loads all stripes from the footers. Nothing else touches them before they are loaded.
    ///
    /// # Errors
    ///
    /// As [`Log::recover`].
    pub(crate) fn recover_all(&self, log: &Log) -> Result<(), Error> {
        self.recover_in_parallel(log)?;
        log.forget_past();
        Ok(())
    }

    fn recover_in_parallel(&self, log: &Log) -> Result<(), Error> {
        let middle = self.stripes.len() / 2;
        if log.recorded() < PARALLEL_RECOVERY_MIN {
            return self.recover(log, |_| true);
        }
        thread::scope(|scope| {
            let recover_upper = || self.recover(log, |stripe| stripe >= middle);
            let second = thread::Builder::new().spawn_scoped(scope, recover_upper);
            let first = self.recover(log, |stripe| stripe < middle);
            let second = match second {
                Ok(second) => second.join().unwrap_or_else(|panic| panic::resume_unwind(panic)),
                Err(_) => recover_upper(),
            };
            first.and(second)
        })
    }

    /// Loads the stripes that are asked for from the footers: sorted out first, so that each fills its index in one
    /// go, while that is near the processor.
    fn recover(&self, log: &Log, is_asked: impl Fn(usize) -> bool) -> Result<(), Error> {
        // Lists that grow by doubling would together be larger than the index.
        let most = most_of_mean(log.recorded() as usize / self.stripes.len());
        let room = |stripe| Vec::with_capacity(if is_asked(stripe) { most } else { 0 });
        let mut found: Vec<_> = (0..self.stripes.len()).map(room).collect();
        log.recover(&is_asked, self.stripe_bits, &mut |hash, location| {
            found[hash.stripe(self.stripe_bits)].push((hash, location));
        })?;
        for (stripe, found) in found.into_iter().enumerate().filter(|&(stripe, _)| is_asked(stripe)) {
            self.stripes[stripe].lock(&epoch::pin()).load(&found);
        }
        Ok(())
    }
}

/// As many entries as a stripe will have where the mean is so many: hashes are spread evenly, give or take four
/// deviations.
fn most_of_mean(mean: usize) -> usize {
    mean + 4 * mean.isqrt()
}

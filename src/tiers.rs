//! Both tiers under one roof: the stripes, the log, and what every walk through them needs.

mod loading;

use std::{sync::Arc, time::Duration};

use crossbeam_epoch::{self as epoch, Guard};

use crate::{
    bell::Bell,
    budget::Budget,
    codec::{Key, KeyBytes, Value},
    error::Error,
    hash::KeyHash,
    location::{JournalEnd, Location},
    log::{Log, Read, SnapshotReader},
    look_ups::LookUps,
    options::{DiskFilter, Weigher, WriteBehind},
    origin::Origin,
    shard::{
        Loan, Shard, Stripe,
        entry::{Arrival, Entry, Meta},
        expiry::Expiry,
        hot::{collect_now, drop_quietly},
    },
    sync::{Instant, Mutex, hint},
};

/// What an entry costs beside its own struct and what it owns: its part of the table, the ring and the ghosts.
const ENTRY_OVERHEAD_BYTES: u64 = 24;

/// Spins between two looks at whether the maintenance thread has caught up, a fraction of a microsecond.
const SPINS: usize = 16;

/// The two tiers.
pub(crate) struct Tiers<K, V> {
    pub(crate) stripes: Box<[Stripe<K, V>]>,
    pub(crate) stripe_bits: u32,
    pub(crate) hash_seed: u64,
    /// The disk tier, if there is one.
    pub(crate) log: Option<Arc<Log>>,
    /// The directory was opened for look-ups alone; there is no log if it held nothing.
    pub(crate) is_read_only: bool,
    /// The process that may use the disk tier; forks may use neither tier.
    pub(crate) origin: Option<Origin>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) expiry: Arc<Expiry>,
    pub(crate) bell: Bell,
    pub(crate) look_ups: LookUps,
    pub(crate) write_behind: WriteBehind,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) disk_filter: Option<DiskFilter<K, V>>,
    /// Weights are 1: the budget counts entries.
    pub(crate) counts_entries: bool,
    /// What a clean close left, until every stripe has loaded its part. Guards just that.
    pub(crate) snapshot: Mutex<Option<Arc<SnapshotReader>>>,
    /// Held while stripes are loaded, which happens to each once. Taken before a stripe's lock, never under it.
    pub(crate) loading: Mutex<()>,
}

/// A value that was read from disk.
pub(crate) struct DiskCopy<V> {
    pub(crate) value: V,
    pub(crate) expiry_s: u32,
    pub(crate) idle: bool,
}

/// What came of reading a copy.
pub(crate) enum ReadCopy<V> {
    Value(DiskCopy<V>),
    /// Its segment was reclaimed in the meantime; the index knows more.
    Moved,
    Nothing,
}

impl<K: Key, V: Value> Tiers<K, V> {
    /// What every look-up of a key begins with: its hash, if this process may use the cache.
    #[inline]
    pub(crate) fn hash<Q: KeyBytes + ?Sized>(&self, key: &Q) -> Result<KeyHash, Error> {
        self.check_origin()?;
        self.hash_of(key)
    }

    /// The same of a change, if this process may make it.
    #[inline]
    pub(crate) fn hash_to_change<Q: KeyBytes + ?Sized>(&self, key: &Q) -> Result<KeyHash, Error> {
        self.check_change()?;
        self.hash_of(key)
    }

    #[inline]
    fn hash_of<Q: KeyBytes + ?Sized>(&self, key: &Q) -> Result<KeyHash, Error> {
        Ok(key.with_key_bytes(|bytes| KeyHash::of(bytes, self.hash_seed))?)
    }

    /// # Errors
    ///
    /// [`Error::Forked`].
    #[inline]
    pub(crate) fn check_origin(&self) -> Result<(), Error> {
        self.origin.as_ref().map_or(Ok(()), Origin::check)
    }

    /// What every change begins with: whether this process may make it.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`], [`Error::ReadOnly`].
    #[inline]
    pub(crate) fn check_change(&self) -> Result<(), Error> {
        self.check_origin()?;
        if self.is_read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Whether there is a disk that takes what leaves RAM.
    pub(crate) fn takes_writes(&self) -> bool {
        self.log.is_some() && !self.is_read_only
    }

    #[inline]
    pub(crate) fn stripe(&self, hash: KeyHash) -> &Stripe<K, V> {
        &self.stripes[hash.stripe(self.stripe_bits)]
    }

    /// The hash's stripe under its lock, with its part of the snapshot loaded.
    #[inline]
    pub(crate) fn shard<'g>(&'g self, hash: KeyHash, guard: &'g Guard) -> Shard<'g, K, V> {
        self.shard_at(hash.stripe(self.stripe_bits), guard)
    }

    #[inline]
    pub(crate) fn shard_at<'g>(&'g self, stripe: usize, guard: &'g Guard) -> Shard<'g, K, V> {
        let found = &self.stripes[stripe];
        if !found.is_loaded() {
            self.load(stripe, guard);
        }
        found.lock(guard)
    }

    /// What an entry costs the budget.
    pub(crate) fn weight(&self, key: &K, value: &V) -> u64 {
        if self.counts_entries {
            return 1;
        }
        let payload = match &self.weigher {
            Some(weigh) => weigh(key, value),
            None => key.heap_bytes().saturating_add(value.heap_bytes()) as u64,
        };
        payload.saturating_add(size_of::<Entry<K, V>>() as u64 + ENTRY_OVERHEAD_BYTES)
    }

    /// Has the copy at `location` brought near, which is about to be read.
    #[inline]
    pub(crate) fn prefetch_copy(&self, location: Location, guard: &Guard) {
        if let Some(log) = &self.log {
            log.prefetch(location, guard);
        }
    }

    /// Reads the copy at `location` of a key, which the index named. What cannot be read is
    /// forgotten, in a way that it cannot come back.
    pub(crate) fn read_copy<Q>(
        &self,
        hash: KeyHash,
        key: &Q,
        location: Location,
        guard: &Guard,
    ) -> ReadCopy<V>
    where
        Q: KeyBytes + ?Sized,
    {
        let Some(log) = &self.log else { return ReadCopy::Nothing };
        let found = match key.with_key_bytes(|bytes| log.read(location, bytes, guard)) {
            Ok(Read::Hit(found)) => found,
            Ok(Read::Gone) => {
                // Reclaim forgets before it unlinks. What is named still was lost before this run, but maybe not what
                // it had been written again from.
                let dangled = self.forget_unreadable(hash, location, guard);
                return if dangled { ReadCopy::Nothing } else { ReadCopy::Moved };
            }
            Ok(Read::OtherKey) | Err(_) => return ReadCopy::Nothing,
            Ok(Read::Damaged) => {
                self.forget_unreadable(hash, location, guard);
                return ReadCopy::Nothing;
            }
            Ok(Read::NotNow(error)) => {
                tracing::debug!(%error, ?location, "a record cannot be read now");
                return ReadCopy::Nothing;
            }
            Ok(Read::Failed(error)) => {
                tracing::debug!(%error, ?location, "a record could not be read");
                self.forget_unreadable(hash, location, guard);
                return ReadCopy::Nothing;
            }
        };
        if self.expiry.has_expired_on_disk(found.expiry) {
            let mut shard = self.shard(hash, guard);
            // It needs no journal: what has expired stays so, and recovery drops it.
            shard.counts().expired += u64::from(shard.forget(hash, location));
            return ReadCopy::Nothing;
        }
        match V::decode(found.bytes) {
            Ok(value) => {
                // Of what is only read no hit puts off the end.
                let idle = found.idle && !self.is_read_only;
                ReadCopy::Value(DiskCopy { value, expiry_s: found.expiry, idle })
            }
            Err(_) => {
                self.forget_unreadable(hash, location, guard);
                ReadCopy::Nothing
            }
        }
    }

    /// A copy cannot be read today. It might be tomorrow, when the key has another value: so its
    /// invalidation is journaled before the index forgets it (R6). Whether the index has named it until now.
    fn forget_unreadable(&self, hash: KeyHash, location: Location, guard: &Guard) -> bool {
        let mut shard = self.shard(hash, guard);
        let is_named = shard.is_at(hash, location);
        if shard.is_closed() {
            // The snapshot names it as well: the next run will say so.
            return is_named;
        }
        if is_named && self.invalidate(&mut shard, hash).is_ok() {
            shard.forget(hash, location);
            shard.counts().read_failures += 1;
        }
        is_named
    }

    /// Whether a hit puts off the end of what was read, or brings it forward. Only an entry in RAM can
    /// tell: the record says what it said when it was written.
    pub(crate) fn is_aged_by_hits(&self, copy: &DiskCopy<V>) -> bool {
        copy.idle || self.expiry.is_outlasted_by(copy.expiry_s)
    }

    /// Makes an entry of what was read from disk, but of a key whose bytes make none.
    pub(crate) fn entry_of_copy<Q>(&self, hash: KeyHash, key: &Q, copy: DiskCopy<V>) -> Option<Arrival<K, V>>
    where
        Q: KeyBytes + ?Sized,
    {
        let key = key.with_key_bytes(|bytes| K::decode(bytes.to_vec())).ok()?.ok()?;
        let weight = self.weight(&key, &copy.value);
        if weight > self.budget.weight_max() {
            return None;
        }
        let entry = Entry { meta: Meta::new(hash, weight as u32), key, value: copy.value };
        Some(Arrival { entry, times: self.expiry.times_after_disk(copy.expiry_s, copy.idle) })
    }

    /// Runs `visit` on every stripe in turn, under its lock; on none in a fork.
    pub(crate) fn for_each_shard(&self, mut visit: impl FnMut(&mut Shard<'_, K, V>)) {
        if self.check_origin().is_err() {
            return;
        }
        for stripe in 0..self.stripes.len() {
            // Pinned anew for each, so that what they retire can be freed meanwhile.
            let guard = &epoch::pin();
            visit(&mut self.shard_at(stripe, guard));
        }
    }

    /// Journals that what is on disk of this hash is void, if anything may be (R3). The caller
    /// holds the hash's stripe, as the shard shows, and forgets it then. The process is asked for here too: it may
    /// have forked in user's code since the operation began.
    #[inline]
    pub(crate) fn invalidate(&self, shard: &mut Shard<'_, K, V>, hash: KeyHash) -> Result<(), Error> {
        match &self.log {
            None => Ok(()),
            Some(log) if shard.may_be_on_disk(hash) => {
                self.check_origin()?;
                shard.note_journaled(log.invalidate(hash)?);
                Ok(())
            }
            Some(log) => log.ensure_durable(),
        }
    }

    /// Waits until the journal is durable up to `end`, if the durability asks for that. Comes before
    /// an acknowledgement. No lock and no epoch is held, since it may take as long as the disk does.
    #[inline]
    pub(crate) fn commit(&self, end: JournalEnd) -> Result<(), Error> {
        match &self.log {
            Some(log) if end > JournalEnd::START => log.commit(end),
            _ => Ok(()),
        }
    }

    /// Whether the record at `location` is this key's and has not expired.
    pub(crate) fn holds<Q: KeyBytes + ?Sized>(&self, key: &Q, location: Location) -> bool {
        let Some(log) = &self.log else { return false };
        match key.with_key_bytes(|bytes| log.read(location, bytes, &epoch::pin())) {
            Ok(Read::Hit(found)) => !self.expiry.has_expired_on_disk(found.expiry),
            _ => false,
        }
    }

    /// Forgets everything, stripe by stripe.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        for stripe in 0..self.stripes.len() {
            let guard = epoch::pin();
            let mut shard = self.shard_at(stripe, &guard);
            if shard.is_closed() {
                return Err(Error::Closed);
            }
            let dead_loads = shard.kill_all_loads();
            shard.clear();
            drop(shard);
            // One by one, each with the panics of its own drop: this may be the maintenance thread.
            dead_loads.for_each(drop_quietly);
            collect_now(guard);
        }
        Ok(())
    }

    /// Ends every stripe without the maintenance thread, which has gone or never was, and lets go of the
    /// directory as it is.
    pub(crate) fn close(&self) {
        let guard = epoch::pin();
        // Under the lock, so that no look-up loads a stripe that was closed unread.
        let loading = self.loading.lock();
        for stripe in &self.stripes {
            stripe.lock(&guard).close();
            stripe.set_loaded();
        }
        drop(loading);
        collect_now(guard);
        *self.snapshot.lock() = None;
        self.log.iter().for_each(|log| log.release());
    }

    /// Hands over whatever was displaced: in a stripe that rests, nobody else would.
    pub(crate) fn collect_all(&self) {
        if self.stripes.iter().any(|stripe| stripe.hot.limbo_weight() > 0) {
            self.for_each_shard(|shard| shard.hand_over_retired());
            epoch::pin().flush();
        }
    }

    /// After a loan, the others evict what they have too much now.
    pub(crate) fn honour(&self, loan: Loan) {
        if loan == Loan::Taken {
            self.evict_surplus();
        }
    }

    /// Has all stripes evict what they have too much: after a loan, and where the index has grown without inserts, for
    /// what is copied while it stays.
    pub(crate) fn evict_surplus(&self) {
        self.for_each_shard(|shard| shard.shrink());
    }

    /// Wakes the maintenance thread if enough waits for it.
    pub(crate) fn ring_for_batch(&self) {
        if self.budget.is_batch_waiting() || self.write_behind == WriteBehind::Through {
            self.bell.ring();
        }
    }

    /// Waits while too much is on its way to disk, unless it is to be shed.
    #[inline]
    pub(crate) fn wait_for_disk(&self) {
        if self.log.is_none() {
            return;
        }
        self.ring_for_batch();
        if self.budget.is_overloaded() {
            return self.bell.wait_for_room(|| self.budget.is_overloaded() && !self.budget.sheds());
        }
        let pause = self.budget.hold_back();
        if !pause.is_zero() && !self.bell.is_attendant() {
            self.hold_back(pause);
        }
    }

    /// Lets the maintenance thread catch up, until it has or for so long. Many short pauses in place of one
    /// long wait, which would begin and end with a change of threads.
    #[cold]
    fn hold_back(&self, pause: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < pause && !self.budget.hold_back().is_zero() {
            // What it waits for is lowered by the other thread, which each look costs a wait for memory.
            (0..SPINS).for_each(|_| hint::spin_loop());
        }
        self.budget.add_held_back(begun.elapsed());
    }

    pub(crate) fn disk_entries(&self) -> u64 {
        let mut entries = 0;
        self.for_each_shard(|shard| entries += shard.index().len() as u64);
        entries
    }

    /// How much of the disk the index's share of RAM can name, at the entries' mean size so far.
    pub(crate) fn indexable_disk_bytes(&self) -> u64 {
        let Some(log) = &self.log else { return 0 };
        let capacity = log.capacity_bytes();
        match self.disk_entries() {
            0 => capacity,
            entries => {
                let mean_bytes = (log.disk_bytes() / entries).max(1);
                self.budget.indexable_entries().saturating_mul(mean_bytes).min(capacity)
            }
        }
    }

    /// What is taken of the RAM budget.
    pub(crate) fn ram_used(&self) -> u64 {
        let mut used = if self.counts_entries { 0 } else { self.budget.index_bytes() };
        self.for_each_shard(|shard| used += shard.resident_weight());
        used
    }
}

//! Look-ups: RAM without a lock, then the stripe, then the log.

use std::borrow::Borrow;

use crossbeam_epoch::{self as epoch, Guard};

use super::Cache;
use crate::{
    codec::{Key, KeyBytes, Value},
    hash::KeyHash,
    location::Location,
    shard::{Found, Loan, Shard, Stripe, entry::Resident, hot::collect},
    tiers::{DiskCopy, ReadCopy},
};

/// How often a look-up follows a record that reclaim moves from under it, before it gives up.
const MOVES_MAX: usize = 8;

/// So many keys are looked up side by side: more misses of the cache than a processor has under way
/// at a time.
const GET_BATCH: usize = 16;

/// A key's stripe and its hash.
type Home<'c, K, V> = (&'c Stripe<K, V>, KeyHash);
/// A key of a batch and its home, if it has a hash.
type Asked<'c, 'q, K, V, Q> = (&'q Q, Option<Home<'c, K, V>>);

/// Where a look-up that asked the stripe has found a key.
enum InTiers<'g, K, V, N> {
    Ram(Resident<'g, K, V>),
    /// The copy, where it was read, and what was noted of it before.
    Disk(DiskCopy<V>, Location, N),
    Nothing,
}

/// Look-ups.
impl<K: Key, V: Value> Cache<K, V> {
    /// The value stored under `key`, cloned, or `None`.
    ///
    /// A value in RAM is found without a lock. One on disk is read, verified and decoded, and comes back into RAM
    /// if there is room or the policy wants it there. What has expired is a miss, and so are a key that cannot be
    /// encoded, a closed cache and trouble with the disk.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<String, u64> = Cache::in_memory().ram(MIB).open()?;
    /// cache.insert("runner".to_owned(), 42)?;
    /// assert_eq!(cache.get("runner"), Some(42));
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        self.get_with(key, V::clone)
    }

    /// Lends the value stored under `key` to `read`, which saves the clone; otherwise as [`get`](Cache::get).
    ///
    /// No lock is held while `read` runs. But no memory of entries that leave the cache meanwhile is freed, and once
    /// that is much, inserts wait a little for it, so it should not take long.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, Vec<u8>> = Cache::in_memory().ram(MIB).open()?;
    /// cache.insert(1, vec![0; 1000])?;
    /// assert_eq!(cache.get_with(&1, |page| page.len()), Some(1000));
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn get_with<Q, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        let (stripe, hash) = self.home(key)?;
        self.get_hashed(stripe, hash, key, read, &epoch::pin())
    }

    #[inline]
    fn get_hashed<Q, R>(
        &self,
        stripe: &Stripe<K, V>,
        hash: KeyHash,
        key: &Q,
        read: impl FnOnce(&V) -> R,
        guard: &Guard,
    ) -> Option<R>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        match self.find_in_ram(stripe, hash, key, guard) {
            Some(found) => {
                self.tiers.look_ups.add_hits(1);
                Some(read(self.touch(found)))
            }
            None => self.get_beyond_ram(hash, key, read, guard),
        }
    }

    /// Notes a hit on an entry in RAM.
    #[inline]
    fn touch<'g>(&self, Resident { entry, times }: Resident<'g, K, V>) -> &'g V {
        entry.meta.hit();
        self.tiers.expiry.touch(times);
        &entry.value
    }

    /// The values stored under several keys, each as by [`get`](Cache::get), in the order of the keys.
    ///
    /// This is faster than as many calls of `get`, because the waits for memory of sixteen keys at a time
    /// overlap. It is no snapshot: each key is looked up at a moment of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.insert(3, "three".into())?;
    /// let found = cache.get_many(&[1, 2, 3]);
    /// assert_eq!(found, [Some("one".into()), None, Some("three".into())]);
    /// # Ok(()) }
    /// ```
    pub fn get_many<'q, Q>(&self, keys: impl IntoIterator<Item = &'q Q>) -> Vec<Option<V>>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized + 'q,
    {
        let mut keys = keys.into_iter().fuse();
        let mut values = Vec::with_capacity(keys.size_hint().0);
        loop {
            let mut batch = [None; GET_BATCH];
            let mut asked = 0;
            for (place, key) in batch.iter_mut().zip(keys.by_ref()) {
                *place = Some((key, self.home(key)));
                asked += 1;
            }
            if asked == 0 {
                return values;
            }
            self.get_batch(&batch[..asked], &mut values);
        }
    }

    /// Where a key's entry is if it is in RAM, with its bucket on the way.
    #[inline]
    fn home<Q: KeyBytes + ?Sized>(&self, key: &Q) -> Option<Home<'_, K, V>> {
        let hash = self.tiers.hash(key).ok()?;
        let stripe = self.tiers.stripe(hash);
        stripe.hot.prefetch_bucket(hash);
        Some((stripe, hash))
    }

    /// After the buckets the entries, then the values: nothing is waited for before all of it is asked for.
    #[inline]
    fn get_batch<Q>(&self, batch: &[Option<Asked<'_, '_, K, V, Q>>], values: &mut Vec<Option<V>>)
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        let guard = &epoch::pin();
        let mut candidates = [const { None }; GET_BATCH];
        for (candidate, (_, home)) in candidates.iter_mut().zip(batch.iter().flatten()) {
            *candidate = home.and_then(|(stripe, hash)| stripe.hot.candidate(hash, guard));
        }
        let mut hits = 0;
        for (&(key, home), candidate) in batch.iter().flatten().zip(&mut candidates) {
            values.push(home.and_then(|(stripe, hash)| {
                let found = candidate.take().and_then(|candidate| candidate.resident(hash, key));
                match found.filter(|found| !self.tiers.expiry.has_expired(found.times)) {
                    Some(found) => {
                        hits += 1;
                        Some(self.touch(found).clone())
                    }
                    None => self.get_hashed(stripe, hash, key, V::clone, guard),
                }
            }));
        }
        self.tiers.look_ups.add_hits(hits);
    }

    /// As [`get`](Cache::get), but leaves no trace: neither the policy, a time to idle nor the statistics take it
    /// for a hit or a miss, and nothing comes back into RAM.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
    /// cache.insert(1, "one".into())?;
    /// assert_eq!(cache.peek(&1).as_deref(), Some("one"));
    /// assert_eq!(cache.stats().ram_hits, 0);
    /// # Ok(()) }
    /// ```
    pub fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        let hash = self.tiers.hash(key).ok()?;
        let guard = &epoch::pin();
        if let Some(found) = self.find_in_ram(self.tiers.stripe(hash), hash, key, guard) {
            return Some(found.entry.value.clone());
        }
        match self.find_in_tiers(hash, key, guard, |_, _| ()) {
            InTiers::Ram(found) => Some(found.entry.value.clone()),
            InTiers::Disk(copy, ..) => Some(copy.value),
            InTiers::Nothing => {
                // What has expired.
                collect(guard);
                None
            }
        }
    }

    /// Whether a value is stored under `key`. Like [`peek`](Cache::peek), it leaves no trace; unlike that, it
    /// neither clones nor decodes the value.
    ///
    /// A copy on disk is read and verified for this. A look-up that follows may miss all the same: the entry may
    /// leave in between, or its bytes may no longer make a value.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let seen: Cache<u64, ()> = Cache::in_memory().ram(MIB).open()?;
    /// seen.insert(1, ())?;
    /// assert!(seen.contains_key(&1) && !seen.contains_key(&2));
    /// # Ok(()) }
    /// ```
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        let Ok(hash) = self.tiers.hash(key) else { return false };
        let guard = &epoch::pin();
        if self.find_in_ram(self.tiers.stripe(hash), hash, key, guard).is_some() {
            return true;
        }
        let mut unread = None;
        for _ in 0..MOVES_MAX {
            let found = self.tiers.shard(hash, guard).find(hash, key);
            match found {
                Found::Hot(_) => return true,
                // Nothing has moved: there is no such copy at the only place that it could be.
                Found::Cold(location) if unread == Some(location) => return false,
                Found::Cold(location) if self.tiers.holds(key, location) => return true,
                Found::Cold(location) => unread = Some(location),
                Found::Nothing => break,
            }
        }
        // As in `peek`.
        collect(guard);
        false
    }

    /// A RAM hit: no lock, no allocation.
    #[inline]
    fn find_in_ram<'g, Q>(
        &self,
        stripe: &'g Stripe<K, V>,
        hash: KeyHash,
        key: &Q,
        guard: &'g Guard,
    ) -> Option<Resident<'g, K, V>>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        let found = stripe.hot.find(hash, key, guard)?;
        (!self.tiers.expiry.has_expired(found.times)).then_some(found)
    }

    /// Not in RAM: without a disk tier that is a miss.
    #[inline]
    fn get_beyond_ram<Q, R>(
        &self,
        hash: KeyHash,
        key: &Q,
        read: impl FnOnce(&V) -> R,
        guard: &Guard,
    ) -> Option<R>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        if self.tiers.log.is_none() {
            self.tiers.look_ups.add_miss();
            return None;
        }
        self.get_from_tiers(hash, key, read, guard)
    }

    /// Everything but a RAM hit.
    #[cold]
    fn get_from_tiers<Q, R>(
        &self,
        hash: KeyHash,
        key: &Q,
        read: impl FnOnce(&V) -> R,
        guard: &Guard,
    ) -> Option<R>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        if let Some(copy) = self.read_unloaded(hash, key, guard) {
            let result = read(&copy.value);
            self.tiers.look_ups.add_disk_hit();
            // Not with the scope: were that drop to panic, what is returned would leak.
            drop(copy);
            return Some(result);
        }
        let note = |shard: &mut Shard<'_, K, V>, location| {
            self.tiers.prefetch_copy(location, guard);
            shard.note_disk_hit(hash)
        };
        match self.find_in_tiers(hash, key, guard, note) {
            InTiers::Ram(found) => {
                self.tiers.look_ups.add_hits(1);
                Some(read(self.touch(found)))
            }
            InTiers::Disk(copy, location, comes_back) => {
                let result = read(&copy.value);
                self.tiers.look_ups.add_disk_hit();
                if comes_back || self.tiers.is_aged_by_hits(&copy) {
                    self.promote(hash, key, location, copy, guard);
                } else {
                    // As above.
                    drop(copy);
                }
                Some(result)
            }
            InTiers::Nothing => {
                self.tiers.look_ups.add_miss();
                // As in `peek`.
                collect(guard);
                None
            }
        }
    }

    /// Asks the stripe under its lock, and reads what its index names without it; again where reclaim has moved
    /// that meanwhile. `note` is told of each copy that is about to be read.
    #[inline]
    fn find_in_tiers<'g, Q, N>(
        &'g self,
        hash: KeyHash,
        key: &Q,
        guard: &'g Guard,
        note: impl Fn(&mut Shard<'g, K, V>, Location) -> N,
    ) -> InTiers<'g, K, V, N>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        for _ in 0..MOVES_MAX {
            let mut shard = self.tiers.shard(hash, guard);
            shard.prefetch(hash);
            let (location, noted) = match shard.find(hash, key) {
                // It came, or was overwritten, since the look-up without the lock.
                Found::Hot(found) => return InTiers::Ram(found),
                Found::Cold(location) => (location, note(&mut shard, location)),
                Found::Nothing => return InTiers::Nothing,
            };
            drop(shard);
            match self.tiers.read_copy(hash, key, location, guard) {
                ReadCopy::Value(copy) => return InTiers::Disk(copy, location, noted),
                ReadCopy::Moved => {}
                ReadCopy::Nothing => return InTiers::Nothing,
            }
        }
        InTiers::Nothing
    }

    /// Soon after an open: the copy of a key whose stripe is not loaded yet, and need not be for a value that
    /// stays where it is.
    #[inline]
    fn read_unloaded<Q>(&self, hash: KeyHash, key: &Q, guard: &Guard) -> Option<DiskCopy<V>>
    where
        Q: KeyBytes + ?Sized,
    {
        let location = self.tiers.find_unloaded(hash)?;
        match self.tiers.read_copy(hash, key, location, guard) {
            ReadCopy::Value(copy) if !self.tiers.is_aged_by_hits(&copy) => Some(copy),
            _ => None,
        }
    }

    /// Brings a disk hit back into RAM, unless what it would push out has no way out.
    fn promote<Q>(&self, hash: KeyHash, key: &Q, location: Location, copy: DiskCopy<V>, guard: &Guard)
    where
        Q: KeyBytes + ?Sized,
    {
        if self.tiers.check_origin().is_err() {
            // Forked by who was lent the value.
            return;
        }
        let expiry_s = copy.expiry_s;
        let outlasts = self.tiers.expiry.is_outlasted_by(expiry_s);
        // Its time to idle was taken away since it was written.
        let ends_early = copy.idle && !self.tiers.expiry.idles_out();
        let mut entry = self.tiers.entry_of_copy(hash, key, copy);
        let may_come = entry.is_some() && !self.tiers.budget.is_overloaded();
        // A copy that outlasts the entry would be a hit again when the entry has expired; and one that cannot come
        // into RAM, for as long as nobody notes how long it has idled.
        let is_ready = !outlasts || self.void_copy(hash, location, guard);
        let mut shard = self.tiers.shard(hash, guard);
        let mut loan = Loan::None;
        // Under the lock: whoever finds the copy expired from now on looks again, and finds the entry.
        let lives_on = !self.tiers.expiry.has_expired_on_disk(expiry_s);
        let has_room = may_come && shard.may_promote(hash, location);
        if outlasts && is_ready && !shard.is_closed() {
            // This copy alone: one on its way is of another key with this hash, and nobody journals that.
            shard.forget(hash, location);
        }
        if has_room
            && is_ready
            && lives_on
            && let Some(entry) = entry.take()
        {
            loan = shard.promote(entry, outlasts || ends_early);
        }
        let gone = shard.take_gone();
        drop(shard);
        // An entry that stays behind is dropped here, outside the lock.
        drop((entry, gone));
        self.tiers.honour(loan);
        collect(guard);
        self.tiers.ring_for_batch();
    }

    /// Journals that a copy is void, which the index goes on naming; whether that is as durable as it has to be. It comes
    /// before anybody can see the entry, and be told that it has idled out: a loss of power would bring its copy back.
    /// The epoch waits for the disk with it, but once for each entry from before the time to idle was changed.
    fn void_copy(&self, hash: KeyHash, location: Location, guard: &Guard) -> bool {
        let mut shard = self.tiers.shard(hash, guard);
        if !shard.is_at(hash, location)
            || shard.is_closed()
            || self.tiers.invalidate(&mut shard, hash).is_err()
        {
            return false;
        }
        shard.set_void(hash);
        let journaled = shard.journaled();
        drop(shard);
        let durable = self.tiers.commit(journaled);
        durable
            .inspect_err(|error| tracing::debug!(%error, "a copy that ends otherwise than its entry stays"))
            .is_ok()
    }
}

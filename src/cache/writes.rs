//! What changes keys: insert, remove, clear.

use std::{borrow::Borrow, time::Duration};

use crossbeam_epoch as epoch;

use super::Cache;
use crate::{
    bell::Request,
    codec::{Key, KeyBytes, Value},
    error::Error,
    hash::KeyHash,
    location::JournalEnd,
    shard::{
        entry::{Arrival, Entry, Meta},
        hot::{collect_now, drop_quietly},
        loads::LoadId,
    },
};

/// Changes.
impl<K: Key, V: Value> Cache<K, V> {
    /// Stores `value` under `key`, in place of whatever was there, for the default time to live
    /// ([`Builder::time_to_live`](crate::Builder::time_to_live)).
    ///
    /// The value goes to RAM, which allocates only where tables grow. It reaches the disk when it leaves RAM, by
    /// write-behind, at [`flush`](Cache::flush) or at [`close`](Cache::close); a crash before that forgets it.
    ///
    /// Once this has returned, no look-up returns what the key had before, in this process or a later one. If
    /// the disk has a copy of that, 32 bytes are written to the journal, unless the durability is
    /// [`Clean`](crate::Durability::Clean); if it is [`PowerLoss`](crate::Durability::PowerLoss), the call waits until
    /// they are synced. Where entries leave RAM faster than the disk takes them, it waits for the disk, too
    /// ([`Overload`](crate::Overload)).
    ///
    /// Loads of the key that began before are not stored.
    ///
    /// # Errors
    ///
    /// - [`Error::TooLarge`]: nothing is stored, and what stood under the key is gone.
    /// - [`Error::NotDurable`]: it is stored, or if it is too large what stood there is gone; but see there.
    /// - [`Error::Codec`] for a key that cannot be encoded, [`Error::Closed`], [`Error::ReadOnly`],
    ///   [`Error::Forked`]: nothing has changed.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let prices: Cache<u64, u32> = Cache::in_memory().ram(MIB).open()?;
    /// prices.insert(7, 12_900)?;
    /// prices.insert(7, 9_900)?;
    /// assert_eq!(prices.get(&7), Some(9_900));
    /// # Ok(()) }
    /// ```
    pub fn insert(&self, key: K, value: V) -> Result<(), Error> {
        self.store(key, value, None, None).map(drop)
    }

    /// As [`insert`](Cache::insert), with `ttl` in place of the default time to live: after that the key is a
    /// miss. Deadlines are kept in units of 20 ms in RAM and of a second on disk, rounded down in both; see
    /// [`Builder::time_to_live`](crate::Builder::time_to_live).
    ///
    /// # Errors
    ///
    /// As [`insert`](Cache::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// use std::time::Duration;
    ///
    /// let stock: Cache<u64, u32> = Cache::in_memory().ram(MIB).open()?;
    /// stock.insert_with_ttl(7, 3, Duration::from_secs(30))?;
    /// assert_eq!(stock.get(&7), Some(3));
    /// # Ok(()) }
    /// ```
    pub fn insert_with_ttl(&self, key: K, value: V, ttl: Duration) -> Result<(), Error> {
        self.store(key, value, Some(ttl), None).map(drop)
    }

    /// Removes what is stored under `key`, and tells whether there was anything.
    ///
    /// Once this has returned, no look-up returns the value, in this process or a later one. Loads
    /// of the key that began before are not stored.
    ///
    /// If the disk has a copy, that costs a write to the journal, as for an [`insert`](Cache::insert), and if RAM has
    /// none, a read of it for the answer.
    ///
    /// # Errors
    ///
    /// - [`Error::NotDurable`]: it is removed, but see there.
    /// - [`Error::Codec`] for a key that cannot be encoded, [`Error::Closed`], [`Error::ReadOnly`],
    ///   [`Error::Forked`]: nothing has changed.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
    /// cache.insert(1, "one".into())?;
    /// assert!(cache.remove(&1)?);
    /// assert!(!cache.remove(&1)?);
    /// # Ok(()) }
    /// ```
    pub fn remove<Q>(&self, key: &Q) -> Result<bool, Error>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        let hash = self.tiers.hash_to_change(key)?;
        let (was_there, journaled) = self.take_out(hash, key)?;
        // No lock and no epoch is held any more.
        self.tiers.commit(journaled)?;
        Ok(was_there)
    }

    /// The walk of a remove: journal, take it out of both tiers. Whether it was there, and what to wait
    /// for before that is said.
    fn take_out<Q>(&self, hash: KeyHash, key: &Q) -> Result<(bool, JournalEnd), Error>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        let guard = epoch::pin();
        let mut shard = self.tiers.shard(hash, &guard);
        if shard.is_closed() {
            return Err(Error::Closed);
        }
        let old = shard.slot_of(hash, key);
        let dead_loads = shard.kill_loads(hash);
        let durable = self.tiers.invalidate(&mut shard, hash);
        let journaled = shard.journaled();
        let on_disk = shard.location(hash);
        let gone = shard.take_gone();
        let was_in_ram = shard.remove(hash, old);
        drop(shard);
        drop_quietly(dead_loads);
        drop(gone);
        // What the index named is read only now: its bytes stay until reclaim.
        let was_there = was_in_ram || on_disk.is_some_and(|at| self.tiers.holds(key, at));
        if was_there {
            self.tiers.shard(hash, &guard).counts().removes += 1;
        }
        collect_now(guard);
        durable.map(|()| (was_there, journaled))
    }

    /// Removes everything, in both tiers. Loads that began before are not stored.
    ///
    /// Once this has returned, nothing of what was there before it is seen again; after a crash before that, either
    /// all of what was on disk is gone or none. With a directory, the background thread does it, after what it
    /// is writing at the time.
    ///
    /// # Errors
    ///
    /// - [`Error::NotDurable`]: everything is removed, but see there.
    /// - [`Error::Unsupported`]: asked for by code that the cache's own thread runs; nothing has changed.
    /// - [`Error::Closed`], [`Error::ReadOnly`], [`Error::Forked`]: nothing has changed.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.clear()?;
    /// assert!(cache.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn clear(&self) -> Result<(), Error> {
        self.tiers.check_change()?;
        if self.tiers.log.is_some() {
            // By the one thread that appends, so that nothing is in flight between the barrier
            // and the stripe that is cleared last.
            return self.tiers.bell.call(Request::Clear);
        }
        self.tiers.clear()
    }

    /// The walk of every store: measure, journal, put it in RAM. With a `load`, only if that is
    /// still alive; whether it was stored.
    pub(crate) fn store(
        &self,
        key: K,
        value: V,
        ttl: Option<Duration>,
        load: Option<LoadId>,
    ) -> Result<bool, Error> {
        let hash = self.check_key(&key)?;
        let weight = self.tiers.weight(&key, &value);
        if weight > self.tiers.budget.weight_max() {
            if load.is_none() {
                self.remove(&key)?;
            }
            let limit = self.tiers.budget.weight_max();
            return Err(Error::TooLarge { what: "entry", found: weight, limit });
        }
        let entry = Entry { meta: Meta::new(hash, weight as u32), key, value };
        let stored = self.put_in_ram(Arrival { entry, times: self.tiers.expiry.times(ttl) }, load);
        // No lock and no epoch is held any more.
        self.tiers.wait_for_disk();
        let (stored, journaled) = stored?;
        self.tiers.commit(journaled)?;
        Ok(stored)
    }

    /// One step under the stripe's lock: is the load alive, journal, insert. Whether it was stored, and
    /// what to wait for before that is said.
    fn put_in_ram(&self, arrival: Arrival<K, V>, load: Option<LoadId>) -> Result<(bool, JournalEnd), Error> {
        let hash = arrival.entry.meta.hash;
        let stripe = self.tiers.stripe(hash);
        stripe.hot.prefetch_bucket(hash);
        let guard = epoch::pin();
        let mut shard = self.tiers.shard(hash, &guard);
        shard.prefetch(hash);
        if shard.is_closed() {
            drop(shard);
            return Err(Error::Closed);
        }
        let old = shard.slot_of(hash, &arrival.entry.key);
        let dead_loads = match load {
            None => shard.kill_loads(hash),
            Some(id) if shard.fill_load(hash, id) => None,
            Some(_) => {
                shard.counts().loads_overtaken += 1;
                drop(shard);
                return Ok((false, JournalEnd::START));
            }
        };
        let durable = self.tiers.invalidate(&mut shard, hash);
        let journaled = shard.journaled();
        let gone = shard.take_gone();
        let loan = shard.insert(old, arrival);
        drop(shard);
        drop_quietly(dead_loads);
        drop(gone);
        self.tiers.honour(loan);
        collect_now(guard);
        stripe.hot.give_way();
        durable.map(|()| (true, journaled))
    }

    /// The key's hash, if it is one that the log can hold.
    fn check_key(&self, key: &K) -> Result<KeyHash, Error> {
        self.tiers.check_change()?;
        let (hash, len) = key.with_bytes(|bytes| (KeyHash::of(bytes, self.tiers.hash_seed), bytes.len()))?;
        match u16::try_from(len) {
            Ok(_) => Ok(hash),
            Err(_) => Err(Error::TooLarge { what: "key", found: len as u64, limit: u16::MAX.into() }),
        }
    }
}

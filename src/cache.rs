//! The public face, and the story of every operation: which tier is asked, in which order, under which lock.

use std::{array, borrow::Borrow, fmt, path::PathBuf, sync::Arc, time::Duration};

use crossbeam_epoch::{self as epoch, Guard};

use crate::{
    bell::Request,
    builder::Builder,
    codec::{Key, KeyBytes, Value},
    engine::Engine,
    error::Error,
    hash::KeyHash,
    io::Io,
    location::{JournalEnd, Location},
    options::Options,
    shard::{
        Found, Loan,
        entry::{Arrival, Entry, Meta, Resident},
        hot::drop_quietly,
        loads::LoadId,
    },
    stats::Stats,
    tiers::{DiskCopy, ReadCopy, Tiers},
};

/// How often a look-up follows a record that reclaim moves from under it, before it gives up.
const MOVES_MAX: usize = 8;

/// So many keys are looked up side by side: more misses of the cache than a processor has under way
/// at a time.
const GET_BATCH: usize = 16;

/// A cache in two tiers, RAM and disk, or in RAM alone.
///
/// It may forget; it never lies: a look-up returns the last value stored under the key, or
/// nothing. A clone is another handle to the same cache; the last handle's drop closes it.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("cache");
/// use embercache::{Cache, MIB};
///
/// let pages: Cache<u64, String> = Cache::builder(&dir).ram(8 * MIB).disk(64 * MIB).open()?;
/// pages.insert(7, "<h1>Runner</h1>".to_owned())?;
/// assert_eq!(pages.get(&7).as_deref(), Some("<h1>Runner</h1>"));
///
/// drop(pages); // and later, in the next process
/// let pages: Cache<u64, String> = Cache::builder(&dir).ram(8 * MIB).disk(64 * MIB).open()?;
/// assert_eq!(pages.get(&7).as_deref(), Some("<h1>Runner</h1>"));
/// # Ok(()) }
/// ```
pub struct Cache<K: Key, V: Value> {
    /// Reached without a detour by every look-up; the engine holds the same.
    pub(crate) tiers: Arc<Tiers<K, V>>,
    /// Closes the cache with the last handle.
    engine: Arc<Engine<K, V>>,
}

/// Opening and closing.
impl<K: Key, V: Value> Cache<K, V> {
    /// Builds a cache over a directory of its own, which is created if it is not there.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// use embercache::{Cache, GIB, MIB};
    ///
    /// let cache: Cache<String, Vec<u8>> = Cache::builder(dir).ram(64 * MIB).disk(4 * GIB).open()?;
    /// assert!(cache.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn builder(dir: impl Into<PathBuf>) -> Builder<K, V> {
        Builder::new(Some(dir.into()))
    }

    /// Builds a cache in RAM alone.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// use embercache::Cache;
    ///
    /// let cache: Cache<u64, String> = Cache::in_memory().ram_entries(10_000).open()?;
    /// cache.insert(1, "one".into())?;
    /// assert_eq!((cache.ram_bytes(), cache.disk_bytes()), (1, 0));
    /// # Ok(()) }
    /// ```
    pub fn in_memory() -> Builder<K, V> {
        Builder::new(None)
    }

    pub(crate) fn open(io: Arc<dyn Io>, options: Options<K, V>) -> Result<Cache<K, V>, Error> {
        let engine = Engine::open(io, options)?;
        Ok(Cache { tiers: engine.tiers(), engine: Arc::new(engine) })
    }

    /// Copies every entry that is only in RAM to disk, whatever admission would say, and waits
    /// until that is written. In RAM alone it does nothing.
    ///
    /// What was stored before the call survives the end of the process or the machine, as the durability
    /// says, until it is overwritten or reclaimed. Entries too large for the log, refused by the user's
    /// filter or about to expire are not copied.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk refused some of it, or has refused an invalidation before: then the next
    /// start is cold, and nothing is safe until the cache has been opened anew. [`Error::NotDurable`],
    /// [`Error::Closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::builder(dir).ram(8 * MIB).disk(64 * MIB).open()?;
    /// cache.insert(1, "kept, come what may".into())?;
    /// cache.flush()?;
    /// assert_eq!(cache.stats().disk_entries, 1);
    /// # Ok(()) }
    /// ```
    pub fn flush(&self) -> Result<(), Error> {
        self.engine.flush()
    }

    /// Closes the cache for every handle: copies what is only in RAM to disk, as long as the
    /// builder's `close_deadline` allows, and writes the snapshot that the next open starts from.
    /// Afterwards look-ups find nothing and changes return [`Error::Closed`]. The last handle's
    /// drop does the same, without the result. A second close does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk refused some of it. The next open then finds less, or starts cold.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error, MIB};
    /// let cache: Cache<u64, String> = Cache::builder(dir).ram(8 * MIB).disk(64 * MIB).open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.close()?;
    /// assert_eq!(cache.get(&1), None);
    /// assert!(matches!(cache.insert(1, "uno".into()), Err(Error::Closed)));
    /// # Ok(()) }
    /// ```
    pub fn close(&self) -> Result<(), Error> {
        self.engine.close()
    }
}

/// Look-ups.
impl<K: Key, V: Value> Cache<K, V> {
    /// The value stored under `key`, cloned, or `None`.
    ///
    /// From RAM without a lock; from disk it is read, verified, decoded and brought back into RAM.
    /// Trouble with the disk is a miss.
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

    /// Lends the value stored under `key` to `read`, which saves the clone. While `read` runs, memory
    /// of entries that leave meanwhile is not freed, so it should not take long.
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
        let hash = self.tiers.hash(key).ok()?;
        self.get_hashed(hash, key, read, &epoch::pin())
    }

    #[inline]
    fn get_hashed<Q, R>(&self, hash: KeyHash, key: &Q, read: impl FnOnce(&V) -> R, guard: &Guard) -> Option<R>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        match self.find_in_ram(hash, key, guard) {
            Some(Resident { entry, times }) => {
                entry.meta.hit();
                self.tiers.expiry.touch(times);
                self.tiers.look_ups.add_hits(1);
                Some(read(&entry.value))
            }
            None => self.get_beyond_ram(hash, key, read, guard),
        }
    }

    /// The values stored under several keys, each as by [`get`](Cache::get), in the order of the keys.
    ///
    /// Faster than as many calls of `get`: the waits for memory of sixteen keys at a time overlap.
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
            let batch: [Option<&Q>; GET_BATCH] = array::from_fn(|_| keys.next());
            if batch[0].is_none() {
                return values;
            }
            self.get_batch(&batch, &mut values);
        }
    }

    /// Buckets first, then entries, then values: nothing is waited for before all of it is asked for.
    fn get_batch<Q>(&self, batch: &[Option<&Q>; GET_BATCH], values: &mut Vec<Option<V>>)
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        let hashes = batch.map(|key| key.and_then(|key| self.tiers.hash(key).ok()));
        let guard = &epoch::pin();
        for &hash in hashes.iter().flatten() {
            self.tiers.stripe(hash).hot.prefetch_bucket(hash, guard);
        }
        for &hash in hashes.iter().flatten() {
            self.tiers.stripe(hash).hot.prefetch_entry(hash, guard);
        }
        for (key, hash) in batch.iter().zip(hashes) {
            let Some(key) = key else { return };
            values.push(hash.and_then(|hash| self.get_hashed(hash, *key, V::clone, guard)));
        }
    }

    /// As [`get`](Cache::get), but leaves no trace: it is no hit in the eyes of the policy or the stats, and
    /// brings nothing back into RAM.
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
        if let Some(found) = self.find_in_ram(hash, key, guard) {
            return Some(found.entry.value.clone());
        }
        for _ in 0..MOVES_MAX {
            let found = self.tiers.shard(hash, guard).find(hash, key);
            let location = match found {
                Found::Hot(found) => return Some(found.entry.value.clone()),
                Found::Cold(location) => location,
                Found::Nothing => return None,
            };
            match self.tiers.read_copy(hash, key, location, guard) {
                ReadCopy::Value(copy) => return Some(copy.value),
                ReadCopy::Moved => {}
                ReadCopy::Nothing => return None,
            }
        }
        None
    }

    /// Whether a value is stored under `key`; at the cost of a [`peek`](Cache::peek), which it is.
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
        self.peek(key).is_some()
    }

    /// A RAM hit: no lock, no allocation.
    #[inline]
    fn find_in_ram<'g, Q>(&'g self, hash: KeyHash, key: &Q, guard: &'g Guard) -> Option<Resident<'g, K, V>>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        let found = self.tiers.stripe(hash).hot.find(hash, key, guard)?;
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
        self.get_under_lock(hash, key, read, guard)
    }

    /// Everything but a RAM hit: the index is asked under the stripe's lock, the log is read without.
    #[cold]
    fn get_under_lock<Q, R>(
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
        for _ in 0..MOVES_MAX {
            let mut shard = self.tiers.shard(hash, guard);
            let (location, comes_back) = match shard.find(hash, key) {
                Found::Hot(Resident { entry, times }) => {
                    // It came, or was overwritten, since the look-up without the lock.
                    drop(shard);
                    self.tiers.look_ups.add_hits(1);
                    entry.meta.hit();
                    self.tiers.expiry.touch(times);
                    return Some(read(&entry.value));
                }
                Found::Cold(location) => (location, shard.note_disk_hit(hash)),
                Found::Nothing => break,
            };
            drop(shard);
            match self.tiers.read_copy(hash, key, location, guard) {
                ReadCopy::Value(copy) => {
                    let result = read(&copy.value);
                    self.tiers.look_ups.add_disk_hit();
                    if comes_back || self.tiers.is_aged_by_hits(&copy) {
                        self.promote(hash, key, location, copy, guard);
                    } else {
                        // Not with the scope: were that drop to panic, what is returned would leak.
                        drop(copy);
                    }
                    return Some(result);
                }
                ReadCopy::Moved => {}
                ReadCopy::Nothing => break,
            }
        }
        self.tiers.look_ups.add_miss();
        None
    }

    /// Brings a disk hit back into RAM, unless what it would push out has no way out.
    fn promote<Q>(&self, hash: KeyHash, key: &Q, location: Location, copy: DiskCopy<V>, guard: &Guard)
    where
        Q: KeyBytes + ?Sized,
    {
        let outlasts = self.tiers.expiry.is_outlasted_by(copy.expiry_s);
        let mut entry = self.tiers.entry_of_copy(hash, key, copy);
        let mut shard = self.tiers.shard(hash, guard);
        let mut loan = Loan::None;
        if shard.may_promote(hash, location) && !self.tiers.budget.is_overloaded() {
            // A copy that outlasts the entry would be a hit again when the entry has expired.
            let is_ready = !outlasts || self.tiers.invalidate(&mut shard, hash).is_ok();
            if is_ready && let Some(entry) = entry.take() {
                if outlasts {
                    shard.forget_copies(hash);
                }
                loan = shard.promote(entry);
            }
        }
        let gone = shard.take_gone();
        drop(shard);
        // An entry that stays behind is dropped here, outside the lock.
        drop((entry, gone));
        self.tiers.honour(loan);
        self.tiers.collect(hash, guard);
        self.tiers.ring_for_batch();
    }
}

/// Changes.
impl<K: Key, V: Value> Cache<K, V> {
    /// Stores `value` under `key`, in place of whatever was there, for the default time to live.
    ///
    /// Costs one allocation-free step in RAM; if a copy of the key is on disk, also a write of 32
    /// bytes to the journal, and with [`Durability::PowerLoss`](crate::Durability::PowerLoss) the wait until
    /// that is synced. Where entries leave RAM faster than the disk takes them, it waits
    /// ([`Overload`](crate::Overload)). The value reaches the disk when it leaves RAM, by
    /// write-behind, at [`flush`](Cache::flush) or at [`close`](Cache::close).
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] and [`Error::Codec`]: nothing is stored, and what stood under the key is
    /// gone. [`Error::NotDurable`]: it is stored, but see there. [`Error::Closed`].
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

    /// As [`insert`](Cache::insert), for `ttl` in place of the default time to live: after that it is a miss.
    /// Deadlines are kept in units of 20 ms, rounded down; on disk in seconds.
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

    /// Removes what is stored under `key`; whether there was something.
    ///
    /// Once it has returned, no look-up returns the value, in this process or a later one. Loads
    /// of the key that began before are not stored.
    ///
    /// # Errors
    ///
    /// [`Error::NotDurable`]: it is removed, but see there. [`Error::Closed`], [`Error::Codec`].
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
        let hash = self.tiers.hash(key)?;
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
        let guard = &epoch::pin();
        let mut shard = self.tiers.shard(hash, guard);
        if shard.is_closed() {
            return Err(Error::Closed);
        }
        let dead_loads = shard.kill_loads(hash);
        let durable = self.tiers.invalidate(&mut shard, hash);
        let journaled = shard.journaled();
        let on_disk = shard.location(hash);
        let was_in_ram = shard.remove(hash, key);
        drop(shard);
        drop_quietly(dead_loads);
        // What the index named is read only now: its bytes stay until reclaim.
        let was_there = was_in_ram || on_disk.is_some_and(|at| self.tiers.holds(key, at));
        if was_there {
            self.tiers.shard(hash, guard).counts().removes += 1;
        }
        durable.map(|()| (was_there, journaled))
    }

    /// Removes everything, in both tiers. All of it or, after a crash before it has returned, all
    /// or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotDurable`]: everything is removed, but see there. [`Error::Closed`].
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
        self.tiers.check_origin()?;
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
        let guard = epoch::pin();
        let stripe = self.tiers.stripe(hash);
        stripe.hot.prefetch_bucket(hash, &guard);
        let mut shard = self.tiers.shard(hash, &guard);
        shard.prefetch(hash);
        if shard.is_closed() {
            drop(shard);
            return Err(Error::Closed);
        }
        let dead_loads = match load {
            None => shard.kill_loads(hash),
            Some(id) if shard.is_load_alive(hash, id) => None,
            Some(_) => {
                shard.counts().loads_overtaken += 1;
                drop(shard);
                return Ok((false, JournalEnd::START));
            }
        };
        let durable = self.tiers.invalidate(&mut shard, hash);
        let journaled = shard.journaled();
        let gone = shard.take_gone();
        let loan = shard.insert(arrival);
        drop(shard);
        drop_quietly(dead_loads);
        drop(gone);
        self.tiers.honour(loan);
        stripe.collect_now(guard);
        durable.map(|()| (true, journaled))
    }

    /// The key's hash, if it is one that the log can hold.
    fn check_key(&self, key: &K) -> Result<KeyHash, Error> {
        self.tiers.check_origin()?;
        let (hash, len) = key.with_bytes(|bytes| (KeyHash::of(bytes, self.tiers.hash_seed), bytes.len()))?;
        match u16::try_from(len) {
            Ok(_) => Ok(hash),
            Err(_) => Err(Error::TooLarge { what: "key", found: len as u64, limit: u16::MAX.into() }),
        }
    }
}

/// Figures.
impl<K: Key, V: Value> Cache<K, V> {
    /// What the cache has done and holds. Takes each stripe's lock in turn, so the figures are not
    /// of one moment.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.get(&1);
    /// cache.get(&2);
    /// let stats = cache.stats();
    /// assert_eq!((stats.ram_hits, stats.misses), (1, 1));
    /// println!("{stats}");
    /// # Ok(()) }
    /// ```
    pub fn stats(&self) -> Stats {
        Stats::of(&self.tiers)
    }

    /// The number of entries, each counted once whichever tiers it is in. What has expired counts
    /// until it is swept. Takes each stripe's lock in turn.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.insert(1, "uno".into())?;
    /// assert_eq!(cache.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn len(&self) -> u64 {
        let mut len = 0;
        self.tiers.for_each_shard(|shard| len += shard.len());
        len
    }

    /// Whether there is no entry; at the cost of [`len`](Cache::len).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
    /// assert!(cache.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the RAM budget in use; with a budget in entries, their number. What was evicted
    /// counts until the last reader that may see it has gone. Takes each stripe's lock in turn.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, Vec<u8>> = Cache::in_memory().ram(MIB).open()?;
    /// cache.insert(1, vec![0; 1_000])?;
    /// assert!((1_000..1_200).contains(&cache.ram_bytes()));
    /// # Ok(()) }
    /// ```
    pub fn ram_bytes(&self) -> u64 {
        self.tiers.ram_used()
    }

    /// The bytes that segments take on disk, as the files' lengths say; 0 in RAM alone.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, Vec<u8>> = Cache::builder(dir).disk(64 * MIB).open()?;
    /// cache.insert(1, vec![0; 1_000])?;
    /// cache.flush()?;
    /// assert!(cache.disk_bytes() > 1_000);
    /// # Ok(()) }
    /// ```
    pub fn disk_bytes(&self) -> u64 {
        self.tiers.log.as_ref().map_or(0, |log| log.disk_bytes())
    }

    /// Re-derives every counter and index from scratch; panics where one is wrong.
    #[cfg(any(test, feature = "testing"))]
    #[doc(hidden)]
    pub fn check(&self) {
        self.tiers.for_each_shard(|shard| shard.check());
    }
}

impl<K: Key, V: Value> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Cache { tiers: Arc::clone(&self.tiers), engine: Arc::clone(&self.engine) }
    }
}

impl<K: Key, V: Value> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

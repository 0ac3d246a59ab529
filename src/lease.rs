//! Loads through the cache: one at a time, and never stored after an invalidation (R8).

use std::{borrow::Borrow, fmt, mem, panic::catch_unwind, sync::Arc, time::Duration};

use crossbeam_epoch::{self as epoch, Guard};

use crate::{
    bell::Bell,
    cache::Cache,
    codec::{Key, KeyBytes, Value},
    error::Error,
    hash::KeyHash,
    shard::{
        Found,
        hot::{collect, drop_quietly},
        loads::{Flight, LoadId, Turn},
    },
};

/// Loads.
impl<K: Key, V: Value> Cache<K, V> {
    /// The value stored under `key`, or else what `load` returns, which is stored as by
    /// [`insert`](Cache::insert) and at its cost.
    ///
    /// However many threads ask for the key at the same time, one of them loads and the others wait for
    /// it. If the key is inserted, removed or cleared meanwhile, those who had asked before get what was loaded,
    /// and it is not stored. If `load` panics, the next thread that waits runs its own. If `load` asks for the same
    /// key, or something that its thread drops meanwhile does, that loads for itself, and what it loads is not stored.
    /// But `load` must not wait for another thread that asks for the key, since that one waits for `load`. Only the
    /// background thread of a cache waits for no load of any cache: where another loads, it loads for itself, too.
    ///
    /// A value that cannot be stored is returned all the same: because it is too large, because its key cannot
    /// be encoded, or because the cache is closed, was opened for reading only or belongs to the process that
    /// this one was forked from.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let squares: Cache<u64, u64> = Cache::in_memory().ram(MIB).open()?;
    /// assert_eq!(squares.get_or_insert_with(&12, || 12 * 12), 144);
    /// assert_eq!(squares.get_or_insert_with(&12, || unreachable!("it is stored")), 144);
    /// # Ok(()) }
    /// ```
    pub fn get_or_insert_with<Q>(&self, key: &Q, load: impl FnOnce() -> V) -> V
    where
        K: Borrow<Q>,
        Q: KeyBytes + ToOwned<Owned = K> + ?Sized,
    {
        let Ok(value) = self.try_get_or_insert_with(key, || Ok::<V, std::convert::Infallible>(load()));
        value
    }

    /// As [`get_or_insert_with`](Cache::get_or_insert_with), with a `load` that may fail. Then nothing is stored, its
    /// caller gets the error, and the next thread that waits runs its own: one after the other, so that while every
    /// load fails the last of them waits for as long as all of theirs take. A `load` with a timeout of its own keeps
    /// that short.
    ///
    /// # Errors
    ///
    /// What `load` returned. Nothing else: a value that cannot be stored is no error here.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// # fn fetch(id: u64) -> Result<String, std::io::Error> { Ok(format!("product {id}")) }
    /// let products: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
    /// let product = products.try_get_or_insert_with(&7, || fetch(7));
    /// assert_eq!(product.unwrap(), "product 7");
    /// # Ok(()) }
    /// ```
    pub fn try_get_or_insert_with<Q, E>(&self, key: &Q, load: impl FnOnce() -> Result<V, E>) -> Result<V, E>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ToOwned<Owned = K> + ?Sized,
    {
        let load = || {
            self.tiers.look_ups.add_load();
            load()
        };
        loop {
            if let Some(value) = self.get(key) {
                return Ok(value);
            }
            match self.join_load(key) {
                Join::Arrived => {}
                // Whoever loads may be waiting for this one: the background thread of some cache.
                Join::Wait(_) if Bell::is_attended_here() => return load(),
                Join::Wait(flight) => {
                    if let Some(value) = flight.wait() {
                        return Ok(value);
                    }
                }
                Join::Lead { lead, has_copy } => {
                    // Inserted since the look-up, it may have left RAM already. An insert from here on ends this load.
                    if has_copy && let Some(value) = self.get(key) {
                        return Ok(value);
                    }
                    return load().inspect(|value| lead.land(key.to_owned(), value));
                }
                Join::Alone => return load(),
            }
        }
    }

    /// Takes a lease on `key`, for a load by hand: take it, load, [`fill`](Lease::fill). Unlike an insert, the fill
    /// does nothing if the key was inserted, removed or cleared after the lease was taken; so what
    /// was loaded before an update of the database never replaces what came after it.
    ///
    /// It does not look the key up, costs one short lock, and keeps nobody else from loading the same key. Leases
    /// know nothing of each other: of two, the one that is filled last stays, until the key is invalidated.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] for a key that cannot be encoded, [`Error::Closed`], [`Error::ReadOnly`],
    /// [`Error::Forked`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let stock: Cache<u64, u32> = Cache::in_memory().ram(MIB).open()?;
    ///
    /// let lease = stock.lease(&7)?;
    /// let loaded = 3; // from the database, while somebody sells a pair:
    /// stock.remove(&7)?;
    /// assert!(!lease.fill(loaded)?);
    /// assert_eq!(stock.get(&7), None);
    /// # Ok(()) }
    /// ```
    pub fn lease<Q>(&self, key: &Q) -> Result<Lease<K, V>, Error>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.tiers.hash_to_change(key)?;
        let (mine, mut kept) = (key.to_owned(), Some(key.to_owned()));
        let guard = &epoch::pin();
        let mut shard = self.tiers.shard(hash, guard);
        if shard.is_closed() {
            return Err(Error::Closed);
        }
        let id = shard.lease(hash, key, &mut kept);
        drop(shard);
        // Not with the scope: were that drop to panic, nobody would end what was begun.
        drop_quietly(kept);
        Ok(Lease::new(self.clone(), hash, mine, id))
    }

    fn join_load<Q>(&self, key: &Q) -> Join<'_, K, V>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ToOwned<Owned = K> + ?Sized,
    {
        let Ok(hash) = self.tiers.hash_to_change(key) else { return Join::Alone };
        let mut owned = Some(key.to_owned());
        let guard = &epoch::pin();
        let mut shard = self.tiers.shard(hash, guard);
        if shard.is_closed() {
            return Join::Alone;
        }
        let has_copy = match shard.find(hash, key) {
            Found::Hot(_) => return Join::Arrived,
            Found::Cold(_) => true,
            Found::Nothing => false,
        };
        let turn = shard.join_load(hash, key, &mut owned);
        drop(shard);
        // From here on a load that was begun ends, whatever happens.
        let join = match turn {
            Turn::Lead(id, flight) => Join::Lead { lead: Lead::new(self, hash, id, flight), has_copy },
            Turn::Wait(flight) => Join::Wait(flight),
            Turn::Alone => Join::Alone,
        };
        drop_quietly(owned);
        // What has expired; the load may take long.
        collect(guard);
        join
    }
}

/// What one who found nothing is to do.
enum Join<'c, K: Key, V: Value> {
    /// Look again: it has come in the meantime.
    Arrived,
    /// Load and land, and look first where there is a copy on disk with that hash.
    Lead { lead: Lead<'c, K, V>, has_copy: bool },
    /// Another is loading it.
    Wait(Arc<Flight<V>>),
    /// Load, and store nothing: the cache is closed, is not changed or cannot hold the key, or a load is under way
    /// that cannot be waited for.
    Alone,
}

/// The right to store what is being loaded for a key, as long as nothing invalidates it. Taken by
/// [`Cache::lease`].
///
/// It is there to prevent the oldest lie of a cache beside a database: a reader misses and loads the old
/// value, a writer updates the database and invalidates the key, and then the reader stores the old value,
/// which stays. An insert, a remove or a clear kills the key's leases, and a dead lease stores nothing. One
/// that is dropped unfilled stores nothing either.
///
/// It holds no lock, keeps nobody waiting, never times out, and can be sent to another thread or held across
/// an `.await`. It is a handle to the cache: as long as it lives, dropping the others does not close the cache.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # use embercache::{Cache, MIB};
/// let stock: Cache<u64, u32> = Cache::in_memory().ram(MIB).open()?;
/// let lease = stock.lease(&7)?;
/// let loaded = 3; // from the database, while somebody else stores what is newer:
/// stock.insert(7, 2)?;
/// assert!(!lease.fill(loaded)?);
/// assert_eq!(stock.get(&7), Some(2));
/// # Ok(()) }
/// ```
#[must_use = "a lease that is dropped stores nothing"]
pub struct Lease<K: Key, V: Value> {
    cache: Cache<K, V>,
    hash: KeyHash,
    key: Option<K>,
    /// `None` if it never was alive: another key with the same hash was being loaded.
    id: Option<LoadId>,
}

impl<K: Key, V: Value> Lease<K, V> {
    pub(crate) fn new(cache: Cache<K, V>, hash: KeyHash, key: K, id: Option<LoadId>) -> Lease<K, V> {
        Lease { cache, hash, key: Some(key), id }
    }

    /// Stores the loaded value, unless the key was invalidated after the lease was taken: then nothing is stored,
    /// and the answer is `false`. Costs what [`Cache::insert`] does.
    ///
    /// # Errors
    ///
    /// As [`Cache::insert`], but after [`Error::TooLarge`] what stood under the key is still there.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
    /// let lease = cache.lease(&1)?;
    /// assert!(lease.fill("one".into())?);
    /// assert_eq!(cache.get(&1).as_deref(), Some("one"));
    /// # Ok(()) }
    /// ```
    pub fn fill(self, value: V) -> Result<bool, Error> {
        self.store(value, None)
    }

    /// As [`fill`](Lease::fill), with `ttl` in place of the default time to live.
    ///
    /// # Errors
    ///
    /// As [`fill`](Lease::fill).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// # use std::time::Duration;
    /// let cache: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
    /// assert!(cache.lease(&1)?.fill_with_ttl("one".into(), Duration::from_secs(60))?);
    /// # Ok(()) }
    /// ```
    pub fn fill_with_ttl(self, value: V, ttl: Duration) -> Result<bool, Error> {
        self.store(value, Some(ttl))
    }

    fn store(mut self, value: V, ttl: Option<Duration>) -> Result<bool, Error> {
        match (self.id, self.key.take()) {
            (Some(id), Some(key)) => self.cache.store(key, value, ttl, Some(id)),
            _ => Ok(false),
        }
    }
}

impl<K: Key, V: Value> Drop for Lease<K, V> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            release(&self.cache, self.hash, id, None);
        }
    }
}

impl<K: Key, V: Value> fmt::Debug for Lease<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The one who loads while others wait. Dropped before it has landed (the load failed or
/// panicked), it sends them off to load for themselves.
pub(crate) struct Lead<'c, K: Key, V: Value> {
    cache: &'c Cache<K, V>,
    hash: KeyHash,
    id: LoadId,
    flight: Arc<Flight<V>>,
    landed: Option<V>,
}

impl<'c, K: Key, V: Value> Lead<'c, K, V> {
    pub(crate) fn new(cache: &'c Cache<K, V>, hash: KeyHash, id: LoadId, flight: Arc<Flight<V>>) -> Self {
        Lead { cache, hash, id, flight, landed: None }
    }

    /// Stores the value, unless an invalidation overtook the load, and hands it to those who wait.
    /// That it cannot be stored is no reason to withhold it.
    pub(crate) fn land(mut self, key: K, value: &V) {
        if let Err(error) = self.cache.store(key, value.clone(), None, Some(self.id)) {
            tracing::debug!(%error, "a loaded value was not stored");
        }
        self.landed = Some(value.clone());
    }
}

impl<K: Key, V: Value> Drop for Lead<'_, K, V> {
    fn drop(&mut self) {
        // Out of the table first: who is sent off must not find this flight again, and who comes
        // when the value has expired or was removed must not be handed it.
        release(self.cache, self.hash, self.id, Some(&self.flight));
        match self.landed.take() {
            Some(value) => self.flight.land(value),
            None => self.flight.abandon(),
        }
    }
}

fn release<K: Key, V: Value>(cache: &Cache<K, V>, hash: KeyHash, id: LoadId, led: Option<&Arc<Flight<V>>>) {
    if cache.tiers.check_origin().is_err() {
        return;
    }
    let guard = &pin_quietly();
    let ended = cache.tiers.shard(hash, guard).release_load(hash, id, led);
    // Nothing may keep a lead from telling those who wait.
    drop_quietly(ended);
}

/// Pins. What others have deferred to the epoch runs then, and a panic of it ends here: nobody would end the load.
fn pin_quietly() -> Guard {
    loop {
        match catch_unwind(epoch::pin) {
            Ok(guard) => return guard,
            // What has panicked does not run again. The payload is left as in `drop_quietly`.
            Err(payload) => mem::forget(payload),
        }
    }
}

//! The right to store what is being loaded, as long as nothing invalidates it (R8).

use std::{fmt, sync::Arc, time::Duration};

use crossbeam_epoch as epoch;

use crate::{
    cache::Cache,
    codec::{Key, Value},
    error::Error,
    hash::KeyHash,
    shard::loads::{Flight, LoadId},
};

/// The right to store what is being loaded for a key, as long as nothing invalidates it. Taken by
/// [`Cache::lease`].
///
/// The oldest lie of a cache beside a database: a reader misses and loads the old value, a writer
/// updates the database and invalidates the key, and then the reader stores the old value, which
/// stays. An insert, a remove or a clear kills the key's leases, and a dead lease stores nothing.
/// Dropped unfilled, it stores nothing either.
///
/// It holds no lock, keeps nobody waiting and does not end with time. It is a handle to the cache:
/// as long as it lives, dropping the others does not close the cache.
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

    /// Stores the loaded value; `false`, and nothing stored, if the key was invalidated since the
    /// lease was taken. Costs what [`Cache::insert`] does.
    ///
    /// # Errors
    ///
    /// As [`Cache::insert`].
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

    /// As [`fill`](Lease::fill), for `ttl` in place of the default time to live.
    ///
    /// # Errors
    ///
    /// As [`Cache::insert`].
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
            release(&self.cache, self.hash, id, false);
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
        release(self.cache, self.hash, self.id, true);
        match self.landed.take() {
            Some(value) => self.flight.land(value),
            None => self.flight.abandon(),
        }
    }
}

fn release<K: Key, V: Value>(cache: &Cache<K, V>, hash: KeyHash, id: LoadId, led: bool) {
    let guard = &epoch::pin();
    let ended = cache.tiers.shard(hash, guard).release_load(hash, id, led);
    drop(ended);
}

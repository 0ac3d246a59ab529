//! The public face, and the story of every operation: which tier is asked, in which order, under which lock.

use std::{borrow::Borrow, path::PathBuf, time::Duration};

use crate::{
    builder::Builder,
    codec::{Key, KeyBytes, Value},
    error::Error,
    lease::Lease,
    stats::Stats,
};

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
    stub: std::marker::PhantomData<(K, V)>,
}
impl<K: Key, V: Value> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        todo!()
    }
}

#[allow(unused_variables)]
impl<K: Key, V: Value> Cache<K, V> {
    /// Builds a cache over a directory of its own, which is created if it is not there.
    pub fn builder(dir: impl Into<PathBuf>) -> Builder<K, V> {
        Builder::new(Some(dir.into()))
    }

    /// Builds a cache in RAM alone.
    pub fn in_memory() -> Builder<K, V> {
        Builder::new(None)
    }

    pub(crate) fn open(builder: Builder<K, V>) -> Result<Cache<K, V>, Error> {
        todo!()
    }

    /// The value stored under `key`, cloned, or `None`.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        todo!()
    }

    /// Lends the value stored under `key` to `read`.
    pub fn get_with<Q, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        todo!()
    }

    /// As `get`, but leaves no trace: not a hit for the policy, nothing promoted.
    pub fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        todo!()
    }

    /// Whether a value is stored under `key`.
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        todo!()
    }

    /// Stores `value` under `key`.
    pub fn insert(&self, key: K, value: V) -> Result<(), Error> {
        todo!()
    }

    /// Stores `value` under `key` for as long as `ttl`.
    pub fn insert_with_ttl(&self, key: K, value: V, ttl: Duration) -> Result<(), Error> {
        todo!()
    }

    /// Removes what is stored under `key`; whether there was something.
    pub fn remove<Q>(&self, key: &Q) -> Result<bool, Error>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        todo!()
    }

    /// The value stored under `key`, or else what `load` returns, which is stored.
    pub fn get_or_insert_with<Q>(&self, key: &Q, load: impl FnOnce() -> V) -> V
    where
        K: Borrow<Q>,
        Q: KeyBytes + ToOwned<Owned = K> + ?Sized,
    {
        todo!()
    }

    /// As `get_or_insert_with`, by a load that may fail.
    pub fn try_get_or_insert_with<Q, E>(&self, key: &Q, load: impl FnOnce() -> Result<V, E>) -> Result<V, E>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ToOwned<Owned = K> + ?Sized,
    {
        todo!()
    }

    /// Takes a lease on `key`, for a load by hand.
    pub fn lease<Q>(&self, key: &Q) -> Result<Lease<K, V>, Error>
    where
        K: Borrow<Q>,
        Q: KeyBytes + ToOwned<Owned = K> + ?Sized,
    {
        todo!()
    }

    /// Removes everything.
    pub fn clear(&self) -> Result<(), Error> {
        todo!()
    }

    /// Copies everything that is only in RAM to disk.
    pub fn flush(&self) -> Result<(), Error> {
        todo!()
    }

    /// Closes the cache, for every handle.
    pub fn close(&self) -> Result<(), Error> {
        todo!()
    }

    /// What the cache has done and holds.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// The number of entries, in either tier.
    pub fn len(&self) -> u64 {
        todo!()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of RAM in use.
    pub fn ram_bytes(&self) -> u64 {
        todo!()
    }

    /// The bytes on disk in use.
    pub fn disk_bytes(&self) -> u64 {
        todo!()
    }
}

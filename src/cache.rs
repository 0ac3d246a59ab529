//! The public face, and the story of every operation: which tier is asked, in which order, under which lock.

mod reads;
mod writes;

use std::{fmt, path::PathBuf, sync::Arc};

use crate::{
    builder::Builder,
    codec::{Key, Value},
    engine::Engine,
    error::Error,
    io::Io,
    options::Options,
    stats::Stats,
    tiers::Tiers,
};

/// A cache in two tiers, RAM and disk, or in RAM alone.
///
/// It may forget; it never lies: a look-up returns the last value stored under the key, or
/// nothing. See the [crate's documentation](crate) for what that covers.
///
/// This is a handle: a clone is another one to the same cache, at the cost of two reference counts, and all
/// can be used by any number of threads at a time. When the last is dropped, the cache closes as by
/// [`close`](Cache::close).
///
/// A process that was forked from the one that opened a cache with a directory cannot use it: its look-ups
/// find nothing, and its changes return [`Error::Forked`].
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
    /// Starts to build a cache over a directory of its own, which [`Builder::open`] creates if it is not there.
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

    /// Starts to build a cache in RAM alone. Nothing of it outlives the last handle.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// use embercache::Cache;
    ///
    /// let cache: Cache<u64, String> = Cache::in_memory().ram_entries(10_000).open()?;
    /// cache.insert(1, "one".into())?;
    /// assert_eq!((cache.ram_used(), cache.disk_bytes()), (1, 0));
    /// # Ok(()) }
    /// ```
    pub fn in_memory() -> Builder<K, V> {
        Builder::new(None)
    }

    pub(crate) fn open(io: Arc<dyn Io>, options: Options<K, V>) -> Result<Cache<K, V>, Error> {
        let engine = Engine::open(io, options)?;
        Ok(Cache { tiers: engine.tiers(), engine: Arc::new(engine) })
    }

    /// Copies every entry that is only in RAM to disk, whether or not admission would, and waits until that
    /// is written; with [`Durability::PowerLoss`](crate::Durability::PowerLoss) until it is synced, too. In RAM
    /// alone, or opened for reading only, it does nothing.
    ///
    /// What was stored before the call then survives what the cache's [`Durability`](crate::Durability) names, until
    /// it is overwritten, removed or reclaimed. Not copied are entries that are too large for the log, that
    /// [`Builder::disk_filter`] refuses, that cannot be encoded or that are about to expire: they are counted in
    /// [`Stats::too_large`] and [`Stats::unspillable`], and are no error.
    ///
    /// Other threads can use the cache meanwhile. It takes as long as the disk needs for all of RAM at worst.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`]: the disk refused some of it, or has refused an invalidation before: then the next
    ///   start is cold, and nothing is safe until the cache has been opened anew.
    /// - [`Error::NotDurable`]: as above, and not even a cold start could be arranged.
    /// - [`Error::Unsupported`]: asked for by code that the cache's own thread runs, or the directory has
    ///   no number left for another segment.
    /// - [`Error::Closed`], [`Error::Forked`].
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

    /// Closes the cache for every handle: copies what is only in RAM to disk, for as long as
    /// [`Builder::close_timeout`] allows, writes the snapshot that the next open starts from, and syncs it all.
    /// From then on look-ups find nothing and changes return [`Error::Closed`]. Once it has returned, another
    /// cache can open the directory.
    ///
    /// Dropping the last handle does the same, but what goes wrong is only logged. A second close waits for the
    /// first and does nothing. Called by code that the cache's own thread runs, it returns at once, and the thread
    /// closes the cache as soon as it can.
    ///
    /// # Errors
    ///
    /// The cache is closed whatever is returned, but for [`Error::Forked`].
    ///
    /// - [`Error::Io`], [`Error::Unsupported`]: some of it could not be written, as by [`flush`](Cache::flush).
    ///   The next open finds less, or starts cold.
    /// - [`Error::NotDurable`]: an invalidation is recorded nowhere; see there.
    /// - [`Error::Closed`]: the background thread had died, so nothing was written. The next open finds
    ///   what it would after a crash.
    /// - [`Error::Forked`]: nothing was done; the cache is the other process's.
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

/// Figures.
impl<K: Key, V: Value> Cache<K, V> {
    /// What the cache has done since it was opened, and what it holds now. Takes each stripe's lock in turn, so the
    /// figures are not of one moment; right after an open it waits until the index has been read.
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
        Stats::of(&self.tiers, self.engine.recovery())
    }

    /// The number of entries, each counted once, whether it is in RAM, on disk or in both. An expired entry
    /// counts until it is swept out. Takes each stripe's lock in turn; right after an open it waits until the
    /// index has been read.
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

    /// Whether there is no entry, at the cost of [`len`](Cache::len).
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

    /// How much of the RAM budget is in use, in the unit that it was given in: bytes
    /// ([`Builder::ram`]) or entries ([`Builder::ram_entries`]). In bytes, what was evicted counts until the
    /// last reader that may see it has gone. Takes each stripe's lock in turn.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, Vec<u8>> = Cache::in_memory().ram(MIB).open()?;
    /// cache.insert(1, vec![0; 1_000])?;
    /// assert!((1_000..1_200).contains(&cache.ram_used())); // the value, its key and metadata
    /// # Ok(()) }
    /// ```
    pub fn ram_used(&self) -> u64 {
        self.tiers.ram_used()
    }

    /// The bytes that segments take on disk, by the lengths of their files; 0 in RAM alone. See
    /// [`Builder::disk`] for what comes on top.
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
        // What takes no lock: it may be printed within a struct of the caller's, anywhere.
        let look_ups = &self.tiers.look_ups;
        let (ram_hits, disk_hits, misses) = (look_ups.hits(), look_ups.disk_hits(), look_ups.misses());
        write!(f, "Cache {{ ram_hits: {ram_hits}, disk_hits: {disk_hits}, misses: {misses}, .. }}")
    }
}

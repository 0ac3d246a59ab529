//! The builder: every option with its unit, its default and its limits, checked once at `open`.

mod disk;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    cache::Cache,
    codec::{Key, Value},
    error::Error,
    io::{Disk, Io},
    options::{Options, RamBudget},
};

/// Opens a [`Cache`]. Made by [`Cache::builder`] or [`Cache::in_memory`].
///
/// Every option has a default. Its limits are checked by [`open`](Builder::open), not by its method. Options of
/// the disk tier have no effect in RAM alone. All may differ each time that a directory is opened; where that costs
/// something, the option says so.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("cache");
/// use std::time::Duration;
/// use embercache::{Cache, GIB, MIB};
///
/// let pages: Cache<String, String> = Cache::builder(dir)
///     .ram(64 * MIB)
///     .disk(4 * GIB)
///     .time_to_live(Duration::from_secs(3600))
///     .open()?;
/// assert!(pages.is_empty());
/// # Ok(()) }
/// ```
pub struct Builder<K, V> {
    options: Options<K, V>,
    io: Arc<dyn Io>,
}

impl<K: Key, V: Value> Builder<K, V> {
    pub(crate) fn new(dir: Option<PathBuf>) -> Builder<K, V> {
        Builder { options: Options::new(dir), io: Arc::new(Disk) }
    }

    /// The RAM tier's budget in bytes: values, keys, metadata, the index of the disk tier and write
    /// buffers together. Default 64 MiB; at least 64 KiB, with a disk tier at least 1 MiB.
    ///
    /// With a disk tier, a sixteenth (64 KiB to 1 MiB) is the buffer of the next write, and an eighth
    /// (at most 16 MiB) is kept for entries that wait to be written. An entry may take half of the
    /// rest, and at most 4 GiB.
    ///
    /// Tables grow with the number of entries and do not shrink. A cache that was full of small entries, and is full of
    /// large ones later, keeps the memory for the metadata of the former beside its budget
    /// ([`Stats::metadata_bytes`](crate::Stats::metadata_bytes)). With a disk tier, the lists of what the segments hold that
    /// are being filled and reclaimed are beside it, too: some 45 bytes for each record of a segment. And where one
    /// large entry comes into a full cache, all that it displaces stays until the disk has taken it.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, Vec<u8>> = Cache::in_memory().ram(MIB).open()?;
    /// for key in 0..1_000 {
    ///     cache.insert(key, vec![0; 2_000])?;
    /// }
    /// assert!(cache.len() < 600);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn ram(mut self, bytes: u64) -> Self {
        self.options.budget = RamBudget::Bytes(bytes);
        self
    }

    /// The RAM tier's budget as a number of entries, whatever their size, in place of bytes. From 1 to
    /// 2^31. The index of the disk tier and a write buffer (at most 1 MiB) come on top. How many bytes that is
    /// depends on the entries alone: where they may be large, use [`ram`](Builder::ram).
    ///
    /// Of this and `ram`, the one that is called last counts.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache};
    /// let cache: Cache<u64, String> = Cache::in_memory().ram_entries(100).open()?;
    /// for key in 0..1_000 {
    ///     cache.insert(key, format!("product {key}"))?;
    /// }
    /// assert!(cache.len() <= 100);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn ram_entries(mut self, entries: u64) -> Self {
        self.options.budget = RamBudget::Entries(entries);
        self
    }

    /// The number of stripes, each with a lock of its own: a power of two up to 1,024. Few programs need
    /// to set it. By default there are 16 for each core, but at most one for each MiB (or for each 256 entries) of
    /// the RAM budget; or one for each 32 MiB of disk if that is more, but at most one for each 4 MiB (1,024 entries)
    /// of RAM.
    ///
    /// After a clean close a stripe's part of the index is read when the stripe is first used, and on
    /// a large disk more stripes make that a shorter wait: some 4 ms for 156,000 entries.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, Error, MIB};
    /// let with = |stripes| Cache::<u64, String>::in_memory().ram(8 * MIB).stripes(stripes).open();
    /// assert!(with(64).is_ok());
    /// assert!(matches!(with(65), Err(Error::Option { option: "stripes", .. })));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn stripes(mut self, stripes: u64) -> Self {
        self.options.stripes = Some(stripes);
        self
    }

    /// How long an entry lives after its insert, unless [`insert_with_ttl`](Cache::insert_with_ttl) says otherwise.
    /// By default for ever, until it is evicted.
    ///
    /// An entry may expire up to 20 ms early, or once it is on disk up to a second. It is never seen late,
    /// nor after a restart, whatever is done to the wall clock while the machine runs. Only how long a machine was
    /// off has to be learnt from the wall clock: if that was set back meanwhile, entries live longer by as much.
    ///
    /// A life that would end more than 2^32 × 20 ms (two years and eight months) after the cache was opened ends
    /// then. A cache that uses times to live has to be reopened before that: entries that are stored with one later
    /// are not found.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// # use std::{thread, time::Duration};
    /// let stock: Cache<u64, u32> =
    ///     Cache::in_memory().ram(MIB).time_to_live(Duration::from_millis(100)).open()?;
    /// stock.insert(7, 3)?;
    /// thread::sleep(Duration::from_millis(100));
    /// assert_eq!(stock.get(&7), None);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn time_to_live(mut self, ttl: Duration) -> Self {
        self.options.time_to_live = Some(ttl);
        self
    }

    /// How long an entry lives without a hit. By default for ever, until it is evicted. With a time to live as well,
    /// the earlier of both counts.
    ///
    /// A copy on disk keeps the deadline it had when it was written. An entry in RAM that is hit gets a new one
    /// once it was hit half of this time after that, at the next flush or close at the latest; so after a restart it
    /// may expire up to half of this time early.
    ///
    /// A hit is noted at most once in a sixteenth of this time, so an entry may expire that much early.
    ///
    /// The first hit on a copy that was written to disk under a longer time, or none, makes that copy void. It costs
    /// a write to the journal, and with [`Durability::PowerLoss`](crate::Durability::PowerLoss) the look-up waits until
    /// that is synced. The entry is copied anew within a moment; a crash before that loses it.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// # use std::{thread, time::Duration};
    /// let sessions: Cache<u64, String> =
    ///     Cache::in_memory().ram(MIB).time_to_idle(Duration::from_millis(100)).open()?;
    /// sessions.insert(7, "signed in".into())?;
    /// thread::sleep(Duration::from_millis(120));
    /// assert_eq!(sessions.get(&7), None);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn time_to_idle(mut self, tti: Duration) -> Self {
        self.options.time_to_idle = Some(tti);
        self
    }

    /// Says how many bytes a key and its value own on the heap, in place of
    /// [`Codec::heap_bytes`](crate::Codec::heap_bytes). The cache adds what the entry itself takes, and its metadata.
    /// It is called once for each insert and for each hit on disk that may come back into RAM, under no lock. With a
    /// budget in entries it is not called.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, KIB, MIB};
    /// let cache: Cache<u64, String> =
    ///     Cache::in_memory().ram(MIB).weigher(|_, name: &String| name.len() as u64 * KIB).open()?;
    /// cache.insert(1, "runner".into())?;
    /// assert!((6 * KIB..7 * KIB).contains(&cache.ram_used()));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn weigher(mut self, weigh: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.options.weigher = Some(Arc::new(weigh));
        self
    }

    /// Opens the cache, and with a directory starts the one background thread.
    ///
    /// It opens warm, with what was on disk, after a clean close, and after any other end that the
    /// [`Durability`](crate::Durability) of the last run survives; otherwise cold, that is, empty.
    /// [`Stats::recovery`](crate::Stats::recovery) says which it was, and why. After a clean close the first
    /// look-up can come at once, whatever the number of entries. After a crash the footer of every segment is
    /// read first, eleven bytes an entry.
    ///
    /// The directory is created if it is not there, for its owner alone (0700), and so are its parents, with the
    /// usual rights. Only files that are the cache's own are ever touched.
    ///
    /// # Errors
    ///
    /// - [`Error::Option`] for an option outside its limits, [`Error::Locked`] if the directory is in use,
    ///   [`Error::NotACache`], [`Error::Unusable`], [`Error::NewerFormat`], [`Error::Mismatch`]: nothing in
    ///   the directory has been changed or deleted.
    /// - [`Error::Io`]: the next attempt finds what this one would have. With
    ///   [`Durability::Clean`](crate::Durability::Clean), now or in the last run, it may find nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error};
    /// let open = || Cache::<u64, String>::builder(&dir).open();
    /// let cache = open()?;
    /// assert!(matches!(open(), Err(Error::Locked { .. })));
    /// drop(cache);
    /// assert!(open().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn open(self) -> Result<Cache<K, V>, Error> {
        Cache::open(self.io, self.options)
    }
}

impl<K, V> fmt::Debug for Builder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("dir", &self.options.dir)
            .field("budget", &self.options.budget)
            .finish_non_exhaustive()
    }
}

//! The builder: every option with its unit, its default and its limits, checked once at `open`.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    cache::Cache,
    codec::{Key, Value},
    error::Error,
    io::{Disk, Io},
    options::{Admission, Durability, OnMismatch, Options, Overload, RamBudget, ReadMode, WriteBehind},
};

/// Opens a [`Cache`]. Made by [`Cache::builder`] or [`Cache::in_memory`].
///
/// Every option has a default; its limits are checked by [`open`](Builder::open). What concerns the
/// disk means nothing in RAM alone.
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
    /// 2^31. The index of the disk tier and write buffers (at most 1 MiB) come on top.
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

    /// The most that the log's segments may take on disk, in bytes. Default 1 GiB; at least four
    /// segments and 256 KiB, at most 64 TiB.
    ///
    /// To make room, the oldest segment is given up as a whole; what was read in it is written again.
    /// The invalidation journal (in files of 1 MiB), the snapshot of the index and up to four damaged
    /// segments put aside are not counted.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::builder(dir).ram(8 * MIB).disk(64 * MIB).open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.flush()?;
    /// assert!((1..=64 * MIB).contains(&cache.disk_bytes()));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.options.disk_bytes = bytes;
        self
    }

    /// The size of a segment file in bytes: a power of two from 64 KiB to 128 MiB, at most a quarter of the
    /// disk budget. An entry whose record is larger than a quarter of a segment never reaches the disk.
    ///
    /// By default about 1/256 of the disk budget, from 4 MiB to 128 MiB; below a disk budget of 64 MiB
    /// about a sixteenth of it, at least 64 KiB. What is on disk may have been written with another size.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error, KIB, MIB};
    /// let pages = || Cache::<u64, String>::builder(&dir).disk(16 * MIB);
    /// assert!(pages().segment_size(256 * KIB).open().is_ok());
    /// assert!(matches!(
    ///     pages().segment_size(8 * MIB).open(),
    ///     Err(Error::Option { option: "segment_size", .. })
    /// ));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn segment_size(mut self, bytes: u64) -> Self {
        self.options.segment_bytes = Some(bytes);
        self
    }

    /// The number of stripes, each with a lock of its own: a power of two up to 1,024. By default
    /// 16 for each core, at most one for each MiB (or for 256 entries) of the RAM budget; or one for
    /// each 32 MiB of disk, if those are more, at most one for each 4 MiB (1,024 entries) of RAM.
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

    /// How much of the RAM budget the index of the disk tier may take at most, in percent, from 1 to 90.
    /// Default 50. Where the disk would hold more entries than that allows, the oldest leave earlier.
    /// With a budget in entries there is no such bound.
    ///
    /// The index takes 18 to 24 bytes for an entry on disk.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error, MIB};
    /// let with = |percent| Cache::<u64, String>::builder(&dir).ram(8 * MIB).index_share(percent).open();
    /// assert!(with(75).is_ok());
    /// assert!(matches!(with(100), Err(Error::Option { option: "index_share", .. })));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn index_share(mut self, percent: u64) -> Self {
        self.options.index_percent = percent;
        self
    }

    /// How much of the oldest segment is written again at most when its place is needed, in percent of
    /// its records, from 0 to 75. Default 75. What is written again are the entries that were read
    /// since they were written; the others are forgotten with their segment.
    ///
    /// More of it is a higher hit ratio for more writes: 75 writes up to four bytes for each new one, 25
    /// up to 1.33, and 0 none, so that the log is a FIFO.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error};
    /// let with = |percent| Cache::<u64, String>::builder(&dir).reinsertion(percent).open();
    /// assert!(with(25).is_ok());
    /// assert!(matches!(with(76), Err(Error::Option { option: "reinsertion", .. })));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn reinsertion(mut self, percent: u64) -> Self {
        self.options.reinserted_percent = percent;
        self
    }

    /// How long an entry lives after its insert, unless `insert_with_ttl` says otherwise. Without
    /// it, for ever.
    ///
    /// An entry may expire up to 20 ms early, once it is on disk up to a second; it is never seen late,
    /// nor after a restart, whatever is done to the wall clock. A time that ends
    /// later than two years after the cache was opened ends then.
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

    /// How long an entry lives without a hit. Without it, for ever. A copy on disk keeps the deadline it
    /// had when it was written; with a time to live as well, the earlier of both.
    ///
    /// A hit is noted once in a sixteenth of this time, so an entry may expire that much early.
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

    /// What happens when the disk falls behind. Default [`Overload::Wait`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB, Overload};
    /// let cache: Cache<u64, String> =
    ///     Cache::builder(dir).ram(8 * MIB).disk(64 * MIB).overload(Overload::Shed).open()?;
    /// cache.insert(1, "one".into())?;
    /// assert_eq!(cache.stats().shed, 0); // there was no hurry
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn overload(mut self, overload: Overload) -> Self {
        self.options.overload = overload;
        self
    }

    /// When entries that stay in RAM are copied to disk. Default [`WriteBehind::After`] 5 s; at least 10 ms.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB, WriteBehind};
    /// let cache: Cache<u64, String> =
    ///     Cache::builder(dir).ram(8 * MIB).disk(64 * MIB).write_behind(WriteBehind::Never).open()?;
    /// cache.insert(1, "one".into())?;
    /// assert_eq!(cache.stats().disk_entries, 0);
    /// cache.flush()?;
    /// assert_eq!(cache.stats().disk_entries, 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn write_behind(mut self, write_behind: WriteBehind) -> Self {
        self.options.write_behind = write_behind;
        self
    }

    /// How long `close` may spend on copying RAM to disk; what is left then is forgotten. Default 30 s.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB};
    /// # use std::time::Duration;
    /// let open = || Cache::<u64, String>::builder(&dir).close_deadline(Duration::ZERO).open();
    /// let cache = open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.close()?;
    /// assert_eq!(open()?.get(&1), None); // there was no time to copy it
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn close_deadline(mut self, deadline: Duration) -> Self {
        self.options.close_deadline = deadline;
        self
    }

    /// Which of the entries that leave RAM are written to disk. Default [`Admission::Duet`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Admission, Cache, MIB};
    /// let cache: Cache<u64, Vec<u8>> =
    ///     Cache::builder(dir).ram(MIB).disk(4 * MIB).admission(Admission::All).open()?;
    /// for key in 0..10_000 {
    ///     cache.insert(key, vec![0; 1_000])?;
    /// }
    /// assert_eq!(cache.stats().refused, 0);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn admission(mut self, admission: Admission) -> Self {
        self.options.admission = admission;
        self
    }

    /// What survives a stop without a close, and what an invalidation costs for it. Default
    /// [`Durability::ProcessCrash`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Durability, MIB};
    /// let open = || Cache::<u64, String>::builder(&dir).durability(Durability::Clean).open();
    /// let cache = open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.close()?;
    /// assert_eq!(open()?.get(&1).as_deref(), Some("one"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// How values are read from disk. Default [`ReadMode::Map`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, ReadMode};
    /// let open = || Cache::<u64, String>::builder(&dir).read_mode(ReadMode::Strict).open();
    /// open()?.insert(1, "one".into())?;
    /// let cache = open()?;
    /// assert_eq!(cache.get(&1).as_deref(), Some("one"));
    /// assert_eq!(cache.stats().disk_hits, 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn read_mode(mut self, read_mode: ReadMode) -> Self {
        self.options.read_mode = read_mode;
        self
    }

    /// Opens what another cache has left, for look-ups alone: nothing in the directory is written, so it
    /// may lie on a file system that is mounted for reading only. Any number of such caches may have it open
    /// at the same time; one that would change it is [`Locked`](Error::Locked) out, and they by it.
    ///
    /// Changes return [`Error::ReadOnly`], and loads store nothing: what is there cannot become stale. Hits on
    /// disk come to RAM as usual. A directory whose entries cannot be believed (see
    /// [`Start`](crate::Start)) opens as an empty cache. `disk`, `segment_size` and `durability` mean nothing
    /// here, and the index takes what it needs of RAM, also beyond its share. [`open`](Builder::open) fails with
    /// [`Error::Io`] where there is no directory, and with [`Error::NotACache`] where it is empty.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error};
    /// let cache: Cache<u64, String> = Cache::builder(&dir).open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.close()?;
    ///
    /// let cache: Cache<u64, String> = Cache::builder(&dir).read_only().open()?;
    /// assert_eq!(cache.get(&1).as_deref(), Some("one"));
    /// assert!(matches!(cache.insert(1, "uno".into()), Err(Error::ReadOnly)));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.options.read_only = true;
        self
    }

    /// What to do with a directory written with other codecs or another schema version. Default
    /// [`OnMismatch::ColdStart`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error, OnMismatch};
    /// drop(Cache::<u64, String>::builder(&dir).open()?);
    /// let with_ids = Cache::<u64, u64>::builder(&dir).on_mismatch(OnMismatch::Refuse).open();
    /// assert!(matches!(with_ids, Err(Error::Mismatch { what: "value codec", .. })));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn on_mismatch(mut self, on_mismatch: OnMismatch) -> Self {
        self.options.on_mismatch = on_mismatch;
        self
    }

    /// Puts another disk in place of the machine's.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    #[must_use]
    pub fn io(mut self, io: Arc<dyn Io>) -> Self {
        self.io = io;
        self
    }

    /// A number of yours for the meaning of the encoded bytes. Raise it when a type changes: what
    /// was written under another number is not read. Default 0.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache};
    /// let open = |version| Cache::<u64, String>::builder(&dir).schema_version(version).open();
    /// open(1)?.insert(1, "one".into())?;
    /// assert_eq!(open(2)?.get(&1), None);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn schema_version(mut self, version: u32) -> Self {
        self.options.schema_version = version;
        self
    }

    /// Counts the bytes of a key and value instead of [`Codec::heap_bytes`](crate::Codec::heap_bytes). The cache adds
    /// what the entry itself takes, and its metadata. Called once for each insert and each hit on
    /// disk, outside of locks. With a budget in entries it is not asked.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, KIB, MIB};
    /// let cache: Cache<u64, String> =
    ///     Cache::in_memory().ram(MIB).weigher(|_, name: &String| name.len() as u64 * KIB).open()?;
    /// cache.insert(1, "runner".into())?;
    /// assert!((6 * KIB..7 * KIB).contains(&cache.ram_bytes()));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn weigher(mut self, weigh: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.options.weigher = Some(Arc::new(weigh));
        self
    }

    /// Keeps entries off the disk for which `may_spill` is false, for instance secrets. Called by the
    /// background thread before an entry is encoded, outside of locks; a panic counts as false.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<String, String> = Cache::builder(dir)
    ///     .disk(64 * MIB)
    ///     .disk_filter(|key: &String, _| !key.starts_with("token"))
    ///     .open()?;
    /// cache.insert("token/7".into(), "hunter2".into())?;
    /// cache.insert("page/7".into(), "<html>".into())?;
    /// cache.flush()?;
    /// assert_eq!(cache.stats().disk_entries, 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn disk_filter(mut self, may_spill: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.options.disk_filter = Some(Arc::new(may_spill));
        self
    }

    /// Opens the cache, and with a directory starts the one background thread.
    ///
    /// Warm after a clean close; after a crash of the process as the durability says; how it came up
    /// stands in [`Stats::recovery`](crate::Stats::recovery). After a clean close the first look-up may
    /// come at once, whatever the number of entries. After a crash the footer of every segment, about
    /// 2 % of the log, is read first.
    ///
    /// The directory is made if it is not there, for its owner alone (0700), and so are its parents,
    /// with the usual rights. No file in it that is not the cache's own is ever touched.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] for an option outside its limits, [`Error::Unsupported`], [`Error::Locked`] if
    /// the directory is in use, [`Error::NotACache`], [`Error::Unusable`], [`Error::NewerFormat`],
    /// [`Error::Mismatch`]: nothing has been changed or deleted then. [`Error::Io`]: the next attempt
    /// finds what this one would have.
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

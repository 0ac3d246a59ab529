//! The builder: every option with its unit, its default and its limits, checked once at `open`.

use std::{fmt, marker::PhantomData, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    cache::Cache,
    codec::{Key, Value},
    error::Error,
    io::{Disk, Io},
    options::{Durability, OnMismatch, ReadMode},
    shard::admission::Admission,
};

/// 1,024 bytes.
pub const KIB: u64 = 1 << 10;
/// 1,048,576 bytes.
pub const MIB: u64 = 1 << 20;
/// 1,073,741,824 bytes.
pub const GIB: u64 = 1 << 30;

/// What an insert does when entries leave RAM faster than the disk takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overload {
    /// It waits until the disk has caught up. Nothing is lost while the disk works; a disk that
    /// fails does not make it wait.
    #[default]
    Wait,
    /// It does not wait: what would have to be waited for is forgotten and counted.
    Shed,
}

/// When an entry that stays in RAM is copied to the log, so that a crash does not lose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteBehind {
    /// Once it has been hit and has had no copy for about this long; at the latest after this long
    /// if the disk keeps up. At least 10 ms.
    After(Duration),
    /// Only when it leaves RAM, at `flush` and at `close`.
    Never,
    /// Every entry, when it is inserted.
    Through,
}

impl Default for WriteBehind {
    /// After five seconds.
    fn default() -> Self {
        WriteBehind::After(Duration::from_secs(5))
    }
}

/// How large the RAM tier may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    Bytes(u64),
    Entries(u64),
}

/// The bytes a key and a value cost, as the user counts them.
pub(crate) type Weigher<K, V> = Arc<dyn Fn(&K, &V) -> u64 + Send + Sync>;
/// Whether an entry may be written to disk at all.
pub(crate) type DiskFilter<K, V> = Arc<dyn Fn(&K, &V) -> bool + Send + Sync>;

/// Opens a [`Cache`]. Made by [`Cache::builder`] or [`Cache::in_memory`].
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
/// # Ok(()) }
/// ```
pub struct Builder<K, V> {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) budget: Budget,
    pub(crate) disk_bytes: u64,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) stripes: Option<u64>,
    pub(crate) index_percent: u64,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) time_to_idle: Option<Duration>,
    pub(crate) close_deadline: Duration,
    pub(crate) overload: Overload,
    pub(crate) write_behind: WriteBehind,
    pub(crate) admission: Admission,
    pub(crate) durability: Durability,
    pub(crate) read_mode: ReadMode,
    pub(crate) on_mismatch: OnMismatch,
    pub(crate) schema_version: u32,
    pub(crate) io: Arc<dyn Io>,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) disk_filter: Option<DiskFilter<K, V>>,
    pub(crate) types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Value> Builder<K, V> {
    pub(crate) fn new(dir: Option<PathBuf>) -> Builder<K, V> {
        Builder {
            dir,
            budget: Budget::Bytes(64 * MIB),
            disk_bytes: GIB,
            segment_bytes: None,
            stripes: None,
            index_percent: 50,
            time_to_live: None,
            time_to_idle: None,
            close_deadline: Duration::from_secs(30),
            overload: Overload::default(),
            write_behind: WriteBehind::default(),
            admission: Admission::default(),
            durability: Durability::default(),
            read_mode: ReadMode::default(),
            on_mismatch: OnMismatch::default(),
            schema_version: 0,
            io: Arc::new(Disk),
            weigher: None,
            disk_filter: None,
            types: PhantomData,
        }
    }

    /// The RAM tier's budget in bytes: values, keys, metadata, the index of the disk tier and write
    /// buffers together. Default 64 MiB; at least 64 KiB, with a disk tier at least 1 MiB.
    #[must_use]
    pub fn ram(mut self, bytes: u64) -> Self {
        self.budget = Budget::Bytes(bytes);
        self
    }

    /// The RAM tier's budget as a number of entries, whatever their size, in place of bytes. From 1 to 2^31.
    #[must_use]
    pub fn ram_entries(mut self, entries: u64) -> Self {
        self.budget = Budget::Entries(entries);
        self
    }

    /// The most the log may take on disk, in bytes. Default 1 GiB; at least four segments, at most 64 TiB.
    /// Up to two segments more are in use for moments. Without a directory it means nothing.
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk_bytes = bytes;
        self
    }

    /// The size of a segment file in bytes: a power of two from 64 KiB to 256 MiB, at most a quarter of the
    /// disk budget. By default about 1/256 of the disk budget, from 4 MiB to 256 MiB. An entry
    /// larger than a quarter of a segment stays in RAM.
    #[must_use]
    pub fn segment_size(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// The number of stripes, each with a lock of its own: a power of two up to 1,024. By default
    /// 16 for each core, fewer for a small cache.
    #[must_use]
    pub fn stripes(mut self, stripes: u64) -> Self {
        self.stripes = Some(stripes);
        self
    }

    /// How much of the RAM budget the index of the disk tier may take at most, in percent, from 1 to 90.
    /// Default 50. Where the disk would hold more entries than that allows, the oldest leave earlier.
    #[must_use]
    pub fn index_share(mut self, percent: u64) -> Self {
        self.index_percent = percent;
        self
    }

    /// How long an entry lives after its insert, unless `insert_with_ttl` says otherwise. Without
    /// it, for ever. More than two years counts as two years.
    #[must_use]
    pub fn time_to_live(mut self, ttl: Duration) -> Self {
        self.time_to_live = Some(ttl);
        self
    }

    /// How long an entry lives without a hit. A copy on disk keeps the deadline it had when it was
    /// written; with a time to live as well, the earlier of both.
    #[must_use]
    pub fn time_to_idle(mut self, tti: Duration) -> Self {
        self.time_to_idle = Some(tti);
        self
    }

    /// What happens when the disk falls behind. Default [`Overload::Wait`].
    #[must_use]
    pub fn overload(mut self, overload: Overload) -> Self {
        self.overload = overload;
        self
    }

    /// When entries that stay in RAM are copied to disk. Default after 5 s.
    #[must_use]
    pub fn write_behind(mut self, write_behind: WriteBehind) -> Self {
        self.write_behind = write_behind;
        self
    }

    /// How long `close` may spend on copying RAM to disk; what is left then is forgotten. Default 30 s.
    #[must_use]
    pub fn close_deadline(mut self, deadline: Duration) -> Self {
        self.close_deadline = deadline;
        self
    }

    /// Which of the entries that leave RAM are written to disk. Default [`Admission::Duet`].
    #[must_use]
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// What survives a stop without a close. Default [`Durability::ProcessCrash`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How values are read from disk. Default [`ReadMode::Map`].
    #[must_use]
    pub fn read_mode(mut self, read_mode: ReadMode) -> Self {
        self.read_mode = read_mode;
        self
    }

    /// What to do with a directory written with other codecs or another schema version. Default
    /// [`OnMismatch::ColdStart`].
    #[must_use]
    pub fn on_mismatch(mut self, on_mismatch: OnMismatch) -> Self {
        self.on_mismatch = on_mismatch;
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
    /// was written under another number is not read.
    #[must_use]
    pub fn schema_version(mut self, version: u32) -> Self {
        self.schema_version = version;
        self
    }

    /// Counts the bytes of a key and value instead of [`Codec::heap_bytes`](crate::Codec::heap_bytes). The cache adds
    /// its metadata. Called once an insert, outside of locks.
    #[must_use]
    pub fn weigher(mut self, weigh: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Arc::new(weigh));
        self
    }

    /// Keeps entries off the disk for which `may_spill` is false, for instance secrets. Called
    /// before an entry is encoded, outside of locks.
    #[must_use]
    pub fn disk_filter(mut self, may_spill: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.disk_filter = Some(Arc::new(may_spill));
        self
    }

    /// Opens the cache.
    ///
    /// Warm after a clean close; after a crash of the process as the durability says. The first
    /// look-up may come at once.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] for an option outside its limits, [`Error::Locked`] if the directory is in
    /// use, [`Error::NotACache`], [`Error::Unusable`], [`Error::NewerFormat`], [`Error::Mismatch`],
    /// [`Error::Io`]. Nothing has been changed or deleted then.
    pub fn open(self) -> Result<Cache<K, V>, Error> {
        Cache::open(self)
    }
}

impl<K, V> fmt::Debug for Builder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("dir", &self.dir)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

//! What a user may choose, and the defaults.

use std::{path::PathBuf, sync::Arc, time::Duration};

/// 1,024 bytes.
///
/// # Examples
///
/// ```
/// assert_eq!(64 * embercache::KIB, 65_536);
/// ```
pub const KIB: u64 = 1 << 10;
/// 1,048,576 bytes.
///
/// # Examples
///
/// ```
/// assert_eq!(embercache::MIB, 1_024 * embercache::KIB);
/// ```
pub const MIB: u64 = 1 << 20;
/// 1,073,741,824 bytes.
///
/// # Examples
///
/// ```
/// assert_eq!(embercache::GIB, 1_024 * embercache::MIB);
/// ```
pub const GIB: u64 = 1 << 30;

/// What survives when the process or the machine stops without a clean close.
///
/// Whatever the mode, a value that was overwritten, removed, cleared or had expired never comes
/// back. The mode only says how much of the rest does. After a clean close everything that is on disk is there in
/// every mode, even after a reboot; only a change from `Clean` to another mode starts cold.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("cache");
/// # use embercache::{Cache, Durability};
/// let open = |durability| Cache::<u64, String>::builder(&dir).durability(durability).open();
/// let cache = open(Durability::PowerLoss)?;
/// cache.insert(1, "one".into())?;
/// cache.flush()?; // now it outlives a power loss, too
/// cache.remove(&1)?; // and does so no more: this has waited for the disk
/// assert_eq!(cache.stats().journal_syncs, 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Only a clean close keeps the cache; after any other end the next start is cold. Invalidations
    /// cost nothing on disk.
    Clean,
    /// The cache also survives the death of the process (a crash, SIGKILL, the OOM killer) as long
    /// as the machine does not reboot. An invalidation of an entry that has a copy on disk costs one
    /// write of 32 bytes to the page cache. Nothing waits for a sync.
    ///
    /// To know that the machine has not rebooted takes Linux or Android; elsewhere this survives what `Clean` does.
    #[default]
    ProcessCrash,
    /// The cache also survives a loss of power, and whatever else stops the machine without warning,
    /// provided that the disk keeps what it reports as synced.
    ///
    /// An invalidation of an entry that has a copy on disk waits until its record is durable: for one
    /// sync of the disk, some hundred microseconds to some ten milliseconds, which all operations that wait at
    /// that moment share. Until then, any other change of a key in the same stripe waits with it. Other threads
    /// may see the new value, or none, before that.
    ///
    /// Entries survive once a [`flush`](crate::Cache::flush) that began after they were stored has returned, or a
    /// second or so after they were copied to disk. Each segment costs three more syncs, which nobody waits for
    /// unless the log is behind.
    ///
    /// A sync that fails is not tried again, because a second one may succeed although nothing was written: a
    /// segment is given up with its entries, and after a failed sync of the journal or of the directory the next
    /// start is cold.
    PowerLoss,
}

/// How values are read from disk. In either mode they are copied first, and the copy is verified.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("cache");
/// # use embercache::{Cache, ReadMode};
/// let cache: Cache<u64, String> = Cache::builder(&dir).read_mode(ReadMode::Strict).open()?;
/// cache.insert(1, "one".into())?;
/// drop(cache);
/// let cache: Cache<u64, String> = Cache::builder(&dir).read_mode(ReadMode::Map).open()?;
/// assert_eq!(cache.get(&1).as_deref(), Some("one"));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadMode {
    /// Through a memory map, which is fastest. For local file systems: if another process cuts a file
    /// short or the device disappears, the process that reads the map gets a SIGBUS.
    #[default]
    Map,
    /// By system calls, which report trouble as an error that the cache turns into a miss. For network
    /// and FUSE file systems. At most a quarter of the file descriptors that the process may have are kept open;
    /// with more segments than that, some reads open a file first.
    Strict,
}

/// What to do with a directory written with other codecs or another schema version.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("cache");
/// # use embercache::{Cache, OnMismatch, Start};
/// drop(Cache::<u64, String>::builder(&dir).schema_version(1).open()?);
/// let later = || Cache::<u64, String>::builder(&dir).schema_version(2);
/// assert!(later().on_mismatch(OnMismatch::Refuse).open().is_err());
/// let cold = later().on_mismatch(OnMismatch::ColdStart).open()?;
/// assert_eq!(cold.stats().recovery.start, Start::Mismatch);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnMismatch {
    /// Forget what it holds and start cold ([`Start::Mismatch`](crate::Start::Mismatch)).
    #[default]
    ColdStart,
    /// Return [`Error::Mismatch`](crate::Error::Mismatch) and touch nothing.
    Refuse,
}

/// What an insert does when entries leave RAM faster than the disk takes them, that is, when more than an
/// eighth of the RAM budget (at most 16 MiB) waits to be written.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("cache");
/// # use embercache::{Cache, MIB, Overload};
/// let cache: Cache<u64, Vec<u8>> =
///     Cache::builder(dir).ram(2 * MIB).disk(64 * MIB).overload(Overload::Wait).open()?;
/// for key in 0..10_000 {
///     cache.insert(key, vec![0; 1_000])?;
/// }
/// assert_eq!(cache.stats().shed, 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overload {
    /// It waits until the disk has caught up, and from half of that amount on may hold back for up to 10 µs at a
    /// time, so that it seldom comes to that. Nothing is lost while the disk works; a disk that fails makes nobody
    /// wait.
    #[default]
    Wait,
    /// It does not wait: entries that would have to wait are forgotten, and counted in
    /// [`Stats::shed`](crate::Stats::shed).
    Shed,
}

/// When an entry that stays in RAM is copied to the log, so that a crash does not lose it. The
/// hottest entries never leave RAM, so without such copies a crash would lose just these.
///
/// The background thread makes the copies; no insert waits for one.
///
/// # Examples
///
/// ```
/// use embercache::WriteBehind;
/// use std::time::Duration;
///
/// assert_eq!(WriteBehind::default(), WriteBehind::After(Duration::from_secs(5)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteBehind {
    /// Once it has been hit and has had no copy for about this long: half of it at the earliest, all of
    /// it at the latest if the disk keeps up. At least 10 ms. A key that is overwritten again and
    /// again is copied at most once in this time.
    After(Duration),
    /// Only when it leaves RAM, at [`flush`](crate::Cache::flush) and at [`close`](crate::Cache::close).
    Never,
    /// At once, every entry. What was inserted in the last moments before a crash, and not flushed, may still
    /// be lost. Where the disk is so slow that a large part of the budget waits for it, inserts do as
    /// [`Overload::Wait`] says, or are copied only when they leave RAM ([`Overload::Shed`]).
    Through,
}

impl Default for WriteBehind {
    /// After five seconds.
    fn default() -> Self {
        WriteBehind::After(Duration::from_secs(5))
    }
}

/// Which of the entries that RAM evicts are written to the log.
///
/// Most keys of most workloads are asked for once. Writing them all wears the disk and pushes out
/// entries that would be asked for again, so by default an entry has to show that it is worth a
/// write. What is kept off the disk is counted in [`Stats::refused`](crate::Stats::refused). This does not
/// concern `flush`, `close` and write-behind, which copy what is in RAM.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("cache");
/// # use embercache::{Admission, Cache, MIB};
/// let cache: Cache<u64, Vec<u8>> =
///     Cache::builder(dir).ram(MIB).disk(4 * MIB).admission(Admission::Frugal).open()?;
/// for key in 0..10_000 {
///     cache.insert(key, vec![0; 1_000])?; // the log fills up; nobody asks for any of it
/// }
/// assert!(cache.stats().refused > 1_000);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Admission {
    /// Write an entry that was hit in RAM, that came from the log, or that was refused not long
    /// ago and is back; and one in ten of the rest, so that an unforeseen workload gets
    /// its chance. Until the log has been filled once, everything is written.
    #[default]
    Duet,
    /// Write everything: for a log so large that it forgets nothing of worth, or for data that is
    /// very expensive to load.
    All,
    /// As [`Duet`](Admission::Duet), without the one in ten: the fewest writes, for disks that wear.
    Frugal,
}

/// How large the RAM tier may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RamBudget {
    Bytes(u64),
    Entries(u64),
}

/// The bytes a key and a value cost, as the user counts them.
pub(crate) type Weigher<K, V> = Arc<dyn Fn(&K, &V) -> u64 + Send + Sync>;
/// Whether an entry may be written to disk at all.
pub(crate) type DiskFilter<K, V> = Arc<dyn Fn(&K, &V) -> bool + Send + Sync>;

/// Everything that a builder was told, unchecked.
pub(crate) struct Options<K, V> {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) budget: RamBudget,
    pub(crate) disk_bytes: u64,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) stripes: Option<u64>,
    pub(crate) index_percent: u64,
    pub(crate) reinserted_percent: u64,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) time_to_idle: Option<Duration>,
    pub(crate) close_timeout: Duration,
    pub(crate) overload: Overload,
    pub(crate) write_behind: WriteBehind,
    pub(crate) admission: Admission,
    pub(crate) durability: Durability,
    pub(crate) read_mode: ReadMode,
    pub(crate) read_only: bool,
    pub(crate) on_mismatch: OnMismatch,
    pub(crate) schema_version: u32,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) disk_filter: Option<DiskFilter<K, V>>,
}

impl<K, V> Options<K, V> {
    /// The defaults.
    pub(crate) fn new(dir: Option<PathBuf>) -> Options<K, V> {
        Options {
            dir,
            budget: RamBudget::Bytes(64 * MIB),
            disk_bytes: GIB,
            segment_bytes: None,
            stripes: None,
            index_percent: 50,
            reinserted_percent: 75,
            time_to_live: None,
            time_to_idle: None,
            close_timeout: Duration::from_secs(30),
            overload: Overload::default(),
            write_behind: WriteBehind::default(),
            admission: Admission::default(),
            durability: Durability::default(),
            read_mode: ReadMode::default(),
            read_only: false,
            on_mismatch: OnMismatch::default(),
            schema_version: 0,
            weigher: None,
            disk_filter: None,
        }
    }
}

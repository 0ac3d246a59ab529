//! The choices that a user makes about a cache's directory.

/// What survives when the process or the machine stops without a clean close.
///
/// Whatever the mode, a value that was overwritten, removed, cleared or had expired never comes
/// back. The mode only says how much of the rest does. After a clean close everything is there in
/// every mode, also after a reboot; only a change from `Clean` to another mode starts cold.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("cache");
/// # use embercache::{Cache, Durability, Error};
/// let open = |durability| Cache::<u64, String>::builder(&dir).durability(durability).open();
/// assert!(open(Durability::ProcessCrash).is_ok());
/// assert!(matches!(open(Durability::PowerLoss), Err(Error::Unsupported { .. })));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Only a clean close keeps the cache. Any other end starts the next one cold. Invalidations
    /// cost nothing.
    Clean,
    /// The cache also survives the death of the process (a crash, SIGKILL, the OOM killer) as long
    /// as the machine did not reboot. An invalidation of an entry that has a copy on disk costs one
    /// write of 32 bytes to the page cache.
    #[default]
    ProcessCrash,
    /// The cache also survives the loss of power. Not supported yet: `open` returns
    /// [`Error::Unsupported`](crate::Error::Unsupported).
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
    /// Through a memory map: the fastest. For local file systems: where another process cuts a file
    /// short or the device disappears, a map answers with SIGBUS.
    #[default]
    Map,
    /// By system calls, which answer trouble with an error, and the cache with a miss. For network
    /// and FUSE file systems. One file descriptor stays open for each segment.
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
    /// Forget what it holds and start cold.
    #[default]
    ColdStart,
    /// Return [`Error::Mismatch`](crate::Error::Mismatch) and touch nothing.
    Refuse,
}

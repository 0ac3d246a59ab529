//! The choices that a user makes about a cache's directory.

/// What survives when the process or the machine stops without a clean close.
///
/// Whatever the mode, a value that was overwritten, removed, cleared or had expired never comes
/// back. The mode only says how much of the rest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Only a clean close keeps the cache. Any other end starts the next one cold. Invalidations
    /// cost nothing.
    Clean,
    /// The cache also survives the death of the process (a crash, SIGKILL, the OOM killer) as long
    /// as the machine did not reboot. An invalidation of an entry that has a copy on disk costs one
    /// small write to the page cache.
    #[default]
    ProcessCrash,
    /// The cache also survives the loss of power. Not supported yet.
    PowerLoss,
}

/// How values are read from disk.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnMismatch {
    /// Forget what it holds and start cold.
    #[default]
    ColdStart,
    /// Return [`Error::Mismatch`](crate::Error::Mismatch) and touch nothing.
    Refuse,
}

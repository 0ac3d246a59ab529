//! The one door to the disk and to the machine: files, maps, boot id and clocks behind two traits,
//! so that tests can put a disk that fails, tears or forgets in place of the real one.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

#[cfg(any(test, feature = "testing"))]
mod content;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fault;
pub(crate) mod fs;
pub(crate) mod map;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod memory;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod recorder;

pub(crate) use fs::{Disk, is_shortage, open_files_max};
pub use map::Map;

/// How a file is opened. Every file is private to its owner (0600) and never a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; bytes are only read.
    Read,
    /// Must exist; bytes are read and written.
    Write,
    /// Must not exist; is created.
    CreateNew,
}

/// A directory of files, and what the machine knows about boots and time.
pub trait Io: Send + Sync + fmt::Debug {
    /// Opens a regular file of ours; anything else in its place (link, FIFO, another's) is an error.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn IoFile>>;
    /// Creates the directory (0700, parents by default mode) if it is not there, and checks that it is usable.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Checks that the directory is there and usable.
    fn check_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in the directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Replaces `to` by `from`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes the file's name; open handles and maps keep its bytes.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Makes names created, renamed and removed in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Identifies this boot of the machine; `None` where the platform does not tell. An error if it could not be asked
    /// for want of descriptors.
    fn boot_id(&self) -> io::Result<Option<[u8; 16]>>;
    /// Time since some moment in the past, of this boot; never goes back, counts while suspended.
    fn boot_time(&self) -> Duration;
    /// Wall-clock time since 1970. May jump.
    fn wall_time(&self) -> Duration;
}

/// One open file.
pub trait IoFile: Send + Sync + fmt::Debug {
    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills all of `bytes` from `offset`; `UnexpectedEof` past the end.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Reserves blocks for the first `len` bytes and makes the file that long.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The file's length.
    fn file_len(&self) -> io::Result<u64>;
    /// Makes the written bytes durable.
    fn sync(&self) -> io::Result<()>;
    /// Maps the first `len` bytes for reading. The caller has made sure that they exist and will
    /// not be cut off.
    fn map(&self, len: usize) -> io::Result<Map>;
    /// Takes the exclusive lock, until `unlock` or the file's end; `false` if another holds it.
    fn try_lock(&self) -> io::Result<bool>;
    /// As `try_lock`, but others may share it.
    fn try_lock_shared(&self) -> io::Result<bool>;
    /// Gives the lock back at once. To close the file is not enough: a process that another thread
    /// is just starting holds a copy of the descriptor, and with it the lock, until it execs.
    fn unlock(&self) -> io::Result<()>;
    /// Device and inode: a copied directory has others.
    fn identity(&self) -> io::Result<(u64, u64)>;
}

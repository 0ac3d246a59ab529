//! Everything that can go wrong, in one enum. A miss is not an error, and neither is a value lost.

use std::{io, path::PathBuf};

use crate::codec::CodecError;

/// Why a cache could not be opened, or an operation that changes it could not be done.
///
/// Look-ups never return an error: whatever keeps them from a value makes them a miss, and what the disk has to do with
/// that is counted in [`Stats`](crate::Stats). So is a value that is lost on its way there, which is no error either.
///
/// # Examples
///
/// ```
/// use embercache::{Cache, Error};
///
/// match Cache::<u64, String>::in_memory().ram(1_000).open() {
///     Err(Error::Option { option, found, .. }) => assert_eq!((option, found), ("ram", 1_000)),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory is in use by another cache, in this process or another.
    #[error("{} is locked by another cache", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds files and none of them says that it is a cache's. Nothing was touched.
    #[error("{} is not empty and not a cache directory; give the cache a directory of its own", dir.display())]
    NotACache {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be used: it is not a directory, it is a link, it is another user's, or others may write
    /// to it.
    #[error("{} cannot be used: {reason}", path.display())]
    Unusable {
        /// The directory or the file in it.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory was written by a newer release. Nothing was touched.
    #[error("{} has format {found}, but this release reads formats up to {supported} only", dir.display())]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// The format's version in the directory.
        found: u16,
        /// The newest version that this release knows.
        supported: u16,
    },
    /// The directory was written with another codec or schema version, and
    /// [`OnMismatch::Refuse`](crate::OnMismatch::Refuse) was asked for. Nothing was touched.
    #[error("{} was written with {what} {found}, but opened with {expected}", dir.display())]
    Mismatch {
        /// The directory.
        dir: PathBuf,
        /// What differs: `"key codec"`, `"value codec"` or `"schema version"`.
        what: &'static str,
        /// What the directory has.
        found: u32,
        /// What the cache was opened with.
        expected: u32,
    },
    /// An option is outside its limits.
    #[error("option `{option}` is {found}, but must be {allowed}")]
    Option {
        /// The builder's method, for `write_behind` followed by the unit of `found`.
        option: &'static str,
        /// The value given.
        found: u64,
        /// The limits, as documented at the builder's method.
        allowed: String,
    },
    /// This cannot be done: a [`flush`](crate::Cache::flush) or [`clear`](crate::Cache::clear) by code that the
    /// cache's own thread runs (a codec, a filter, a drop), which would wait for itself; or another segment in a
    /// directory that has had 2^30 of them.
    #[error("not supported: {what}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// The key or entry is larger than the cache takes: an encoded key has at most 65,535 bytes, an entry at most
    /// half of the RAM budget without its write buffers. Whatever stood under the key is gone, unless this came
    /// from a load or a lease: these replace nothing.
    #[error("the {what} has {found} bytes, but the limit is {limit}")]
    TooLarge {
        /// `"key"` or `"entry"`.
        what: &'static str,
        /// Its size in bytes, an entry's with its metadata.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A key could not be encoded. A value that cannot be encoded is no error: it never reaches the disk, and is
    /// counted in [`Stats::unspillable`](crate::Stats::unspillable).
    #[error("the key could not be encoded")]
    Codec(#[from] CodecError),
    /// The change took effect in this process, but it could neither be recorded on disk nor the
    /// old copy be made unreadable: after a crash the old value might be seen. Every later change tries again to
    /// make that good, and returns this, too, until the disk accepts it.
    #[error("an invalidation could not be made durable in {}", dir.display())]
    NotDurable {
        /// The directory.
        dir: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// The disk refused something, or at an open the system did. A cache that is open goes on in RAM.
    #[error("{action} {} failed", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// The cache was closed.
    #[error("the cache is closed")]
    Closed,
    /// The cache was opened by [`Builder::read_only`](crate::Builder::read_only), so it cannot be changed. Nothing
    /// was done.
    #[error("the cache was opened for reading only")]
    ReadOnly,
    /// This process is a fork of the one that opened the cache. Nothing was done. Its look-ups find nothing; it
    /// may open caches of its own, in other directories.
    #[error("the cache was opened by the process that this one was forked from")]
    Forked,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_can_be_read() {
        let option = Error::Option { option: "ram", found: 7, allowed: "at least 65536".into() };
        assert_eq!(option.to_string(), "option `ram` is 7, but must be at least 65536");
        let io =
            Error::Io { action: "creating", path: "dir/LOCK".into(), source: io::ErrorKind::NotFound.into() };
        assert_eq!(io.to_string(), "creating dir/LOCK failed");
    }
}

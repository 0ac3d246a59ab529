//! An embedded, persistent, two-tier cache: RAM in front of a memory-mapped log.
//!
//! It stands between a service and its database (cache-aside, read-through), answers in
//! microseconds, and is still warm after a restart, also after a SIGKILL.
//!
//! # The promise
//!
//! **The cache may forget. It never lies.** A look-up returns the last value stored under the key,
//! or nothing.
//!
//! - No look-up returns a value whose overwrite, removal, clear or expiry was acknowledged before
//!   that look-up began: under concurrency, with full queues, failed writes, after a close, after
//!   a SIGKILL or a loss of power, over any number of reopens.
//!   (Not if somebody puts a directory back as it was once closed, from a backup say: that cannot be told.)
//! - No look-up returns bytes that differ from what was stored.
//! - Trouble with the disk never stops the RAM tier. Look-ups answer it with a miss and a counter.
//!   Changes return a `Result`; if an invalidation can neither be recorded nor the old copy be
//!   made unreadable, they return [`Error::NotDurable`].
//!
//! What is still there after which end of a process is the [`Durability`]'s matter.
//!
//! What goes wrong in the background is told by `tracing`, at times under a lock: a subscriber must not use
//! the cache itself.
//!
//! # Examples
//!
//! ```
//! # fn main() -> Result<(), embercache::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path().join("cache");
//! use embercache::{Cache, GIB, MIB};
//!
//! let pages: Cache<String, String> = Cache::builder(&dir).ram(64 * MIB).disk(4 * GIB).open()?;
//!
//! // Read through: one thread renders, however many ask for the page.
//! let page = pages.get_or_insert_with("/shoes/7", || "<h1>Runner</h1>".to_owned());
//!
//! // What it shows has changed: write to the database first, then invalidate.
//! pages.remove("/shoes/7")?;
//! assert_eq!(pages.get("/shoes/7"), None);
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! - `bincode` (default): serde types as keys and values, by [`bincode_codec!`] or [`Bincode`].
//! - `bytes` (default): `bytes::Bytes` as a key or value.
//! - `postcard`: serde types by postcard.

mod bell;
mod budget;
mod builder;
mod cache;
mod codec;
mod engine;
mod error;
mod hash;
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub, reason = "users of feature `testing` see it"))]
mod io;
mod lease;
mod limits;
mod location;
mod log;
mod look_ups;
mod maintenance;
mod options;
mod origin;
mod processor;
#[cfg(shuttle)]
#[cfg(test)]
mod schedules;
mod shard;
mod stats;
mod sync;
mod tiers;
mod time;

#[cfg(any(feature = "bincode", feature = "postcard"))]
#[doc(hidden)]
pub use codec::serde_codecs as __codec;

pub use builder::Builder;
pub use cache::Cache;
#[cfg(feature = "bincode")]
pub use codec::serde_codecs::Bincode;
#[cfg(feature = "postcard")]
pub use codec::serde_codecs::Postcard;
pub use codec::{Codec, CodecError, CodecId, Key, KeyBytes, Value};
pub use error::Error;
pub use lease::Lease;
pub use options::{Admission, Durability, GIB, KIB, MIB, OnMismatch, Overload, ReadMode, WriteBehind};
pub use stats::{Recovery, Start, Stats};

/// Not for users: a disk that fails on demand, one in memory, and the decoders over any bytes.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing {
    pub use crate::io::{
        Io, IoFile, Map, OpenMode,
        fault::{FaultDisk, Moment, Operation, Side},
        memory::MemoryDisk,
        recorder::{RecorderDisk, Replay, Step},
    };
    pub use crate::log::parse::{JOURNAL_BYTES, parse_journal, parse_segment, parse_snapshot, parse_state};
}

/// README's example is a test.
#[cfg(all(doctest, feature = "bincode"))]
#[doc = include_str!("../README.md")]
mod readme {}

//! An embedded, persistent, two-tier cache: RAM in front of a memory-mapped log.
//!
//! It stands between a service and its database (cache-aside, read-through), answers in
//! microseconds, and is still warm after a restart, even after a SIGKILL.
//!
//! # The promise
//!
//! **The cache may forget. It never lies.** A look-up returns the last value stored under the key,
//! or nothing.
//!
//! - No look-up returns a value whose overwrite, removal, clear or expiry was acknowledged before
//!   that look-up began: under concurrency, with full queues, with failed writes, after a close, a
//!   SIGKILL or a loss of power, over any number of reopens. The one exception cannot be detected: files of
//!   an earlier time in their old place, be it that a closed directory was copied and put back, that the file system
//!   or the machine was set back to a snapshot, or that a device was lost and came back without a reboot.
//! - No look-up returns bytes that differ from what was stored.
//! - Trouble with the disk never stops the RAM tier. A look-up that meets it is a miss, and is counted.
//!   A change returns a `Result`; if its invalidation can neither be recorded nor the old copy be
//!   made unreadable, that is [`Error::NotDurable`].
//!
//! How much of everything else survives a crash, a reboot or a loss of power is for you to choose: see
//! [`Durability`].
//!
//! # In a service
//!
//! - *Closing*: a process that exits with its caches in statics, or by a signal that nobody handles, closes none of
//!   them. That loses what RAM alone has, and at the next boot everything, but for
//!   [`PowerLoss`](Durability::PowerLoss). So handle SIGTERM, and call [`Cache::close`].
//! - *Async code*: a look-up takes microseconds, or what the disk takes where its page is not in memory. A change may
//!   wait: for a disk that cannot keep up ([`Overload::Shed`] does not), and with `PowerLoss` for a sync. Loads wait
//!   for each other, so they belong on threads that may block (`spawn_blocking` in tokio); a [`Lease`] is held across
//!   an `.await` instead, and keeps nobody else from loading.
//! - *Volumes*: the directory has to belong to the user that runs the process, and nobody else may write to it. The root
//!   of a mounted volume is often another's, or not empty: name a directory below it.
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
//! # Where to look
//!
//! - [`Cache::builder`] opens a cache over a directory, [`Cache::in_memory`] one in RAM alone; every option is
//!   a method of [`Builder`].
//! - [`Cache::get_or_insert_with`] and [`Cache::try_get_or_insert_with`] load what is missing, once for all who
//!   ask; [`Cache::lease`] is for loads of another shape, in async code for instance.
//! - [`Cache::remove`] and [`Cache::insert`] invalidate. Call them after the database has accepted a change.
//! - [`Codec`] lists the types that can be keys and values, and shows how to add yours.
//! - [`Stats`] says what the cache does; its `Display` is made for a person.
//!
//! # Threads
//!
//! A [`Cache`] is a handle that is cheap to clone and can be shared between threads. A hit in RAM takes no
//! lock, nor does a miss in RAM alone. Everything else takes a short lock on one part of the keys, and lets go of
//! it before it reads a value from disk. Where an operation may wait for the disk to write or sync, its method says
//! so, or the option that asks for it. A cache with a directory has one background thread, which writes the values.
//! There is no async runtime involved.
//!
//! What goes wrong in the background is reported as `tracing` events. None is sent under a lock, so a subscriber
//! may use the cache, but for a load of the key whose load an event is about.
//!
//! # Features
//!
//! - `bincode` (default): serde types as keys and values, by [`bincode_codec!`] or [`Bincode`].
//! - `bytes` (default): `bytes::Bytes` as a key or value.
//! - `postcard`: serde types as keys and values, by `postcard_codec!` or `Postcard`.

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

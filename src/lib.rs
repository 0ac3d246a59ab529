//! An embedded, persistent, two-tier cache.

mod bell;
mod budget;
mod builder;
mod cache;
mod codec;
mod engine;
mod error;
mod hash;
mod hits;
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub, reason = "users of feature `testing` see it"))]
mod io;
mod lease;
mod limits;
mod location;
mod log;
mod maintenance;
mod options;
mod shard;
mod stats;
mod sync;
mod tiers;
mod time;

#[cfg(any(feature = "bincode", feature = "postcard"))]
#[doc(hidden)]
pub use codec::serde_codecs as __codec;

pub use builder::{Builder, GIB, KIB, MIB, Overload, WriteBehind};
pub use cache::Cache;
#[cfg(feature = "bincode")]
pub use codec::serde_codecs::Bincode;
#[cfg(feature = "postcard")]
pub use codec::serde_codecs::Postcard;
pub use codec::{Codec, CodecError, CodecId, Key, KeyBytes, Value};
pub use error::Error;
pub use lease::Lease;
pub use options::{Durability, OnMismatch, ReadMode};
pub use shard::admission::Admission;
pub use stats::{Recovery, Start, Stats};

/// Not for users: a disk that fails on demand, one in memory, and the decoders over any bytes.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing {
    pub use crate::io::{Io, IoFile, Map, OpenMode, fault::FaultDisk, memory::MemoryDisk};
    pub use crate::log::parse::{parse_journal, parse_segment, parse_snapshot, parse_state};
}

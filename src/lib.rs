//! An embedded, persistent, two-tier cache.

mod builder;
mod cache;
mod codec;
mod error;
mod lease;
mod stats;

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
pub use stats::{Recovery, Start, Stats};

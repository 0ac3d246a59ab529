//! What a peer has to be able to do, and the peers.
//!
//! The loops over many keys are methods of the traits, so that the calls in them are not virtual.

pub mod aside;
pub mod ram;
pub mod store;

mod dashmap;
mod embercache;
mod fjall;
mod foyer;
mod lmdb;
mod lru;
mod moka;
mod quick_cache;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod rwlock_map;
mod server;
mod sled;
mod sqlite;

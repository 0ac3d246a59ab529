//! A persistent store, and the peers that are one.

use std::path::Path;

use anyhow::Result;

use super::{embercache, fjall, foyer, lmdb, redb, server, sled, sqlite};
use crate::{
    content::{are_of, fill},
    measure::Tally,
};

/// What a store is opened for.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub entries: u64,
    pub value_bytes: usize,
    /// Values that a cache may hold in RAM. Databases keep their own defaults.
    pub ram_entries: u64,
}

impl Setup {
    /// Bytes of all values.
    pub fn total_bytes(self) -> u64 {
        self.entries * self.value_bytes as u64
    }
}

/// A persistent store, shared by threads. Its keys have 16 bytes.
pub trait Store: Send + Sync {
    /// Lends the value to `read`; whether there was one.
    fn get(&self, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool>;

    fn insert(&self, key: u64, value: &[u8]) -> Result<()>;

    fn remove(&self, key: u64) -> Result<()>;

    /// What was stored survives the end of the process from here on; not that of the machine.
    fn flush(&self) -> Result<()>;

    fn close(self: Box<Self>) -> Result<()>;

    /// Look-ups answered from RAM so far, where the peer says so.
    fn ram_hits(&self) -> Option<u64> {
        None
    }

    /// Whether the value is that of `version`.
    fn check(&self, key: u64, version: u64) -> Result<Option<bool>> {
        let mut is_right = false;
        let found = self.get(key, &mut |value| is_right = are_of(value, key, version))?;
        Ok(found.then_some(is_right))
    }

    /// Looks each key up and verifies its value; in one transaction where the peer can keep it.
    fn check_each(&self, keys: &[u64], version: u64) -> Result<Tally> {
        let mut tally = Tally::default();
        for &key in keys {
            tally.count(self.check(key, version)?);
        }
        Ok(tally)
    }

    /// Stores each key; in transactions of [`BATCH`] where the peer has any.
    fn insert_each(&self, keys: &[u64], version: u64, value_bytes: usize) -> Result<()> {
        let mut value = vec![0; value_bytes];
        for &key in keys {
            fill(&mut value, key, version);
            self.insert(key, &value)?;
        }
        Ok(())
    }
}

/// Inserts in a transaction.
pub const BATCH: usize = 1_000;

pub const KEY_BYTES: u64 = 16;

/// In the order of the numbers.
pub fn key_bytes(key: u64) -> [u8; KEY_BYTES as usize] {
    u128::from(key).to_be_bytes()
}

/// Opens a store in a directory, new or not.
pub type OpenStore = fn(&Path, Setup) -> Result<Box<dyn Store>>;

/// The stores.
pub fn stores() -> Vec<(&'static str, OpenStore)> {
    vec![
        ("embercache", embercache::open_store as OpenStore),
        ("lmdb", lmdb::open),
        ("lmdb_map", lmdb::open_map),
        ("redb", redb::open),
        ("fjall", fjall::open),
        ("sqlite", sqlite::open),
        ("sled", sled::open),
        ("foyer", foyer::open_default),
        ("foyer_tuned", foyer::open_tuned),
        #[cfg(feature = "rocksdb")]
        ("rocksdb", super::rocksdb::open),
    ]
}

/// The stores, and Redis, whose memory is another process'.
pub fn restarted() -> Vec<(&'static str, OpenStore)> {
    let mut peers = stores();
    peers.push(("redis", server::open_redis));
    peers
}

/// The stores, and again those that are read in another way: LMDB by one transaction that is kept, RocksDB
/// through maps, foyer by many tasks.
pub fn readers() -> Vec<(&'static str, OpenStore)> {
    let written_alike = |(name, _): &(&str, OpenStore)| *name != "lmdb_map";
    let mut peers: Vec<_> = stores().into_iter().filter(written_alike).collect();
    peers.push(("lmdb_kept", lmdb::open_kept));
    #[cfg(feature = "rocksdb")]
    peers.push(("rocksdb_mmap", super::rocksdb::open_mmap));
    peers.push(("foyer_64", foyer::open_default_64));
    peers.push(("foyer_tuned_64", foyer::open_tuned_64));
    peers
}

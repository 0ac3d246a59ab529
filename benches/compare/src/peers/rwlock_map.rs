//! 64 hash maps behind a lock each, for reference: no eviction, quick_cache's hasher.

use std::{collections::HashMap, hash::BuildHasher};

use anyhow::Result;
use parking_lot::RwLock;
use quick_cache::DefaultHashBuilder;

use super::ram::RamCache;
use crate::content::Payload;

const SHARDS: usize = 64;

struct Ram<V: Payload> {
    hasher: DefaultHashBuilder,
    shards: Vec<RwLock<HashMap<u64, V, DefaultHashBuilder>>>,
}

pub fn open<V: Payload>(entries: u64) -> Result<Box<dyn RamCache<V>>> {
    let hasher = DefaultHashBuilder::default();
    let room = entries as usize / SHARDS;
    let shard = || RwLock::new(HashMap::with_capacity_and_hasher(room, hasher.clone()));
    let shards = std::iter::repeat_with(shard).take(SHARDS).collect();
    Ok(Box::new(Ram { hasher, shards }))
}

impl<V: Payload> Ram<V> {
    /// By the middle of the hash: the maps use both its ends.
    fn shard(&self, key: u64) -> &RwLock<HashMap<u64, V, DefaultHashBuilder>> {
        &self.shards[(self.hasher.hash_one(key) >> 32) as usize % SHARDS]
    }
}

impl<V: Payload> RamCache<V> for Ram<V> {
    fn get(&self, key: u64) -> Option<V> {
        self.shard(key).read().get(&key).cloned()
    }

    fn insert(&self, key: u64, value: V) {
        self.shard(key).write().insert(key, value);
    }

    fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().len() as u64).sum()
    }

    fn check(&self, key: u64) -> Option<bool> {
        self.shard(key).read().get(&key).map(|value| value.is_of(key))
    }
}

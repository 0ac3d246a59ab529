//! dashmap, for reference: a sharded map without eviction, with quick_cache's hasher.

use anyhow::Result;
use dashmap::DashMap;
use quick_cache::DefaultHashBuilder;

use super::ram::RamCache;
use crate::content::Payload;

struct Ram<V: Payload>(DashMap<u64, V, DefaultHashBuilder>);

pub fn open<V: Payload>(entries: u64) -> Result<Box<dyn RamCache<V>>> {
    Ok(Box::new(Ram(DashMap::with_capacity_and_hasher(entries as usize, DefaultHashBuilder::default()))))
}

impl<V: Payload> RamCache<V> for Ram<V> {
    fn get(&self, key: u64) -> Option<V> {
        self.0.get(&key).map(|value| value.clone())
    }

    fn insert(&self, key: u64, value: V) {
        self.0.insert(key, value);
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn check(&self, key: u64) -> Option<bool> {
        self.0.get(&key).map(|value| value.is_of(key))
    }
}

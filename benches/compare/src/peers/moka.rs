//! moka: W-TinyLFU by logs of reads and writes.

use anyhow::Result;
use moka::sync::Cache;

use super::ram::RamCache;
use crate::content::Payload;

struct Ram<V: Payload>(Cache<u64, V>);

pub fn open<V: Payload>(entries: u64) -> Result<Box<dyn RamCache<V>>> {
    Ok(Box::new(Ram(Cache::new(entries))))
}

impl<V: Payload> RamCache<V> for Ram<V> {
    fn get(&self, key: u64) -> Option<V> {
        self.0.get(&key)
    }

    fn insert(&self, key: u64, value: V) {
        self.0.insert(key, value);
    }

    fn len(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.entry_count()
    }
}

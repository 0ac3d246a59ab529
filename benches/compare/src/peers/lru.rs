//! The LRU list and map of the crate lru, behind one lock.

use std::num::NonZero;

use anyhow::{Context, Result};
use lru::LruCache;
use parking_lot::Mutex;

use super::ram::RamCache;
use crate::content::Payload;

/// Guards all of it: a look-up moves its entry to the front.
struct Ram<V: Payload>(Mutex<LruCache<u64, V>>);

pub fn open<V: Payload>(entries: u64) -> Result<Box<dyn RamCache<V>>> {
    let capacity = NonZero::new(entries as usize).context("room for nothing")?;
    Ok(Box::new(Ram(Mutex::new(LruCache::new(capacity)))))
}

impl<V: Payload> RamCache<V> for Ram<V> {
    fn get(&self, key: u64) -> Option<V> {
        self.0.lock().get(&key).cloned()
    }

    fn insert(&self, key: u64, value: V) {
        let displaced = self.0.lock().push(key, value);
        drop(displaced);
    }

    fn len(&self) -> u64 {
        self.0.lock().len() as u64
    }

    fn check(&self, key: u64) -> Option<bool> {
        self.0.lock().get(&key).map(|value| value.is_of(key))
    }
}

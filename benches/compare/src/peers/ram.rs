//! A cache in RAM, and the peers that are one.

use anyhow::Result;

use super::{dashmap, embercache, foyer, lru, moka, quick_cache, rwlock_map};
use crate::{content::Payload, measure::Tally};

/// A cache in RAM, shared by threads.
pub trait RamCache<V: Payload>: Send + Sync {
    fn get(&self, key: u64) -> Option<V>;

    fn insert(&self, key: u64, value: V);

    fn len(&self) -> u64;

    /// Whether the value is right, by reference where the peer can lend it.
    fn check(&self, key: u64) -> Option<bool> {
        self.get(key).map(|value| value.is_of(key))
    }

    /// Looks each key up and verifies the clone.
    fn get_each(&self, keys: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for &key in keys {
            tally.count(self.get(key).map(|value| value.is_of(key)));
        }
        tally
    }

    /// Looks each key up and verifies what is lent.
    fn check_each(&self, keys: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for &key in keys {
            tally.count(self.check(key));
        }
        tally
    }

    /// Looks each key up, and stores it if it is not there.
    fn fill_each(&self, keys: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for &key in keys {
            let found = self.get(key).map(|value| value.is_of(key));
            if found.is_none() {
                self.insert(key, V::of(key));
            }
            tally.count(found);
        }
        tally
    }

    /// Stores each key.
    fn insert_each(&self, keys: std::ops::Range<u64>) {
        for key in keys {
            self.insert(key, V::of(key));
        }
    }
}

/// Opens a cache for this many entries.
pub type OpenRam<V> = fn(u64) -> Result<Box<dyn RamCache<V>>>;

/// The caches with eviction; each with its defaults, sized in entries.
pub fn caches<V: Payload>() -> Vec<(&'static str, OpenRam<V>)> {
    vec![
        ("embercache", embercache::open_ram::<V>),
        ("quick_cache", quick_cache::open),
        ("moka", moka::open),
        ("foyer", foyer::open_ram),
        ("lru_mutex", lru::open),
    ]
}

/// The caches again with their other policies, where the policy is asked for.
pub fn policies<V: Payload>() -> Vec<(&'static str, OpenRam<V>)> {
    let mut peers = caches();
    peers.push(("foyer_s3fifo", foyer::open_s3fifo));
    peers.push(("foyer_lfu", foyer::open_lfu));
    peers
}

/// Ours, looked up by batches, and one by one.
pub fn batched<V: Payload>() -> Vec<(&'static str, OpenRam<V>)> {
    vec![("embercache", embercache::open_batched::<V>), ("embercache_get", embercache::open_ram)]
}

/// Maps that never evict: what would be possible. A star marks them in the table.
pub fn references<V: Payload>() -> Vec<(&'static str, OpenRam<V>)> {
    vec![("dashmap*", dashmap::open::<V>), ("rwlock_map*", rwlock_map::open)]
}

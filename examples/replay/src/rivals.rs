//! Other crates' caches, each as one shard.

use anyhow::{Result, anyhow};
use foyer_memory::{EvictionConfig, FifoConfig, LfuConfig, LruConfig, S3FifoConfig, SieveConfig};
use moka::policy::EvictionPolicy;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync::DefaultLifecycle};

use crate::{player::Player, trace::Request};

/// quick_cache, CLOCK-Pro by its own account.
pub struct QuickCache(quick_cache::sync::Cache<u64, u32, ByValue>);

#[derive(Clone)]
struct ByValue;

impl Weighter<u64, u32> for ByValue {
    fn weight(&self, _: &u64, weight: &u32) -> u64 {
        u64::from(*weight)
    }
}

impl QuickCache {
    pub fn new(capacity: u64, entries: usize) -> Result<QuickCache> {
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(entries)
            .weight_capacity(capacity)
            .build()
            .map_err(|error| anyhow!("quick_cache: {error}"))?;
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        Ok(QuickCache(quick_cache::sync::Cache::with_options(options, ByValue, hasher, lifecycle)))
    }
}

impl Player for QuickCache {
    fn request(&mut self, request: Request) -> bool {
        let found = self.0.get(&request.key).is_some();
        if !found {
            self.0.insert(request.key, request.weight);
        }
        found
    }
}

/// moka.
pub struct Moka(moka::sync::Cache<u64, u32>);

impl Moka {
    pub fn tiny_lfu(capacity: u64) -> Moka {
        Moka::new(capacity, EvictionPolicy::tiny_lfu())
    }

    pub fn lru(capacity: u64) -> Moka {
        Moka::new(capacity, EvictionPolicy::lru())
    }

    fn new(capacity: u64, policy: EvictionPolicy) -> Moka {
        let weigh = |_: &u64, weight: &u32| *weight;
        Moka(
            moka::sync::Cache::builder()
                .max_capacity(capacity)
                .weigher(weigh)
                .eviction_policy(policy)
                .build(),
        )
    }
}

impl Player for Moka {
    fn request(&mut self, request: Request) -> bool {
        let found = self.0.get(&request.key).is_some();
        if !found {
            self.0.insert(request.key, request.weight);
            // Left to itself it evicts some hundreds of inserts later, which is more than a small cache holds.
            self.0.run_pending_tasks();
        }
        found
    }
}

/// The RAM tier of foyer.
pub struct Foyer(foyer_memory::Cache<u64, u32>);

impl Foyer {
    pub fn fifo(capacity: u64) -> Foyer {
        Foyer::new(capacity, FifoConfig::default())
    }

    pub fn lru(capacity: u64) -> Foyer {
        Foyer::new(capacity, LruConfig::default())
    }

    pub fn lfu(capacity: u64) -> Foyer {
        Foyer::new(capacity, LfuConfig::default())
    }

    pub fn s3_fifo(capacity: u64) -> Foyer {
        Foyer::new(capacity, S3FifoConfig::default())
    }

    pub fn sieve(capacity: u64) -> Foyer {
        Foyer::new(capacity, SieveConfig)
    }

    fn new(capacity: u64, policy: impl Into<EvictionConfig>) -> Foyer {
        let cache = foyer_memory::CacheBuilder::new(capacity as usize)
            .with_shards(1)
            .with_eviction_config(policy)
            .with_weighter(|_: &u64, weight: &u32| *weight as usize)
            .build();
        Foyer(cache)
    }
}

impl Player for Foyer {
    fn request(&mut self, request: Request) -> bool {
        let found = self.0.get(&request.key).is_some();
        if !found {
            self.0.insert(request.key, request.weight);
        }
        found
    }
}

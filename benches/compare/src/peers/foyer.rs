//! foyer, in RAM alone and as a hybrid.

use std::path::Path;

use anyhow::Result;
use foyer::{
    BlockEngineConfig, Cache, CacheBuilder, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, LfuConfig, S3FifoConfig,
};
use tokio::runtime::{Builder, Runtime};

use super::{
    ram::RamCache,
    store::{BATCH, Setup, Store},
};
use crate::{
    content::{Payload, are_of, bytes},
    measure::Tally,
};

struct Ram<V: Payload>(Cache<u64, V>);

/// As it comes, which is by LRU.
pub fn open_ram<V: Payload>(entries: u64) -> Result<Box<dyn RamCache<V>>> {
    Ok(Box::new(Ram(CacheBuilder::new(entries as usize).build())))
}

pub fn open_s3fifo<V: Payload>(entries: u64) -> Result<Box<dyn RamCache<V>>> {
    let builder = CacheBuilder::new(entries as usize).with_eviction_config(S3FifoConfig::default());
    Ok(Box::new(Ram(builder.build())))
}

pub fn open_lfu<V: Payload>(entries: u64) -> Result<Box<dyn RamCache<V>>> {
    let builder = CacheBuilder::new(entries as usize).with_eviction_config(LfuConfig::default());
    Ok(Box::new(Ram(builder.build())))
}

impl<V: Payload> RamCache<V> for Ram<V> {
    fn get(&self, key: u64) -> Option<V> {
        self.0.get(&key).map(|entry| entry.value().clone())
    }

    fn insert(&self, key: u64, value: V) {
        self.0.insert(key, value);
    }

    fn len(&self) -> u64 {
        self.0.entries() as u64
    }

    fn check(&self, key: u64) -> Option<bool> {
        self.0.get(&key).map(|entry| entry.value().is_of(key))
    }
}

/// How it is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tuning {
    /// As it comes: entries go to the disk when RAM evicts them, and what the queue has no room for is dropped.
    Default,
    /// So that nothing is dropped and no old value comes back, if its user does not hurry: entries go to the
    /// disk at once, the queue is wide, removals are logged.
    Tuned,
}

struct Hybrid {
    /// Before the runtime, which its drop needs.
    cache: HybridCache<u64, Vec<u8>>,
    runtime: Runtime,
    tuning: Tuning,
    /// How many look-ups are under way at a time.
    tasks: usize,
}

/// Look-ups that are under way at a time, where there is more than one.
const TASKS: usize = 64;

pub fn open_default(dir: &Path, setup: Setup) -> Result<Box<dyn Store>> {
    Ok(Box::new(Hybrid::open(dir, setup, Tuning::Default, 1)?))
}

pub fn open_default_64(dir: &Path, setup: Setup) -> Result<Box<dyn Store>> {
    Ok(Box::new(Hybrid::open(dir, setup, Tuning::Default, TASKS)?))
}

pub fn open_tuned(dir: &Path, setup: Setup) -> Result<Box<dyn Store>> {
    Ok(Box::new(Hybrid::open(dir, setup, Tuning::Tuned, 1)?))
}

pub fn open_tuned_64(dir: &Path, setup: Setup) -> Result<Box<dyn Store>> {
    Ok(Box::new(Hybrid::open(dir, setup, Tuning::Tuned, TASKS)?))
}

impl Hybrid {
    fn open(dir: &Path, setup: Setup, tuning: Tuning, tasks: usize) -> Result<Hybrid> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let capacity =
            (setup.entries as usize * (setup.value_bytes + 64).next_multiple_of(4096) * 2).max(1 << 30);
        let device = FsDeviceBuilder::new(dir).with_capacity(capacity).build()?;
        let engine = BlockEngineConfig::new(device);
        let (policy, engine) = match tuning {
            Tuning::Default => (HybridCachePolicy::default(), engine),
            Tuning::Tuned => {
                let engine = engine.with_buffer_pool_size(64 << 20).with_submit_queue_size_threshold(1 << 30);
                (HybridCachePolicy::WriteOnInsertion, engine.with_tombstone_log(true))
            }
        };
        let memory = HybridCacheBuilder::new().with_policy(policy).memory(setup.ram_entries as usize);
        let cache = runtime.block_on(memory.storage().with_engine_config(engine).build())?;
        Ok(Hybrid { cache, runtime, tuning, tasks })
    }
}

impl Store for Hybrid {
    fn get(&self, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let found = self.runtime.block_on(async { self.cache.get(&key).await })?;
        Ok(found.map(|entry| read(entry.value())).is_some())
    }

    fn insert(&self, key: u64, value: &[u8]) -> Result<()> {
        self.cache.insert(key, value.to_vec());
        Ok(())
    }

    fn remove(&self, key: u64) -> Result<()> {
        self.cache.remove(&key);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.runtime.block_on(async {
            if self.tuning == Tuning::Default {
                self.cache.flush_if(|_, _| true).await;
            }
            self.cache.storage().wait().await;
        });
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.runtime.block_on(self.cache.close())?)
    }

    /// By as many tasks as there are to be, each with its share of the keys.
    fn check_each(&self, keys: &[u64], version: u64) -> Result<Tally> {
        let share = |keys: &[u64]| {
            let (cache, keys) = (self.cache.clone(), keys.to_vec());
            async move {
                let mut tally = Tally::default();
                for key in keys {
                    let found = cache.get(&key).await?;
                    tally.count(found.map(|entry| are_of(entry.value(), key, version)));
                }
                anyhow::Ok(tally)
            }
        };
        if self.tasks == 1 {
            return self.runtime.block_on(share(keys));
        }
        let shares = keys.chunks(keys.len().div_ceil(self.tasks).max(1)).map(share);
        let tasks: Vec<_> = shares.map(|share| self.runtime.spawn(share)).collect();
        self.runtime.block_on(async {
            let mut tally = Tally::default();
            for task in tasks {
                tally = tally.add(task.await??);
            }
            Ok(tally)
        })
    }

    /// Waits for the disk now and then where it is tuned, since an insert never does.
    fn insert_each(&self, keys: &[u64], version: u64, value_bytes: usize) -> Result<()> {
        for batch in keys.chunks(BATCH) {
            for &key in batch {
                self.cache.insert(key, bytes(key, version, value_bytes));
            }
            if self.tuning == Tuning::Tuned {
                self.runtime.block_on(self.cache.storage().wait());
            }
        }
        Ok(())
    }
}

//! foyer, in RAM alone and as a hybrid.

use std::{ops::Range, path::Path};

use anyhow::Result;
use foyer::{
    BlockEngineConfig, Cache, CacheBuilder, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
};
use tokio::runtime::{Builder, Runtime};

use super::{
    ram::RamCache,
    store::{Setup, Store, batches},
};
use crate::content::{Payload, bytes};

struct Ram<V: Payload>(Cache<u64, V>);

pub fn open_ram<V: Payload>(entries: u64) -> Result<Box<dyn RamCache<V>>> {
    Ok(Box::new(Ram(CacheBuilder::new(entries as usize).build())))
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

/// One look-up at a time: the caller's thread waits for each.
struct Hybrid {
    /// Before the runtime, which its drop needs.
    cache: HybridCache<u64, Vec<u8>>,
    runtime: Runtime,
}

/// Tuned so that a burst of inserts is not dropped; all of it is written.
pub fn open_store(dir: &Path, setup: Setup) -> Result<Box<dyn Store>> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let capacity =
        (setup.entries as usize * (setup.value_bytes + 64).next_multiple_of(4096) * 2).max(1 << 30);
    let device = FsDeviceBuilder::new(dir).with_capacity(capacity).build()?;
    let engine = BlockEngineConfig::new(device)
        .with_buffer_pool_size(64 << 20)
        .with_submit_queue_size_threshold(1 << 30);
    let ram_entries = setup.ram_entries as usize;
    let builder = HybridCacheBuilder::new().memory(ram_entries).storage().with_engine_config(engine);
    let cache = runtime.block_on(builder.build())?;
    Ok(Box::new(Hybrid { cache, runtime }))
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
            self.cache.flush_if(|_, _| true).await;
            self.cache.storage().wait().await;
        });
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.runtime.block_on(self.cache.close())?)
    }

    /// Waits for the disk now and then, since an insert never does.
    fn insert_each(&self, keys: Range<u64>, version: u64, value_bytes: usize) -> Result<()> {
        for batch in batches(keys) {
            for key in batch {
                self.cache.insert(key, bytes(key, version, value_bytes));
            }
            self.runtime.block_on(self.cache.storage().wait());
        }
        Ok(())
    }
}

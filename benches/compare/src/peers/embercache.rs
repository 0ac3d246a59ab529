//! Ours, in RAM alone and in two tiers.

use std::path::Path;

use anyhow::Result;
use embercache::{Admission, Cache, GIB};

use super::{
    ram::RamCache,
    store::{Setup, Store},
};
use crate::{content::Payload, measure::Tally};

struct Ram<V: Payload>(Cache<u64, V>);

pub fn open_ram<V: Payload>(entries: u64) -> Result<Box<dyn RamCache<V>>> {
    Ok(Box::new(Ram(Cache::in_memory().ram_entries(entries).open()?)))
}

impl<V: Payload> RamCache<V> for Ram<V> {
    fn get(&self, key: u64) -> Option<V> {
        self.0.get(&key)
    }

    fn insert(&self, key: u64, value: V) {
        self.0.insert(key, value).expect("nothing in RAM alone can fail");
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn check(&self, key: u64) -> Option<bool> {
        self.0.get_with(&key, |value| value.is_of(key))
    }
}

/// The same, looked up by batches.
struct Batched<V: Payload>(Ram<V>);

/// Keys in a batch.
const BATCH: usize = 16;

pub fn open_batched<V: Payload>(entries: u64) -> Result<Box<dyn RamCache<V>>> {
    Ok(Box::new(Batched(Ram(Cache::in_memory().ram_entries(entries).open()?))))
}

impl<V: Payload> RamCache<V> for Batched<V> {
    fn get(&self, key: u64) -> Option<V> {
        self.0.get(key)
    }

    fn insert(&self, key: u64, value: V) {
        self.0.insert(key, value);
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn get_each(&self, keys: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for batch in keys.chunks(BATCH) {
            for (&key, found) in batch.iter().zip(self.0.0.get_many(batch)) {
                tally.count(found.map(|value| value.is_of(key)));
            }
        }
        tally
    }
}

struct Tiers(Cache<u128, Vec<u8>>);

/// A log with room for everything, since a database keeps everything.
pub fn open_store(dir: &Path, setup: Setup) -> Result<Box<dyn Store>> {
    let disk = (setup.total_bytes() + setup.entries * 64) * 2 + GIB;
    let builder = Cache::builder(dir.join("cache")).ram_entries(setup.ram_entries).disk(disk);
    Ok(Box::new(Tiers(builder.admission(Admission::All).open()?)))
}

impl Store for Tiers {
    fn get(&self, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get_with(&u128::from(key), |value| read(value)).is_some())
    }

    fn insert(&self, key: u64, value: &[u8]) -> Result<()> {
        Ok(self.0.insert(u128::from(key), value.to_vec())?)
    }

    fn remove(&self, key: u64) -> Result<()> {
        self.0.remove(&u128::from(key))?;
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(self.0.flush()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }

    fn ram_hits(&self) -> Option<u64> {
        Some(self.0.stats().ram_hits)
    }
}

//! sled, with its defaults; its `flush` syncs.

use std::path::Path;

use anyhow::Result;
use sled::Db;

use super::store::{Setup, Store, key_bytes};

struct Sled(Db);

pub fn open(dir: &Path, _setup: Setup) -> Result<Box<dyn Store>> {
    Ok(Box::new(Sled(sled::open(dir.join("sled"))?)))
}

impl Store for Sled {
    fn get(&self, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(key_bytes(key))?.map(|value| read(&value)).is_some())
    }

    fn insert(&self, key: u64, value: &[u8]) -> Result<()> {
        self.0.insert(key_bytes(key), value)?;
        Ok(())
    }

    fn remove(&self, key: u64) -> Result<()> {
        self.0.remove(key_bytes(key))?;
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()
    }
}

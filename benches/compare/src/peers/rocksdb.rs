//! RocksDB, with its defaults, and read through maps: its log goes to the operating system at each write.

use std::path::Path;

use anyhow::Result;
use rocksdb::{DB, Options, WriteBatch};

use super::store::{BATCH, Setup, Store, key_bytes};
use crate::content::fill;

struct RocksDb(DB);

pub fn open(dir: &Path, _setup: Setup) -> Result<Box<dyn Store>> {
    Ok(Box::new(RocksDb::open(dir, false)?))
}

pub fn open_mmap(dir: &Path, _setup: Setup) -> Result<Box<dyn Store>> {
    Ok(Box::new(RocksDb::open(dir, true)?))
}

impl RocksDb {
    fn open(dir: &Path, maps: bool) -> Result<RocksDb> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_allow_mmap_reads(maps);
        Ok(RocksDb(DB::open(&options, dir.join("rocksdb"))?))
    }
}

impl Store for RocksDb {
    fn get(&self, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get_pinned(key_bytes(key))?.map(|value| read(&value)).is_some())
    }

    fn insert(&self, key: u64, value: &[u8]) -> Result<()> {
        Ok(self.0.put(key_bytes(key), value)?)
    }

    fn remove(&self, key: u64) -> Result<()> {
        Ok(self.0.delete(key_bytes(key))?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.0.flush_wal(false)?)
    }

    /// With its tables written, so that look-ups after the next open find them on disk.
    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.flush()?)
    }

    fn insert_each(&self, keys: &[u64], version: u64, value_bytes: usize) -> Result<()> {
        let mut value = vec![0; value_bytes];
        for batch in keys.chunks(BATCH) {
            let mut writes = WriteBatch::default();
            for &key in batch {
                fill(&mut value, key, version);
                writes.put(key_bytes(key), &value);
            }
            self.0.write(writes)?;
        }
        Ok(())
    }
}

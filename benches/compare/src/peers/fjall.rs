//! fjall, with its defaults: its journal goes to the operating system at each write.

use std::path::Path;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::store::{Setup, Store, key_bytes};

struct Fjall {
    database: Database,
    entries: Keyspace,
}

pub fn open(dir: &Path, _setup: Setup) -> Result<Box<dyn Store>> {
    let database = Database::builder(dir.join("fjall")).open()?;
    let entries = database.keyspace("entries", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { database, entries }))
}

impl Store for Fjall {
    fn get(&self, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.entries.get(key_bytes(key))?.map(|value| read(&value)).is_some())
    }

    fn insert(&self, key: u64, value: &[u8]) -> Result<()> {
        Ok(self.entries.insert(key_bytes(key), value)?)
    }

    fn remove(&self, key: u64) -> Result<()> {
        Ok(self.entries.remove(key_bytes(key))?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.database.persist(PersistMode::Buffer)?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()
    }
}

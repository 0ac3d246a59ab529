//! redb, with its default cache. What it has committed without a sync does not survive the
//! process, so `flush` is a commit with one.

use std::path::Path;

use anyhow::Result;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::store::{BATCH, Setup, Store};
use crate::{
    content::{are_of, fill},
    measure::Tally,
};

const TABLE: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("entries");

struct Redb(Database);

pub fn open(dir: &Path, _setup: Setup) -> Result<Box<dyn Store>> {
    let redb = Redb(Database::create(dir.join("redb"))?);
    let transaction = redb.0.begin_write()?;
    transaction.open_table(TABLE)?;
    transaction.commit()?;
    Ok(Box::new(redb))
}

impl Store for Redb {
    fn get(&self, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        Ok(table.get(u128::from(key))?.map(|value| read(value.value())).is_some())
    }

    fn insert(&self, key: u64, value: &[u8]) -> Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::None)?;
        transaction.open_table(TABLE)?.insert(u128::from(key), value)?;
        Ok(transaction.commit()?)
    }

    fn remove(&self, key: u64) -> Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::None)?;
        transaction.open_table(TABLE)?.remove(u128::from(key))?;
        Ok(transaction.commit()?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.0.begin_write()?.commit()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()
    }

    fn check_each(&self, keys: &[u64], version: u64) -> Result<Tally> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        let mut tally = Tally::default();
        for &key in keys {
            let found = table.get(u128::from(key))?;
            tally.count(found.map(|value| are_of(value.value(), key, version)));
        }
        Ok(tally)
    }

    fn insert_each(&self, keys: &[u64], version: u64, value_bytes: usize) -> Result<()> {
        let mut value = vec![0; value_bytes];
        for batch in keys.chunks(BATCH) {
            let mut transaction = self.0.begin_write()?;
            transaction.set_durability(Durability::None)?;
            let mut table = transaction.open_table(TABLE)?;
            for &key in batch {
                fill(&mut value, key, version);
                table.insert(u128::from(key), value.as_slice())?;
            }
            drop(table);
            transaction.commit()?;
        }
        Ok(())
    }
}

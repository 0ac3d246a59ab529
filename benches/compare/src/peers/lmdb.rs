//! LMDB by heed, without a sync at commit: what is committed survives the process, as with the
//! caches, not the machine. Reads by a transaction each, or by one that is kept.

use std::path::Path;

use anyhow::Result;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, types::Bytes};

use super::store::{BATCH, Setup, Store, key_bytes};
use crate::{
    content::{are_of, fill},
    measure::Tally,
};

struct Lmdb {
    env: Env,
    database: Database<Bytes, Bytes>,
    access: Access,
}

/// How it is read and written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// A read transaction for each look-up.
    Short,
    /// One for a thousand look-ups or more.
    Kept,
    /// Short, and writes go to the map in place of the file.
    Map,
}

pub fn open(dir: &Path, setup: Setup) -> Result<Box<dyn Store>> {
    Ok(Box::new(Lmdb::open(dir, setup, Access::Short)?))
}

pub fn open_kept(dir: &Path, setup: Setup) -> Result<Box<dyn Store>> {
    Ok(Box::new(Lmdb::open(dir, setup, Access::Kept)?))
}

pub fn open_map(dir: &Path, setup: Setup) -> Result<Box<dyn Store>> {
    Ok(Box::new(Lmdb::open(dir, setup, Access::Map)?))
}

impl Lmdb {
    fn open(dir: &Path, setup: Setup, access: Access) -> Result<Lmdb> {
        let flags =
            if access == Access::Map { EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP } else { EnvFlags::NO_SYNC };
        let mut options = EnvOpenOptions::new();
        options.map_size((setup.total_bytes() as usize * 4 + (1 << 30)).next_multiple_of(1 << 20));
        // SAFETY: without a sync a crash of the machine may damage the files, and heed then reads
        // garbage; they are scratch of this program, which does not outlive the machine.
        unsafe { options.flags(flags) };
        // SAFETY: the directory is new or was made by this function, nothing else writes to it, and
        // no process opens it twice at once.
        let env = unsafe { options.open(dir) }?;
        let mut transaction = env.write_txn()?;
        let database = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Lmdb { env, database, access })
    }
}

impl Store for Lmdb {
    fn get(&self, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let transaction = self.env.read_txn()?;
        let found = self.database.get(&transaction, &key_bytes(key))?;
        Ok(found.map(read).is_some())
    }

    fn insert(&self, key: u64, value: &[u8]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.database.put(&mut transaction, &key_bytes(key), value)?;
        Ok(transaction.commit()?)
    }

    fn remove(&self, key: u64) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.database.delete(&mut transaction, &key_bytes(key))?;
        Ok(transaction.commit()?)
    }

    /// A commit has written all.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }

    fn check_each(&self, keys: &[u64], version: u64) -> Result<Tally> {
        let mut tally = Tally::default();
        if self.access != Access::Kept {
            for &key in keys {
                tally.count(self.check(key, version)?);
            }
            return Ok(tally);
        }
        let transaction = self.env.read_txn()?;
        for &key in keys {
            let found = self.database.get(&transaction, &key_bytes(key))?;
            tally.count(found.map(|value| are_of(value, key, version)));
        }
        Ok(tally)
    }

    fn insert_each(&self, keys: &[u64], version: u64, value_bytes: usize) -> Result<()> {
        let mut value = vec![0; value_bytes];
        for batch in keys.chunks(BATCH) {
            let mut transaction = self.env.write_txn()?;
            for &key in batch {
                fill(&mut value, key, version);
                self.database.put(&mut transaction, &key_bytes(key), &value)?;
            }
            transaction.commit()?;
        }
        Ok(())
    }
}

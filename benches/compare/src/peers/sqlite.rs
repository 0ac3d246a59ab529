//! SQLite, a connection for each thread.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, params};

use super::store::{BATCH, Setup, Store, key_bytes};
use crate::{
    connections::Connections,
    content::{are_of, fill},
    measure::Tally,
};

const GET: &str = "SELECT value FROM entries WHERE key = ?1";
const INSERT: &str = "INSERT OR REPLACE INTO entries VALUES (?1, ?2)";

struct Sqlite(Connections);

pub fn open(dir: &Path, _setup: Setup) -> Result<Box<dyn Store>> {
    let connections = Connections::new(dir.join("sqlite"));
    connections.with(|connection| {
        let table = "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID";
        Ok(connection.execute_batch(table)?)
    })?;
    Ok(Box::new(Sqlite(connections)))
}

fn get(connection: &Connection, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
    let mut statement = connection.prepare_cached(GET)?;
    let lend = |row: &rusqlite::Row<'_>| {
        read(row.get_ref(0)?.as_bytes()?);
        Ok(())
    };
    Ok(statement.query_row([key_bytes(key)], lend).optional()?.is_some())
}

impl Store for Sqlite {
    fn get(&self, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.0.with(|connection| get(connection, key, read))
    }

    fn insert(&self, key: u64, value: &[u8]) -> Result<()> {
        self.0.with(|connection| {
            connection.prepare_cached(INSERT)?.execute(params![key_bytes(key), value])?;
            Ok(())
        })
    }

    fn remove(&self, key: u64) -> Result<()> {
        self.0.with(|connection| {
            connection.prepare_cached("DELETE FROM entries WHERE key = ?1")?.execute([key_bytes(key)])?;
            Ok(())
        })
    }

    /// A commit has written all.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.0.close()
    }

    fn check_each(&self, keys: &[u64], version: u64) -> Result<Tally> {
        self.0.with(|connection| {
            let transaction = connection.transaction()?;
            let mut tally = Tally::default();
            for &key in keys {
                let mut is_right = false;
                let found = get(&transaction, key, &mut |value| is_right = are_of(value, key, version))?;
                tally.count(found.then_some(is_right));
            }
            Ok(tally)
        })
    }

    fn insert_each(&self, keys: &[u64], version: u64, value_bytes: usize) -> Result<()> {
        let mut value = vec![0; value_bytes];
        for batch in keys.chunks(BATCH) {
            self.0.with(|connection| {
                let transaction = connection.transaction()?;
                for &key in batch {
                    fill(&mut value, key, version);
                    transaction.prepare_cached(INSERT)?.execute(params![key_bytes(key), value])?;
                }
                Ok(transaction.commit()?)
            })?;
        }
        Ok(())
    }
}

//! The database behind the caches of W8: products in SQLite, and the versions of them that every customer
//! must see.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    connections::Connections,
    content::{are_of, bytes},
};

const TABLE: &str =
    "CREATE TABLE product (id INTEGER PRIMARY KEY, version INTEGER NOT NULL, body BLOB NOT NULL)";
const SELECT: &str = "SELECT version, body FROM product WHERE id = ?1";
const UPDATE: &str = "UPDATE product SET version = ?2, body = ?3 WHERE id = ?1";
/// A product is its version, of 8 bytes, and this.
const BODY_BYTES: usize = 492;
/// Of a product as the cache has it.
pub const PRODUCT_BYTES: usize = 8 + BODY_BYTES;

/// An open database.
pub struct Database {
    connections: Connections,
    /// Held from drawing a version until it is committed; SQLite has one writer at a time anyway.
    writer: Mutex<()>,
    /// By id: the version that is committed, and invalidated in the cache. All go only upwards.
    acknowledged: Vec<AtomicU64>,
    /// What each query takes beyond its own time.
    delay: Duration,
}

impl Database {
    /// Makes the file of a database with this many products, all of version 0.
    pub fn build(path: &Path, products: u64) -> Result<()> {
        let mut connection = Connection::open(path)?;
        connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
        let transaction = connection.transaction()?;
        transaction.execute_batch(TABLE)?;
        let mut insert = transaction.prepare("INSERT INTO product VALUES (?1, 0, ?2)")?;
        for id in 0..products {
            insert.execute(params![id, bytes(id, 0, BODY_BYTES)])?;
        }
        drop(insert);
        transaction.commit()?;
        Ok(())
    }

    /// Opens a copy of a file that [`build`](Database::build) has made, so that none of its updates is missed by
    /// somebody else's cache.
    pub fn copy(of: &Path, to: &Path, products: u64) -> Result<Database> {
        fs::copy(of, to)?;
        let acknowledged = (0..products).map(|_| AtomicU64::new(0)).collect();
        let (connections, writer) = (Connections::new(to), Mutex::new(()));
        Ok(Database { connections, writer, acknowledged, delay: Duration::ZERO })
    }

    /// From here on each query takes so much longer.
    pub fn slowed(self, delay: Duration) -> Database {
        Database { delay, ..self }
    }

    /// The product as a cache is to have it.
    pub fn product(&self, id: u64) -> Result<Vec<u8>> {
        self.wait();
        self.connections.with(|connection| {
            let mut statement = connection.prepare_cached(SELECT)?;
            let row = |row: &rusqlite::Row<'_>| {
                let version: u64 = row.get(0)?;
                Ok([&version.to_le_bytes(), row.get_ref(1)?.as_blob()?].concat())
            };
            statement.query_row([id], row).optional()?.context("no such product")
        })
    }

    /// Changes a product, has it invalidated, and only then says that it has changed.
    pub fn update(&self, id: u64, invalidate: impl FnOnce() -> Result<()>) -> Result<()> {
        self.wait();
        let one_at_a_time = self.writer.lock();
        let version = self.connections.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT version FROM product WHERE id = ?1")?;
            let version = statement.query_row([id], |row| row.get::<_, u64>(0))? + 1;
            connection.prepare_cached(UPDATE)?.execute(params![
                id,
                version,
                bytes(id, version, BODY_BYTES)
            ])?;
            Ok(version)
        })?;
        drop(one_at_a_time);
        invalidate()?;
        // Two updates of one product may arrive here in either order, hence the maximum. Release; pairs
        // with the Acquire in `acknowledged`: who reads the version here asks after the invalidation.
        self.acknowledged[id as usize].fetch_max(version, Ordering::Release);
        Ok(())
    }

    /// The oldest version that may be shown to whoever asks from now on.
    pub fn acknowledged(&self, id: u64) -> u64 {
        self.acknowledged[id as usize].load(Ordering::Acquire) // pairs with the Release in `update`
    }

    fn wait(&self) {
        if !self.delay.is_zero() {
            thread::sleep(self.delay);
        }
    }
}

/// The version of a product; an error if it is not this product, or not whole.
pub fn version_of(product: &[u8], id: u64) -> Result<u64> {
    let (version, body) = product.split_first_chunk().context("LIES: cut off")?;
    let version = u64::from_le_bytes(*version);
    ensure!(body.len() == BODY_BYTES && are_of(body, id, version), "LIES: that is not product {id}");
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_acknowledged_after_its_invalidation() {
        let dir = tempfile::tempdir().unwrap();
        let (built, copied) = (dir.path().join("built"), dir.path().join("copied"));
        Database::build(&built, 10).unwrap();
        let database = Database::copy(&built, &copied, 10).unwrap();
        let version = |id| version_of(&database.product(id).unwrap(), id).unwrap();
        assert_eq!((version(7), database.acknowledged(7)), (0, 0));

        let during = || {
            assert_eq!((version(7), database.acknowledged(7)), (1, 0));
            Ok(())
        };
        database.update(7, during).unwrap();
        assert_eq!((version(7), database.acknowledged(7)), (1, 1));
        assert_eq!((version(6), database.acknowledged(6)), (0, 0));
        assert!(database.product(10).is_err());
    }

    #[test]
    fn a_product_is_of_its_id_and_whole() {
        let mut product = [&3_u64.to_le_bytes()[..], &bytes(7, 3, BODY_BYTES)].concat();
        assert_eq!(version_of(&product, 7).unwrap(), 3);
        assert!(version_of(&product, 8).is_err());
        assert!(version_of(&product[..PRODUCT_BYTES - 1], 7).is_err());
        product[0] = 2;
        assert!(version_of(&product, 7).is_err());
    }
}

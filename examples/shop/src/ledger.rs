//! The database as the service writes it: every change is committed together with a note in the outbox.

use std::path::Path;

use rusqlite::{Connection, Result, Transaction, TransactionBehavior, params};

use crate::{page::Shelf, store};

/// How many shoes arrive when a size is sold out.
const RESTOCKED: u32 = 20;
const STATEMENTS_PER_CHANGE: u64 = 5;

/// A change of a product's stock or price.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Sale { product: u64, size: u16 },
    Price { product: u64, cents: u64 },
}

impl Change {
    fn product(self) -> u64 {
        match self {
            Change::Sale { product, .. } | Change::Price { product, .. } => product,
        }
    }
}

/// A change that was committed, and the pages it made old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub note: Note,
    /// The version that the product has since.
    pub version: u64,
    /// The version that its shelf has since.
    pub shelf_version: u64,
}

/// A row of the outbox: these pages may be cached older than they are in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    pub id: u64,
    pub product: u64,
    pub shelf: Shelf,
}

/// The connection that writes. SQLite has one writer at a time anyway, and waiting for a lock around this
/// one is fairer than waiting for SQLite's.
pub struct Ledger {
    connection: Connection,
    queries: u64,
}

impl Ledger {
    pub fn open(path: &Path) -> Result<Ledger> {
        Ok(Ledger { connection: store::connect(path)?, queries: 0 })
    }

    /// The statements run so far.
    pub fn queries(&self) -> u64 {
        self.queries
    }

    /// Commits a change and its note, and with them deletes the `settled` notes, whose invalidations are
    /// done: so tidying the outbox costs no commit of its own.
    pub fn commit(&mut self, change: Change, settled: &[u64]) -> Result<Committed> {
        self.queries += STATEMENTS_PER_CHANGE + settled.len() as u64;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        forget(&transaction, settled)?;
        apply(&transaction, change)?;
        let product = change.product();
        let (version, shelf) = transaction
            .prepare_cached(
                "UPDATE product SET version = version + 1 WHERE id = ?1
                 RETURNING version, category_id, shelf",
            )?
            .query_row([product], |row| {
                Ok((row.get(0)?, Shelf { category: row.get(1)?, page: row.get(2)? }))
            })?;
        let shelf_version = transaction
            .prepare_cached(
                "UPDATE shelf SET version = version + 1 WHERE category_id = ?1 AND page = ?2 RETURNING version",
            )?
            .query_row([shelf.category, shelf.page], |row| row.get(0))?;
        let id = transaction
            .prepare_cached("INSERT INTO outbox (product_id) VALUES (?1) RETURNING id")?
            .query_row([product], |row| row.get(0))?;
        transaction.commit()?;
        Ok(Committed { note: Note { id, product, shelf }, version, shelf_version })
    }

    /// The notes whose invalidations may not have happened.
    pub fn outbox(&self) -> Result<Vec<Note>> {
        self.connection
            .prepare(
                "SELECT outbox.id, product.id, product.category_id, product.shelf
                 FROM outbox JOIN product ON product.id = outbox.product_id ORDER BY outbox.id",
            )?
            .query_map([], |row| {
                let shelf = Shelf { category: row.get(2)?, page: row.get(3)? };
                Ok(Note { id: row.get(0)?, product: row.get(1)?, shelf })
            })?
            .collect()
    }

    /// Deletes notes whose invalidations are done.
    pub fn settle(&mut self, notes: &[Note]) -> Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        forget(&transaction, &notes.iter().map(|note| note.id).collect::<Vec<_>>())?;
        transaction.commit()
    }
}

fn apply(transaction: &Transaction<'_>, change: Change) -> Result<()> {
    let changed = match change {
        Change::Sale { product, size } => transaction
            .prepare_cached(
                "UPDATE variant SET stock = iif(stock > 0, stock - 1, ?3) WHERE product_id = ?1 AND size = ?2",
            )?
            .execute(params![product, size, RESTOCKED])?,
        Change::Price { product, cents } => transaction
            .prepare_cached("UPDATE product SET price_cents = ?2 WHERE id = ?1")?
            .execute(params![product, cents])?,
    };
    if changed == 0 { Err(rusqlite::Error::QueryReturnedNoRows) } else { Ok(()) }
}

fn forget(transaction: &Transaction<'_>, notes: &[u64]) -> Result<()> {
    let mut delete = transaction.prepare_cached("DELETE FROM outbox WHERE id = ?1")?;
    for note in notes {
        delete.execute([note])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog, store::Store};

    #[test]
    fn a_change_raises_both_versions_and_leaves_a_note() {
        let dir = tempfile::tempdir().unwrap();
        let path = catalog::tests::small(&dir);
        let (store, mut ledger) = (Store::open(&path).unwrap(), Ledger::open(&path).unwrap());
        let before = store.page(42).unwrap();

        let sold = ledger.commit(Change::Sale { product: 42, size: 40 }, &[]).unwrap();
        let priced = ledger.commit(Change::Price { product: 42, cents: 12_345 }, &[]).unwrap();
        let after = store.page(42).unwrap();
        assert_eq!((sold.version, priced.version, after.version), (1, 2, 2));
        assert_ne!(after.sizes[2].stock, before.sizes[2].stock);
        assert_eq!(after.sizes[0].price_cents, 12_345);
        assert_eq!(store.listing(sold.note.shelf).unwrap().version, priced.shelf_version);
        assert_eq!(ledger.outbox().unwrap(), [sold.note, priced.note]);
    }

    #[test]
    fn a_settled_note_leaves_with_the_next_commit() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&catalog::tests::small(&dir)).unwrap();
        let first = ledger.commit(Change::Sale { product: 1, size: 40 }, &[]).unwrap();
        let second = ledger.commit(Change::Sale { product: 2, size: 40 }, &[first.note.id]).unwrap();
        assert_eq!(ledger.outbox().unwrap(), [second.note]);
        ledger.settle(&[second.note]).unwrap();
        assert_eq!(ledger.outbox().unwrap(), []);
    }

    #[test]
    fn what_does_not_exist_is_neither_sold_nor_noted() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&catalog::tests::small(&dir)).unwrap();
        assert!(ledger.commit(Change::Sale { product: 42, size: 99 }, &[]).is_err());
        assert_eq!(ledger.outbox().unwrap(), []);
    }
}

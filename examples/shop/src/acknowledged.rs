//! What every customer who asks now must see: the versions that were committed and invalidated.
//!
//! This is the check, not part of the service. A reader takes the version from here before it asks, and a
//! page below it is stale.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{ledger::Committed, page::Shelf, store::Store};

/// The acknowledged versions. All go only upwards.
pub struct Acknowledged {
    /// By id; ids begin at 1.
    products: Vec<AtomicU64>,
    shelves: HashMap<Shelf, AtomicU64>,
}

impl Acknowledged {
    /// Takes what the database has committed. To be called before the service serves: by the time it does it
    /// has settled the outbox, so whatever was committed before is acknowledged.
    pub fn load(store: &Store, products: u64) -> rusqlite::Result<Acknowledged> {
        let mut versions: Vec<AtomicU64> = (0..=products).map(|_| AtomicU64::new(0)).collect();
        for (product, version) in store.product_versions()? {
            versions[product as usize] = AtomicU64::new(version);
        }
        let shelves = store.shelf_versions()?;
        let shelves = shelves.into_iter().map(|(shelf, version)| (shelf, AtomicU64::new(version))).collect();
        Ok(Acknowledged { products: versions, shelves })
    }

    /// Records a change that is committed and invalidated.
    ///
    /// Two changes of one product may arrive here in either order, hence `fetch_max`.
    pub fn raise(&self, committed: &Committed) {
        let (product, shelf) = (committed.note.product, committed.note.shelf);
        // Release; pairs with the Acquire in `product` and `shelf`: who reads the version here asks
        // after the invalidation.
        self.products[product as usize].fetch_max(committed.version, Ordering::Release);
        self.shelves[&shelf].fetch_max(committed.shelf_version, Ordering::Release);
    }

    /// The oldest version of a product that may still be shown.
    pub fn product(&self, product: u64) -> u64 {
        self.products[product as usize].load(Ordering::Acquire) // pairs with the Release in `raise`
    }

    /// The oldest version of a shelf that may still be shown.
    pub fn shelf(&self, shelf: Shelf) -> u64 {
        self.shelves[&shelf].load(Ordering::Acquire) // pairs with the Release in `raise`
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog,
        ledger::{Change, Ledger},
    };

    #[test]
    fn versions_only_rise_and_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = catalog::tests::small(&dir);
        let store = Store::open(&path).unwrap();
        let acknowledged = Acknowledged::load(&store, 2_000).unwrap();
        let mut ledger = Ledger::open(&path).unwrap();
        let first = ledger.commit(Change::Sale { product: 42, size: 40 }, &[]).unwrap();
        let second = ledger.commit(Change::Sale { product: 42, size: 40 }, &[]).unwrap();

        acknowledged.raise(&second);
        acknowledged.raise(&first);
        let after_restart = Acknowledged::load(&store, 2_000).unwrap();
        for seen in [&acknowledged, &after_restart] {
            assert_eq!((seen.product(42), seen.product(41)), (2, 0));
            assert_eq!(seen.shelf(second.note.shelf), 2);
        }
    }
}

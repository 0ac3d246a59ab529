//! The shop's service, and the place to look for how embercache is put into one.
//!
//! Reading: ask the cache, and let it load what it does not have. Writing: commit to the database, then
//! invalidate. Starting: invalidate again what a crash may have left between the two.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use embercache::{Cache, GIB, MIB, Recovery, WriteBehind};

use crate::{
    ledger::{Change, Committed, Ledger, Note},
    page::{Card, Hits, Listing, Page, Shelf, Size},
    store::Store,
};

/// Raise it when `Page` or `Listing` changes its fields: a cache of the old ones is then not read.
const SCHEMA_VERSION: u32 = 1;

/// One cache for each kind of value, so that the compiler knows what comes out of which.
#[derive(Clone)]
pub struct Caches {
    pub pages: Cache<u64, Arc<Page>>,
    pub listings: Cache<Shelf, Arc<Listing>>,
    pub searches: Cache<String, Arc<Hits>>,
}

impl Caches {
    /// Opens the caches in `dir`, warm if they were there. 9 MiB of RAM stand in front of more
    /// than 150 MB of pages, so that the disk tier has work.
    pub fn open(dir: &Path) -> Result<Caches> {
        // What is asked for again is on disk within a second, so that a crash loses little of it.
        let write_behind = WriteBehind::After(Duration::from_secs(1));
        Ok(Caches {
            pages: Cache::builder(dir.join("pages"))
                .ram(6 * MIB)
                .disk(GIB)
                .write_behind(write_behind)
                .schema_version(SCHEMA_VERSION)
                .open()?,
            listings: Cache::builder(dir.join("listings"))
                .ram(2 * MIB)
                .disk(64 * MIB)
                .write_behind(write_behind)
                .schema_version(SCHEMA_VERSION)
                .open()?,
            // Found ids may be a minute behind the catalogue, and are cheap to find again after a restart.
            searches: Cache::in_memory().ram(MIB).time_to_live(Duration::from_secs(60)).open()?,
        })
    }

    /// Removes the pages that show a product. What is being loaded meanwhile is not stored either.
    fn invalidate(&self, note: &Note) -> Result<(), embercache::Error> {
        self.pages.remove(&note.product)?;
        self.listings.remove(&note.shelf)?;
        Ok(())
    }

    /// Look-ups answered from RAM, from disk, and not at all.
    pub fn lookups(&self) -> [u64; 3] {
        let all = [self.pages.stats(), self.listings.stats(), self.searches.stats()];
        [
            all.iter().map(|stats| stats.ram_hits).sum(),
            all.iter().map(|stats| stats.disk_hits).sum(),
            all.iter().map(|stats| stats.misses).sum(),
        ]
    }

    /// How the cache of pages came up.
    pub fn recovery(&self) -> Recovery {
        self.pages.stats().recovery
    }
}

/// What all threads of the service share. A read takes the thread's own `Store`.
pub struct Service {
    caches: Option<Caches>,
    ledger: Mutex<Ledger>,
    /// Notes that are done with, until the next commit deletes them.
    settled: Mutex<Vec<u64>>,
    invalidates: bool,
}

impl Service {
    /// Starts the service, with caches or without. One that does not invalidate lies: it is there to see the
    /// stale pages counted.
    pub fn open(database: &Path, caches: Option<Caches>, invalidates: bool) -> Result<Service> {
        let mut ledger = Ledger::open(database)?;
        // A crash may have come after a commit and before its invalidation. The note was committed with the
        // change, so nothing is missed; to remove a page once too often does no harm.
        let left_over = ledger.outbox()?;
        if let Some(caches) = caches.as_ref().filter(|_| invalidates) {
            left_over.iter().try_for_each(|note| caches.invalidate(note))?;
        }
        ledger.settle(&left_over)?;
        Ok(Service { caches, ledger: Mutex::new(ledger), settled: Mutex::default(), invalidates })
    }

    /// A product's page. If many ask for one that is not cached, one of them loads it. A change that is
    /// committed during the load keeps the loaded page out of the cache.
    pub fn page(&self, store: &Store, product: u64) -> Result<Arc<Page>> {
        Ok(match &self.caches {
            Some(caches) => caches.pages.try_get_or_insert_with(&product, || store.page(product))?,
            None => store.page(product)?,
        })
    }

    /// A page of a category.
    pub fn listing(&self, store: &Store, shelf: Shelf) -> Result<Arc<Listing>> {
        Ok(match &self.caches {
            Some(caches) => caches.listings.try_get_or_insert_with(&shelf, || store.listing(shelf))?,
            None => store.listing(shelf)?,
        })
    }

    /// The products that answer to a phrase. Which ones is cached, their prices and stock are not.
    pub fn search(&self, store: &Store, phrase: &str) -> Result<Vec<Card>> {
        let hits = match &self.caches {
            Some(caches) => caches.searches.try_get_or_insert_with(phrase, || store.search(phrase))?,
            None => store.search(phrase)?,
        };
        Ok(store.cards(&hits)?)
    }

    /// What a size in the cart costs: never from a cache, since money changes hands on it.
    pub fn cart(&self, store: &Store, product: u64, size: u16) -> Result<Size> {
        Ok(store.offer(product, size)?)
    }

    /// Changes a stock or a price. When this returns, nobody who asks afterwards sees the old one.
    ///
    /// The order is what matters: commit, invalidate, acknowledge. Invalidated before the commit, a reader
    /// in between would load the old page and the cache would keep it.
    pub fn change(&self, change: Change) -> Result<Committed> {
        let settled = std::mem::take(&mut *lock(&self.settled));
        let committed = lock(&self.ledger).commit(change, &settled)?;
        if let Some(caches) = self.caches.as_ref().filter(|_| self.invalidates) {
            // An error leaves the note where it is: the change is not acknowledged, and the next start
            // invalidates again.
            caches.invalidate(&committed.note)?;
        }
        lock(&self.settled).push(committed.note.id);
        Ok(committed)
    }

    /// The caches, if the service has any.
    pub fn caches(&self) -> Option<&Caches> {
        self.caches.as_ref()
    }

    /// The statements run by changes.
    pub fn queries(&self) -> u64 {
        lock(&self.ledger).queries()
    }
}

/// A panic elsewhere leaves the database at its last commit, so what the lock guards is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{acknowledged::Acknowledged, catalog};

    const SALE: Change = Change::Sale { product: 42, size: 40 };

    /// A service over a small shop, its pages of product 42 cached.
    fn warm_service(dir: &tempfile::TempDir, invalidates: bool) -> (Store, Service) {
        let database = catalog::tests::small(dir);
        let store = Store::open(&database).unwrap();
        let caches = Caches::open(&dir.path().join("cache")).unwrap();
        let service = Service::open(&database, Some(caches), invalidates).unwrap();
        service.page(&store, 42).unwrap();
        let queries = store.queries();
        service.page(&store, 42).unwrap();
        assert_eq!(store.queries(), queries, "the second look at a page asked the database");
        (store, service)
    }

    #[test]
    fn a_change_is_seen_by_who_asks_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let (store, service) = warm_service(&dir, true);
        let shelf = Shelf { category: catalog::category(42) as u16, page: 0 };
        service.listing(&store, shelf).unwrap();
        let committed = service.change(SALE).unwrap();
        assert_eq!(service.page(&store, 42).unwrap().version, committed.version);
        assert_eq!(service.listing(&store, committed.note.shelf).unwrap().version, committed.shelf_version);
    }

    #[test]
    fn a_service_that_does_not_invalidate_is_caught() {
        let dir = tempfile::tempdir().unwrap();
        let (store, service) = warm_service(&dir, false);
        let acknowledged = Acknowledged::load(&store, 2_000).unwrap();
        acknowledged.raise(&service.change(SALE).unwrap());
        let page = service.page(&store, 42).unwrap();
        assert!(page.version < acknowledged.product(42));
    }

    #[test]
    fn a_start_settles_what_a_crash_left_between_commit_and_invalidation() {
        let dir = tempfile::tempdir().unwrap();
        let (store, service) = warm_service(&dir, true);
        drop(service);
        let database = catalog::tests::small(&dir);
        let committed = Ledger::open(&database).unwrap().commit(SALE, &[]).unwrap();

        let caches = Caches::open(&dir.path().join("cache")).unwrap();
        assert_eq!(
            caches.pages.peek(&42).unwrap().version,
            0,
            "the page did not survive, nothing was tested"
        );
        let service = Service::open(&database, Some(caches), true).unwrap();
        assert_eq!(service.page(&store, 42).unwrap().version, committed.version);
        assert_eq!(lock(&service.ledger).outbox().unwrap(), []);
    }
}

//! The database as a thread of the service reads it. Nothing here knows of a cache.

use std::{cell::Cell, collections::HashMap, path::Path, sync::Arc, time::Duration};

use rusqlite::{CachedStatement, Connection, Result, Row, config::DbConfig, params};

use crate::page::{Card, Hits, Listing, Page, Rating, Review, Shelf, Size, Teaser};

const HITS_MAX: usize = 12;

/// A connection of one thread's own.
pub struct Store {
    connection: Connection,
    queries: Cell<u64>,
}

impl Store {
    pub fn open(path: &Path) -> Result<Store> {
        Ok(Store { connection: connect(path)?, queries: Cell::new(0) })
    }

    /// The statements run so far.
    pub fn queries(&self) -> u64 {
        self.queries.get()
    }

    /// A product's page, by five queries of one snapshot: no change falls between them, so the page
    /// belongs to exactly the version it carries.
    pub fn page(&self, product: u64) -> Result<Arc<Page>> {
        let snapshot = self.connection.unchecked_transaction()?;
        let mut page = self
            .statement(
                "SELECT product.version, product.name, brand.name, brand.country, category.department,
                     category.sport, product.description, product.image, product.price_cents
                 FROM product
                 JOIN brand ON brand.id = product.brand_id
                 JOIN category ON category.id = product.category_id
                 WHERE product.id = ?1",
            )?
            .query_row([product], |row| headed_page(product, row))?;
        self.add_stock(&mut page)?;
        page.rating = self.rating(product)?;
        page.reviews = self.reviews(product)?;
        page.related = self.related(product)?;
        snapshot.commit()?;
        Ok(Arc::new(page))
    }

    /// A page of a category.
    pub fn listing(&self, shelf: Shelf) -> Result<Arc<Listing>> {
        let snapshot = self.connection.unchecked_transaction()?;
        let at = [shelf.category, shelf.page];
        let version = self
            .statement("SELECT version FROM shelf WHERE category_id = ?1 AND page = ?2")?
            .query_row(at, |row| row.get(0))?;
        let cards = self
            .statement(
                "SELECT id, name, brand, price_cents, stock, reviews, stars
                 FROM card WHERE category_id = ?1 AND shelf = ?2",
            )?
            .query_map(at, card)?
            .collect::<Result<_>>()?;
        snapshot.commit()?;
        Ok(Arc::new(Listing { shelf, version, cards }))
    }

    /// The products whose names have all words of `phrase`, newest first.
    pub fn search(&self, phrase: &str) -> Result<Arc<Hits>> {
        let products = self
            .statement(
                "SELECT rowid FROM product_name WHERE product_name MATCH ?1 ORDER BY rowid DESC LIMIT ?2",
            )?
            .query_map(params![phrase, HITS_MAX], |row| row.get(0))?
            .collect::<Result<_>>()?;
        Ok(Arc::new(Hits { products }))
    }

    /// The products that were found, as they are now.
    pub fn cards(&self, hits: &Hits) -> Result<Vec<Card>> {
        self.statement(
            "SELECT card.id, name, brand, price_cents, stock, reviews, stars
             FROM json_each(?1) AS hit JOIN card ON card.id = hit.value",
        )?
        .query_map([serde_json::json!(hits.products).to_string()], card)?
        .collect()
    }

    /// What a size costs and how many are left, exactly: this is what the customer is charged.
    pub fn offer(&self, product: u64, size: u16) -> Result<Size> {
        self.statement(
            "SELECT variant.size, product.price_cents + variant.extra_cents, variant.stock
             FROM variant JOIN product ON product.id = variant.product_id
             WHERE variant.product_id = ?1 AND variant.size = ?2",
        )?
        .query_row(params![product, size], size_from)
    }

    /// The committed version of every product that was ever changed.
    pub fn product_versions(&self) -> Result<Vec<(u64, u64)>> {
        self.statement("SELECT id, version FROM product WHERE version > 0")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    }

    /// The committed version of every shelf.
    pub fn shelf_versions(&self) -> Result<HashMap<Shelf, u64>> {
        self.statement("SELECT category_id, page, version FROM shelf")?
            .query_map([], |row| Ok((Shelf { category: row.get(0)?, page: row.get(1)? }, row.get(2)?)))?
            .collect()
    }

    fn add_stock(&self, page: &mut Page) -> Result<()> {
        page.sizes = self
            .statement(
                "SELECT variant.size, product.price_cents + variant.extra_cents, variant.stock
                 FROM variant JOIN product ON product.id = variant.product_id
                 WHERE variant.product_id = ?1",
            )?
            .query_map([page.product], size_from)?
            .collect::<Result<_>>()?;
        Ok(())
    }

    fn rating(&self, product: u64) -> Result<Rating> {
        let mut rating = Rating::default();
        let mut counts =
            self.statement("SELECT stars, count(*) FROM review WHERE product_id = ?1 GROUP BY stars")?;
        let mut rows = counts.query([product])?;
        while let Some(row) = rows.next()? {
            rating.stars[row.get::<_, usize>(0)? - 1] = row.get(1)?;
        }
        Ok(rating)
    }

    fn reviews(&self, product: u64) -> Result<Vec<Review>> {
        self.statement(
            "SELECT customer.name, customer.country, review.stars, review.posted_day, review.title, review.body
             FROM review JOIN customer ON customer.id = review.customer_id
             WHERE review.product_id = ?1 ORDER BY review.posted_day DESC LIMIT 5",
        )?
        .query_map([product], |row| {
            Ok(Review {
                customer: row.get(0)?,
                country: row.get(1)?,
                stars: row.get(2)?,
                posted_day: row.get(3)?,
                title: row.get(4)?,
                body: row.get(5)?,
            })
        })?
        .collect()
    }

    fn related(&self, product: u64) -> Result<Vec<Teaser>> {
        self.statement(
            "SELECT product.id, product.name, product.image
             FROM related JOIN product ON product.id = related.other_id
             WHERE related.product_id = ?1 ORDER BY related.position",
        )?
        .query_map([product], |row| {
            Ok(Teaser { product: row.get(0)?, name: row.get(1)?, image: row.get(2)? })
        })?
        .collect()
    }

    fn statement(&self, sql: &str) -> Result<CachedStatement<'_>> {
        self.queries.set(self.queries.get() + 1);
        self.connection.prepare_cached(sql)
    }
}

/// Opens the database as a shop would tune it, the same for every run: a write-ahead log, so that readers
/// never wait for the writer, and 16 MiB of its own page cache.
pub fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // Without this, SQLite plans a prepared statement anew for every value bound to it: a third of the work.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 4000;
         PRAGMA cache_size = -16384;",
    )?;
    Ok(connection)
}

/// Empties the write-ahead log, so that the next run does not pay for what the last one wrote.
pub fn checkpoint(path: &Path) -> Result<()> {
    connect(path)?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

fn headed_page(product: u64, row: &Row<'_>) -> Result<Page> {
    Ok(Page {
        product,
        version: row.get(0)?,
        name: row.get(1)?,
        brand: row.get(2)?,
        country: row.get(3)?,
        department: row.get(4)?,
        sport: row.get(5)?,
        description: row.get(6)?,
        image: row.get(7)?,
        sizes: Vec::new(),
        rating: Rating::default(),
        reviews: Vec::new(),
        related: Vec::new(),
    })
}

fn size_from(row: &Row<'_>) -> Result<Size> {
    Ok(Size { size: row.get(0)?, price_cents: row.get(1)?, stock: row.get(2)? })
}

fn card(row: &Row<'_>) -> Result<Card> {
    Ok(Card {
        product: row.get(0)?,
        name: row.get(1)?,
        brand: row.get(2)?,
        price_cents: row.get(3)?,
        stock: row.get(4)?,
        reviews: row.get(5)?,
        stars: row.get(6)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog, wording};

    #[test]
    fn a_page_has_everything_a_customer_wants_to_know() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&catalog::tests::small(&dir)).unwrap();
        let page = store.page(42).unwrap();
        assert_eq!((page.product, page.version, page.name.clone()), (42, 0, wording::name(42)));
        assert_eq!(
            page.sizes.iter().map(|size| size.size).collect::<Vec<_>>(),
            catalog::SIZES.collect::<Vec<_>>()
        );
        assert_eq!(page.related.len(), 6);
        assert_eq!(page.reviews.len(), 5.min(page.rating.stars.iter().sum::<u32>() as usize));
        assert!(page.reviews.is_sorted_by_key(|review| std::cmp::Reverse(review.posted_day)));
        assert_eq!(store.queries(), 5);
    }

    #[test]
    fn a_listing_shows_its_shelf() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&catalog::tests::small(&dir)).unwrap();
        let listing = store.listing(Shelf { category: 3, page: 1 }).unwrap();
        assert_eq!(listing.cards.len() as u64, catalog::SHELF_PRODUCTS);
        assert!(
            listing.cards.iter().all(|card| catalog::category(card.product) == 3 && card.price_cents > 0)
        );
    }

    #[test]
    fn a_search_finds_the_product_it_was_made_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&catalog::tests::small(&dir)).unwrap();
        let hits = store.search(&wording::search_phrase(42)).unwrap();
        assert!(hits.products.contains(&42));
        let cards = store.cards(&hits).unwrap();
        assert_eq!(cards.iter().map(|card| card.product).collect::<Vec<_>>(), hits.products);
        let offer = store.offer(42, 40).unwrap();
        assert_eq!(offer, store.page(42).unwrap().sizes[2]);
    }
}

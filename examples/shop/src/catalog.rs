//! The shop's database: its tables, and how it is filled once with products, prices, stock and reviews.

use std::{
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use rusqlite::{Connection, params};

use crate::{
    traffic::Popularity,
    wording::{self, scatter},
};

/// Sizes that every product comes in.
pub const SIZES: RangeInclusive<u16> = 38..=45;
/// Categories: every department has every sport.
pub const CATEGORIES: u64 = (wording::DEPARTMENTS.len() * wording::SPORTS.len()) as u64;
/// Products in one page of a listing.
pub const SHELF_PRODUCTS: u64 = 25;

/// Raise it with every change of the tables or of what fills them: an older database is then built anew.
const BUILD: u32 = 1;
const CUSTOMERS: u64 = 20_000;
const RELATED: u64 = 6;
const PRODUCTS_PER_TRANSACTION: u64 = 10_000;

/// `version` counts the committed changes of a product or a shelf; a page carries the version that it was
/// built from. A row of `outbox` says that the cached pages of its product may be older than the database:
/// it is committed together with the change and deleted after the invalidation.
const TABLES: &str = "
    CREATE TABLE brand (id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL) STRICT;
    CREATE TABLE category (id INTEGER PRIMARY KEY, department TEXT NOT NULL, sport TEXT NOT NULL) STRICT;
    CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL) STRICT;
    CREATE TABLE shelf (
        category_id INTEGER NOT NULL, page INTEGER NOT NULL, version INTEGER NOT NULL,
        PRIMARY KEY (category_id, page)) STRICT, WITHOUT ROWID;
    CREATE TABLE product (
        id INTEGER PRIMARY KEY, brand_id INTEGER NOT NULL, category_id INTEGER NOT NULL, shelf INTEGER NOT NULL,
        version INTEGER NOT NULL, price_cents INTEGER NOT NULL,
        name TEXT NOT NULL, description TEXT NOT NULL, image TEXT NOT NULL) STRICT;
    CREATE TABLE variant (
        product_id INTEGER NOT NULL, size INTEGER NOT NULL,
        extra_cents INTEGER NOT NULL, stock INTEGER NOT NULL,
        PRIMARY KEY (product_id, size)) STRICT, WITHOUT ROWID;
    CREATE TABLE review (
        id INTEGER PRIMARY KEY, product_id INTEGER NOT NULL, customer_id INTEGER NOT NULL,
        stars INTEGER NOT NULL, posted_day INTEGER NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL) STRICT;
    CREATE TABLE related (
        product_id INTEGER NOT NULL, position INTEGER NOT NULL, other_id INTEGER NOT NULL,
        PRIMARY KEY (product_id, position)) STRICT, WITHOUT ROWID;
    CREATE VIEW card AS SELECT
        product.id, product.category_id, product.shelf, product.name, brand.name AS brand, product.price_cents,
        (SELECT sum(stock) FROM variant WHERE product_id = product.id) AS stock,
        (SELECT count(*) FROM review WHERE product_id = product.id) AS reviews,
        (SELECT coalesce(avg(stars), 0.0) FROM review WHERE product_id = product.id) AS stars
        FROM product JOIN brand ON brand.id = product.brand_id;
    CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, product_id INTEGER NOT NULL) STRICT;
    CREATE VIRTUAL TABLE product_name USING fts5 (name, content = '');";

/// Made when the rows are in: a sorted load is several times faster than one insert after the other.
const INDEXES: &str = "
    CREATE INDEX product_by_shelf ON product (category_id, shelf);
    CREATE INDEX review_by_product ON review (product_id, posted_day);
    INSERT INTO product_name (product_name) VALUES ('optimize');";

/// The database's file in `dir`.
pub fn path(dir: &Path, products: u64) -> PathBuf {
    dir.join(format!("catalog-{products}-{BUILD}.db"))
}

/// Builds the database unless it is there. It gets its name when it is whole, so one that was left half
/// built is never used.
pub fn build_once(path: &Path, products: u64) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let half_built = path.with_extension("partial");
    if half_built.exists() {
        fs::remove_file(&half_built)?;
    }
    build(&half_built, products).with_context(|| format!("building {}", half_built.display()))?;
    fs::rename(&half_built, path)?;
    Ok(())
}

/// Shelves that a category with its share of the products fills.
pub fn shelves_per_category(products: u64) -> u64 {
    products.div_ceil(CATEGORIES).div_ceil(SHELF_PRODUCTS)
}

/// The category that a product is in.
pub fn category(product: u64) -> u64 {
    product % CATEGORIES
}

fn build(path: &Path, products: u64) -> Result<()> {
    let mut database = Connection::open(path)?;
    // Nothing is lost if this fails half way: the file is thrown away and built again.
    database
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;")?;
    database.execute_batch(TABLES)?;
    fill_small_tables(&mut database, products)?;

    let progress = ProgressBar::new(products).with_message("Building the catalogue");
    progress.set_style(ProgressStyle::with_template(
        "{msg} [{bar:40}] {human_pos}/{human_len} products, {elapsed}",
    )?);
    let shelves = shelves(products);
    let mut first = 1;
    while first <= products {
        let last = products.min(first + PRODUCTS_PER_TRANSACTION - 1);
        fill_products(&mut database, first..=last, products, &shelves, &progress)?;
        first = last + 1;
    }
    progress.set_message("Indexing the catalogue");
    database.execute_batch(INDEXES)?;
    progress.finish_and_clear();
    database.execute_batch("PRAGMA journal_mode = WAL;")?;
    Ok(())
}

/// The shelf of every product, by id: a category shows what sells best first.
fn shelves(products: u64) -> Vec<u64> {
    let mut placed = vec![0; CATEGORIES as usize];
    let mut shelves = vec![0; products as usize + 1];
    for product in Popularity::new(products).best_first() {
        let count = &mut placed[category(product) as usize];
        shelves[product as usize] = *count / SHELF_PRODUCTS;
        *count += 1;
    }
    shelves
}

fn fill_small_tables(database: &mut Connection, products: u64) -> Result<()> {
    let batch = database.transaction()?;
    for (id, name) in wording::BRANDS.iter().enumerate() {
        let country = wording::COUNTRIES[id % wording::COUNTRIES.len()];
        batch.execute("INSERT INTO brand VALUES (?1, ?2, ?3)", params![id, name, country])?;
    }
    for id in 0..CATEGORIES {
        let department = wording::DEPARTMENTS[id as usize % wording::DEPARTMENTS.len()];
        let sport = wording::SPORTS[id as usize / wording::DEPARTMENTS.len()];
        batch.execute("INSERT INTO category VALUES (?1, ?2, ?3)", params![id, department, sport])?;
        for page in 0..shelves_per_category(products) {
            batch.execute("INSERT INTO shelf VALUES (?1, ?2, 0)", params![id, page])?;
        }
    }
    let mut customer = batch.prepare("INSERT INTO customer VALUES (?1, ?2, ?3)")?;
    for id in 0..CUSTOMERS {
        let country = wording::COUNTRIES[scatter(id) as usize % wording::COUNTRIES.len()];
        customer.execute(params![id, format!("runner{id}"), country])?;
    }
    drop(customer);
    batch.commit()?;
    Ok(())
}

fn fill_products(
    database: &mut Connection,
    batch: RangeInclusive<u64>,
    products: u64,
    shelves: &[u64],
    progress: &ProgressBar,
) -> Result<()> {
    let transaction = database.transaction()?;
    let mut product =
        transaction.prepare_cached("INSERT INTO product VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7, ?8)")?;
    let mut searchable =
        transaction.prepare_cached("INSERT INTO product_name (rowid, name) VALUES (?1, ?2)")?;
    let mut variant = transaction.prepare_cached("INSERT INTO variant VALUES (?1, ?2, ?3, ?4)")?;
    let mut related = transaction.prepare_cached("INSERT INTO related VALUES (?1, ?2, ?3)")?;
    let mut review = transaction.prepare_cached(
        "INSERT INTO review (product_id, customer_id, stars, posted_day, title, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for id in batch {
        let bits = scatter(id);
        let (name, shelf) = (wording::name(id), shelves[id as usize]);
        let (description, image) = (wording::description(id), format!("/img/{bits:016x}.webp"));
        let cents = 3_900 + bits % 160 * 100;
        product.execute(params![
            id,
            wording::brand(id),
            category(id),
            shelf,
            cents,
            name,
            description,
            image
        ])?;
        searchable.execute(params![id, name])?;
        for size in SIZES {
            let (extra_cents, stock) =
                (if size > 43 { 500 } else { 0 }, scatter(bits ^ u64::from(size)) % 40);
            variant.execute(params![id, size, extra_cents, stock])?;
        }
        for position in 0..RELATED {
            related.execute(params![id, position, 1 + scatter(bits ^ position) % products])?;
        }
        for at in 0..reviews(bits, shelf) {
            let bits = scatter(bits ^ at << 32);
            let (customer, stars, day) =
                (bits % CUSTOMERS, 5 - (bits >> 20) % 16 / 4, 19_000 + (bits >> 32) % 1_200);
            let (title, body) = (wording::review_title(bits), wording::review_body(bits));
            review.execute(params![id, customer, stars, day, title, body])?;
        }
        progress.inc(1);
    }
    drop((product, searchable, variant, related, review));
    transaction.commit()?;
    Ok(())
}

/// How many customers reviewed a product: what stands on the first shelf gets more.
fn reviews(bits: u64, shelf: u64) -> u64 {
    (bits >> 12) % 7 + if shelf == 0 { 20 } else { 0 }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A small shop's database in `dir`.
    pub fn small(dir: &tempfile::TempDir) -> PathBuf {
        let path = dir.path().join("catalog.db");
        build_once(&path, 2_000).unwrap();
        path
    }

    fn count(database: &Connection, table: &str) -> u64 {
        database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn every_product_has_its_rows_and_is_on_a_shelf() {
        let dir = tempfile::tempdir().unwrap();
        let database = Connection::open(small(&dir)).unwrap();
        assert_eq!(count(&database, "product"), 2_000);
        assert_eq!(count(&database, "variant"), 2_000 * SIZES.count() as u64);
        assert_eq!(count(&database, "related"), 2_000 * RELATED);
        assert_eq!(count(&database, "shelf"), CATEGORIES * shelves_per_category(2_000));
        assert!(count(&database, "review") > 2_000);
        let placed =
            "product JOIN shelf ON shelf.category_id = product.category_id AND shelf.page = product.shelf";
        assert_eq!(count(&database, placed), 2_000);
        let fullest = "SELECT max(c) FROM (SELECT count(*) AS c FROM product GROUP BY category_id, shelf)";
        assert_eq!(database.query_row(fullest, [], |row| row.get::<_, u64>(0)).unwrap(), SHELF_PRODUCTS);
    }

    #[test]
    fn a_half_built_database_is_built_again_and_a_whole_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("catalog.partial"), "half").unwrap();
        let path = small(&dir);
        let built = fs::metadata(&path).unwrap().modified().unwrap();
        build_once(&path, 2_000).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), built);
    }
}

//! W8: products of 500 B in SQLite, a cache beside it: one in a hundred is updated in the database and
//! invalidated, the others are looked up by zipf 0.99. A product that is older than the last version that was
//! acknowledged before it was asked for is stale, and counted.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    content::Zipf,
    database::{Database, version_of},
    measure::{Sample, Took, time, time_threads},
    peers::aside::{Aside, Prepare, Site, sites},
    runner::{Contest, Entrant, Runner, Target},
};

/// One request in so many is an update.
const UPDATES: usize = 100;
/// What the slow database takes for each query.
const SLOW: Duration = Duration::from_micros(200);
/// Requests between two looks at the clock.
const PIECE: usize = 64;

/// A service with its cache and the database behind that.
struct Shop {
    cache: Box<dyn Aside>,
    closed: Closed,
}

/// What is left of a service that has ended.
struct Closed {
    /// Before the directory, in which it may have its socket.
    site: Site,
    database: Database,
    _dir: TempDir,
}

/// What some requests came to.
#[derive(Clone, Copy, Default)]
struct Served {
    updates: u64,
    pages: u64,
    loads: u64,
    stale: u64,
}

pub fn run(runner: &mut Runner) -> Result<()> {
    let products = runner.scale.pick(20_000, 1_000_000);
    let mut zipf = Zipf::new(products, 0.99, 2);
    let shops = shops(runner, products, &mut zipf)?;
    runner.settle();
    for threads in [1, 2] {
        let what = format!("cache-aside over SQLite, {products} products, {threads} thread(s)");
        let contest = Contest::new("W8", what, "ns/request")
            .target(Target::TimesBest(1.3))
            .target(Target::FigureAtLeast("hit ratio", 0.90))
            .target(Target::NoFault);
        let (rounds, limit) = (rounds(runner, &mut zipf), runner.scale.limit());
        runner.contest(&contest, &shops, |shop, repetition| {
            let Shop { cache, closed } = shop;
            let (took, served) = share_out(&**cache, &closed.database, &rounds[repetition], threads, limit)?;
            Ok(served.sample(took))
        })?;
    }
    restarts(runner, shops, &mut zipf)
}

/// Opens, fills and warms the caches, each beside a database of its own.
fn shops(runner: &Runner, products: u64, zipf: &mut Zipf) -> Result<Vec<Entrant<Shop>>> {
    let dir = tempfile::tempdir()?;
    let built = dir.path().join("products");
    runner.progress("  building the database");
    Database::build(&built, products)?;
    // The best sellers first: a peer that is too slow to load all lacks those that are asked for least.
    let all = zipf.by_rank().to_vec();
    let some = zipf.take(products as usize / 4);
    let patience = runner.scale.pick(Duration::from_secs(3), Duration::from_secs(40));
    Ok(runner.prepare(sites(), |prepare| {
        let closed = Closed::new(*prepare, &built, products)?;
        let cache = (closed.site)()?;
        for warming in [&all, &some] {
            serve(&*cache, &closed.database, warming, patience)?;
        }
        Ok(Shop { cache, closed })
    }))
}

/// The first seconds of a service that begins again, opening its cache included, beside a slow database.
fn restarts(runner: &mut Runner, shops: Vec<Entrant<Shop>>, zipf: &mut Zipf) -> Result<()> {
    let close = |shop: Shop| {
        shop.cache.close().map_err(|error| format!("{error:#}"))?;
        Ok(Closed { database: shop.closed.database.slowed(SLOW), ..shop.closed })
    };
    let close = |shop: Entrant<Shop>| Entrant { name: shop.name, state: shop.state.and_then(close) };
    let shops: Vec<_> = shops.into_iter().map(close).collect();
    let limit = runner.scale.pick(Duration::from_millis(500), Duration::from_secs(2));
    let what = format!("the first {limit:?} after a restart, {SLOW:?} a query, 2 threads");
    let contest = Contest::new("W8", what, "ns/request")
        .target(Target::Times(1.2, "lmdb"))
        .target(Target::NoFault)
        .repetitions(runner.scale.pick(2, 3));
    let rounds = rounds(runner, zipf);
    runner.contest(&contest, &shops, |shop, repetition| {
        let (took, result) = time(|| {
            let cache = (shop.site)()?;
            let (_, served) = share_out(&*cache, &shop.database, &rounds[repetition], 2, limit)?;
            anyhow::Ok((cache, served))
        });
        let (cache, served) = result?;
        cache.close()?;
        Ok(served.sample(took))
    })
}

/// The requests of each repetition, the same for all peers.
fn rounds(runner: &Runner, zipf: &mut Zipf) -> Vec<Vec<u64>> {
    let requests = runner.scale.pick(100_000, 500_000);
    (0..runner.scale.repetitions).map(|_| zipf.take(requests)).collect()
}

impl Closed {
    fn new(prepare: Prepare, built: &Path, products: u64) -> Result<Closed> {
        let dir = tempfile::tempdir()?;
        let database = Database::copy(built, &dir.path().join("products"), products)?;
        Ok(Closed { site: prepare(dir.path(), products)?, database, _dir: dir })
    }
}

fn share_out(
    cache: &dyn Aside,
    database: &Database,
    requests: &[u64],
    threads: usize,
    limit: Duration,
) -> Result<(Took, Served)> {
    let share = requests.len() / threads;
    let (took, served) = time_threads(threads, |thread| {
        serve(cache, database, &requests[share * thread..share * (thread + 1)], limit)
    })?;
    Ok((took, served.into_iter().fold(Served::default(), Served::add)))
}

/// Serves the requests, or as many as there is time for.
fn serve(cache: &dyn Aside, database: &Database, requests: &[u64], limit: Duration) -> Result<Served> {
    let end = Instant::now() + limit;
    let mut served = Served::default();
    for (at, &id) in requests.iter().enumerate() {
        if at % UPDATES == UPDATES / 2 {
            database.update(id, || cache.invalidate(id))?;
            served.updates += 1;
        } else {
            served.page(cache, database, id)?;
        }
        if at % PIECE == PIECE - 1 && Instant::now() >= end {
            break;
        }
    }
    Ok(served)
}

impl Served {
    fn page(&mut self, cache: &dyn Aside, database: &Database, id: u64) -> Result<()> {
        let least = database.acknowledged(id);
        let mut version = Ok(0);
        let mut load = || {
            self.loads += 1;
            database.product(id)
        };
        cache.look_up(id, &mut load, &mut |product| version = version_of(product, id))?;
        self.pages += 1;
        self.stale += u64::from(version? < least);
        Ok(())
    }

    fn add(self, other: Served) -> Served {
        Served {
            updates: self.updates + other.updates,
            pages: self.pages + other.pages,
            loads: self.loads + other.loads,
            stale: self.stale + other.stale,
        }
    }

    fn sample(self, took: Took) -> Sample {
        let fault = format!("{} STALE of {} pages", self.stale, self.pages);
        took.per_op(self.updates + self.pages)
            .with("pages/s", self.pages as f64 / took.wall.as_secs_f64())
            .with("hit ratio", 1.0 - self.loads as f64 / self.pages as f64)
            .with_fault((self.stale > 0).then_some(fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::aside::Load;

    /// A cache that keeps what it has first seen of product 0, whatever is invalidated.
    struct Stubborn(parking_lot::Mutex<Option<Vec<u8>>>);

    impl Aside for Stubborn {
        fn look_up(&self, key: u64, load: Load<'_>, read: &mut dyn FnMut(&[u8])) -> Result<()> {
            let mut first = self.0.lock();
            if key != 0 {
                read(&load()?);
            } else if let Some(first) = &*first {
                read(first);
            } else {
                read(first.insert(load()?));
            }
            Ok(())
        }

        fn invalidate(&self, _key: u64) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stale_page_is_counted_and_a_fresh_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let built = dir.path().join("built");
        Database::build(&built, 2).unwrap();
        let database = Database::copy(&built, &dir.path().join("copied"), 2).unwrap();
        let cache = Stubborn(parking_lot::Mutex::new(None));
        // Each is looked up 50 times, updated, and looked up 49 times.
        for (id, stale, loads) in [(0, 49, 1), (1, 0, 99)] {
            let served = serve(&cache, &database, &[id; 100], Duration::from_secs(60)).unwrap();
            assert_eq!((served.updates, served.pages, served.stale, served.loads), (1, 99, stale, loads));
        }
    }
}

//! The serving process: threads that answer customers for a while and check every page they show.

use std::{
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    acknowledged::Acknowledged,
    catalog,
    ledger::Change,
    page::Shelf,
    report::{Latency, Report, Survivors},
    service::{Caches, Service},
    store::Store,
    traffic::{Popularity, Request, Traffic},
};

/// A process told to serve until it is killed gives up after this long: then nobody is left to kill it.
const UNKILLED_MAX: Duration = Duration::from_secs(10);

/// What a serving process is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub database: PathBuf,
    /// The directory of the caches; none, and the service has no cache.
    pub cache: Option<PathBuf>,
    pub products: u64,
    pub threads: u64,
    /// How long the requests are measured, from the moment that the caches begin to open.
    pub measured: Duration,
    /// The same seed is the same stream of requests.
    pub seed: u64,
    pub invalidates: bool,
    /// Whether to go on serving after the report, until killed.
    pub until_killed: bool,
}

/// Serves, and prints one report as a line of JSON.
pub fn serve(plan: &Plan) -> Result<()> {
    let store = Store::open(&plan.database)?;
    let acknowledged = Acknowledged::load(&store, plan.products)?;
    let popularity = Popularity::new(plan.products);

    let begin = Instant::now();
    let caches = plan.cache.as_deref().map(Caches::open).transpose()?;
    let service = Service::open(&plan.database, caches, plan.invalidates)?;
    let ready = begin.elapsed();
    let deadline = begin + plan.measured;
    let (tallies, measured) = mpsc::channel();
    thread::scope(|scope| -> Result<()> {
        for thread in 0..plan.threads {
            let (tallies, service, acknowledged, popularity) =
                (tallies.clone(), &service, &acknowledged, &popularity);
            scope.spawn(move || {
                let traffic = Traffic::new(popularity, plan.seed * 1_000 + thread);
                let result = Client::open(plan, service, acknowledged)
                    .and_then(|client| client.run(traffic, deadline, |tally| drop(tallies.send(Ok(tally)))));
                // Nobody receives any more once the report is out.
                result.unwrap_or_else(|error| drop(tallies.send(Err(error))));
            });
        }
        let mut total = Tally::new()?;
        for _ in 0..plan.threads {
            total.add(&measured.recv().context("every thread sends a tally or an error")??)?;
        }
        let mut report = total.report(begin.elapsed(), ready, &service);
        if !plan.until_killed {
            report.survivors = service.caches().map(|caches| survivors(caches, &acknowledged, plan.products));
        }
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    })?;
    ensure!(!plan.until_killed, "nobody killed this process");
    Ok(())
}

/// Compares everything that is cached with what was acknowledged, asked for or not.
fn survivors(caches: &Caches, acknowledged: &Acknowledged, products: u64) -> Survivors {
    let mut survivors = Survivors::default();
    let mut compare = |version: u64, floor: u64| {
        survivors.compared += 1;
        survivors.stale += u64::from(version < floor);
    };
    for product in 1..=products {
        if let Some(page) = caches.pages.peek(&product) {
            compare(page.version, acknowledged.product(product));
        }
    }
    for category in 0..catalog::CATEGORIES as u16 {
        for page in 0..catalog::shelves_per_category(products) as u16 {
            let shelf = Shelf { category, page };
            if let Some(listing) = caches.listings.peek(&shelf) {
                compare(listing.version, acknowledged.shelf(shelf));
            }
        }
    }
    survivors
}

/// A thread that answers one stream of requests.
struct Client<'a> {
    store: Store,
    service: &'a Service,
    acknowledged: &'a Acknowledged,
    tally: Tally,
    until_killed: bool,
}

impl<'a> Client<'a> {
    fn open(plan: &Plan, service: &'a Service, acknowledged: &'a Acknowledged) -> Result<Client<'a>> {
        let store = Store::open(&plan.database)?;
        Ok(Client { store, service, acknowledged, tally: Tally::new()?, until_killed: plan.until_killed })
    }

    /// Answers until the deadline, hands its tally to `report`, and goes on if it is to be killed.
    fn run(mut self, mut traffic: Traffic<'_>, deadline: Instant, report: impl FnOnce(Tally)) -> Result<()> {
        while Instant::now() < deadline {
            self.answer(traffic.next().expect("the stream is endless"))?;
        }
        self.tally.queries = self.store.queries();
        report(std::mem::replace(&mut self.tally, Tally::new()?));
        while self.until_killed && Instant::now() < deadline + UNKILLED_MAX {
            self.answer(traffic.next().expect("the stream is endless"))?;
        }
        Ok(())
    }

    fn answer(&mut self, request: Request) -> Result<()> {
        let begin = Instant::now();
        match request {
            Request::Product(product) => {
                let oldest_allowed = self.acknowledged.product(product);
                let page = self.service.page(&self.store, product)?;
                self.tally.pages.record(begin.elapsed().as_nanos() as u64)?;
                self.tally.check(page.version, oldest_allowed);
            }
            Request::Listing(shelf) => {
                let oldest_allowed = self.acknowledged.shelf(shelf);
                let listing = self.service.listing(&self.store, shelf)?;
                self.tally.check(listing.version, oldest_allowed);
            }
            Request::Search(phrase) => {
                self.service.search(&self.store, &phrase)?;
            }
            Request::Cart { product, size } => {
                self.service.cart(&self.store, product, size)?;
            }
            Request::Checkout { product, size } => self.change(Change::Sale { product, size })?,
            Request::Reprice { product, cents } => self.change(Change::Price { product, cents })?,
        }
        self.tally.all.record(begin.elapsed().as_nanos() as u64)?;
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<()> {
        let committed = self.service.change(change)?;
        self.acknowledged.raise(&committed);
        self.tally.changes += 1;
        Ok(())
    }
}

/// What a thread has measured and seen.
struct Tally {
    /// Nanoseconds of every request.
    all: Histogram<u64>,
    /// Nanoseconds of the product pages alone.
    pages: Histogram<u64>,
    checked: u64,
    stale: u64,
    changes: u64,
    queries: u64,
}

impl Tally {
    fn new() -> Result<Tally> {
        let [all, pages] = [Histogram::new(3)?, Histogram::new(3)?];
        Ok(Tally { all, pages, checked: 0, stale: 0, changes: 0, queries: 0 })
    }

    fn check(&mut self, version: u64, oldest_allowed: u64) {
        self.checked += 1;
        self.stale += u64::from(version < oldest_allowed);
    }

    fn add(&mut self, other: &Tally) -> Result<()> {
        self.all.add(&other.all)?;
        self.pages.add(&other.pages)?;
        self.checked += other.checked;
        self.stale += other.stale;
        self.changes += other.changes;
        self.queries += other.queries;
        Ok(())
    }

    fn report(&self, took: Duration, ready: Duration, service: &Service) -> Report {
        Report {
            took,
            ready,
            all: Latency::of(&self.all),
            pages: Latency::of(&self.pages),
            queries: self.queries + service.queries(),
            changes: self.changes,
            checked: self.checked,
            stale: self.stale,
            lookups: service.caches().map(Caches::lookups),
            start: service.caches().map(|caches| format!("{:?}", caches.recovery().start)),
            recovered: service.caches().map_or(0, |caches| caches.recovery().entries),
            survivors: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_below_what_was_acknowledged_is_counted_as_stale() {
        let mut tally = Tally::new().unwrap();
        tally.check(3, 3);
        tally.check(4, 3);
        assert_eq!((tally.checked, tally.stale), (2, 0));
        tally.check(2, 3);
        assert_eq!((tally.checked, tally.stale), (3, 1));
    }

    #[test]
    fn without_a_cache_no_page_is_stale_while_prices_change() {
        let dir = tempfile::tempdir().unwrap();
        let database = catalog::tests::small(&dir);
        let plan = Plan {
            database,
            cache: None,
            products: 2_000,
            threads: 1,
            measured: Duration::from_millis(300),
            seed: 1,
            invalidates: true,
            until_killed: false,
        };
        let store = Store::open(&plan.database).unwrap();
        let acknowledged = Acknowledged::load(&store, plan.products).unwrap();
        let service = Service::open(&plan.database, None, true).unwrap();
        let popularity = Popularity::new(plan.products);
        let client = Client::open(&plan, &service, &acknowledged).unwrap();
        let mut tally = None;
        let traffic = Traffic::new(&popularity, plan.seed);
        client.run(traffic, Instant::now() + plan.measured, |measured| tally = Some(measured)).unwrap();
        let tally = tally.unwrap();
        assert!(tally.changes > 0 && tally.checked > 0, "nothing was tested");
        assert_eq!(tally.stale, 0);
    }
}

//! What a child process does with a cache until it is killed, and what its parent makes of the reports:
//! four writers and two readers, and a judge who knows nothing but what was acknowledged.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use super::{
    Error, Random, TestCache,
    child::{Kind, Report, Reporter},
    oracle::Oracle,
    value::{self, value},
};

/// Each key has one writer, so the order of what happened to it is the order of the reports.
const KEYS: u64 = 512;
const WRITERS: u64 = 4;
const READERS: u64 = 2;

/// The child's life: writers and readers, over one opening of the cache or several.
pub(crate) struct Life<'a> {
    reporter: &'a Reporter,
    number: u64,
    /// The version of each key below which it is stale to this life's readers.
    floors: Vec<AtomicU64>,
    /// Operations of the writer that has done most so far, so that no two have one version.
    done: u64,
    ending: Arc<AtomicBool>,
}

impl<'a> Life<'a> {
    pub(crate) fn new(reporter: &'a Reporter, number: u64) -> Life<'a> {
        let floors = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        Life { reporter, number, floors, done: 0, ending: Arc::default() }
    }

    /// While this is true, everybody stops.
    pub(crate) fn ending(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ending)
    }

    /// Uses the cache until each writer has done so many operations, or it is to end.
    pub(crate) fn go_on(&mut self, cache: &TestCache, operations: u64) {
        let (life, writing, done) = (&*self, AtomicU64::new(WRITERS), AtomicU64::new(self.done));
        thread::scope(|scope| {
            for number in 0..WRITERS {
                let (writing, done) = (&writing, &done);
                scope.spawn(move || {
                    done.fetch_max(Writer { cache, life, number }.run(operations), SeqCst);
                    writing.fetch_sub(1, SeqCst);
                });
            }
            for number in 0..READERS {
                let mut random = Random::new(life.number << 8 | number);
                let writing = &writing;
                scope.spawn(move || {
                    while writing.load(SeqCst) > 0 {
                        life.read(cache, random.below(KEYS));
                    }
                });
            }
        });
        self.done = done.into_inner();
    }

    /// Closes the cache, which owes as much as a flush does.
    pub(crate) fn close(&self, cache: &TestCache) {
        self.safely(cache, WRITERS, || cache.close());
    }

    /// Reports what makes everything safe that came before; flushes are told apart by who flushes, in the
    /// place of the key. The cache's thread does it, and nobody once that has panicked.
    fn safely(&self, cache: &TestCache, who: u64, flush: impl FnOnce() -> Result<(), Error>) {
        self.reporter.report(Kind::FlushStarted, who, 0);
        match flush() {
            Err(Error::Closed) => return,
            flushed => flushed.unwrap(),
        }
        self.reporter.report(Kind::FlushAcked, who, 0);
        if cache.stats().reclaimed > 0 {
            self.reporter.report(Kind::Reclaimed, 0, 0);
        }
    }

    fn read(&self, cache: &TestCache, key: u64) {
        let floor = self.floors[key as usize].load(SeqCst);
        if let Some(found) = cache.get(&key) {
            match value::parse(key, &found) {
                Ok(version) if version >= floor => {}
                Ok(version) => self.reporter.report(Kind::Lied, key, version),
                Err(_) => self.reporter.report(Kind::Lied, key, u64::MAX),
            }
        }
    }
}

struct Writer<'a> {
    cache: &'a TestCache,
    life: &'a Life<'a>,
    number: u64,
}

impl Writer<'_> {
    /// The number of its last operation.
    fn run(&self, operations: u64) -> u64 {
        let life = self.life;
        let mut random = Random::new(life.number << 8 | 0x80 | self.number | life.done << 40);
        let last = life.done.saturating_add(operations);
        for count in life.done + 1..=last {
            if life.ending.load(SeqCst) {
                return count - 1;
            }
            let key = random.below(KEYS / WRITERS) * WRITERS + self.number;
            let version = life.number << 32 | count << 2 | self.number;
            match random.below(20_000) {
                0..14_000 => self.insert(key, version, [24, 64, 400, 2_000][random.below(4) as usize]),
                14_000..19_800 => self.remove(key, version),
                19_800..19_998 => life.safely(self.cache, self.number, || self.cache.flush()),
                _ => self.clear(),
            }
        }
        last
    }

    fn insert(&self, key: u64, version: u64, len: usize) {
        let reporter = self.life.reporter;
        reporter.report(Kind::InsertStarted, key, version);
        self.cache.insert(key, value(key, version, len)).unwrap();
        self.life.floors[key as usize].store(version, SeqCst);
        reporter.report(Kind::InsertAcked, key, version);
    }

    fn remove(&self, key: u64, version: u64) {
        let reporter = self.life.reporter;
        reporter.report(Kind::RemoveStarted, key, version);
        self.cache.remove(&key).unwrap();
        self.life.floors[key as usize].store(version, SeqCst);
        reporter.report(Kind::RemoveAcked, key, version);
    }

    /// Clears are told apart by their writer, too, and done by the cache's thread.
    fn clear(&self) {
        let reporter = self.life.reporter;
        reporter.report(Kind::ClearStarted, self.number, 0);
        match self.cache.clear() {
            Err(Error::Closed) => return,
            cleared => cleared.unwrap(),
        }
        reporter.report(Kind::ClearAcked, self.number, 0);
    }
}

/// What the parent knows from the reports, over all lives of a directory.
pub(crate) struct Judge {
    oracle: Oracle,
    /// What each key must hold or may hold, as far as it has not been flushed.
    last: HashMap<u64, Last>,
    /// Keys and versions that a flush has made safe.
    owed: HashMap<u64, u64>,
    /// The keys that each running flush will make safe.
    flushing: HashMap<u64, HashMap<u64, u64>>,
    clears_running: u64,
    reclaimed: bool,
}

/// The last operation on a key that has begun.
#[derive(Clone, Copy)]
enum Last {
    Running,
    Inserted(u64),
}

impl Judge {
    pub(crate) fn new() -> Judge {
        Judge {
            oracle: Oracle::new(KEYS),
            last: HashMap::new(),
            owed: HashMap::new(),
            flushing: HashMap::new(),
            clears_running: 0,
            reclaimed: false,
        }
    }

    /// Takes in the reports of one life.
    pub(crate) fn hear(&mut self, reports: &[Report]) {
        let mut starts = HashMap::new();
        let mut inserts_running = HashSet::new();
        self.reclaimed = false;
        self.owed.clear();
        self.last.clear();
        for report in reports {
            let Report { kind, key, version, .. } = *report;
            match kind {
                Kind::InsertStarted | Kind::RemoveStarted => {
                    starts.insert((key, version), self.oracle.now());
                    self.touched(key);
                    if kind == Kind::InsertStarted {
                        inserts_running.insert((key, version));
                    }
                }
                Kind::InsertAcked => {
                    inserts_running.remove(&(key, version));
                    self.oracle.ended(key, version);
                    self.oracle.invalidated(key, starts[&(key, version)]);
                    if matches!(self.last.get(&key), Some(Last::Running)) {
                        self.last.insert(key, Last::Inserted(version));
                    }
                }
                Kind::RemoveAcked => self.oracle.invalidated(key, starts[&(key, version)]),
                Kind::ClearStarted => {
                    starts.insert((u64::MAX, key), self.oracle.now());
                    self.clears_running += 1;
                    self.last.clear();
                    self.owed.clear();
                    self.flushing.values_mut().for_each(HashMap::clear);
                }
                Kind::ClearAcked => {
                    self.oracle.cleared(starts[&(u64::MAX, key)]);
                    self.clears_running -= 1;
                }
                Kind::FlushStarted => _ = self.flushing.insert(key, self.inserted()),
                Kind::FlushAcked => self.owed.extend(self.flushing.remove(&key).unwrap_or_default()),
                Kind::Reclaimed => self.reclaimed = true,
                Kind::Lied => panic!("a reader saw version {version:x} of key {key}, stale or corrupt"),
                Kind::Alive | Kind::Done | Kind::AtPoint => {}
            }
        }
        // What was still going on can have happened until now, but no later.
        inserts_running.into_iter().for_each(|(key, version)| self.oracle.ended(key, version));
        self.flushing.clear();
        self.clears_running = 0;
    }

    /// An operation on the key has begun, so nothing is owed of it any more.
    fn touched(&mut self, key: u64) {
        // An insert that overlaps a clear may have come before it, whichever is acknowledged first.
        if self.clears_running == 0 {
            self.last.insert(key, Last::Running);
        } else {
            self.last.remove(&key);
        }
        self.owed.remove(&key);
        self.flushing.values_mut().for_each(|flushing| _ = flushing.remove(&key));
    }

    fn inserted(&self) -> HashMap<u64, u64> {
        let inserted = |(key, last): (&u64, &Last)| match last {
            Last::Inserted(version) => Some((*key, *version)),
            Last::Running => None,
        };
        self.last.iter().filter_map(inserted).collect()
    }

    /// Reads every key: none stale, none corrupt. How many were there.
    pub(crate) fn see(&self, cache: &TestCache) -> u64 {
        let mut found = 0;
        for key in 0..KEYS {
            let floor = self.oracle.floor(key);
            if let Some(bytes) = cache.get(&key) {
                let version = value::version(key, &bytes);
                assert!(
                    !self.oracle.is_stale(key, version, floor),
                    "stale: version {version:x} of key {key}"
                );
                found += 1;
            }
        }
        found
    }

    /// Everything flushed is back. How many entries that is.
    pub(crate) fn settle(&self, cache: &TestCache, life: u64) -> u64 {
        let stats = cache.stats();
        if self.reclaimed || stats.reclaimed > 0 {
            return 0;
        }
        for (key, version) in &self.owed {
            let found = cache.get(key).map(|bytes| value::version(*key, &bytes));
            assert_eq!(found, Some(*version), "life {life}: key {key} was flushed and is lost: {stats:?}");
        }
        if !self.owed.is_empty() {
            assert!(stats.recovery.start.is_warm(), "life {life}: {:?}", stats.recovery);
        }
        self.owed.len() as u64
    }
}

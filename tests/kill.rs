//! Processes that end at random moments, mostly by SIGKILL, and what comes back afterwards, judged by the
//! parent from the acknowledgements that it saw.
//!
//! A child process with four writers and two readers uses one directory and is killed within 300 ms;
//! the parent opens the directory, reads every key, closes it and starts the next child on it. Others
//! run out of memory, abort in the middle of a write, or lose the thread that writes.
//! `EMBERCACHE_SOAK` (a factor) makes it more than the 200 kills of the short run.

mod common;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use common::{
    Random, TempDir, TestCache, cases, child,
    child::{Kind, Report, Reporter, Role, Spawned},
    fault_disk, figure, from_env,
    machine::Group,
    oracle::Oracle,
    roomy, tiny,
    value::{self, value},
};
use embercache::{Builder, Error, Start, WriteBehind};

/// Each key has one writer, so the order of what happened to it is the order of the reports.
const KEYS: u64 = 512;
const WRITERS: u64 = 4;
const READERS: u64 = 2;
/// Keys that are written once a life and then only read.
const HOT_KEYS: u64 = 64;
const WRITE_BEHIND: Duration = Duration::from_millis(50);
/// How long a child may take to its end.
const LIFE_MAX: Duration = Duration::from_secs(20);
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
/// What a sweep, a busy machine and the write itself may take beyond `write_behind`.
const WRITE_BEHIND_SLACK: Duration = Duration::from_millis(200);

/// The way into a child process; in a normal run it does nothing.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let reporter = role.reporter();
    match role.name.as_str() {
        "roomy" => use_until_killed(&roomy_regime(&role.dir).open().unwrap(), &reporter, role.seed),
        "tiny" => use_until_killed(&tiny_regime(&role.dir).open().unwrap(), &reporter, role.seed),
        "hot" => keep_hot_until_killed(&hot_regime(&role.dir).open().unwrap(), &reporter, role.seed),
        "hungry" => use_until_out_of_memory(&role, &reporter),
        "aborting" => use_until_interrupted(&role, &reporter, abort_the_writer),
        "panicking" => use_until_interrupted(&role, &reporter, panic_the_writer),
        other => panic!("no such child: {other}"),
    }
}

/// Nothing is reclaimed, so beside nothing stale, everything flushed must be back.
#[test]
fn flushed_entries_survive() {
    let kills = cases(80);
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 2));
    let mut owed = 0;
    let mut life = 0;
    while life < kills {
        // A directory is used until its log is half full.
        let dir = TempDir::new();
        let mut judge = Judge::new();
        let mut used_bytes = 0;
        while life < kills && used_bytes < 128 << 20 {
            judge.hear(&one_life("roomy", &dir, &mut random, life));
            let cache = roomy_regime(&dir.cache()).open().unwrap();
            judge.see(&cache);
            owed += judge.settle(&cache, life);
            used_bytes = cache.disk_bytes();
            finish(cache, &mut random);
            life += 1;
        }
    }
    figure(1, &format!("{kills} kills, {owed} flushed entries owed and back, 0 stale, 0 corrupt"));
    assert!(owed > kills * 20, "only {owed} entries were owed after {kills} kills: nothing was tested");
}

/// A megabyte of disk, reclaimed all the time: entries are forgotten, but none is stale.
#[test]
fn reclaim_brings_nothing_back() {
    let kills = cases(80);
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 3));
    let dir = TempDir::new();
    let mut judge = Judge::new();
    let (mut found, mut reclaimed) = (0, false);
    for life in 0..kills {
        judge.hear(&one_life("tiny", &dir, &mut random, life));
        let cache = tiny_regime(&dir.cache()).open().unwrap();
        found += judge.see(&cache);
        cache.check();
        reclaimed |= judge.reclaimed;
        finish(cache, &mut random);
    }
    figure(1, &format!("{kills} kills under reclaim, {found} entries back, 0 stale, 0 corrupt"));
    assert!(found > kills * 20, "only {found} entries came back after {kills} kills: nothing was tested");
    assert!(reclaimed, "nothing was reclaimed: nothing was tested");
}

/// What never leaves RAM would be lost exactly because it is the hottest; write-behind saves it.
#[test]
fn the_hot_set_survives() {
    let kills = cases(40);
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 4));
    let mut owed = 0;
    for life in 0..kills {
        let dir = TempDir::new();
        let child = Spawned::start("child", "hot", &dir.cache(), life);
        thread::sleep(Duration::from_millis(200 + random.below(400)));
        let reports = child.kill();
        let cache = hot_regime(&dir.cache()).open().unwrap();
        owed += check_hot_set(&cache, &reports);
    }
    figure(1, &format!("{kills} kills of a hot set, {owed} entries owed by write-behind and back"));
    assert!(owed > kills * 10, "only {owed} entries were old enough after {kills} kills: nothing was tested");
}

/// Line 13: the kernel kills what takes too much memory.
#[test]
fn out_of_memory() {
    let Some(group) = Group::of_memory(64 << 20) else { return };
    ends_by(13, "ends by the kernel, for want of memory", cases(10), |dir, life| {
        let (signal, reports) = group.start("hungry", &dir.cache(), life)?.died(LIFE_MAX);
        assert_eq!(signal, Some(SIGKILL));
        Some(reports)
    });
}

/// Line 13: the process aborts halfway through a write of records.
#[test]
fn an_abort_in_the_thread_that_writes() {
    ends_by(13, "aborts in the middle of a write", cases(10), |dir, life| {
        let (signal, reports) = Spawned::start("child", "aborting", &dir.cache(), life).died(LIFE_MAX);
        assert_eq!(signal, Some(SIGABRT));
        Some(reports)
    });
}

/// Line 13: the thread panics halfway through a write of records, the others go on, and the cache closes.
#[test]
fn a_panic_in_the_thread_that_writes() {
    let mut slowest_ms = 0;
    ends_by(13, "panics in the middle of a write", cases(10), |dir, life| {
        let child = Spawned::start("child", "panicking", &dir.cache(), life);
        child.wait_done(LIFE_MAX);
        let mut reports = child.kill();
        reports.retain(|report| {
            if report.kind == Kind::Alive {
                slowest_ms = slowest_ms.max(report.key);
            }
            report.kind != Kind::Alive
        });
        Some(reports)
    });
    figure(13, &format!("closed within {slowest_ms} ms of being asked to"));
    assert!(slowest_ms < 5_000, "{slowest_ms} ms to close");
}

/// And then, in the same process: what is closed is closed, and another handle may have the directory.
#[test]
fn a_cache_whose_thread_has_panicked_is_closed_like_any_other() {
    let dir = TempDir::new();
    let disk = fault_disk();
    let cache = roomy_regime(&dir.cache()).io(disk.clone()).open().unwrap();
    (0..500).for_each(|key| cache.insert(key, value(key, 1, 100)).unwrap());
    cache.flush().unwrap();
    disk.interrupt_writes(panic_the_writer);
    cache.insert(0, value(0, 2, 100)).unwrap();
    assert!(matches!(cache.flush(), Err(Error::Closed)));
    cache.insert(1, value(1, 2, 100)).unwrap();
    assert!(cache.get(&1).is_some_and(|found| value::version(1, &found) == 2));
    assert!(matches!(cache.close(), Err(Error::Closed)));
    assert!(matches!(cache.insert(2, value(2, 2, 100)), Err(Error::Closed)) && cache.get(&3).is_none());
    let again = roomy_regime(&dir.cache()).open().unwrap();
    for key in 0..500 {
        let found = again.get(&key).map(|found| value::version(key, &found));
        assert_eq!(found, (key > 1).then_some(1), "key {key}");
    }
}

/// Lets children use one directory after the other until each ends in its way. Everything flushed must be
/// back. `None` if the machine has no such end.
fn ends_by(line: u32, how: &str, ends: u64, mut one_life: impl FnMut(&TempDir, u64) -> Option<Vec<Report>>) {
    let mut owed = 0;
    let mut life = 0;
    while life < ends {
        // A directory sees a few ends, so that what one has left is also met by the next.
        let dir = TempDir::new();
        let mut judge = Judge::new();
        for _ in 0..5.min(ends - life) {
            let Some(reports) = one_life(&dir, life) else { return };
            judge.hear(&reports);
            let cache = roomy_regime(&dir.cache()).open().unwrap();
            judge.see(&cache);
            owed += judge.settle(&cache, life);
            cache.close().unwrap();
            life += 1;
        }
    }
    figure(line, &format!("{ends} {how}, {owed} flushed entries owed and back, 0 stale, 0 corrupt"));
    assert!(owed > ends * 10, "only {owed} entries were owed after {ends} ends: nothing was tested");
}

fn roomy_regime(dir: &Path) -> Builder<u64, Vec<u8>> {
    roomy(dir).ram_entries(128)
}

fn tiny_regime(dir: &Path) -> Builder<u64, Vec<u8>> {
    tiny(dir).write_behind(WriteBehind::After(Duration::from_millis(10)))
}

fn hot_regime(dir: &Path) -> Builder<u64, Vec<u8>> {
    roomy(dir).ram_entries(1024).write_behind(WriteBehind::After(WRITE_BEHIND))
}

fn one_life(role: &str, dir: &TempDir, random: &mut Random, life: u64) -> Vec<Report> {
    let child = Spawned::start("child", role, &dir.cache(), life);
    thread::sleep(Duration::from_millis(random.below(300)));
    child.kill()
}

/// Ends the parent's own use: mostly as a program would; now and then by a drop.
fn finish(cache: TestCache, random: &mut Random) {
    if random.below(4) > 0 {
        cache.close().unwrap();
    }
}

/// The child: four writers and two readers, until the end.
fn use_until_killed(cache: &TestCache, reporter: &Reporter, life: u64) {
    use_until(cache, reporter, life, &AtomicBool::new(false));
}

fn use_until(cache: &TestCache, reporter: &Reporter, life: u64, stop: &AtomicBool) {
    let floors: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let floors = &floors;
            scope.spawn(move || Writer { cache, reporter, floors, writer, life, stop }.run());
        }
        for reader in 0..READERS {
            let (floors, random) = (&floors, Random::new(life << 8 | reader));
            scope.spawn(move || read_until(cache, reporter, floors, random, stop));
        }
    });
}

/// Takes all the memory there is, after a while.
fn use_until_out_of_memory(role: &Role, reporter: &Reporter) {
    let cache = roomy_regime(&role.dir).open().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| use_until_killed(&cache, reporter, role.seed));
        thread::sleep(Duration::from_millis(50 + role.seed * 37 % 200));
        let mut taken = Vec::new();
        loop {
            taken.push(vec![1_u8; 1 << 20]);
        }
    });
}

/// After a while, something happens in the middle of the next write of records. If the process lives on, it
/// uses the cache a little more and closes it.
fn use_until_interrupted(role: &Role, reporter: &Reporter, by: fn()) {
    let disk = fault_disk();
    let cache = roomy_regime(&role.dir).io(disk.clone()).open().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| use_until(&cache, reporter, role.seed, &stop));
        thread::sleep(Duration::from_millis(50 + role.seed * 37 % 200));
        disk.interrupt_writes(by);
        thread::sleep(Duration::from_millis(200));
        stop.store(true, SeqCst);
    });
    let begun = Instant::now();
    let closed = cache.close();
    reporter.report(Kind::Alive, begun.elapsed().as_millis() as u64, 0);
    assert!(matches!(closed, Err(Error::Closed)), "the thread that writes lives: {closed:?}");
    reporter.await_kill()
}

fn abort_the_writer() {
    if is_the_writer() {
        std::process::abort();
    }
}

fn panic_the_writer() {
    assert!(!is_the_writer(), "this panic is part of the test");
}

/// Whether this is the cache's own thread; others write to the journal.
fn is_the_writer() -> bool {
    thread::current().name() == Some("embercache")
}

struct Writer<'a> {
    cache: &'a TestCache,
    reporter: &'a Reporter,
    /// The version of each key below which it is stale to this life's readers.
    floors: &'a [AtomicU64],
    writer: u64,
    life: u64,
    stop: &'a AtomicBool,
}

impl Writer<'_> {
    fn run(&self) {
        let mut random = Random::new(self.life << 8 | 0x80 | self.writer);
        for count in (1..).take_while(|_| !self.stop.load(SeqCst)) {
            let key = random.below(KEYS / WRITERS) * WRITERS + self.writer;
            let version = self.life << 32 | count << 2 | self.writer;
            match random.below(20_000) {
                0..14_000 => self.insert(key, version, [24, 64, 400, 2_000][random.below(4) as usize]),
                14_000..19_800 => self.remove(key, version),
                19_800..19_998 => self.flush(),
                _ => self.clear(),
            }
        }
    }

    fn insert(&self, key: u64, version: u64, len: usize) {
        self.reporter.report(Kind::InsertStarted, key, version);
        self.cache.insert(key, value(key, version, len)).unwrap();
        self.floors[key as usize].store(version, SeqCst);
        self.reporter.report(Kind::InsertAcked, key, version);
    }

    fn remove(&self, key: u64, version: u64) {
        self.reporter.report(Kind::RemoveStarted, key, version);
        self.cache.remove(&key).unwrap();
        self.floors[key as usize].store(version, SeqCst);
        self.reporter.report(Kind::RemoveAcked, key, version);
    }

    /// Flushes and clears are told apart by their writer, in the place of the key. Both are done by the cache's
    /// thread, and refused once that has panicked.
    fn flush(&self) {
        self.reporter.report(Kind::FlushStarted, self.writer, 0);
        match self.cache.flush() {
            Err(Error::Closed) => return,
            flushed => flushed.unwrap(),
        }
        self.reporter.report(Kind::FlushAcked, self.writer, 0);
        if self.cache.stats().reclaimed > 0 {
            self.reporter.report(Kind::Reclaimed, 0, 0);
        }
    }

    fn clear(&self) {
        self.reporter.report(Kind::ClearStarted, self.writer, 0);
        match self.cache.clear() {
            Err(Error::Closed) => return,
            cleared => cleared.unwrap(),
        }
        self.reporter.report(Kind::ClearAcked, self.writer, 0);
    }
}

fn read_until(
    cache: &TestCache,
    reporter: &Reporter,
    floors: &[AtomicU64],
    mut random: Random,
    stop: &AtomicBool,
) {
    while !stop.load(SeqCst) {
        let key = random.below(KEYS);
        let floor = floors[key as usize].load(SeqCst);
        if let Some(found) = cache.get(&key) {
            match value::parse(key, &found) {
                Ok(version) if version >= floor => {}
                Ok(version) => reporter.report(Kind::Lied, key, version),
                Err(_) => reporter.report(Kind::Lied, key, u64::MAX),
            }
        }
    }
}

/// The child of the hot set: writes it once and hits it again and again, with cold keys going by.
fn keep_hot_until_killed(cache: &TestCache, reporter: &Reporter, life: u64) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(life);
            while !stop.load(SeqCst) {
                cache.get(&random.below(HOT_KEYS));
            }
        });
        for key in 0..HOT_KEYS {
            cache.insert(key, value(key, key, 500)).unwrap();
            reporter.report(Kind::InsertAcked, key, key);
        }
        loop {
            reporter.report(Kind::Alive, 0, 0);
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// How many hot entries were old enough to be back. All of them must be.
fn check_hot_set(cache: &TestCache, reports: &[Report]) -> u64 {
    let Some(killed_us) = reports.iter().map(|report| report.at_us).max() else { return 0 };
    let age_us = (WRITE_BEHIND + WRITE_BEHIND_SLACK).as_micros() as u64;
    let mut owed = 0;
    for written in reports.iter().filter(|r| r.kind == Kind::InsertAcked && r.at_us + age_us < killed_us) {
        let found = cache.get(&written.key);
        assert!(
            found.is_some_and(|found| value::version(written.key, &found) == written.version),
            "hot key {} was written {} us before the kill and is lost: {:?}",
            written.key,
            killed_us - written.at_us,
            cache.stats(),
        );
        owed += 1;
    }
    owed
}

/// What the parent knows from the reports, over all lives of a directory.
struct Judge {
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
    fn new() -> Judge {
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
    fn hear(&mut self, reports: &[Report]) {
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
                Kind::Alive | Kind::Done => {}
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
    fn see(&self, cache: &TestCache) -> u64 {
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
    fn settle(&self, cache: &TestCache, life: u64) -> u64 {
        let stats = cache.stats();
        if self.reclaimed || stats.reclaimed > 0 {
            return 0;
        }
        for (key, version) in &self.owed {
            let found = cache.get(key).map(|bytes| value::version(*key, &bytes));
            assert_eq!(found, Some(*version), "life {life}: key {key} was flushed and is lost: {stats:?}");
        }
        if !self.owed.is_empty() {
            assert_eq!(stats.recovery.start, Start::Recovered, "life {life}: {:?}", stats.recovery);
        }
        self.owed.len() as u64
    }
}

/// The slowest life is still a short one: a child that hangs at its start is found here.
#[test]
fn a_child_starts_quickly() {
    let dir = TempDir::new();
    let start = Instant::now();
    let child = Spawned::start("child", "tiny", &dir.cache(), 0);
    while start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(250));
        if dir.cache().exists() {
            break;
        }
    }
    assert!(!child.kill().is_empty(), "the child did nothing");
}

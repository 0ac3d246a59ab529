//! Processes that end at random moments, mostly by SIGKILL, and what comes back afterwards, judged by the
//! parent from the acknowledgements that it saw.
//!
//! A child process with four writers and two readers uses one directory and is killed within 300 ms;
//! the parent opens the directory, reads every key, closes it and starts the next child on it. Others
//! run out of memory, abort in the middle of a write, or lose the thread that writes.
//! `EMBERCACHE_SOAK` (a factor) makes it more than the 200 kills of the short run.

use std::{
    path::Path,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    Random, TempDir, TestCache, cases, child,
    child::{Kind, Report, Reporter, Role, Spawned},
    fault_disk, figure, from_env,
    lives::{Judge, Life},
    machine::Group,
    roomy, tiny,
    value::{self, value},
};
use embercache::{
    Builder, Error, WriteBehind,
    testing::{FaultDisk, Operation, Side},
};

/// Keys that are written once a life and then only read.
const HOT_KEYS: u64 = 64;
const WRITE_BEHIND: Duration = Duration::from_millis(50);
/// How long a child may take to its end.
const LIFE_MAX: Duration = Duration::from_secs(20);
/// What each of the four writers still does once the cache's own thread is gone, of 512 keys.
const OPERATIONS_AFTER: u64 = 20;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
/// What a sweep, a busy machine and the write itself may take beyond `write_behind`.
const WRITE_BEHIND_SLACK: Duration = Duration::from_millis(200);

/// Where the test below is.
const CHILD: &str = concat!(module_path!(), "::child");

/// The way into a child process; in a normal run it does nothing.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let reporter = role.reporter();
    match role.name.as_str() {
        "roomy" => Life::new(&reporter, role.seed).go_on(&roomy_regime(&role.dir).open().unwrap(), u64::MAX),
        "tiny" => Life::new(&reporter, role.seed).go_on(&tiny_regime(&role.dir).open().unwrap(), u64::MAX),
        "hot" => keep_hot_until_killed(&hot_regime(&role.dir).open().unwrap(), &reporter, role.seed),
        "hungry" => use_until_out_of_memory(&role, &reporter),
        "aborting" => use_until_interrupted(&role, &reporter, || process::abort()),
        "panicking" => use_until_interrupted(&role, &reporter, panic_on_purpose),
        other => panic!("no such child: {other}"),
    }
}

/// Line 1: nothing is reclaimed, so beside nothing stale, everything flushed must be back.
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

/// Line 1: a megabyte of disk, reclaimed all the time: entries are forgotten, but none is stale.
#[test]
fn reclaim_brings_nothing_back() {
    let kills = cases(80);
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 3));
    let dir = TempDir::new();
    let mut judge = Judge::new();
    let mut found = 0;
    for life in 0..kills {
        judge.hear(&one_life("tiny", &dir, &mut random, life));
        let cache = tiny_regime(&dir.cache()).open().unwrap();
        found += judge.see(&cache);
        cache.check();
        finish(cache, &mut random);
    }
    figure(1, &format!("{kills} kills under reclaim, {found} entries back, 0 stale, 0 corrupt"));
    assert!(found > kills * 20, "only {found} entries came back after {kills} kills: nothing was tested");
    assert!(!dir.cache().join("seg-00000000.log").exists(), "nothing was reclaimed: nothing was tested");
}

/// Line 1: what never leaves RAM would be lost exactly because it is the hottest; write-behind saves it.
#[test]
fn the_hot_set_survives() {
    let kills = cases(40);
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 4));
    let mut owed = 0;
    for life in 0..kills {
        let dir = TempDir::new();
        let child = Spawned::start(CHILD, "hot", &dir.cache(), life);
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
        let (signal, reports) = group.start(CHILD, "hungry", &dir.cache(), life)?.died(LIFE_MAX);
        assert_eq!(signal, Some(SIGKILL));
        Some(reports)
    });
}

/// Line 13: the process aborts halfway through a write of records.
#[test]
fn an_abort_in_the_thread_that_writes() {
    ends_by(13, "aborts in the middle of a write", cases(10), |dir, life| {
        let (signal, reports) = Spawned::start(CHILD, "aborting", &dir.cache(), life).died(LIFE_MAX);
        assert_eq!(signal, Some(SIGABRT));
        Some(reports)
    });
}

/// Line 13: the thread panics halfway through a write of records, the others go on, and the cache closes.
#[test]
fn a_panic_in_the_thread_that_writes() {
    let mut slowest_ms = 0;
    ends_by(13, "panics in the middle of a write", cases(10), |dir, life| {
        let child = Spawned::start(CHILD, "panicking", &dir.cache(), life);
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
    interrupt_the_writer(&disk, Side::Before, panic_on_purpose);
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
    let child = Spawned::start(CHILD, role, &dir.cache(), life);
    thread::sleep(Duration::from_millis(random.below(300)));
    child.kill()
}

/// Ends the parent's own use: mostly as a program would; now and then by a drop.
fn finish(cache: TestCache, random: &mut Random) {
    if random.below(4) > 0 {
        cache.close().unwrap();
    }
}

/// Takes all the memory there is, after a while.
fn use_until_out_of_memory(role: &Role, reporter: &Reporter) {
    let cache = roomy_regime(&role.dir).open().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| Life::new(reporter, role.seed).go_on(&cache, u64::MAX));
        thread::sleep(Duration::from_millis(50 + role.seed * 37 % 200));
        let mut taken = Vec::new();
        loop {
            taken.push(vec![1_u8; 1 << 20]);
        }
    });
}

/// After a while, something happens in the middle of the next write of records. If the process lives on, it
/// uses the cache a little more and closes it: so little that most of what was flushed is still owed.
fn use_until_interrupted(role: &Role, reporter: &Reporter, by: fn()) {
    let disk = fault_disk();
    let cache = roomy_regime(&role.dir).io(disk.clone()).open().unwrap();
    let mut life = Life::new(reporter, role.seed);
    let ending = life.ending();
    thread::scope(|scope| {
        scope.spawn(|| life.go_on(&cache, u64::MAX));
        thread::sleep(Duration::from_millis(50 + role.seed * 37 % 200));
        let ending = Arc::clone(&ending);
        interrupt_the_writer(&disk, Side::Halfway, move || {
            ending.store(true, SeqCst);
            by();
        });
    });
    ending.store(false, SeqCst);
    life.go_on(&cache, OPERATIONS_AFTER);
    let begun = Instant::now();
    let closed = cache.close();
    reporter.report(Kind::Alive, begun.elapsed().as_millis() as u64, 0);
    assert!(matches!(closed, Err(Error::Closed)), "the thread that writes lives: {closed:?}");
    reporter.await_kill()
}

/// From now on the cache's own thread does that at its writes; others write to the journal.
fn interrupt_the_writer(disk: &FaultDisk, at: Side, by: impl Fn() + Send + Sync + 'static) {
    disk.watch(move |moment| {
        let is_the_writer = thread::current().name() == Some("embercache");
        if is_the_writer && moment.operation == Operation::Write && moment.side == at {
            by();
        }
    });
}

fn panic_on_purpose() {
    panic!("this panic is part of the test");
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

/// The slowest life is still a short one: a child that hangs at its start is found here.
#[test]
fn a_child_starts_quickly() {
    let dir = TempDir::new();
    let start = Instant::now();
    let child = Spawned::start(CHILD, "tiny", &dir.cache(), 0);
    while start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(250));
        if dir.cache().exists() {
            break;
        }
    }
    assert!(!child.kill().is_empty(), "the child did nothing");
}

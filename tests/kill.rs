//! SIGKILL at random moments, and what comes back afterwards, judged by the parent from the
//! acknowledgements that it saw.
//!
//! A child process with four writers and two readers uses one directory and is killed within 300 ms;
//! the parent opens the directory, reads every key, closes it and starts the next child on it.
//! `EMBERCACHE_SOAK` (a factor) makes it more than the 200 kills of the short run.

mod common;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use common::{
    Random, TempDir, TestCache, cases, child,
    child::{Kind, Report, Reporter, Spawned},
    figure, from_env,
    lives::{Judge, Life},
    roomy, tiny,
    value::{self, value},
};
use embercache::{Builder, WriteBehind};

/// Keys that are written once a life and then only read.
const HOT_KEYS: u64 = 64;
const WRITE_BEHIND: Duration = Duration::from_millis(50);
/// What a sweep, a busy machine and the write itself may take beyond `write_behind`.
const WRITE_BEHIND_SLACK: Duration = Duration::from_millis(200);

/// The way into a child process; in a normal run it does nothing.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let reporter = role.reporter();
    match role.name.as_str() {
        "roomy" => Life::new(&reporter, role.seed).go_on(&roomy_regime(&role.dir).open().unwrap(), u64::MAX),
        "tiny" => Life::new(&reporter, role.seed).go_on(&tiny_regime(&role.dir).open().unwrap(), u64::MAX),
        "hot" => keep_hot_until_killed(&hot_regime(&role.dir).open().unwrap(), &reporter, role.seed),
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
    let child = Spawned::start("child", "tiny", &dir.cache(), 0);
    while start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(250));
        if dir.cache().exists() {
            break;
        }
    }
    assert!(!child.kill().is_empty(), "the child did nothing");
}

//! Line 56: a file system that cannot map.
//!
//! Each file is opened with direct I/O, so a shared map of it answers ENODEV. The cache was told nothing of
//! that, and has to read by system calls.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use common::{
    TempDir, TestCache, cases, child,
    child::{Kind, Reporter, Spawned},
    figure, roomy, skip, tiny,
    value::{self, value},
};
use embercache::{Durability, Error, ReadMode, Start};
use embercache_fuse::{Mount, Options};

const SECOND: Duration = Duration::from_secs(1);

/// The way into a child process; in a normal run it does nothing.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    assert_eq!(role.name, "write");
    write_until_killed(&tiny(&role.dir).open().unwrap(), &role.reporter());
}

/// Everything that a cache on a directory of its own does, of which the other suites have the details.
#[test]
fn a_file_system_that_cannot_map() {
    let Some(server) = Served::new() else { return };
    for durability in [Durability::ProcessCrash, Durability::PowerLoss] {
        served_from_disk(&server.0.path().join(format!("{durability:?}")), durability);
    }
    reclaims(&server.0.path().join("reclaims"));
    locks(&server.0.path().join("locks"));
    let kills = cases(5);
    let found: u64 = (0..kills).map(|kill| survives_a_kill(&server.0.path().join("killed"), kill)).sum();
    figure(
        56,
        &format!(
            "a file system without maps: entries come from disk, also after reclaim, reopen and {kills} kills, {found} back, 0 stale"
        ),
    );
    assert!(found > kills * 10, "only {found} entries came back: nothing was tested");
}

/// Written, read from disk, closed and read from disk again. Nothing is mapped.
fn served_from_disk(dir: &Path, durability: Durability) {
    let open = || roomy(dir).ram_entries(32).durability(durability).read_mode(ReadMode::Map).open().unwrap();
    let read_all = |cache: &TestCache| {
        for key in 0..4_000 {
            assert_eq!(value::version(key, &cache.get(&key).unwrap()), 1, "key {key}");
        }
        let stats = cache.stats();
        assert!(stats.disk_hits > 3_000 && stats.read_failures == 0, "{stats}");
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains(dir.to_str().unwrap()), "this file system can map: nothing was tested");
    };
    let cache = open();
    (0..4_000).for_each(|key| cache.insert(key, value(key, 1, 700)).unwrap());
    cache.flush().unwrap();
    read_all(&cache);
    cache.check();
    cache.close().unwrap();
    let cache = open();
    assert_eq!(cache.stats().recovery.start, Start::Clean);
    read_all(&cache);
    cache.remove(&7).unwrap();
    assert!(cache.get(&7).is_none());
    cache.clear().unwrap();
    assert!(cache.get(&8).is_none());
    cache.check();
}

/// A log that goes round several times, read as it goes.
fn reclaims(dir: &Path) {
    let cache = tiny(dir).open().unwrap();
    for key in 0..20_000 {
        cache.insert(key % 3_000, value(key % 3_000, key, 900)).unwrap();
        let read = key * 7 % 3_000;
        if let Some(found) = cache.get(&read) {
            let version = value::version(read, &found);
            assert!(version + 3_000 > key, "stale: version {version} of key {read} at {key}");
        }
    }
    let stats = cache.stats();
    assert!(stats.reclaimed > 10 && stats.disk_hits > 1_000, "{stats}");
    cache.check();
}

/// The lock of one handle keeps another out, and goes with it.
fn locks(dir: &Path) {
    let cache = tiny(dir).open().unwrap();
    assert!(matches!(tiny(dir).open(), Err(Error::Locked { .. })));
    drop(cache);
    tiny(dir).open().unwrap();
}

/// How many of the entries of a child that was killed were found.
fn survives_a_kill(dir: &Path, kill: u64) -> u64 {
    let child = Spawned::start("child", "write", dir, kill);
    std::thread::sleep(Duration::from_millis(300));
    let reports = child.kill();
    let start = Instant::now();
    let cache = tiny(dir).open().unwrap();
    assert!(start.elapsed() < 5 * SECOND);
    let acked =
        |key| reports.iter().rev().find(|report| report.kind == Kind::InsertAcked && report.key == key);
    let found = (0..500).filter(|&key| {
        let found = cache.get(&key).map(|found| value::version(key, &found));
        let floor = acked(key).map_or(0, |report| report.version);
        assert!(found.is_none_or(|version| version >= floor), "stale: {found:?} of key {key}, not {floor}");
        found.is_some()
    });
    let found = found.count() as u64;
    cache.close().unwrap();
    // The next child's versions begin again.
    fs::remove_dir_all(dir).unwrap();
    found
}

fn write_until_killed(cache: &TestCache, reporter: &Reporter) {
    for version in 1.. {
        let key = version % 500;
        cache.insert(key, value(key, version, 300)).unwrap();
        reporter.report(Kind::InsertAcked, key, version);
    }
}

/// A file system in a directory of its own.
struct Served(Mount, #[expect(dead_code, reason = "removed with the test")] TempDir);

impl Served {
    fn new() -> Option<Served> {
        let dir = TempDir::new();
        let at: PathBuf = dir.outer().join("fuse");
        fs::create_dir(&at).unwrap();
        match Mount::new(&at, Options { direct_io: true }) {
            Ok(mount) => Some(Served(mount, dir)),
            Err(error) => {
                skip("a FUSE file system", &error.to_string());
                None
            }
        }
    }
}

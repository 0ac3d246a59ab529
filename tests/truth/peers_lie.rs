//! Eleven situations in which caches of this kind were seen to return old values. This one does not.

use std::{
    io::ErrorKind,
    path::Path,
    sync::{Barrier, mpsc},
    thread,
    time::Duration,
};

use crate::common::{
    TempDir, TestCache, child,
    child::{Kind, Report, Spawned},
    contents, fault_disk, roomy, tiny,
    value::{LEN_MIN, value, version},
    wait_until,
};
use embercache::{Cache, Error, KIB, MIB, WriteBehind};

const LIMIT: Duration = Duration::from_secs(60);
/// Larger than a record of a 64 KiB segment may be, and far smaller than the RAM budget.
const TOO_LARGE_FOR_THE_LOG: usize = 20_000;

/// Where the test below is.
const CHILD: &str = concat!(module_path!(), "::child");

/// The way into a child process; in a normal run it does nothing.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    match role.name.as_str() {
        "change" => change_until_killed(&role),
        "reinsert" => reinsert_until_killed(&role),
        "second open" => assert!(matches!(tiny(&role.dir).open(), Err(Error::Locked { .. }))),
        other => panic!("no such child: {other}"),
    }
}

/// (1) A remove comes while the entry waits in the write queue; the write must not bring it back.
#[test]
fn remove_while_the_write_is_queued() {
    let dir = TempDir::new();
    let cache = tiny(&dir.cache()).write_behind(WriteBehind::Through).open().unwrap();
    for key in 0..2_000 {
        cache.insert(key, value(key, 1, 500)).unwrap();
        assert!(cache.remove(&key).unwrap(), "{key} was just inserted");
        assert_eq!(cache.get(&key), None, "{key} came back at once");
    }
    assert_all_gone(&cache, 0..2_000);
    cache.flush().unwrap();
    assert_all_gone(&cache, 0..2_000);
    cache.check();
    cache.close().unwrap();
    assert_all_gone(&tiny(&dir.cache()).open().unwrap(), 0..2_000);
}

/// (2) Overwrites faster than the queues of a cache with default options take them.
#[test]
fn a_burst_of_overwrites() {
    const KEYS: u64 = 3_500;
    let dir = TempDir::new();
    let open = || Cache::<u64, Vec<u8>>::builder(dir.cache()).ram(2 * MIB).disk(64 * MIB).open().unwrap();
    let cache = open();
    for round in 1..=4 {
        for key in 0..KEYS {
            cache.insert(key, value(key, round, 2_000)).unwrap();
        }
        for key in 0..KEYS {
            assert_is_or_misses(&cache, key, round);
        }
    }
    cache.close().unwrap();
    let cache = open();
    let back = assert_are_or_miss(&cache, 0..KEYS, 4);
    assert!(back > 0, "everything was lost: nothing was tested");
}

/// (3) All writes fail while values are overwritten; the disk heals; no old value may come back.
#[test]
fn writes_fail_during_overwrites() {
    for reopen_by_close in [true, false] {
        let (dir, disk) = (TempDir::new(), fault_disk());
        let cache = tiny(&dir.cache()).io(disk.clone()).open().unwrap();
        for key in 0..500 {
            cache.insert(key, value(key, 1, 300)).unwrap();
        }
        cache.flush().unwrap();
        disk.fail_writes(Some(ErrorKind::StorageFull));
        for key in 0..500 {
            // `NotDurable` says that the change holds in this process: that is checked as well.
            match cache.insert(key, value(key, 2, 300)) {
                Ok(()) | Err(Error::NotDurable { .. }) => {}
                Err(other) => panic!("an insert answers {other}"),
            }
            assert_is_or_misses(&cache, key, 2);
        }
        assert_are_or_miss(&cache, 0..500, 2);
        cache.check();
        if reopen_by_close {
            // It cannot be closed as it should; whether it says so is not this test's concern.
            let _ = cache.close();
        }
        drop(cache);
        disk.fail_writes(None);
        let cache = tiny(&dir.cache()).open().unwrap();
        assert_are_or_miss(&cache, 0..500, 2);
    }
}

/// 3, the other end: the disk heals while the cache is open, and what was kept back is still gone.
#[test]
fn writes_heal_after_overwrites() {
    let (dir, disk) = (TempDir::new(), fault_disk());
    let cache = tiny(&dir.cache()).io(disk.clone()).open().unwrap();
    (0..500).for_each(|key| cache.insert(key, value(key, 1, 300)).unwrap());
    cache.flush().unwrap();
    disk.fail_writes(Some(ErrorKind::StorageFull));
    // An error here is `NotDurable`, and the old value must be gone all the same.
    (0..500).for_each(|key| drop(cache.remove(&key)));
    assert_all_gone(&cache, 0..500);
    disk.fail_writes(None);
    for key in 500..1_000 {
        // The first of these may still meet the disk's back-off.
        let _ = cache.insert(key, value(key, 1, 300));
    }
    assert_all_gone(&cache, 0..500);
    cache.check();
    drop(cache);
    assert_all_gone(&tiny(&dir.cache()).open().unwrap(), 0..500);
}

/// (4) SIGKILL after ten thousand overwrites and ten thousand removes.
#[test]
fn sigkill_after_overwrites_and_removes() {
    let dir = TempDir::new();
    let child = Spawned::start(CHILD, "change", &dir.cache(), 0);
    child.wait_done(LIMIT);
    let acked = |kind, reports: &[Report]| reports.iter().filter(|report| report.kind == kind).count();
    let reports = child.kill();
    assert_eq!(acked(Kind::InsertAcked, &reports), 10_000);
    assert_eq!(acked(Kind::RemoveAcked, &reports), 10_000);
    for reopen in 0..2 {
        let cache = roomy(&dir.cache()).open().unwrap();
        let back = assert_are_or_miss(&cache, 0..10_000, 2);
        assert!(back > 0, "reopen {reopen}: everything was lost: nothing was tested");
        assert_all_gone(&cache, 10_000..20_000);
        cache.close().unwrap();
    }
}

fn change_until_killed(role: &child::Role) {
    let cache = roomy(&role.dir).open().unwrap();
    let reporter = role.reporter();
    (0..20_000).for_each(|key| cache.insert(key, value(key, 1, 100)).unwrap());
    cache.flush().unwrap();
    for key in 0..10_000 {
        cache.insert(key, value(key, 2, 100)).unwrap();
        reporter.report(Kind::InsertAcked, key, 2);
        cache.remove(&(10_000 + key)).unwrap();
        reporter.report(Kind::RemoveAcked, 10_000 + key, 2);
    }
    reporter.await_kill();
}

/// (5) Removes hold across a clean close, and across the one after that.
#[test]
fn removes_across_two_reopens() {
    let dir = TempDir::new();
    let cache = roomy(&dir.cache()).open().unwrap();
    (0..1_000).for_each(|key| cache.insert(key, value(key, 1, 300)).unwrap());
    cache.flush().unwrap();
    (0..1_000).step_by(2).for_each(|key| assert!(cache.remove(&key).unwrap()));
    cache.close().unwrap();
    for reopen in 1..=3 {
        let cache = roomy(&dir.cache()).open().unwrap();
        assert_all_gone(&cache, (0..1_000).step_by(2));
        let back = assert_are_or_miss(&cache, (1..1_000).step_by(2), 1);
        assert_eq!(back, 500, "reopen {reopen} lost some: {:?}", cache.stats());
        cache.close().unwrap();
    }
}

/// (6) Eight threads insert, the cache is closed: nothing is lost that fits.
#[test]
fn clean_reopen_after_eight_threads() {
    for close in [true, false] {
        let dir = TempDir::new();
        let cache = roomy(&dir.cache()).open().unwrap();
        thread::scope(|scope| {
            for thread in 0..8 {
                let cache = &cache;
                scope.spawn(move || {
                    for key in (thread..8_000).step_by(8) {
                        cache.insert(key, value(key, 7, LEN_MIN + key as usize % 900)).unwrap();
                    }
                });
            }
        });
        if close {
            cache.close().unwrap();
        }
        drop(cache);
        let cache = roomy(&dir.cache()).open().unwrap();
        let back = assert_are_or_miss(&cache, 0..8_000, 7);
        assert_eq!(back, 8_000, "after close {close}: {:?}", cache.stats());
    }
}

/// (7) Reclaim writes read entries again; one of them is then overwritten. The reinserted record is
/// younger than the first, older than the overwrite.
#[test]
fn reopen_after_reinsertion() {
    let dir = TempDir::new();
    let cache = tiny(&dir.cache()).open().unwrap();
    reinsert_and_overwrite(&cache);
    cache.close().unwrap();
    for _ in 0..2 {
        let cache = tiny(&dir.cache()).open().unwrap();
        assert_reinserted_are_current(&cache);
        cache.close().unwrap();
    }
}

/// 7, by SIGKILL.
#[test]
fn sigkill_after_reinsertion() {
    let dir = TempDir::new();
    let child = Spawned::start(CHILD, "reinsert", &dir.cache(), 0);
    child.wait_done(LIMIT);
    child.kill();
    for _ in 0..2 {
        assert_reinserted_are_current(&tiny(&dir.cache()).open().unwrap());
    }
}

const KEPT: u64 = 40;

fn reinsert_until_killed(role: &child::Role) {
    let cache = tiny(&role.dir).open().unwrap();
    reinsert_and_overwrite(&cache);
    role.reporter().await_kill();
}

/// Keys below [`KEPT`] are read from disk until reclaim has written some of them again; then a
/// third is overwritten, a third removed.
fn reinsert_and_overwrite(cache: &TestCache) {
    (0..KEPT).for_each(|key| cache.insert(key, value(key, 1, 500)).unwrap());
    let mut filler = KEPT;
    wait_until("some entries are reinserted", LIMIT, || {
        for _ in 0..200 {
            cache.insert(filler, value(filler, 1, 1_000)).unwrap();
            filler += 1;
        }
        assert_are_or_miss(cache, 0..KEPT, 1);
        cache.stats().reinsertions > 10
    });
    for key in 0..KEPT {
        match key % 3 {
            0 => cache.insert(key, value(key, 2, 500)).unwrap(),
            1 => _ = cache.remove(&key).unwrap(),
            _ => {}
        }
    }
    (0..200).for_each(|more| cache.insert(filler + more, value(filler + more, 1, 1_000)).unwrap());
    assert_reinserted_are_current(cache);
    cache.check();
}

fn assert_reinserted_are_current(cache: &TestCache) {
    for key in 0..KEPT {
        match key % 3 {
            0 => _ = assert_is_or_misses(cache, key, 2),
            1 => assert_eq!(cache.get(&key), None, "{key} was removed"),
            _ => _ = assert_is_or_misses(cache, key, 1),
        }
    }
}

/// (8) A value too large for the log overwrites one that is there, and is then evicted.
#[test]
fn overwrite_too_large_for_the_log() {
    let dir = TempDir::new();
    let cache = tiny(&dir.cache()).open().unwrap();
    (0..100).for_each(|key| cache.insert(key, value(key, 1, 300)).unwrap());
    cache.flush().unwrap();
    for key in 0..50 {
        cache.insert(key, value(key, 2, TOO_LARGE_FOR_THE_LOG)).unwrap();
        assert_is_or_misses(&cache, key, 2);
    }
    (100..400).for_each(|key| cache.insert(key, value(key, 1, 300)).unwrap());
    assert_are_or_miss(&cache, 0..50, 2);
    assert!(cache.stats().too_large > 0, "none was evicted: nothing was tested");
    cache.close().unwrap();
    let cache = tiny(&dir.cache()).open().unwrap();
    assert_are_or_miss(&cache, 0..50, 2);
}

/// 8, larger than anything: refused, and what stood there is gone, as after every failed write.
#[test]
fn overwrite_too_large_for_anything() {
    let dir = TempDir::new();
    let open = || tiny(&dir.cache()).ram(MIB).open().unwrap();
    let cache = open();
    cache.insert(1, value(1, 1, 300)).unwrap();
    cache.flush().unwrap();
    let refused = cache.insert(1, value(1, 2, 4 << 20));
    assert!(matches!(refused, Err(Error::TooLarge { what: "entry", .. })), "{refused:?}");
    assert_eq!(cache.get(&1), None, "the old value outlived its overwrite");
    cache.close().unwrap();
    assert_eq!(open().get(&1), None, "the old value came back");
}

/// (9) A slow load, overtaken by an invalidation: who asked before gets its value, nobody after.
#[test]
fn an_invalidation_overtakes_a_load() {
    type Change = fn(&TestCache);
    let changes: [(&str, Change); 3] = [
        ("insert", |cache| cache.insert(1, value(1, 2, 100)).unwrap()),
        ("remove", |cache| assert!(!cache.remove(&1).unwrap(), "nothing is there yet")),
        ("clear", |cache| cache.clear().unwrap()),
    ];
    for (name, change) in changes {
        let dir = TempDir::new();
        let cache = tiny(&dir.cache()).open().unwrap();
        let (loading, started) = mpsc::channel();
        let (finish, wait) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                cache.get_or_insert_with(&1, move || {
                    loading.send(()).unwrap();
                    wait.recv().unwrap();
                    value(1, 1, 100)
                })
            });
            started.recv().unwrap();
            let joined = scope.spawn(|| cache.get_or_insert_with(&1, || value(1, 90, 100)));
            // Time to join. One that comes too late loads for itself, and passes as well.
            thread::sleep(Duration::from_millis(50));
            change(&cache);
            let after = version(1, &cache.get_or_insert_with(&1, || value(1, 3, 100)));
            assert_eq!(after, if name == "insert" { 2 } else { 3 }, "{name}: joined a load it had overtaken");
            finish.send(()).unwrap();
            assert_eq!(version(1, &first.join().unwrap()), 1, "{name}: the loader gets what it loaded");
            let joined = version(1, &joined.join().unwrap());
            assert!([1, after, 90].contains(&joined), "{name}: the waiter got version {joined}");
            let now = cache.get(&1).map(|found| version(1, &found));
            assert!([after, 90].map(Some).contains(&now), "{name}: {now:?} is stored");
        });
        assert!(cache.stats().loads_overtaken > 0, "{name}: not counted");
        cache.check();
    }
}

/// 9, by hand: a lease that an invalidation has killed stores nothing.
#[test]
fn an_invalidation_overtakes_a_lease() {
    let dir = TempDir::new();
    let cache = tiny(&dir.cache()).open().unwrap();
    let lease = cache.lease(&1).unwrap();
    cache.insert(1, value(1, 2, 100)).unwrap();
    assert!(!lease.fill(value(1, 1, 100)).unwrap());
    assert_eq!(cache.get(&1).map(|found| version(1, &found)), Some(2));

    let lease = cache.lease(&1).unwrap();
    cache.remove(&1).unwrap();
    assert!(!lease.fill(value(1, 1, 100)).unwrap());
    assert_eq!(cache.get(&1), None);

    let lease = cache.lease(&1).unwrap();
    cache.clear().unwrap();
    assert!(!lease.fill(value(1, 1, 100)).unwrap());
    assert_eq!(cache.get(&1), None);

    // Two loads of one source that did not change: neither has overtaken the other.
    let (early, late) = (cache.lease(&1).unwrap(), cache.lease(&1).unwrap());
    assert!(late.fill(value(1, 3, 100)).unwrap());
    assert!(early.fill(value(1, 4, 100)).unwrap());
    assert_eq!(cache.get(&1).map(|found| version(1, &found)), Some(4));
    cache.check();
}

/// (10) A value on disk is overwritten by one that only ever stands in RAM.
#[test]
fn ram_only_overwrite_of_a_value_on_disk() {
    let dir = TempDir::new();
    let open = || tiny(&dir.cache()).ram_entries(512).disk_filter(|_, value: &Vec<u8>| value.len() < 400);
    let cache = open().open().unwrap();
    (0..100).for_each(|key| cache.insert(key, value(key, 1, 300)).unwrap());
    cache.flush().unwrap();
    (0..100).for_each(|key| cache.insert(key, value(key, 2, 500)).unwrap());
    (0..100).for_each(|key| assert!(assert_is_or_misses(&cache, key, 2), "there is room for it"));
    cache.flush().unwrap();
    (0..100).for_each(|key| assert!(assert_is_or_misses(&cache, key, 2), "a flush takes nothing away"));
    cache.close().unwrap();
    assert_all_gone(&open().open().unwrap(), 0..100);
}

/// (11) A second open of a directory, in this process and in another, is refused and does no harm.
#[test]
fn two_opens_of_one_directory() {
    let dir = TempDir::new();
    let cache = roomy(&dir.cache()).open().unwrap();
    (0..1_000).for_each(|key| cache.insert(key, value(key, 1, 300)).unwrap());
    cache.flush().unwrap();
    let before = settled_contents(&dir.cache());
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                let second = tiny(&dir.cache()).open();
                assert!(matches!(second, Err(Error::Locked { .. })), "opened twice");
            });
        }
    });
    assert!(Spawned::start(CHILD, "second open", &dir.cache(), 0).join(), "another process opened it too");
    assert!(contents(&dir.cache()) == before, "a refused open changed the directory");
    (0..1_000).for_each(|key| assert!(assert_is_or_misses(&cache, key, 1), "{key} was lost"));
    cache.close().unwrap();
    let cache = roomy(&dir.cache()).open().unwrap();
    (0..1_000).for_each(|key| assert!(assert_is_or_misses(&cache, key, 1), "{key} was lost on reopen"));
}

/// The directory once the cache's background work has come to rest.
fn settled_contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut before = contents(dir);
    wait_until("the cache rests", LIMIT, || {
        thread::sleep(Duration::from_millis(200));
        let now = contents(dir);
        let rested = now == before;
        before = now;
        rested
    });
    before
}

/// The value of `key` is the one of this version, or it is forgotten; whether it is there.
#[track_caller]
fn assert_is_or_misses(cache: &TestCache, key: u64, expected: u64) -> bool {
    match cache.get(&key) {
        None => false,
        Some(found) => {
            let found = version(key, &found);
            assert_eq!(found, expected, "key {key} has an old value");
            true
        }
    }
}

/// The same of many keys; how many of them are there.
#[track_caller]
fn assert_are_or_miss(cache: &TestCache, keys: impl Iterator<Item = u64>, expected: u64) -> u64 {
    keys.map(|key| u64::from(assert_is_or_misses(cache, key, expected))).sum()
}

#[track_caller]
fn assert_all_gone(cache: &TestCache, mut keys: impl Iterator<Item = u64>) {
    if let Some(key) = keys.find(|key| cache.get(key).is_some()) {
        panic!("key {key} was removed and is there");
    }
}

const _: () = assert!(TOO_LARGE_FOR_THE_LOG as u64 > 64 * KIB / 4);

//! Directories that are opened for reading only: what is served, what is refused, and that nothing in them
//! changes.

use std::{collections::BTreeMap, fs, os::unix::fs::DirBuilderExt, path::Path, sync::Arc, time::Duration};

use crate::common::{TempDir, TestCache, cases, contents, roomy, tiny, value::value};
use embercache::{
    Builder, Cache, Durability, Error, KIB, MIB, OnMismatch, ReadMode, Start, WriteBehind,
    testing::MemoryDisk,
};

const KEYS: u64 = 300;

/// In entries, so that most of them are on disk alone.
fn left_closed(dir: &Path) {
    let cache = roomy(dir).open().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, 500)).unwrap());
    cache.close().unwrap();
}

fn read(dir: &Path) -> Builder<u64, Vec<u8>> {
    roomy(dir).read_only()
}

#[test]
fn what_a_close_left_is_served_and_stays() {
    for read_mode in [ReadMode::Map, ReadMode::Strict] {
        let dir = TempDir::new();
        left_closed(&dir.cache());
        let before = contents(&dir.cache());
        let cache = read(&dir.cache()).read_mode(read_mode).open().unwrap();
        assert_eq!(cache.stats().recovery.start, Start::Clean);
        for _ in 0..2 {
            (0..KEYS).for_each(|key| assert_eq!(cache.get(&key), Some(value(key, 1, 500)), "key {key}"));
        }
        cache.get(&7);
        let hits = cache.stats().ram_hits;
        assert_eq!(cache.get(&7), Some(value(7, 1, 500)));
        assert_eq!(cache.stats().ram_hits, hits + 1, "a hit on disk did not come to RAM");
        assert_eq!(cache.len(), KEYS);
        cache.check();
        cache.flush().unwrap();
        cache.close().unwrap();
        assert_eq!(cache.get(&7), None);
        drop(cache);
        assert!(contents(&dir.cache()) == before, "something was written");

        let cache = roomy(&dir.cache()).open().unwrap();
        assert_eq!((cache.stats().recovery.start, cache.len()), (Start::Clean, KEYS));
    }
}

#[test]
fn changes_are_refused_and_loads_store_nothing() {
    let dir = TempDir::new();
    left_closed(&dir.cache());
    let before = contents(&dir.cache());
    let cache = read(&dir.cache()).open().unwrap();
    let new = || value(1, 2, 100);
    assert!(matches!(cache.insert(1, new()), Err(Error::ReadOnly)));
    assert!(matches!(cache.insert_with_ttl(1, new(), Duration::from_secs(1)), Err(Error::ReadOnly)));
    assert!(matches!(cache.remove(&1), Err(Error::ReadOnly)));
    assert!(matches!(cache.clear(), Err(Error::ReadOnly)));
    assert!(matches!(cache.lease(&1), Err(Error::ReadOnly)));
    assert_eq!(cache.get_or_insert_with(&1, || unreachable!("it is there")), value(1, 1, 500));
    assert_eq!(cache.get_or_insert_with(&KEYS, new), new());
    assert_eq!(cache.get(&KEYS), None, "a load was stored");
    assert_eq!(cache.len(), KEYS);
    drop(cache);
    assert!(contents(&dir.cache()) == before);
}

/// Every entry that the run was told of, as it stood at some moment of it; opened by one that writes, the same.
#[test]
fn what_a_kill_left_is_served_and_stays() {
    const UNFLUSHED: u64 = 5;
    let mut segments = 0;
    for case in 0..cases(20) {
        let disk = Arc::new(MemoryDisk::new());
        let dir = Path::new("/cache");
        let open = |builder: Builder<u64, Vec<u8>>, disk: &Arc<MemoryDisk>| builder.io(disk.clone()).open();
        let cache = open(tiny(dir).write_behind(WriteBehind::Never), &disk).unwrap();
        let mut versions = BTreeMap::new();
        for step in 0..200 + case % 40 * 37 {
            let key = step * 7 % 60;
            if step % 5 == 4 {
                cache.remove(&key).unwrap();
                versions.remove(&key);
            } else {
                cache.insert(key, value(key, step, 900)).unwrap();
                versions.insert(key, step);
            }
        }
        cache.flush().unwrap();
        // Copies are on disk that are stale now.
        for key in 0..UNFLUSHED {
            cache.insert(key, value(key, 10_000, 900)).unwrap();
            versions.insert(key, 10_000);
        }
        let killed = Arc::new(disk.after_kill());
        let before = killed.contents();

        let reader = open(tiny(dir).read_only(), &killed).unwrap();
        let recovery = reader.stats().recovery;
        assert_eq!(recovery.start, Start::Recovered);
        for key in 0..60 {
            let last = versions.get(&key).map(|&version| value(key, version, 900));
            let found = reader.get(&key);
            assert!(found == last || found.is_none() && key < UNFLUSHED, "case {case}, key {key}");
        }
        reader.check();
        drop(reader);
        assert!(killed.contents() == before, "case {case}: something was written");
        segments += recovery.segments;

        let writer = open(tiny(dir), &killed).unwrap();
        for (key, version) in versions.into_iter().filter(|&(key, _)| key >= UNFLUSHED) {
            assert_eq!(writer.get(&key), Some(value(key, version, 900)), "case {case}, key {key}");
        }
    }
    assert!(segments > 0, "nothing was on disk");
}

#[test]
fn readers_share_a_directory_and_writers_do_not() {
    let dir = TempDir::new();
    left_closed(&dir.cache());
    let writer = roomy(&dir.cache()).open().unwrap();
    assert!(matches!(read(&dir.cache()).open(), Err(Error::Locked { .. })));
    drop(writer);
    let readers = [(); 2].map(|()| read(&dir.cache()).open().unwrap());
    assert!(readers.iter().all(|reader| reader.get(&1).is_some()));
    assert!(matches!(roomy(&dir.cache()).open(), Err(Error::Locked { .. })));
    let [one, other] = readers;
    one.close().unwrap();
    assert!(matches!(roomy(&dir.cache()).open(), Err(Error::Locked { .. })));
    assert!(other.get(&2).is_some());
    drop(other);
    assert!(roomy(&dir.cache()).open().is_ok(), "the lock was not given back");
}

#[test]
fn what_is_no_cache_is_refused_and_not_made_one() {
    let dir = TempDir::new();
    assert!(matches!(read(&dir.cache()).open(), Err(Error::Io { .. })));
    assert!(!dir.cache().exists());
    make_private(&dir.cache());
    assert!(matches!(read(&dir.cache()).open(), Err(Error::NotACache { .. })));
    for lock in ["", "not ours"] {
        fs::write(dir.cache().join("LOCK"), lock).unwrap();
        assert!(matches!(read(&dir.cache()).open(), Err(Error::NotACache { .. })), "{lock:?}");
        assert_eq!(fs::read(dir.cache().join("LOCK")).unwrap(), lock.as_bytes());
    }
}

fn make_private(dir: &Path) {
    fs::DirBuilder::new().mode(0o700).create(dir).unwrap();
}

#[test]
fn what_cannot_be_believed_is_an_empty_cache() {
    let dir = TempDir::new();
    left_closed(&dir.cache());
    let before = contents(&dir.cache());
    let refused = read(&dir.cache()).schema_version(9).on_mismatch(OnMismatch::Refuse).open();
    assert!(matches!(refused, Err(Error::Mismatch { .. })));
    let cache = read(&dir.cache()).schema_version(9).open().unwrap();
    assert_eq!(cache.stats().recovery.start, Start::Mismatch);
    assert_eq!((cache.get(&1), cache.len()), (None, 0));
    assert!(matches!(cache.insert(1, value(1, 2, 100)), Err(Error::ReadOnly)));
    assert!(matches!(cache.clear(), Err(Error::ReadOnly)));
    cache.flush().unwrap();
    drop(cache);
    assert!(contents(&dir.cache()) == before);
}

/// The durability is the last run's: what it kept is read, whatever is asked for now.
#[test]
fn the_durability_is_that_of_whoever_wrote() {
    for durability in [Durability::Clean, Durability::ProcessCrash, Durability::PowerLoss] {
        let dir = TempDir::new();
        let cache = roomy(&dir.cache()).durability(durability).open().unwrap();
        cache.insert(1, value(1, 1, 100)).unwrap();
        cache.close().unwrap();
        let cache = read(&dir.cache()).open().unwrap();
        assert_eq!(cache.get(&1), Some(value(1, 1, 100)), "{durability:?}");
        drop(cache);
        assert!(roomy(&dir.cache()).durability(durability).open().unwrap().get(&1).is_some());
    }
}

#[test]
fn damage_is_a_miss_and_is_left_as_it_is() {
    let dir = TempDir::new();
    let cache: TestCache = roomy(&dir.cache()).segment_size(64 * KIB).disk(4 * MIB).open().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, 1_000)).unwrap());
    cache.close().unwrap();
    let mut segments: Vec<_> = contents(&dir.cache()).into_iter().map(|(path, _)| path).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("seg-"));
    let damage = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    damage(&segments[0], 20);
    (0..20).for_each(|record| damage(&segments[1], 600 + record * 1_040));
    let before = contents(&dir.cache());

    let cache = read(&dir.cache()).open().unwrap();
    assert_eq!(cache.stats().recovery.quarantined, 1);
    let found = (0..KEYS).filter_map(|key| Some((key, cache.get(&key)?)));
    let found = found.inspect(|(key, found)| assert_eq!(*found, value(*key, 1, 1_000))).count() as u64;
    assert!((KEYS / 2..KEYS - 20).contains(&found), "{found} of {KEYS}");
    assert!(cache.stats().read_failures >= 20);
    drop(cache);
    assert!(contents(&dir.cache()) == before, "damage was tidied up");
}

/// What a reader has seen idle out it could tell nobody, so it does not: a copy ends when it was to end.
#[test]
fn a_time_to_idle_has_no_effect() {
    const SECOND: Duration = Duration::from_secs(1);
    for (written_under, lives) in [(None, true), (Some(60 * SECOND), false)] {
        let disk = MemoryDisk::new();
        let builder = || Cache::<u64, u64>::builder("cache").ram(MIB).disk(MIB).io(Arc::new(disk.clone()));
        let cache = written_under.into_iter().fold(builder(), Builder::time_to_idle).open().unwrap();
        cache.insert(1, 1).unwrap();
        cache.close().unwrap();
        let reader = || builder().time_to_idle(5 * SECOND).read_only().open().unwrap();
        let first = reader();
        assert_eq!(first.get(&1), Some(1));
        disk.advance_clock(6 * SECOND);
        assert_eq!(
            (first.get(&1), reader().get(&1)),
            (Some(1), Some(1)),
            "one has seen what the other has not"
        );
        disk.advance_clock(55 * SECOND);
        let left = lives.then_some(1);
        assert_eq!((first.get(&1), reader().get(&1)), (left, left), "written under {written_under:?}");
    }
}

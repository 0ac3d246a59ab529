//! What a durability that outlives the machine asks of the disk: as few syncs as there can be, and none
//! a second time after an error.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use crate::common::{Random, TempDir, cases, contents, figure, from_env, roomy, value::value, wait_until};
use embercache::{
    Durability, Error, KIB, Start, WriteBehind,
    testing::{FaultDisk, Io, MemoryDisk, Operation},
};

const MODES: [Durability; 2] = [Durability::ProcessCrash, Durability::PowerLoss];
/// EMFILE.
const TOO_MANY_OPEN_FILES: i32 = 24;

/// Who comes while a sync is under way shares the next one.
#[test]
fn several_threads_share_a_sync() {
    let (dir, disk) = (TempDir::new(), FaultDisk::new());
    disk.slow_syncs(Duration::from_millis(2));
    let builder = roomy(&dir.cache()).ram_entries(10_000).io(Arc::new(disk.clone()));
    let cache = builder.durability(Durability::PowerLoss).open().unwrap();
    (0..800).for_each(|key| cache.insert(key, value(key, 1, 24)).unwrap());
    cache.flush().unwrap();
    thread::scope(|scope| {
        for thread in 0..8 {
            let cache = &cache;
            scope.spawn(move || {
                (0..100).for_each(|key| assert!(cache.remove(&(thread * 100 + key)).unwrap()))
            });
        }
    });
    let stats = cache.stats();
    assert_eq!(stats.journal_entries, 800);
    assert!(stats.journal_syncs < 400, "{} syncs", stats.journal_syncs);
    (0..800).for_each(|key| cache.insert(key, value(key, 2, 24)).unwrap());
    assert_eq!(cache.stats().journal_syncs, stats.journal_syncs, "no copy on disk, yet a wait");
}

/// Line 27: a sync that fails is not tried again. The segment is given up with its entries, its file goes,
/// and the rest goes on.
#[test]
fn a_segment_whose_sync_fails_is_given_up() {
    for is_at_close in [false, true] {
        let (dir, disk) = (TempDir::new(), FaultDisk::new());
        let builder = || {
            let builder = roomy(&dir.cache()).io(Arc::new(disk.clone())).write_behind(WriteBehind::Never);
            builder.durability(if is_at_close { Durability::ProcessCrash } else { Durability::PowerLoss })
        };
        let cache = builder().open().unwrap();
        (0..100).for_each(|key| cache.insert(key, value(key, 1, 500)).unwrap());
        let before = disk.syncs_by_name();
        disk.fail_syncs_of("seg-", ErrorKind::Other);
        let failed = if is_at_close { cache.close() } else { cache.flush() };
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
        let segments = || contents(&dir.cache()).iter().filter(|(path, _)| is_segment(path)).count();
        assert_eq!(segments(), 0, "its file is there");
        if !is_at_close {
            for (name, syncs) in disk.syncs_by_name().iter().filter(|(name, _)| name.starts_with("seg-")) {
                let syncs = syncs - before.get(name).unwrap_or(&0);
                assert!(syncs <= 1, "the sync of {name} was tried {syncs} times");
            }
            let in_ram: Vec<u64> = (0..100).filter(|key| cache.contains_key(key)).collect();
            assert_eq!(
                in_ram.len() as u64,
                cache.stats().ram_entries,
                "what was on disk is still said to be"
            );
            assert!((30..50).contains(&in_ram.len()), "RAM has {} entries", in_ram.len());
            assert_eq!(cache.stats().write_failures, 100, "each was lost, or is in RAM without a copy");
            disk.fail_sync(None);
            cache.flush().unwrap();
            disk.set_boot_id([7; 16]);
            drop(cache);
            let cache = builder().open().unwrap();
            for key in in_ram {
                assert_eq!(cache.get(&key), Some(value(key, 1, 500)));
            }
        } else {
            disk.fail_sync(None);
            let cache = builder().open().unwrap();
            assert_eq!((cache.stats().recovery.start, cache.len()), (Start::Clean, 0));
        }
    }
    figure(
        27,
        "a flush and a close whose sync fails: no second sync, the file is gone, its 100 entries miss",
    );
}

/// Line 30: the journal cannot be written, or not be synced. Then STATE goes and the next start is cold; and where
/// it cannot go, whoever changes something is told, each time.
#[test]
fn a_journal_that_cannot_be_written() {
    const KEYS: u64 = 40;
    let rounds = cases(50);
    let (mut cold, mut told) = (0, 0);
    for round in 0..rounds {
        let mut random = Random::new(from_env("EMBERCACHE_SEED", 30) << 32 | round);
        for (durability, stays) in MODES.into_iter().flat_map(|mode| [false, true].map(|stays| (mode, stays)))
        {
            let memory = MemoryDisk::new();
            let disk = FaultDisk::over(Arc::new(memory.clone()));
            let builder = |io: Arc<dyn Io>| roomy(Path::new("cache")).durability(durability).io(io);
            let cache = builder(Arc::new(disk.clone())).open().unwrap();
            (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, 500)).unwrap());
            cache.flush().unwrap();
            // Some of it is well before.
            let well = random.below(3);
            (0..well).for_each(|key| assert!(cache.remove(&key).unwrap()));
            match (durability, stays) {
                (Durability::PowerLoss, true) => disk.fail_sync(Some(ErrorKind::Other)),
                (Durability::PowerLoss, false) => disk.fail_syncs_of("inv-", ErrorKind::Other),
                _ => disk.fail_writes(Some(ErrorKind::StorageFull)),
            }
            disk.fail_unlink(stays.then_some(ErrorKind::PermissionDenied));
            let key = well + random.below(KEYS - well);
            let changes: [&dyn Fn() -> Result<(), Error>; 3] =
                [&|| cache.remove(&key).map(drop), &|| cache.insert(key, value(key, 2, 500)), &|| {
                    cache.clear()
                }];
            let changed = changes[random.below(3) as usize]();
            let left = memory.after_kill();
            let has_state = left.contents().iter().any(|(path, _)| path.ends_with("STATE"));
            if stays {
                assert!(matches!(changed, Err(Error::NotDurable { .. })), "{durability:?}: {changed:?}");
                assert!(matches!(cache.remove(&(KEYS - 1)), Err(Error::NotDurable { .. })), "not told again");
                assert!(has_state && cache.flush().is_err(), "a flush says that all is well");
                told += 1;
            } else {
                assert!(
                    changed.is_ok() && !has_state,
                    "{durability:?}: {changed:?}, STATE is there: {has_state}"
                );
                let next = builder(Arc::new(left)).open().unwrap();
                assert_eq!((next.stats().recovery.start, next.len()), (Start::New, 0), "{durability:?}");
                cold += 1;
            }
        }
    }
    figure(
        30,
        &format!(
            "{cold} journals unwritable: STATE gone and a cold start each; {told} with STATE in the way: told each"
        ),
    );
}

fn is_segment(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seg-"))
}

/// The journal's sync fails, so the next start is cold; if that cannot
/// be seen to either, whoever waited is told, and the sync is not tried again.
#[test]
fn a_journal_whose_sync_fails_is_not_believed() {
    for poison_fails in [false, true] {
        let (dir, disk) = (TempDir::new(), FaultDisk::new());
        let builder = || roomy(&dir.cache()).io(Arc::new(disk.clone())).durability(Durability::PowerLoss);
        let cache = builder().open().unwrap();
        (0..100).for_each(|key| cache.insert(key, value(key, 1, 500)).unwrap());
        cache.flush().unwrap();
        cache.remove(&0).unwrap();
        disk.fail_sync(Some(ErrorKind::Other));
        if poison_fails {
            disk.fail_unlink(Some(ErrorKind::PermissionDenied));
            for key in 1..50 {
                let removed = cache.remove(&key);
                assert!(matches!(removed, Err(Error::NotDurable { .. })), "{removed:?}");
            }
            assert_eq!(cache.stats().journal_syncs, 2, "one of before, and one that failed");
            disk.fail_unlink(None);
        }
        disk.fail_sync(None);
        if !poison_fails {
            disk.fail_syncs_of("inv-", ErrorKind::Other);
        }
        (50..100).for_each(|key| _ = cache.remove(&key).unwrap());
        assert_eq!(cache.stats().journal_syncs, 2, "it was tried again");
        disk.set_boot_id([7; 16]);
        let left = contents(&dir.cache());
        drop(cache);
        let state = |files: &[(PathBuf, Vec<u8>)]| files.iter().any(|(path, _)| path.ends_with("STATE"));
        assert!(!state(&left), "STATE is still there");
        let cache = builder().open().unwrap();
        assert_eq!((cache.stats().recovery.start, cache.len()), (Start::New, 0));
    }
}

/// What a flush acknowledges has to survive. Once the journal has failed, the next start is cold, so no
/// flush says that all is well any more, and no close; until a cache is opened that starts from there.
#[test]
fn a_flush_before_a_cold_start_says_so() {
    for durability in [Durability::PowerLoss, Durability::ProcessCrash] {
        let (dir, disk) = (TempDir::new(), FaultDisk::new());
        let builder = || roomy(&dir.cache()).io(Arc::new(disk.clone())).durability(durability);
        let cache = builder().open().unwrap();
        (0..100).for_each(|key| cache.insert(key, value(key, 1, 500)).unwrap());
        cache.flush().unwrap();
        match durability {
            Durability::PowerLoss => disk.fail_syncs_of("inv-", ErrorKind::Other),
            _ => disk.fail_nth_write(1, ErrorKind::StorageFull),
        }
        assert!(cache.remove(&0).unwrap(), "it need not be remembered by a start that is cold");
        disk.fail_sync(None);
        for _ in 0..2 {
            let flushed = cache.flush();
            assert!(matches!(flushed, Err(Error::Io { .. })), "{durability:?}: {flushed:?}");
        }
        assert_eq!(cache.get(&1), Some(value(1, 1, 500)), "RAM and disk go on");
        let closed = cache.close();
        assert!(matches!(closed, Err(Error::Io { .. })), "{durability:?}: {closed:?}");
        let cache = builder().open().unwrap();
        assert_eq!((cache.stats().recovery.start, cache.len()), (Start::New, 0));
        cache.insert(1, value(1, 2, 500)).unwrap();
        cache.flush().unwrap();
        cache.close().unwrap();
    }
}

/// A segment that cannot be opened to be synced is not lost for that.
#[test]
fn a_sync_that_cannot_be_tried_costs_nothing() {
    let (dir, disk) = (TempDir::new(), FaultDisk::new());
    let builder = || {
        let builder = roomy(&dir.cache()).segment_size(64 * KIB).write_behind(WriteBehind::Never);
        builder.io(Arc::new(disk.clone())).durability(Durability::PowerLoss)
    };
    let cache = builder().open().unwrap();
    (0..200).for_each(|key| cache.insert(key, value(key, 1, 1_000)).unwrap());
    disk.fail_nth(Operation::Open, 1, TOO_MANY_OPEN_FILES, false);
    let flushed = cache.flush();
    assert!(disk.has_failed() && flushed.is_err(), "{flushed:?}");
    cache.flush().unwrap();
    disk.set_boot_id([7; 16]);
    drop(cache);
    assert_eq!(builder().open().unwrap().len(), 200);
}

/// The sync that fails is the one before a trailer is written: nobody asks for it again, and what lies in
/// the segment is a miss from the next flush on.
#[test]
fn a_sync_that_failed_at_a_seal_is_not_tried_again() {
    let (dir, disk) = (TempDir::new(), FaultDisk::new());
    let builder = roomy(&dir.cache()).segment_size(64 * KIB).write_behind(WriteBehind::Never);
    let cache = builder.io(Arc::new(disk.clone())).durability(Durability::PowerLoss).open().unwrap();
    cache.insert(0, value(0, 1, 1_000)).unwrap();
    cache.flush().unwrap();
    let first = || disk.syncs_by_name()["seg-00000000.log"];
    let before = first();
    disk.fail_syncs_of("seg-", ErrorKind::Other);
    let mut key = 1;
    wait_until("the first segment is sealed", Duration::from_secs(20), || {
        key += 1;
        cache.insert(key, value(key, 1, 1_000)).unwrap();
        first() > before
    });
    disk.fail_sync(None);
    let _ = cache.flush();
    assert_eq!(first(), before + 1);
    assert!(!dir.cache().join("seg-00000000.log").exists(), "it is still there");
}

/// What a close has synced, the next does not sync again.
#[test]
fn a_close_syncs_the_journal_of_its_own_run() {
    let (dir, disk) = (TempDir::new(), FaultDisk::new());
    for run in 0..20 {
        let cache = roomy(&dir.cache()).io(Arc::new(disk.clone())).open().unwrap();
        (0..8).for_each(|key| cache.insert(key, value(key, run, 24)).unwrap());
        let before = disk.syncs_by_name();
        cache.close().unwrap();
        let syncs = |syncs: &BTreeMap<String, u64>| -> u64 {
            syncs.iter().filter(|(name, _)| name.starts_with("inv-")).map(|(_, syncs)| syncs).sum()
        };
        assert!(syncs(&disk.syncs_by_name()) - syncs(&before) <= 1, "run {run}");
    }
}

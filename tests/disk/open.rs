//! What `open` refuses, with which error; and that nothing is changed, lost or deleted by it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use crate::common::{
    TempDir, TestCache, contents, fault_disk, figure, roomy, skip, tiny,
    value::{value, version},
};
use embercache::{Builder, Cache, Error, GIB, KIB, MIB, OnMismatch, ReadMode, Start, WriteBehind};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use xxhash_rust::xxh3::xxh3_64;

/// A thousand times as long as an open takes.
const LIMIT: Duration = Duration::from_secs(20);

type TestBuilder = Builder<u64, Vec<u8>>;

/// Every option one step outside its documented limits, and on them.
#[test]
fn options_have_limits() {
    type Set = fn(TestBuilder) -> TestBuilder;
    let refused: [(&str, Set); 17] = [
        ("ram", |b| b.ram(MIB - 1)),
        ("ram", |b| b.ram(0)),
        ("ram_entries", |b| b.ram_entries(0)),
        ("ram_entries", |b| b.ram_entries((1 << 31) + 1)),
        ("disk", |b| b.disk(256 * KIB - 1)),
        ("disk", |b| b.disk(65_536 * GIB + 1)),
        ("segment_size", |b| b.segment_size(32 * KIB)),
        ("segment_size", |b| b.segment_size(96 * KIB)),
        ("segment_size", |b| b.disk(16 * GIB).segment_size(256 * MIB)),
        ("segment_size", |b| b.disk(MIB).segment_size(512 * KIB)),
        ("stripes", |b| b.stripes(0)),
        ("stripes", |b| b.stripes(3)),
        ("stripes", |b| b.stripes(2048)),
        ("index_share", |b| b.index_share(0)),
        ("index_share", |b| b.index_share(91)),
        ("write_behind", |b| b.write_behind(WriteBehind::After(Duration::ZERO))),
        ("write_behind", |b| b.write_behind(WriteBehind::After(Duration::from_millis(9)))),
    ];
    for (option, set) in refused {
        let dir = TempDir::new();
        let error = set(Cache::builder(dir.cache())).open().expect_err(option);
        match &error {
            Error::Option { option: named, .. } => {
                assert!(named.starts_with(option), "{error}, not {option}")
            }
            other => panic!("{option} out of range is refused by {other:?}"),
        }
        assert!(!dir.cache().exists(), "{option} was refused, yet the directory was made");
    }
    let allowed: [Set; 6] = [
        |b| b.ram(MIB),
        |b| b.ram_entries(1),
        |b| b.disk(256 * KIB).segment_size(64 * KIB),
        |b| b.stripes(1024),
        |b| b.index_share(1).ram(MIB),
        |b| b.write_behind(WriteBehind::After(Duration::from_millis(10))),
    ];
    for (number, set) in allowed.into_iter().enumerate() {
        let dir = TempDir::new();
        let cache = set(Cache::builder(dir.cache())).open().unwrap_or_else(|e| panic!("{number}: {e}"));
        cache.insert(1, value(1, 1, 100)).unwrap();
        cache.check();
    }
}

#[test]
fn ram_alone_needs_less() {
    let open = |bytes| TestCache::in_memory().ram(bytes).open();
    assert!(matches!(open(64 * KIB - 1), Err(Error::Option { option: "ram", .. })));
    let cache = open(64 * KIB).unwrap();
    cache.insert(1, value(1, 1, 100)).unwrap();
    assert_eq!(cache.get(&1), Some(value(1, 1, 100)));
}

#[test]
fn a_file_in_place_of_the_directory() {
    let dir = TempDir::new();
    fs::write(dir.cache(), "canary").unwrap();
    refuse(&dir, tiny(&dir.cache()), |error| matches!(error, Error::Unusable { .. } | Error::Io { .. }));
}

#[test]
fn a_link_in_place_of_the_directory() {
    let dir = TempDir::new();
    let elsewhere = dir.outer().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, dir.cache()).unwrap();
    refuse(&dir, tiny(&dir.cache()), |error| matches!(error, Error::Unusable { .. } | Error::Io { .. }));
}

#[test]
fn a_directory_that_others_may_write() {
    for mode in [0o770, 0o777, 0o702] {
        let dir = TempDir::new();
        fs::create_dir(dir.cache()).unwrap();
        fs::set_permissions(dir.cache(), fs::Permissions::from_mode(mode)).unwrap();
        refuse(&dir, tiny(&dir.cache()), |error| matches!(error, Error::Unusable { .. }));
    }
}

#[test]
fn a_directory_of_somebody_elses_files() {
    for name in ["photo.jpg", "seg-00000001.log", "STATE", "index.snap"] {
        let dir = TempDir::new();
        fs::create_dir(dir.cache()).unwrap();
        fs::write(dir.cache().join(name), "canary").unwrap();
        refuse(&dir, tiny(&dir.cache()), |error| matches!(error, Error::NotACache { .. }));
    }
    // Somebody else's LOCK is no sign of ours.
    let dir = TempDir::new();
    fs::create_dir(dir.cache()).unwrap();
    fs::write(dir.cache().join("LOCK"), "pid 4711\n").unwrap();
    refuse(&dir, tiny(&dir.cache()), |error| matches!(error, Error::NotACache { .. }));
}

/// A file that lies among the cache's own stays there through use, reclaim and reopen.
#[test]
fn a_foreign_file_is_never_touched() {
    let dir = used();
    let names = ["seg-0000000G.log", "notes.txt", "seg-1.log", "inv-1.log", "STATE.bak"];
    names.iter().for_each(|name| fs::write(dir.cache().join(name), "canary").unwrap());
    for _ in 0..2 {
        let cache = tiny(&dir.cache()).open().unwrap();
        (0..4_000).for_each(|key| cache.insert(key, value(key, 2, 1_000)).unwrap());
        cache.clear().unwrap();
        cache.close().unwrap();
    }
    names.iter().for_each(|name| assert_eq!(fs::read(dir.cache().join(name)).unwrap(), b"canary", "{name}"));
}

/// What somebody may put in a file's place to have the cache read or write something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trap {
    Link,
    HardLink,
    Pipe,
    Device,
}

impl Trap {
    /// `None`, said aloud, where that takes more rights than there are.
    fn set(self, at: &Path, elsewhere: &Path) -> Option<()> {
        let node = |kind, device| mknodat(CWD, at, kind, Mode::from_raw_mode(0o600), device);
        match self {
            Trap::Link => symlink(elsewhere, at).unwrap(),
            Trap::HardLink => fs::hard_link(elsewhere, at).unwrap(),
            Trap::Pipe => node(FileType::Fifo, 0).unwrap(),
            Trap::Device => {
                if let Err(error) = node(FileType::CharacterDevice, makedev(1, 3)) {
                    skip("a device in place of a file", &error.to_string());
                    return None;
                }
            }
        }
        Some(())
    }
}

/// Line 51: links, pipes and devices where the cache expects files of its own are refused or passed over: never
/// followed, read, written to or waited for.
#[test]
fn a_trap_in_place_of_a_file() {
    let (mut traps, mut refused) = (0, 0);
    for name in ["LOCK", "STATE", "seg-00000000.log", "inv-00000000.log", "index.snap"] {
        for trap in [Trap::Link, Trap::HardLink, Trap::Pipe, Trap::Device] {
            let dir = used();
            // Which begins the journal.
            assert!(roomy(&dir.cache()).open().unwrap().remove(&0).unwrap());
            if name.starts_with("inv-") {
                // Only without it the journal is asked.
                fs::remove_file(dir.cache().join("index.snap")).unwrap();
            }
            let file = dir.cache().join(name);
            let elsewhere = dir.outer().join("elsewhere");
            // What the cache itself wrote: to follow the trap would work.
            fs::rename(&file, &elsewhere).unwrap();
            let canary = fs::read(&elsewhere).unwrap();
            let Some(()) = trap.set(&file, &elsewhere) else { continue };
            let (tell, told) = mpsc::channel();
            let cache_dir = dir.cache();
            thread::spawn(move || tell.send(use_trapped(&cache_dir)));
            let found = told.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{trap:?} for {name}: it waits"));
            assert!(
                fs::read(&elsewhere).unwrap() == canary,
                "{trap:?} for {name}: wrote to what is elsewhere"
            );
            match found {
                None => refused += 1,
                Some(found) if name == "index.snap" => assert_eq!(found as u64, ENTRIES - 1),
                Some(found) => assert_eq!(found, 0, "{trap:?} for {name}: it was believed"),
            }
            // What a cache cannot be without, and what it can do without.
            assert_eq!(found.is_none(), ["LOCK", "STATE"].contains(&name), "{trap:?} for {name}: {found:?}");
            traps += 1;
        }
    }
    figure(
        51,
        &format!("{traps} links, pipes and devices for files: {refused} opens refused, none followed"),
    );
}

/// Opens the directory, reads, and writes as much as goes round. How many entries were there; `None` if the open was
/// refused.
fn use_trapped(dir: &Path) -> Option<usize> {
    let cache = match roomy(dir).open() {
        Ok(cache) => cache,
        Err(Error::Io { .. } | Error::Unusable { .. } | Error::NotACache { .. }) => return None,
        Err(error) => panic!("refused by another error: {error}"),
    };
    let found = (0..ENTRIES).filter(|key| cache.get(key).is_some()).count();
    (0..ENTRIES).for_each(|key| cache.insert(key, value(key, 2, 2_000)).unwrap());
    cache.flush().unwrap();
    (0..ENTRIES).for_each(|key| _ = cache.remove(&key).unwrap());
    cache.close().unwrap();
    Some(found)
}

#[test]
fn the_files_are_private() {
    let dir = used();
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.cache()), 0o700);
    for (path, _) in contents(&dir.cache()) {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn a_newer_format() {
    let dir = used();
    let state = dir.cache().join("STATE");
    let mut bytes = fs::read(&state).unwrap();
    // docs/format.md: two slots of 512 bytes, the version at 8, the check of what precedes it at 504.
    for slot in bytes.chunks_exact_mut(512) {
        slot[8..10].copy_from_slice(&7_u16.to_le_bytes());
        let check = xxh3_64(&slot[..504]);
        slot[504..].copy_from_slice(&check.to_le_bytes());
    }
    fs::write(&state, bytes).unwrap();
    refuse(&dir, roomy(&dir.cache()), |error| {
        matches!(error, Error::NewerFormat { found: 7, supported: 1, .. })
    });
}

#[test]
fn another_schema_version() {
    let dir = used();
    let with = |version, choice| roomy(&dir.cache()).schema_version(version).on_mismatch(choice);
    refuse(&dir, with(9, OnMismatch::Refuse), |error| {
        matches!(error, Error::Mismatch { what: "schema version", found: 0, expected: 9, .. })
    });
    assert_all_there(&with(0, OnMismatch::Refuse).open().unwrap());
    let cache = with(9, OnMismatch::ColdStart).open().unwrap();
    assert_eq!(cache.stats().recovery.start, Start::Mismatch);
    (0..ENTRIES).for_each(|key| assert_eq!(cache.get(&key), None, "read under another schema version"));
    cache.close().unwrap();
    let cache = with(0, OnMismatch::ColdStart).open().unwrap();
    (0..ENTRIES).for_each(|key| assert_eq!(cache.get(&key), None, "came back under the first version"));
}

#[test]
fn another_codec() {
    let dir = used();
    let keys = Cache::<i64, Vec<u8>>::builder(dir.cache()).disk(256 * MIB).on_mismatch(OnMismatch::Refuse);
    refuse(&dir, keys, |error| matches!(error, Error::Mismatch { what: "key codec", .. }));
    let values = Cache::<u64, String>::builder(dir.cache()).disk(256 * MIB).on_mismatch(OnMismatch::Refuse);
    refuse(&dir, values, |error| matches!(error, Error::Mismatch { what: "value codec", .. }));
    let cache = Cache::<u64, String>::builder(dir.cache()).disk(256 * MIB).open().unwrap();
    assert_eq!(cache.stats().recovery.start, Start::Mismatch);
    (0..ENTRIES).for_each(|key| assert_eq!(cache.get(&key), None, "bytes of another codec were read"));
}

#[test]
fn a_second_open() {
    let dir = used();
    let first = roomy(&dir.cache()).open().unwrap();
    assert!(matches!(roomy(&dir.cache()).open(), Err(Error::Locked { .. })));
    assert_all_there(&first);
    // Another handle keeps it open, the last one's drop does not.
    let handle = first.clone();
    drop(first);
    assert!(matches!(roomy(&dir.cache()).open(), Err(Error::Locked { .. })));
    drop(handle);
    assert_all_there(&roomy(&dir.cache()).open().unwrap());
}

#[test]
fn a_key_too_large() {
    let dir = TempDir::new();
    let cache: Cache<String, String> =
        Cache::builder(dir.cache()).ram(4 * MIB).disk(64 * MIB).open().unwrap();
    let key = "k".repeat(1 << 17);
    let refused = cache.insert(key.clone(), "v".into());
    assert!(matches!(refused, Err(Error::TooLarge { what: "key", found: 131_072, .. })), "{refused:?}");
    assert_eq!(cache.get(key.as_str()), None);
    assert!(!cache.remove(key.as_str()).unwrap_or(false), "it was never there");
    cache.check();
}

/// After a reboot of the machine nothing on disk is trusted, whatever the last run wrote.
#[test]
fn another_boot_is_a_cold_start() {
    let dir = TempDir::new();
    {
        let cache = roomy(&dir.cache()).open().unwrap();
        (0..ENTRIES).for_each(|key| cache.insert(key, value(key, 1, 200)).unwrap());
        cache.flush().unwrap();
        // As a kill leaves it: nothing runs that could close it.
        std::mem::forget(cache);
    }
    let copy = dir.outer().join("copy");
    copy_dir(&dir.cache(), &copy);
    let disk = fault_disk();
    disk.set_boot_id([7; 16]);
    let cache = roomy(&copy).io(disk).open().unwrap();
    assert_eq!(cache.stats().recovery.start, Start::Unclean);
    (0..ENTRIES).for_each(|key| assert_eq!(cache.get(&key), None));
}

/// A directory that was copied while in use is not the one whose invalidations were recorded.
#[test]
fn a_copied_directory_is_a_cold_start() {
    let dir = TempDir::new();
    let cache = roomy(&dir.cache()).open().unwrap();
    (0..ENTRIES).for_each(|key| cache.insert(key, value(key, 1, 200)).unwrap());
    cache.flush().unwrap();
    let copy = dir.outer().join("copy");
    copy_dir(&dir.cache(), &copy);
    assert_eq!(roomy(&copy).open().unwrap().stats().recovery.start, Start::Unclean);
}

#[test]
fn strict_reads_see_the_same() {
    let dir = used();
    for mode in [ReadMode::Strict, ReadMode::Map, ReadMode::Strict] {
        let cache = roomy(&dir.cache()).read_mode(mode).open().unwrap();
        assert_all_there(&cache);
        cache.check();
    }
}

const ENTRIES: u64 = 300;

/// A directory with [`ENTRIES`] entries, closed in order.
fn used() -> TempDir {
    let dir = TempDir::new();
    let cache = roomy(&dir.cache()).open().unwrap();
    (0..ENTRIES).for_each(|key| cache.insert(key, value(key, 1, 200)).unwrap());
    cache.close().unwrap();
    dir
}

#[track_caller]
fn assert_all_there(cache: &TestCache) {
    for key in 0..ENTRIES {
        let found = cache.get(&key).unwrap_or_else(|| panic!("{key} is lost: {:?}", cache.stats()));
        assert_eq!(version(key, &found), 1);
    }
}

/// The open fails in this way, and leaves everything as it was.
#[track_caller]
fn refuse<K: embercache::Key, V: embercache::Value>(
    dir: &TempDir,
    builder: Builder<K, V>,
    right: impl FnOnce(&Error) -> bool,
) {
    let before = contents(dir.outer());
    match builder.open() {
        Ok(_) => panic!("it was opened"),
        Err(error) => assert!(right(&error), "refused by another error: {error:?}"),
    }
    assert!(contents(dir.outer()) == before, "a refused open changed the directory");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for (path, bytes) in contents(from) {
        fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
    }
}

/// A process that another thread starts has the lock's descriptor until it execs. A cache that was
/// closed meanwhile must be free all the same.
#[test]
fn a_close_frees_the_directory_while_others_fork() {
    let dir = TempDir::new();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                // A working directory makes std fork and exec in two steps.
                Command::new("true").current_dir("/").status().unwrap();
            }
        });
        let locked = (0..200).find(|_| tiny(&dir.cache()).open().and_then(|cache| cache.close()).is_err());
        stop.store(true, Relaxed);
        assert_eq!(locked, None, "it could not be opened again right after it was closed");
    });
}

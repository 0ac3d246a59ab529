//! The cache against a map, under any sequence of operations, options and ends of the process: it may
//! forget, it may not lie.

use std::{
    cell::Cell,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use embercache::{
    Admission, Cache, Durability, Error, KIB, MIB, Overload, ReadMode, WriteBehind,
    testing::{FaultDisk, Io, MemoryDisk},
};
use tempfile::TempDir;

use crate::ops::{Between, KEYS, Op, Size, Ttl};

/// More would only make an input slower, not find more.
const OPS_MAX: usize = 200;
/// How often every counter is derived again from scratch.
const CHECK_INTERVAL: usize = 16;
/// More than any segment here takes.
const TOO_LARGE_BYTES: usize = 100_000;
/// Far more than a run takes in real time, so that only `Op::Sleep` makes anything expire.
const SHORT: Duration = Duration::from_secs(600);
const LONG: Duration = Duration::from_secs(1_000_000);

/// Runs what the bytes say: two of options, then the operations.
///
/// # Panics
///
/// If the cache lies, or its own figures contradict each other.
pub fn run(input: &[u8]) {
    let Some((options, ops)) = input.split_first_chunk::<2>() else { return };
    let options = Options(u16::from_le_bytes(*options));
    let disk = if options.is_set(0) { TestDisk::memory() } else { TestDisk::files() };
    let cache = options.open(&disk);
    let mut run =
        Run { options, disk, cache, model: HashMap::new(), now: Duration::ZERO, versions: Cell::new(0) };
    for (number, op) in ops.as_chunks().0.iter().take(OPS_MAX).enumerate() {
        run.step(Op::decode(*op));
        if number % CHECK_INTERVAL == 0 {
            run.cache.check();
        }
    }
    run.reopen_by_close();
    run.cache.check();
}

/// The options, a bit each.
#[derive(Clone, Copy)]
struct Options(u16);

impl Options {
    fn is_set(self, bit: u16) -> bool {
        self.0 & 1 << bit != 0
    }

    fn open(self, disk: &TestDisk) -> TestCache {
        let builder = TestCache::builder(disk.dir()).segment_size(64 * KIB).disk(MIB).io(disk.io());
        let builder = if self.is_set(1) { builder.ram(MIB) } else { builder.ram_entries(8) };
        let builder = if self.is_set(2) { builder.stripes(1) } else { builder.stripes(4) };
        let builder = match (self.is_set(3), self.is_set(4)) {
            (false, false) => builder,
            (true, false) => builder.write_behind(WriteBehind::After(Duration::from_millis(10))),
            (false, true) => builder.write_behind(WriteBehind::Never),
            (true, true) => builder.write_behind(WriteBehind::Through),
        };
        let builder = if self.is_set(5) { builder.admission(Admission::All) } else { builder };
        let builder = if self.is_set(6) { builder.overload(Overload::Shed) } else { builder };
        let builder = if self.is_set(7) { builder.read_mode(ReadMode::Strict) } else { builder };
        let builder = if self.is_set(8) { builder.time_to_idle(SHORT * 5) } else { builder };
        // Mostly the mode that has something to lose at a kill.
        let builder = if self.0 >> 13 == 0 { builder.durability(Durability::Clean) } else { builder };
        builder.open().expect("a directory of ours opens")
    }
}

type TestCache = Cache<u64, Vec<u8>>;

/// Where the cache lies.
enum TestDisk {
    /// Can be copied at any moment, which is a kill at that moment.
    Memory(MemoryDisk),
    /// Is mapped as a user's would be.
    Files(FaultDisk, TempDir),
}

impl TestDisk {
    fn memory() -> TestDisk {
        TestDisk::Memory(MemoryDisk::new())
    }

    fn files() -> TestDisk {
        let disk = FaultDisk::new();
        disk.skip_syncs(true);
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        TestDisk::Files(disk, dir.expect("a temporary directory"))
    }

    fn dir(&self) -> PathBuf {
        match self {
            TestDisk::Memory(_) => "cache".into(),
            TestDisk::Files(_, dir) => dir.path().join("cache"),
        }
    }

    fn io(&self) -> Arc<dyn Io> {
        match self {
            TestDisk::Memory(disk) => Arc::new(disk.clone()),
            TestDisk::Files(disk, _) => Arc::new(disk.clone()),
        }
    }

    fn advance_clock(&self, by: Duration) {
        match self {
            TestDisk::Memory(disk) => disk.advance_clock(by),
            TestDisk::Files(disk, _) => disk.advance_clock(by),
        }
    }
}

/// The cache and what it may hold.
struct Run {
    options: Options,
    disk: TestDisk,
    cache: TestCache,
    model: HashMap<u8, Expected>,
    /// The disk's clock, but for the real time that a run takes.
    now: Duration,
    versions: Cell<u64>,
}

#[derive(Clone)]
struct Expected {
    value: Vec<u8>,
    deadline: Option<Duration>,
}

impl Run {
    fn step(&mut self, op: Op) {
        match op {
            Op::Insert(key, size) => self.insert(key, size.bytes(), None),
            Op::InsertWithTtl(key, size, Ttl::Short) => self.insert(key, size.bytes(), Some(SHORT)),
            Op::InsertWithTtl(key, size, Ttl::Long) => self.insert(key, size.bytes(), Some(LONG)),
            Op::InsertTooLarge(key) => self.insert(key, TOO_LARGE_BYTES, None),
            Op::Remove(key) => self.remove(key),
            Op::Get(key) => self.saw(key, self.cache.get(&u64::from(key))),
            Op::GetWith(key) => self.saw(key, self.cache.get_with(&u64::from(key), Vec::clone)),
            Op::Peek(key) => self.saw(key, self.cache.peek(&u64::from(key))),
            Op::ContainsKey(key) => {
                let found = self.cache.contains_key(&u64::from(key));
                assert!(!found || self.expected(key).is_some(), "{key} was gone and is said to be there");
            }
            Op::GetOrInsert(key, size) => self.get_or_insert(key, size),
            Op::Lease(key, size, between) => self.lease(key, size, between),
            Op::Clear => self.clear(),
            Op::Flush => self.cache.flush().expect("the disk takes all writes"),
            Op::Sleep => {
                self.disk.advance_clock(SHORT * 2);
                self.now += SHORT * 2;
            }
            Op::CloseAndReopen => self.reopen_by_close(),
            Op::DropAndReopen => self.reopen_by_surprise(),
        }
    }

    fn insert(&mut self, key: u8, bytes: usize, ttl: Option<Duration>) {
        let value = self.new_value(key, bytes);
        let inserted = match ttl {
            None => self.cache.insert(key.into(), value.clone()),
            Some(ttl) => self.cache.insert_with_ttl(key.into(), value.clone(), ttl),
        };
        match inserted {
            Ok(()) => _ = self.model.insert(key, Expected { value, deadline: ttl.map(|ttl| self.now + ttl) }),
            // Refused, and what stood there is gone.
            Err(Error::TooLarge { .. }) => _ = self.model.remove(&key),
            Err(other) => panic!("insert: {other}"),
        }
        self.saw(key, self.cache.peek(&u64::from(key)));
    }

    fn remove(&mut self, key: u8) {
        let found = self.cache.remove(&u64::from(key)).expect("the disk takes all writes");
        assert!(!found || self.expected(key).is_some(), "removed {key}, which was gone");
        self.model.remove(&key);
        self.saw(key, self.cache.get(&u64::from(key)));
    }

    fn get_or_insert(&mut self, key: u8, size: Size) {
        let loaded = self.new_value(key, size.bytes());
        let ran = Cell::new(false);
        let found = self.cache.get_or_insert_with(&u64::from(key), || {
            ran.set(true);
            loaded.clone()
        });
        if ran.get() {
            assert!(found == loaded, "the load's value was not returned");
            self.model.insert(key, Expected { value: loaded, deadline: None });
        } else {
            self.saw(key, Some(found));
        }
    }

    fn lease(&mut self, key: u8, size: Size, between: Between) {
        let lease = self.cache.lease(&u64::from(key)).expect("the cache is open");
        match between {
            Between::Nothing => {}
            Between::OtherKey => self.insert((key + 1) % KEYS, size.bytes(), None),
            Between::Insert => self.insert(key, size.bytes(), None),
            Between::Remove => self.remove(key),
            Between::Clear => self.clear(),
        }
        let value = self.new_value(key, size.bytes());
        let stored = lease.fill(value.clone()).expect("the disk takes all writes");
        assert_eq!(stored, !between.invalidates(), "a lease on {key}, then {between:?}, then fill");
        if stored {
            self.model.insert(key, Expected { value, deadline: None });
        }
        self.saw(key, self.cache.get(&u64::from(key)));
    }

    fn clear(&mut self) {
        self.cache.clear().expect("the disk takes all writes");
        self.model.clear();
        assert_eq!(self.cache.len(), 0, "cleared, yet not empty");
    }

    fn reopen_by_close(&mut self) {
        self.cache.close().expect("the disk takes all writes");
        self.reopen();
    }

    /// A drop where the disk is real; a kill where it can be copied.
    fn reopen_by_surprise(&mut self) {
        if let TestDisk::Memory(disk) = &mut self.disk {
            let killed = disk.after_kill();
            *disk = killed;
        }
        self.reopen();
    }

    fn reopen(&mut self) {
        // Something has to stand in the field while the directory is free.
        self.cache = TestCache::in_memory().ram_entries(1).stripes(1).open().expect("memory needs nothing");
        self.cache = self.options.open(&self.disk);
        for key in 0..KEYS {
            self.saw(key, self.cache.peek(&u64::from(key)));
        }
    }

    /// What a look-up returned must be what was stored last.
    fn saw(&self, key: u8, found: Option<Vec<u8>>) {
        let Some(found) = found else { return };
        let expected = self.expected(key).unwrap_or_else(|| panic!("lied: {key} was gone and is there"));
        assert!(found == expected.value, "lied about {key}: {}", describe(&found, &expected.value));
    }

    fn expected(&self, key: u8) -> Option<&Expected> {
        self.model.get(&key).filter(|expected| expected.deadline.is_none_or(|at| self.now < at))
    }

    /// A value that no other write stores, but for the shortest.
    fn new_value(&self, key: u8, bytes: usize) -> Vec<u8> {
        let version = self.versions.get() + 1;
        self.versions.set(version);
        let pattern = (version << 8 | u64::from(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        pattern.iter().copied().cycle().take(bytes).collect()
    }
}

/// The first bytes tell one write from another.
fn describe(found: &[u8], expected: &[u8]) -> String {
    let start = |bytes: &[u8]| bytes[..bytes.len().min(8)].to_vec();
    let (found_bytes, expected_bytes) = (found.len(), expected.len());
    format!("{found_bytes} bytes {:?}, not {expected_bytes} bytes {:?}", start(found), start(expected))
}

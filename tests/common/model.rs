//! The cache against a map, under any sequence of operations and ends of the process: it may forget, it
//! may not lie. The model test, the fault sweep and the fuzzer run it.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use embercache::{
    Builder, Cache, Error,
    testing::{FaultDisk, Io, MemoryDisk, RecorderDisk},
};
use tempfile::TempDir;

use super::ops::{Between, KEYS, Op, Size, Ttl};

/// Far more than a run takes in real time, so that only `Op::Sleep` makes anything expire.
pub(crate) const SHORT: Duration = Duration::from_secs(600);
pub(crate) const LONG: Duration = Duration::from_secs(1_000_000);
/// The largest value that has to come back from a disk with room.
const SURELY_FITS_BYTES: usize = 4097;

type TestCache = Cache<u64, Vec<u8>>;
type TestBuilder = Builder<u64, Vec<u8>>;

/// Where the cache lies.
#[derive(Debug)]
pub(crate) enum TestDisk {
    /// Can be copied at any moment, which is a kill at that moment.
    Memory(MemoryDisk),
    /// Fails on demand, and knows what is left after a loss of power.
    Recorded(FaultDisk, RecorderDisk),
    /// Is mapped as a user's would be.
    Files(FaultDisk, TempDir),
}

impl TestDisk {
    pub(crate) fn memory() -> TestDisk {
        TestDisk::Memory(MemoryDisk::new())
    }

    pub(crate) fn recorded(disk: RecorderDisk) -> TestDisk {
        TestDisk::Recorded(FaultDisk::over(Arc::new(disk.clone())), disk)
    }

    pub(crate) fn files() -> TestDisk {
        let disk = FaultDisk::new();
        disk.skip_syncs(true);
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        TestDisk::Files(disk, dir.expect("a temporary directory"))
    }

    pub(crate) fn dir(&self) -> PathBuf {
        match self {
            TestDisk::Memory(_) | TestDisk::Recorded(..) => "cache".into(),
            TestDisk::Files(_, dir) => dir.path().join("cache"),
        }
    }

    pub(crate) fn io(&self) -> Arc<dyn Io> {
        match self {
            TestDisk::Memory(disk) => Arc::new(disk.clone()),
            TestDisk::Recorded(disk, _) | TestDisk::Files(disk, _) => Arc::new(disk.clone()),
        }
    }

    fn advance_clock(&self, by: Duration) {
        match self {
            TestDisk::Memory(disk) => disk.advance_clock(by),
            TestDisk::Recorded(_, disk) => disk.memory().advance_clock(by),
            TestDisk::Files(disk, _) => disk.advance_clock(by),
        }
    }

    /// What a kill leaves now, on a disk that is well again; `None` where that cannot be copied.
    fn after_kill(&self) -> Option<TestDisk> {
        match self {
            TestDisk::Memory(disk) => Some(TestDisk::Memory(disk.after_kill())),
            TestDisk::Recorded(_, disk) => Some(TestDisk::recorded(disk.after_kill(usize::MAX))),
            TestDisk::Files(..) => None,
        }
    }

    /// The same after a loss of power: `random` gives a number below the one given.
    fn after_power_loss(&self, random: &mut dyn FnMut(u64) -> u64) -> Option<TestDisk> {
        let TestDisk::Recorded(_, disk) = self else { return None };
        let mut replay = disk.replay();
        while replay.advance().is_some() {}
        Some(TestDisk::recorded(RecorderDisk::over(replay.after_power_loss(random))))
    }
}

/// What is asked of the cache beside the truth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demands {
    /// The disk has room for everything, so nothing small may be forgotten while it works.
    pub(crate) keeps_all: bool,
    /// Operations may return that the disk has failed.
    pub(crate) disk_may_fail: bool,
    /// More than the cache is to take.
    pub(crate) too_large_bytes: usize,
    /// Surprising ends are losses of power, now and then.
    pub(crate) outlives_power: bool,
}

impl Demands {
    /// The truth alone.
    pub(crate) const TRUTH: Demands =
        Demands { keeps_all: false, disk_may_fail: false, too_large_bytes: 100_000, outlives_power: false };
}

/// The cache and what it may hold.
pub(crate) struct Run {
    builder: Box<dyn Fn(&TestDisk) -> TestBuilder>,
    demands: Demands,
    pub(crate) disk: TestDisk,
    pub(crate) cache: TestCache,
    model: HashMap<u8, Expected>,
    /// Keys whose last change could not be made durable, as the caller was told: at the next surprise
    /// anything older may be there.
    in_doubt: HashSet<u8>,
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
    pub(crate) fn new(
        disk: TestDisk,
        demands: Demands,
        builder: impl Fn(&TestDisk) -> TestBuilder + 'static,
    ) -> Run {
        let builder = Box::new(builder);
        let cache = open(&builder, &disk, demands);
        let (model, in_doubt) = (HashMap::new(), HashSet::new());
        Run { builder, demands, disk, cache, model, in_doubt, now: Duration::ZERO, versions: Cell::new(0) }
    }

    pub(crate) fn step(&mut self, op: Op) {
        match op {
            Op::Insert(key, size) => self.insert(key, size.bytes(), None),
            Op::InsertWithTtl(key, size, Ttl::Short) => self.insert(key, size.bytes(), Some(SHORT)),
            Op::InsertWithTtl(key, size, Ttl::Long) => self.insert(key, size.bytes(), Some(LONG)),
            Op::InsertTooLarge(key) => self.insert(key, self.demands.too_large_bytes, None),
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
            Op::Flush => self.done(self.cache.flush()),
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
        self.in_doubt.remove(&key);
        match inserted {
            Ok(()) => self.store(key, value, ttl),
            // Refused, and what stood there is gone.
            Err(Error::TooLarge { .. }) => _ = self.model.remove(&key),
            Err(Error::NotDurable { .. }) if self.demands.disk_may_fail => {
                self.store(key, value, ttl);
                self.in_doubt.insert(key);
            }
            Err(other) => panic!("insert: {other}"),
        }
        self.saw(key, self.cache.peek(&u64::from(key)));
    }

    fn store(&mut self, key: u8, value: Vec<u8>, ttl: Option<Duration>) {
        let deadline = ttl.map(|ttl| self.now + ttl);
        self.model.insert(key, Expected { value, deadline });
    }

    fn remove(&mut self, key: u8) {
        let removed = self.cache.remove(&u64::from(key));
        let was_there = self.expected(key).is_some();
        self.in_doubt.remove(&key);
        match removed {
            Ok(found) => assert!(!found || was_there, "removed {key}, which was gone"),
            Err(error) => self.doubt(key, &error),
        }
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
            if self.demands.disk_may_fail {
                // Nobody is told whether it was stored, nor whether that is durable.
                self.in_doubt.insert(key);
            }
            self.store(key, loaded, None);
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
        let stored = match lease.fill(value.clone()) {
            Ok(stored) => {
                if stored {
                    self.in_doubt.remove(&key);
                }
                stored
            }
            Err(error) => {
                self.doubt(key, &error);
                true
            }
        };
        assert_eq!(stored, !between.invalidates(), "a lease on {key}, then {between:?}, then fill");
        if stored {
            self.store(key, value, None);
        }
        self.saw(key, self.cache.get(&u64::from(key)));
    }

    fn clear(&mut self) {
        let cleared = self.cache.clear();
        self.in_doubt.clear();
        if let Err(error) = cleared {
            (0..KEYS).for_each(|key| self.doubt(key, &error));
        }
        self.model.clear();
        assert_eq!(self.cache.len(), 0, "cleared, yet not empty");
    }

    pub(crate) fn reopen_by_close(&mut self) {
        let closed = self.cache.close();
        self.done(closed);
        assert_eq!(self.cache.get(&0), None, "closed, yet answering");
        self.reopen();
    }

    /// A drop where the disk is real; a kill, or a loss of power, where it can be copied.
    pub(crate) fn reopen_by_surprise(&mut self) {
        let mut state = self.versions.get();
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let is_power_loss = self.demands.outlives_power && random(2) == 0;
        let left =
            if is_power_loss { self.disk.after_power_loss(&mut random) } else { self.disk.after_kill() };
        if let Some(left) = left {
            self.disk = left;
            // What was in RAM alone is gone.
            self.demands.keeps_all = false;
        }
        self.reopen();
    }

    fn reopen(&mut self) {
        // Something has to stand in the field while the directory is free.
        self.cache = TestCache::in_memory().ram_entries(1).stripes(1).open().expect("memory needs nothing");
        self.cache = open(&self.builder, &self.disk, self.demands);
        for key in std::mem::take(&mut self.in_doubt) {
            // The caller had been told that anything may be there.
            self.model.remove(&key);
            if self.cache.remove(&u64::from(key)).is_err() {
                self.in_doubt.insert(key);
            }
        }
        for key in 0..KEYS {
            self.saw(key, self.cache.peek(&u64::from(key)));
        }
    }

    /// What a look-up returned must be what was stored last, or nothing where it may be forgotten.
    fn saw(&self, key: u8, found: Option<Vec<u8>>) {
        let expected = self.expected(key);
        let Some(found) = found else {
            let is_owed =
                self.demands.keeps_all && expected.is_some_and(|e| e.value.len() <= SURELY_FITS_BYTES);
            assert!(!is_owed, "forgot {key} for no reason: {:?}", self.cache.stats());
            return;
        };
        let expected = expected.unwrap_or_else(|| panic!("lied: {key} was gone and is there"));
        assert!(found == expected.value, "lied about {key}: {}", describe(&found, &expected.value));
    }

    fn expected(&self, key: u8) -> Option<&Expected> {
        self.model.get(&key).filter(|expected| expected.deadline.is_none_or(|at| self.now < at))
    }

    fn done(&self, done: Result<(), Error>) {
        assert!(done.is_ok() || self.demands.disk_may_fail, "the disk takes all writes: {done:?}");
    }

    fn doubt(&mut self, key: u8, error: &Error) {
        let is_told = matches!(error, Error::NotDurable { .. }) && self.demands.disk_may_fail;
        assert!(is_told, "the disk takes all writes: {error:?}");
        self.in_doubt.insert(key);
    }

    /// A value that no other write stores, but for the shortest.
    fn new_value(&self, key: u8, bytes: usize) -> Vec<u8> {
        let version = self.versions.get() + 1;
        self.versions.set(version);
        let pattern = (version << 8 | u64::from(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let mut value = pattern.repeat(bytes.div_ceil(pattern.len()));
        value.truncate(bytes);
        value
    }
}

/// Opens the cache; where one fault may be under way, once more.
fn open(builder: &dyn Fn(&TestDisk) -> TestBuilder, disk: &TestDisk, demands: Demands) -> TestCache {
    let open = || builder(disk).io(disk.io()).open();
    match open() {
        Err(Error::Io { .. }) if demands.disk_may_fail => open(),
        opened => opened,
    }
    .expect("a directory of ours opens")
}

/// The first bytes tell one write from another.
fn describe(found: &[u8], expected: &[u8]) -> String {
    let start = |bytes: &[u8]| bytes[..bytes.len().min(8)].to_vec();
    let (found_bytes, expected_bytes) = (found.len(), expected.len());
    format!("{found_bytes} bytes {:?}, not {expected_bytes} bytes {:?}", start(found), start(expected))
}

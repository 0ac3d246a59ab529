//! The cache against a map: it may forget, it may not lie, through every operation and any
//! number of reopens.

mod common;

use std::{
    cell::Cell,
    collections::HashMap,
    time::{Duration, Instant},
};

use common::{
    TempDir, TestCache, cases, ops,
    ops::{Between, Op, Size, Ttl},
    tiny, value,
};
use embercache::{Builder, Error, KIB, MIB};
use proptest::{
    collection::vec,
    prelude::{ProptestConfig, Strategy, any, proptest},
};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(96) as u32,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    })]

    /// Eight entries of RAM and a megabyte of disk: every sequence evicts, spills, promotes and
    /// reclaims.
    #[test]
    fn may_forget_but_never_lies(ops in vec(op(), 1..300)) {
        run(Room::Tiny, &ops);
    }

    /// Room for everything, so nothing small may be missing, neither at once nor after a reopen.
    #[test]
    fn forgets_nothing_that_fits(ops in vec(op(), 1..200)) {
        run(Room::Ample, &ops);
    }
}

/// How much of what is stored there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Tiny,
    Ample,
}

/// The largest value that the ample cache has to bring back from disk.
const SURELY_FITS_BYTES: usize = 4097;
/// A time to live that ends during a test, and one that does not.
const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(3600);
/// How far from its deadline an entry may expire: the cache's clock ticks.
const TICK: Duration = Duration::from_millis(32);

/// Through the bytes, as the fuzzer has them.
fn op() -> impl Strategy<Value = Op> {
    any::<[u8; Op::BYTES]>().prop_map(Op::decode)
}

fn run(room: Room, ops: &[Op]) {
    let dir = TempDir::new();
    let mut run = Run { cache: open(room, &dir), room, dir, model: HashMap::new(), versions: Cell::new(0) };
    for op in ops {
        run.step(*op);
        run.cache.check();
    }
    run.reopen_by_close();
    run.cache.check();
}

fn open(room: Room, dir: &TempDir) -> TestCache {
    options(room, dir).open().unwrap()
}

fn options(room: Room, dir: &TempDir) -> Builder<u64, Vec<u8>> {
    match room {
        Room::Tiny => tiny(&dir.cache()).ram_entries(8).stripes(2),
        Room::Ample => tiny(&dir.cache()).ram(8 * MIB).disk(16 * MIB).segment_size(64 * KIB),
    }
}

/// The cache and what it ought to hold.
struct Run {
    cache: TestCache,
    room: Room,
    dir: TempDir,
    model: HashMap<u8, Expected>,
    versions: Cell<u64>,
}

#[derive(Clone)]
struct Expected {
    value: Vec<u8>,
    /// The earliest and the latest moment at which it expires, if it does.
    deadline: Option<(Instant, Instant)>,
}

impl Expected {
    fn may_be_seen(&self) -> bool {
        self.deadline.is_none_or(|(_, latest)| Instant::now() <= latest)
    }

    fn must_be_seen(&self) -> bool {
        self.value.len() <= SURELY_FITS_BYTES
            && self.deadline.is_none_or(|(earliest, _)| Instant::now() < earliest)
    }
}

impl Run {
    fn step(&mut self, op: Op) {
        match op {
            Op::Insert(key, size) => self.insert(key, size, None),
            Op::InsertWithTtl(key, size, ttl) => self.insert(key, size, Some(ttl)),
            Op::InsertTooLarge(key) => self.insert_too_large(key),
            Op::Remove(key) => self.remove(key),
            Op::Get(key) => self.saw(key, |cache| cache.get(&u64::from(key))),
            Op::GetWith(key) => self.saw(key, |cache| cache.get_with(&u64::from(key), Vec::clone)),
            Op::Peek(key) => self.saw(key, |cache| cache.peek(&u64::from(key))),
            Op::ContainsKey(key) => self.contains_key(key),
            Op::GetOrInsert(key, size) => self.get_or_insert(key, size),
            Op::Lease(key, size, between) => self.lease(key, size, between),
            Op::Clear => self.clear(),
            Op::Flush => self.cache.flush().unwrap(),
            Op::Sleep => std::thread::sleep(SHORT + TICK),
            Op::CloseAndReopen => self.reopen_by_close(),
            Op::DropAndReopen => self.reopen_by_drop(),
        }
    }

    fn insert(&mut self, key: u8, size: Size, ttl: Option<Ttl>) {
        let value = self.new_value(key, size);
        let before = Instant::now();
        let deadline = match ttl {
            None => {
                self.cache.insert(key.into(), value.clone()).unwrap();
                None
            }
            Some(ttl) => {
                let ttl = if ttl == Ttl::Short { SHORT } else { LONG };
                self.cache.insert_with_ttl(key.into(), value.clone(), ttl).unwrap();
                Some((before + ttl.saturating_sub(TICK), Instant::now() + ttl + TICK))
            }
        };
        self.model.insert(key, Expected { value, deadline });
        self.saw(key, |cache| cache.peek(&u64::from(key)));
    }

    /// Whether it is taken or refused, the old value is gone.
    fn insert_too_large(&mut self, key: u8) {
        let value = vec![self.next_version() as u8; 9 << 20];
        self.model.remove(&key);
        match self.cache.insert(key.into(), value.clone()) {
            Ok(()) => _ = self.model.insert(key, Expected { value, deadline: None }),
            Err(Error::TooLarge { .. }) => {
                assert_eq!(self.cache.get(&key.into()), None, "refused, yet there")
            }
            Err(other) => panic!("a value too large is refused by another error: {other}"),
        }
        if self.room == Room::Tiny {
            self.saw(key, |cache| cache.get(&u64::from(key)));
        }
    }

    fn remove(&mut self, key: u8) {
        let had = self.cache.remove(&u64::from(key)).unwrap();
        let expected = self.model.remove(&key);
        assert!(!had || expected.is_some_and(|e| e.may_be_seen()), "removed {key}, which was not there");
        assert_eq!(self.cache.get(&u64::from(key)), None, "{key} came back");
    }

    /// What a look-up returned must be what the model has, or nothing where it may be forgotten.
    fn saw(&self, key: u8, look_up: impl FnOnce(&TestCache) -> Option<Vec<u8>>) {
        let expected = self.model.get(&key);
        let may = expected.filter(|e| e.may_be_seen());
        let found = look_up(&self.cache);
        let must = expected.filter(|e| self.room == Room::Ample && e.must_be_seen());
        match found {
            Some(found) => {
                let expected = may.unwrap_or_else(|| panic!("lied: {key} was gone and is there"));
                assert!(
                    found == expected.value,
                    "lied about {key}: {:.24?}, not {:.24?}",
                    found,
                    expected.value
                );
            }
            None => assert!(must.is_none(), "forgot {key} for no reason: {:?}", self.cache.stats()),
        }
    }

    fn contains_key(&self, key: u8) {
        let may = self.model.get(&key).is_some_and(Expected::may_be_seen);
        assert!(!self.cache.contains_key(&u64::from(key)) || may, "{key} is said to be there");
    }

    fn get_or_insert(&mut self, key: u8, size: Size) {
        let loaded = self.new_value(key, size);
        let may = self.model.get(&key).filter(|e| e.may_be_seen()).cloned();
        let ran = Cell::new(false);
        let found = self.cache.get_or_insert_with(&u64::from(key), || {
            ran.set(true);
            loaded.clone()
        });
        if ran.get() {
            assert!(found == loaded, "the load's value was not returned");
            self.model.insert(key, Expected { value: loaded, deadline: None });
        } else {
            assert!(may.is_some_and(|e| e.value == found), "lied about {key}, and did not load");
        }
    }

    fn lease(&mut self, key: u8, size: Size, between: Between) {
        let lease = self.cache.lease(&u64::from(key)).unwrap();
        match between {
            Between::Nothing => {}
            Between::OtherKey => self.insert((key + 1) % ops::KEYS, size, None),
            Between::Insert => self.insert(key, size, None),
            Between::Remove => self.remove(key),
            Between::Clear => self.clear(),
        }
        let value = self.new_value(key, size);
        let stored = lease.fill(value.clone()).unwrap();
        assert_eq!(stored, !between.invalidates(), "a lease on {key}, then {between:?}, then fill");
        if stored {
            self.model.insert(key, Expected { value, deadline: None });
        }
        self.saw(key, |cache| cache.get(&u64::from(key)));
    }

    fn clear(&mut self) {
        self.cache.clear().unwrap();
        self.model.clear();
        assert_eq!(self.cache.len(), 0, "cleared, yet not empty");
    }

    fn reopen_by_close(&mut self) {
        self.cache.close().unwrap();
        assert_eq!(self.cache.get(&0), None, "closed, yet answering");
        self.cache = open(self.room, &self.dir);
        self.saw_all();
    }

    fn reopen_by_drop(&mut self) {
        // Something has to stand in the field while the directory is free.
        self.cache = TestCache::in_memory().open().unwrap();
        self.cache = open(self.room, &self.dir);
        self.saw_all();
    }

    fn saw_all(&mut self) {
        // A value that does not fit the log is lost with the RAM it stood in; anything else is not.
        for key in 0..ops::KEYS {
            self.saw(key, |cache| cache.get(&u64::from(key)));
        }
    }

    fn new_value(&self, key: u8, size: Size) -> Vec<u8> {
        value::filling(key.into(), self.next_version(), size.bytes())
    }

    fn next_version(&self) -> u64 {
        self.versions.set(self.versions.get() + 1);
        self.versions.get()
    }
}

//! One load a key however many wait, and the rest of what a user counts on: borrowed keys, times to
//! live, clear and close, the weigher and the budget.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use crate::common::{
    TempDir, TestCache, roomy,
    value::{value, version},
    wait_until,
};
use embercache::{
    Admission, Cache, Codec, CodecError, CodecId, Error, MIB, WriteBehind, testing::MemoryDisk,
};

const THREADS: u64 = 16;
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn one_load_however_many_wait() {
    let cache = TestCache::in_memory().ram(4 * MIB).open().unwrap();
    for key in 0..20 {
        let (loads, barrier) = (AtomicU64::new(0), Barrier::new(THREADS as usize));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    let found = cache.get_or_insert_with(&key, || {
                        thread::sleep(Duration::from_millis(10));
                        value(key, loads.fetch_add(1, SeqCst), 100)
                    });
                    assert_eq!(version(key, &found), 0, "not the one load's value");
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }
    assert_eq!(cache.stats().loads, 20);
}

/// A value that says when it is dropped.
#[derive(Clone)]
struct Told(Arc<AtomicU64>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Codec for Told {
    const ID: CodecId = CodecId(0x5_0003);

    fn encode(&self, _: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(_: Vec<u8>) -> Result<Self, CodecError> {
        Err(CodecError::new("it is never on disk"))
    }

    fn heap_bytes(&self) -> usize {
        4 << 20
    }
}

/// What was removed does not wait for the thread's next operation, of which there may be none.
#[test]
fn a_large_value_is_dropped_when_it_was_removed() {
    let cache: Cache<u64, Told> = Cache::in_memory().ram(64 * MIB).open().unwrap();
    let drops = Arc::new(AtomicU64::new(0));
    cache.insert(7, Told(drops.clone())).unwrap();
    cache.remove(&7).unwrap();
    wait_until("it is dropped", Duration::from_secs(10), || drops.load(SeqCst) == 1);
    cache.insert(7, Told(drops.clone())).unwrap();
    cache.clear().unwrap();
    wait_until("it is dropped", Duration::from_secs(10), || drops.load(SeqCst) == 2);
}

/// Nor do many small ones wait for inserts, of which there may be none.
#[test]
fn values_are_dropped_when_they_were_removed() {
    let cache: Cache<u64, Told> = Cache::in_memory().ram_entries(50_000).stripes(1).open().unwrap();
    let drops = Arc::new(AtomicU64::new(0));
    (0..20_000).for_each(|key| cache.insert(key, Told(drops.clone())).unwrap());
    (0..20_000).for_each(|key| _ = cache.remove(&key).unwrap());
    wait_until("most are dropped", Duration::from_secs(10), || {
        // Another test's reader may have held the epoch meanwhile.
        cache.remove(&0).unwrap();
        drops.load(SeqCst) > 15_000
    });
}

/// Whoever finds that a large value has expired has it dropped, by whatever look-up, and though it does nothing more.
#[test]
fn an_expired_value_is_dropped_by_who_finds_it() {
    let look_ups: [fn(&Cache<u64, Told>); 3] = [
        |cache| assert!(cache.peek(&7).is_none()),
        |cache| assert!(!cache.contains_key(&7)),
        |cache| assert!(cache.try_get_or_insert_with(&7, || Err(())).is_err()),
    ];
    for look_up in look_ups {
        let cache: Cache<u64, Told> = Cache::in_memory().ram(64 * MIB).open().unwrap();
        let drops = Arc::new(AtomicU64::new(0));
        cache.insert_with_ttl(7, Told(drops.clone()), Duration::from_millis(40)).unwrap();
        thread::sleep(Duration::from_millis(100));
        let (done, is_done) = mpsc::channel::<()>();
        let looker = {
            let cache = cache.clone();
            thread::spawn(move || {
                look_up(&cache);
                // And rests.
                let _ = is_done.recv();
            })
        };
        wait_until("it is dropped", Duration::from_secs(10), || {
            cache.insert(8, Told(Arc::default())).unwrap();
            drops.load(SeqCst) == 1
        });
        drop(done);
        looker.join().unwrap();
    }
}

/// Loads of different keys do not wait for each other: each of these two waits for the other.
#[test]
fn loads_of_two_keys_run_at_once() {
    let cache = TestCache::in_memory().ram(4 * MIB).stripes(1).open().unwrap();
    let both = Barrier::new(2);
    thread::scope(|scope| {
        for key in 0..2 {
            let (cache, both) = (&cache, &both);
            scope.spawn(move || {
                cache.get_or_insert_with(&key, || {
                    both.wait();
                    value(key, 1, 100)
                })
            });
        }
    });
    assert_eq!(cache.len(), 2);
}

#[test]
fn a_failing_load_wakes_the_next() {
    let cache = TestCache::in_memory().ram(4 * MIB).open().unwrap();
    let (loads, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                let found = cache.try_get_or_insert_with(&1, || {
                    let load = loads.fetch_add(1, SeqCst);
                    thread::sleep(Duration::from_millis(5));
                    if load < 3 { Err("the database is away") } else { Ok(value(1, load, 100)) }
                });
                match found {
                    Ok(found) => assert_eq!(version(1, &found), 3),
                    Err(_) => _ = failed.fetch_add(1, SeqCst),
                }
            });
        }
    });
    assert_eq!((loads.into_inner(), failed.into_inner()), (4, 3), "each failure is its own loader's alone");
}

#[test]
fn a_panicking_load_wakes_the_next() {
    let cache = TestCache::in_memory().ram(4 * MIB).open().unwrap();
    let (loads, panicked) = (AtomicU64::new(0), AtomicU64::new(0));
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                let load = || {
                    let load = loads.fetch_add(1, SeqCst);
                    thread::sleep(Duration::from_millis(5));
                    assert!(load > 0, "this panic is part of the test");
                    value(1, load, 100)
                };
                match catch_unwind(AssertUnwindSafe(|| cache.get_or_insert_with(&1, load))) {
                    Ok(found) => assert_eq!(version(1, &found), 1),
                    Err(_) => _ = panicked.fetch_add(1, SeqCst),
                }
            });
        }
    });
    assert_eq!((loads.into_inner(), panicked.into_inner()), (2, 1));
    cache.check();
}

/// A value whose second clone waits at a gate.
struct Slow {
    clones: Arc<AtomicU64>,
    entered: mpsc::SyncSender<()>,
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Clone for Slow {
    fn clone(&self) -> Slow {
        if self.clones.fetch_add(1, SeqCst) == 1 {
            self.entered.send(()).unwrap();
            let _ = self.gate.lock().unwrap().recv();
        }
        Slow { clones: self.clones.clone(), entered: self.entered.clone(), gate: self.gate.clone() }
    }
}

impl Codec for Slow {
    const ID: CodecId = CodecId(0x5_0004);

    fn encode(&self, _: &mut Vec<u8>) -> Result<(), CodecError> {
        Err(CodecError::new("it is never on disk"))
    }

    fn decode(_: Vec<u8>) -> Result<Self, CodecError> {
        Err(CodecError::new("it is never on disk"))
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

/// The load was stored, and what it brought has expired, before its leader tells those who wait.
#[test]
fn who_asks_when_it_has_expired_is_not_handed_it() {
    let disk = MemoryDisk::new();
    let (entered, has_entered) = mpsc::sync_channel(10);
    let (open_gate, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let cache: Cache<u64, Slow> = Cache::builder("cache")
        .ram(MIB)
        .disk(MIB)
        .io(Arc::new(disk.clone()))
        .time_to_live(10 * SECOND)
        .write_behind(WriteBehind::Never)
        .open()
        .unwrap();
    let slow = |clones| Slow {
        clones: Arc::new(AtomicU64::new(clones)),
        entered: entered.clone(),
        gate: gate.clone(),
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            cache.get_or_insert_with(&1, || slow(0));
        });
        has_entered.recv().unwrap();
        // Stored, and now:
        assert!(cache.contains_key(&1));
        disk.advance_clock(20 * SECOND);
        assert!(!cache.contains_key(&1));
        let loaded = Arc::new(AtomicBool::new(false));
        let asks = scope.spawn({
            let (loaded, cache) = (loaded.clone(), &cache);
            let fresh = slow(100);
            move || {
                cache.get_or_insert_with(&1, || {
                    loaded.store(true, SeqCst);
                    fresh
                });
            }
        });
        thread::sleep(Duration::from_millis(300));
        open_gate.send(()).unwrap();
        drop(open_gate);
        asks.join().unwrap();
        assert!(loaded.load(SeqCst), "it was handed what had expired before it asked");
    });
}

/// A key that runs an errand once, when it is cloned.
#[derive(PartialEq, Eq)]
struct Errand(u64);

static ON_CLONE: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

impl Clone for Errand {
    fn clone(&self) -> Errand {
        let run = ON_CLONE.lock().unwrap().take();
        run.into_iter().for_each(|run| run());
        Errand(self.0)
    }
}

impl Codec for Errand {
    const ID: CodecId = CodecId(0x5_0005);

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.0.encode(out)
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
        u64::decode(bytes).map(Errand)
    }
}

/// Between the look-up and the load the key is inserted, and has left RAM by the time that the load begins.
#[test]
fn a_load_replaces_nothing_that_came_before_it_began() {
    let builder = Cache::<Errand, u64>::builder("cache").ram_entries(16).stripes(1).disk(16 * MIB);
    let builder = builder.admission(Admission::All).write_behind(WriteBehind::Never);
    let cache = builder.io(Arc::new(MemoryDisk::new())).open().unwrap();
    let inserts = cache.clone();
    *ON_CLONE.lock().unwrap() = Some(Box::new(move || {
        inserts.insert(Errand(1), 10).unwrap();
        (100..200).for_each(|other| inserts.insert(Errand(other), 0).unwrap());
        inserts.flush().unwrap();
        assert_eq!(inserts.peek(&Errand(1)), Some(10));
    }));
    assert_eq!(cache.get_or_insert_with(&Errand(1), || 1), 10);
    assert_eq!(cache.get(&Errand(1)), Some(10), "an acknowledged insert is lost");
    assert_eq!(cache.stats().loads, 0, "none was run");
}

/// A load may use the cache itself, for other keys and for its own.
#[test]
fn a_load_that_uses_the_cache() {
    let cache = TestCache::in_memory().ram(4 * MIB).stripes(1).open().unwrap();
    let found = cache.get_or_insert_with(&1, || {
        assert_eq!(cache.get(&1), None);
        let part = cache.get_or_insert_with(&2, || value(2, 7, 100));
        value(1, version(2, &part), 100)
    });
    assert_eq!((version(1, &found), cache.len()), (7, 2));
}

#[test]
fn keys_are_borrowed() {
    let dir = TempDir::new();
    let open = || Cache::<String, String>::builder(dir.cache()).ram(2 * MIB).disk(16 * MIB).open().unwrap();
    let cache = open();
    cache.insert("runner".to_owned(), "ran".to_owned()).unwrap();
    assert_eq!(cache.get("runner").as_deref(), Some("ran"));
    assert_eq!(cache.get_with("runner", |value| value.len()), Some(3));
    assert_eq!(cache.get_or_insert_with("other", || "made".to_owned()), "made");
    cache.close().unwrap();
    let cache = open();
    assert_eq!(cache.get("runner").as_deref(), Some("ran"), "the borrowed key has another hash on disk");
    assert!(cache.contains_key("other"));
    assert!(cache.remove("runner").unwrap());
    assert!(!cache.contains_key("runner"));

    let blobs: Cache<Vec<u8>, u64> = Cache::in_memory().ram(MIB).open().unwrap();
    blobs.insert(vec![1, 2], 3).unwrap();
    assert_eq!(blobs.get([1, 2].as_slice()), Some(3));
}

#[test]
fn times_to_live() {
    let dir = TempDir::new();
    let short = Duration::from_millis(300);
    let cache = roomy(&dir.cache()).ram_entries(1024).time_to_live(short).open().unwrap();
    cache.insert(1, value(1, 1, 100)).unwrap();
    cache.insert_with_ttl(2, value(2, 1, 100), Duration::from_secs(3600)).unwrap();
    assert!(cache.lease(&3).unwrap().fill_with_ttl(value(3, 1, 100), short).unwrap());
    cache.get_or_insert_with(&4, || value(4, 1, 100));
    assert!((1..=4).all(|key| cache.contains_key(&key)), "expired before its time");
    cache.flush().unwrap();
    thread::sleep(short + Duration::from_millis(100));
    assert_eq!((cache.get(&1), cache.get(&3), cache.get(&4)), (None, None, None));
    assert!(cache.contains_key(&2), "its own time to live is longer");
    cache.close().unwrap();
    let cache = roomy(&dir.cache()).ram_entries(1024).open().unwrap();
    assert_eq!((cache.get(&1), cache.get(&3), cache.get(&4)), (None, None, None), "back from disk");
    assert!(cache.contains_key(&2));
}

/// An entry expires while the cache is closed.
#[test]
fn times_to_live_go_on_while_closed() {
    let dir = TempDir::new();
    let cache = roomy(&dir.cache()).open().unwrap();
    cache.insert_with_ttl(1, value(1, 1, 100), Duration::from_millis(1_100)).unwrap();
    cache.insert(2, value(2, 1, 100)).unwrap();
    cache.close().unwrap();
    thread::sleep(Duration::from_millis(1_200));
    let cache = roomy(&dir.cache()).open().unwrap();
    assert_eq!(cache.get(&1), None);
    assert!(cache.contains_key(&2));
}

#[test]
fn time_to_idle() {
    let idle = Duration::from_millis(400);
    let cache = TestCache::in_memory().ram(MIB).time_to_idle(idle).open().unwrap();
    cache.insert(1, value(1, 1, 100)).unwrap();
    cache.insert(2, value(2, 1, 100)).unwrap();
    for _ in 0..8 {
        thread::sleep(idle / 4);
        assert!(cache.get(&1).is_some(), "it was hit again and again");
    }
    assert_eq!(cache.get(&2), None, "it was not hit for twice the time");
}

#[test]
fn clear_removes_everything() {
    let dir = TempDir::new();
    let cache = roomy(&dir.cache()).open().unwrap();
    (0..500).for_each(|key| cache.insert(key, value(key, 1, 300)).unwrap());
    cache.clear().unwrap();
    assert!(cache.is_empty());
    assert!((0..500).all(|key| cache.get(&key).is_none()));
    cache.insert(3, value(3, 2, 300)).unwrap();
    cache.check();
    cache.close().unwrap();
    let cache = roomy(&dir.cache()).open().unwrap();
    let back: Vec<u64> = (0..500).filter(|key| cache.get(key).is_some()).collect();
    assert_eq!(back, [3]);
}

#[test]
fn a_closed_cache() {
    let dir = TempDir::new();
    let cache = roomy(&dir.cache()).open().unwrap();
    let handle = cache.clone();
    cache.insert(1, value(1, 1, 100)).unwrap();
    let lease = cache.lease(&2).unwrap();
    cache.close().unwrap();
    assert!(handle.get(&1).is_none() && handle.peek(&1).is_none() && !handle.contains_key(&1));
    assert!(matches!(handle.insert(1, value(1, 2, 100)), Err(Error::Closed)));
    assert!(matches!(handle.remove(&1), Err(Error::Closed)));
    assert!(matches!(handle.clear(), Err(Error::Closed)));
    assert!(matches!(handle.flush(), Err(Error::Closed)));
    assert!(!matches!(lease.fill(value(2, 1, 100)), Ok(true)), "filled a closed cache");
    assert_eq!(version(3, &handle.get_or_insert_with(&3, || value(3, 1, 100))), 1, "a load goes on");
    assert_eq!(handle.stats().loads, 1);
    assert!(handle.close().is_ok(), "closing twice is closing once");
    // The directory is free although handles are left.
    let again = roomy(&dir.cache()).open().unwrap();
    assert_eq!(again.get(&1).map(|found| version(1, &found)), Some(1));
    assert!(again.get(&2).is_none() && again.get(&3).is_none());
}

#[test]
fn a_drop_closes() {
    let dir = TempDir::new();
    drop({
        let cache = roomy(&dir.cache()).open().unwrap();
        cache.insert(1, value(1, 1, 100)).unwrap();
        cache
    });
    let cache = roomy(&dir.cache()).open().unwrap();
    assert!(cache.contains_key(&1));
    assert_eq!(cache.stats().recovery.start, embercache::Start::Clean);
}

#[test]
fn the_budget_holds() {
    for budget in [MIB, 3 * MIB] {
        stays_within(&TestCache::in_memory().ram(budget).open().unwrap(), budget);
    }
    let dir = TempDir::new();
    stays_within(&TestCache::builder(dir.cache()).ram(4 * MIB).disk(64 * MIB).open().unwrap(), 4 * MIB);
}

/// Inserts several times what fits, from four threads. While they run, what they have displaced may
/// wait for a reader that the scheduler has put aside; afterwards, a little of it may.
fn stays_within(cache: &TestCache, budget: u64) {
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for key in (thread..20_000).step_by(4) {
                    cache.insert(key, value(key, 1, 100 + key as usize % 3_000)).unwrap();
                    let used = cache.ram_used();
                    assert!(used <= budget + 16 * MIB, "{used} bytes of {budget} in use");
                }
            });
        }
    });
    let used = || cache.ram_used();
    wait_until("the budget is kept at rest", Duration::from_secs(10), || used() <= budget + budget / 16);
    assert!(used() > budget / 4, "a cache that keeps nothing keeps its budget as well");
    cache.check();
}

/// Entries that are large beside a stripe's share.
#[test]
fn entries_larger_than_their_stripes_shares_keep_the_budget() {
    let weigh = |_: &u64, value: &u64| *value;
    let cache: Cache<u64, u64> = Cache::in_memory().ram(64 * MIB).stripes(32).weigher(weigh).open().unwrap();
    for key in 0..1_000 {
        cache.insert(key, 20 * MIB).unwrap();
    }
    cache.check();
    wait_until("the budget is kept at rest", 10 * SECOND, || cache.ram_used() <= 64 * MIB);
}

#[test]
fn more_stripes_than_entries() {
    let cache: Cache<u64, u64> = Cache::in_memory().ram_entries(100).stripes(256).open().unwrap();
    for key in 0..10_000 {
        cache.insert(key, key).unwrap();
    }
    cache.check();
    let len = cache.len();
    assert!(len <= 100, "{len} entries of 100");
}

#[test]
fn a_budget_in_entries() {
    let cache = TestCache::in_memory().ram_entries(100).open().unwrap();
    (0..10_000).for_each(|key| cache.insert(key, value(key, 1, 50)).unwrap());
    cache.check();
    let (len, hits) = (cache.len(), (0..10_000).filter(|key| cache.get(key).is_some()).count() as u64);
    // All but one or two that the policy keeps free.
    assert!((98..=100).contains(&len), "{len} entries of 100");
    assert_eq!(cache.ram_used(), len);
    assert!(hits <= len && hits >= 98, "{hits} hits of {len} entries");
}

#[test]
fn a_weigher_of_ones_own() {
    let weigh = |_: &u64, value: &Vec<u8>| value.len() as u64 * 1_000;
    let cache = TestCache::in_memory().ram(MIB).stripes(1).weigher(weigh).open().unwrap();
    (0..1_000).for_each(|key| cache.insert(key, value(key, 1, 100)).unwrap());
    assert!(cache.len() <= 10, "{} entries of 100,000 bytes each fit into 1 MiB", cache.len());
    assert!(cache.len() >= 5, "only {} entries of 100,000 bytes fit into 1 MiB", cache.len());
    cache.check();
}

/// No directory, no files, no threads that write: all of the rest works.
#[test]
fn in_ram_alone() {
    let cache = TestCache::in_memory().ram(4 * MIB).open().unwrap();
    cache.insert(1, value(1, 1, 100)).unwrap();
    cache.insert(1, value(1, 2, 100)).unwrap();
    assert_eq!(cache.get(&1).map(|found| version(1, &found)), Some(2));
    assert!(cache.remove(&1).unwrap() && !cache.remove(&1).unwrap());
    assert_eq!(cache.get(&1), None);
    cache.flush().unwrap();
    assert_eq!((cache.disk_bytes(), cache.stats().disk_entries, cache.stats().journal_entries), (0, 0, 0));
    cache.check();
    cache.close().unwrap();
}

/// What needs a disk means nothing.
#[test]
fn in_ram_alone_nothing_is_written_through() {
    let builder = Cache::<u64, u64>::in_memory().ram_entries(64).stripes(1);
    let cache = builder.write_behind(WriteBehind::Through).open().unwrap();
    for key in 0..10_000 {
        cache.insert(key % 300, key).unwrap();
        assert_eq!(cache.get(&(key % 300)), Some(key));
    }
    cache.check();
}

//! User code that panics: codecs, clones, drops, equality, weights, filters and loads. The caller gets the
//! panic where it is the caller's, and the cache goes on as if the operation had not been.
//!
//! `EMBERCACHE_SOAK` (a factor) makes it more.

use std::{
    array,
    collections::{HashMap, HashSet},
    panic::{self, AssertUnwindSafe, catch_unwind, panic_any, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use crossbeam_epoch as epoch;

use crate::common::{Random, cases, figure, from_env, wait_until};
use embercache::{
    Admission, Builder, Cache, Codec, CodecError, CodecId, KIB, MIB, WriteBehind, testing::MemoryDisk,
};

/// What is called.
#[derive(Clone, Copy, Debug)]
enum Call {
    EncodeKey,
    DecodeKey,
    CompareKeys,
    Encode,
    Decode,
    HeapBytes,
    Clone,
    Drop,
    Weigh,
    Filter,
    Load,
}

const CALLS: usize = Call::Load as usize + 1;
/// What our panics carry.
const OURS: &str = "user code panics";

/// One call in so many panics; 0 is none.
static RATE: AtomicU64 = AtomicU64::new(0);
static CALLED: AtomicU64 = AtomicU64::new(0);
static PANICS: [AtomicU64; CALLS] = [const { AtomicU64::new(0) }; CALLS];
/// Values and keys that have not been dropped.
static LIVE: AtomicI64 = AtomicI64::new(0);

impl Call {
    /// Panics now and then. Not while the thread unwinds already, which would end the process.
    fn made(self) {
        let rate = RATE.load(SeqCst);
        let called = CALLED.fetch_add(1, SeqCst);
        if rate > 0 && Random::new(called).below(rate) == 0 && !thread::panicking() {
            PANICS[self as usize].fetch_add(1, SeqCst);
            panic_any(OURS);
        }
    }
}

/// Is counted while it lives, and panics when it is dropped.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> Counted {
        LIVE.fetch_add(1, SeqCst);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, SeqCst);
        Call::Drop.made();
    }
}

#[derive(Debug)]
struct Key(u64, Counted);

impl Clone for Key {
    fn clone(&self) -> Key {
        Call::Clone.made();
        key(self.0)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        Call::CompareKeys.made();
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Codec for Key {
    const ID: CodecId = CodecId(70_057);

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        Call::EncodeKey.made();
        self.0.encode(out)
    }

    fn decode(bytes: Vec<u8>) -> Result<Key, CodecError> {
        Call::DecodeKey.made();
        Ok(Key(u64::decode(bytes)?, Counted::new()))
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

#[derive(Debug)]
struct Value(u64, Counted);

impl Clone for Value {
    fn clone(&self) -> Value {
        Call::Clone.made();
        Value(self.0, Counted::new())
    }
}

impl Codec for Value {
    const ID: CodecId = CodecId(70_058);

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        // Half of it is there already.
        out.extend([0; 200]);
        Call::Encode.made();
        self.0.encode(out)
    }

    fn decode(bytes: Vec<u8>) -> Result<Value, CodecError> {
        Call::Decode.made();
        Ok(Value(u64::decode(bytes[200..].to_vec())?, Counted::new()))
    }

    fn heap_bytes(&self) -> usize {
        Call::HeapBytes.made();
        200
    }
}

/// Line 57.
#[test]
fn panics_of_user_code() {
    let _alone = crate::alone();
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&OURS) {
            default(info);
        }
    }));
    let wanted = cases(1_000);
    let mut operations = 0;
    for life in 0.. {
        if PANICS.iter().map(|count| count.load(SeqCst)).min() > Some(wanted / 20) && operations > wanted {
            break;
        }
        assert!(life < wanted, "some user code never panics");
        operations += live(life);
        assert_eq!(LIVE.load(SeqCst), 0, "keys or values leak");
    }
    let panics: [u64; CALLS] = array::from_fn(|call| PANICS[call].load(SeqCst));
    let all: u64 = panics.iter().sum();
    figure(
        57,
        &format!("{all} panics in {operations} operations, 0 stripes harmed, 0 leaks; by kind {panics:?}"),
    );
    assert!(all >= wanted, "{panics:?}");
}

/// Functions that others have deferred and nobody has run yet.
static WAITING: AtomicU64 = AtomicU64::new(0);

/// As another user of the epoch: has a function run that panics, soon and wherever somebody pins or flushes.
fn defer_a_panic() {
    let guard = epoch::pin();
    WAITING.fetch_add(1, SeqCst);
    guard.defer(|| {
        WAITING.fetch_sub(1, SeqCst);
        resume_unwind(Box::new(OURS));
    });
    guard.flush();
}

/// Whether who asks for the key now gets it.
fn is_to_be_had(cache: &Cache<u64, u64>, key: u64) -> bool {
    let (done, is_done) = mpsc::channel();
    let asks = cache.clone();
    thread::spawn(move || done.send(asks.get_or_insert_with(&key, || key)));
    is_done.recv_timeout(Duration::from_secs(20)) == Ok(key)
}

/// What others have deferred to the epoch panics where a load begins, and where it ends. It may end the call; the
/// next one loads.
#[test]
fn panics_of_what_others_have_deferred() {
    let _alone = crate::alone();
    let disk = MemoryDisk::new();
    let builder = Cache::<u64, u64>::in_memory().ram(64 * MIB).stripes(1).weigher(|_, _| 4 * MIB);
    let cache = builder.io(Arc::new(disk.clone())).open().unwrap();
    let run_all = || {
        while WAITING.load(SeqCst) > 0 {
            let _ = catch_unwind(|| epoch::pin().flush());
        }
    };
    let ttl = Duration::from_secs(1);
    let mut ended = 0;
    for key in 0..100 {
        // As it is large and has expired, whoever asks for it flushes, having begun the load.
        cache.insert_with_ttl(key, key, ttl).unwrap();
        disk.advance_clock(2 * ttl);
        defer_a_panic();
        ended +=
            u32::from(catch_unwind(AssertUnwindSafe(|| cache.get_or_insert_with(&key, || key))).is_err());
        run_all();
        assert!(is_to_be_had(&cache, key), "a load was begun and never ended");
    }
    assert!(ended > 0, "none panicked where a load begins");
    let mut met = 0;
    for key in 1_000..1_400 {
        // Every so many pins one runs what was deferred: here that of the end, in some of the rounds.
        let mut waits_at_end = false;
        let load = || {
            (0..key % 200).for_each(|_| drop(epoch::pin()));
            defer_a_panic();
            waits_at_end = WAITING.load(SeqCst) == 1;
            Err::<u64, ()>(())
        };
        let _ = catch_unwind(AssertUnwindSafe(|| cache.try_get_or_insert_with(&key, load)));
        met += u32::from(waits_at_end && WAITING.load(SeqCst) == 0);
        run_all();
        assert!(is_to_be_had(&cache, key), "a load has ended, and others wait for it");
    }
    assert!(met > 0, "none panicked where a load ends");
}

/// What the budget counts.
#[derive(Clone, Copy)]
enum Budget {
    Entries,
    Bytes,
    Weights,
}

fn builder(disk: &MemoryDisk, budget: Budget) -> Builder<Key, Value> {
    let builder = Cache::<Key, Value>::builder("cache").stripes(2).segment_size(64 * KIB).disk(256 * KIB);
    let builder = match budget {
        Budget::Entries => builder.ram_entries(32),
        Budget::Bytes => builder.ram(MIB),
        // One in eight borrows from the other stripe.
        Budget::Weights => builder.ram(MIB).weigher(|_, value: &Value| {
            Call::Weigh.made();
            if value.0.is_multiple_of(8) { 200_000 } else { 20_000 }
        }),
    };
    let filter = |_: &Key, _: &Value| {
        Call::Filter.made();
        true
    };
    let builder = builder.admission(Admission::All).disk_filter(filter).io(Arc::new(disk.clone()));
    builder.write_behind(WriteBehind::After(Duration::from_millis(10)))
}

/// Uses a cache while user code panics, and then while it does not. How many operations that was.
fn live(life: u64) -> u64 {
    const OPERATIONS: u64 = 2_000;
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 57) << 32 | life);
    let (mut disk, budget) =
        (MemoryDisk::new(), [Budget::Entries, Budget::Bytes, Budget::Weights][life as usize % 3]);
    let mut cache = builder(&disk, budget).open().unwrap();
    let mut allowed: HashMap<u64, HashSet<u64>> = HashMap::new();
    for operation in 1..=OPERATIONS {
        RATE.store([20, 100, 500][random.below(3) as usize], SeqCst);
        let number = random.below(128);
        step(&cache, number, operation, &mut allowed, &mut random);
        RATE.store(0, SeqCst);
        if random.below(200) == 0 {
            cache.check();
            if random.below(2) == 0 {
                cache.close().expect("the background thread is alive");
            } else {
                disk = disk.after_kill();
            }
            cache = builder(&disk, budget).open().unwrap();
        }
        let found = cache.get(&key(number)).map(|value| value.0);
        let is_allowed = |version| allowed.get(&number).is_some_and(|versions| versions.contains(&version));
        assert!(
            found.is_none_or(is_allowed),
            "{number} has {found:?}, not one of {:?}",
            allowed.get(&number)
        );
    }
    // As if nothing had been.
    cache.check();
    for number in 0..20 {
        cache.insert(key(number), value(number)).unwrap();
        assert_eq!(cache.get(&key(number)).map(|value| value.0), Some(number));
    }
    cache.flush().expect("the background thread is alive");
    cache.clear().unwrap();
    wait_until("the budget is whole again", Duration::from_secs(10), || {
        let stats = cache.stats();
        stats.ram_queued == 0 && stats.ram_used <= stats.index_bytes
    });
    drop(cache);
    // What is retired goes with whoever uses the epoch next.
    wait_until("everything is dropped", Duration::from_secs(10), || {
        drop(Cache::<u64, u64>::in_memory().ram_entries(1).open());
        LIVE.load(SeqCst) == 0
    });
    OPERATIONS
}

/// One operation, which may panic: then it has happened, or it has not.
fn step(
    cache: &Cache<Key, Value>,
    number: u64,
    operation: u64,
    allowed: &mut HashMap<u64, HashSet<u64>>,
    random: &mut Random,
) {
    let calm = |make: &dyn Fn() -> Key| {
        let rate = RATE.swap(0, SeqCst);
        let made = make();
        RATE.store(rate, SeqCst);
        made
    };
    let own_key = calm(&|| key(number));
    let choice = random.below(100);
    let done = catch_unwind(AssertUnwindSafe(|| match choice {
        0..40 => cache.insert(own_key, value(operation)).is_ok(),
        40..50 => cache.remove(&own_key).is_ok(),
        50..70 => {
            cache.get_or_insert_with(&own_key, || {
                Call::Load.made();
                value(operation)
            });
            false
        }
        70..73 => cache.flush().is_ok(),
        73 => cache.clear().is_ok(),
        _ => cache.get(&own_key).is_some(),
    }));
    let is_done = matches!(done, Ok(true));
    match choice {
        0..40 if is_done => _ = allowed.insert(number, HashSet::from([operation])),
        // Stored or not.
        0..40 | 50..70 => _ = allowed.entry(number).or_default().insert(operation),
        40..50 if is_done => _ = allowed.remove(&number),
        73 if is_done => allowed.clear(),
        _ => {}
    }
}

fn key(number: u64) -> Key {
    Key(number, Counted::new())
}

fn value(version: u64) -> Value {
    Value(version, Counted::new())
}

//! Line 33: the look-up without a lock in every schedule of two threads, with every value that the memory
//! model lets its loads return: the real table and slab, on loom's atomics.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --lib loom_` runs them. Numbers in parentheses are
//! those of "What a reader may see" in [`hot`](super). Each model was seen to fail for what its comment
//! says. The order of tag and slot in `link`, and that of counting and linking, may change: no model
//! fails for that, since the entry decides, and one writer never takes a count to 0 while it is needed.
//!
//! The writer runs in the model's first thread, which loom lets go first, so that the reader chooses
//! at each load among all stores that it may see. Loom remembers one access of an atomic: were the
//! reader first, a load of the writer's own before its store would hide that the two race.
//!
//! What is not explored: the epoch, which keeps its own atomics, and all others of `sync.rs`. No model
//! empties a slot beside a reader but the one that has a bit in the epoch's place.

use std::collections::BTreeSet;

use crossbeam_epoch::pin;
use loom::{cell::UnsafeCell, model::Builder, sync::atomic::fence, thread};

use super::*;
use crate::{
    shard::entry::{Arrival, Meta},
    sync::{
        Ordering::{Release, SeqCst},
        lock_free::AtomicU32,
    },
};

/// A value that tells loom who reads it: to do so without its writing having happened before is an
/// error of the model, whatever is read.
struct Version(UnsafeCell<u32>);

// SAFETY: the cell is written before it is shared, or behind what the models check; loom reports
// any other access.
unsafe impl Sync for Version {}

impl Version {
    fn new(version: u32) -> Version {
        Version(UnsafeCell::new(version))
    }

    fn get(&self) -> u32 {
        // SAFETY: loom has checked that no write is under way or unordered when it calls this.
        self.0.with(|version| unsafe { *version })
    }
}

type Writer = HotWriter<u32, Version>;

/// What the two threads of a model share.
struct Stripe {
    hot: Arc<Hot<u32, Version>>,
    /// How many of the writer's changes are completed. Release, where it is raised, pairs with the
    /// Acquire in `completed`, as one stripe lock's holder hands on to the next.
    completed: AtomicU32,
}

impl Stripe {
    fn complete(&self, changes: u32) {
        self.completed.store(changes, Release);
    }

    fn completed(&self) -> u32 {
        self.completed.load(Acquire)
    }

    /// The version of a key as a look-up finds it.
    fn find(&self, key: u32) -> Option<u32> {
        let guard = pin();
        self.hot.find(hash(key), &key, &guard).map(|found| found.entry.value.get())
    }

    /// How many entries a probe offers for a key.
    fn offered(&self, key: u32) -> usize {
        self.hot.probe(hash(key), &pin()).count()
    }
}

/// All keys are at home in the first bucket. Those of a hundred have the same tag.
fn hash(key: u32) -> KeyHash {
    KeyHash(u64::from(key / 100 + 1) << 40 | u64::from(key % 100))
}

fn insert(writer: &mut Writer, key: u32, version: u32) {
    writer.insert(arrival(key, version), || 0, &pin());
}

fn replace(writer: &mut Writer, key: u32, version: u32) {
    let old = writer.slot_of(hash(key), &key).unwrap();
    writer.replace(old, arrival(key, version), &pin());
}

fn remove(writer: &mut Writer, key: u32) {
    let slot = writer.slot_of(hash(key), &key).unwrap();
    writer.remove(slot, hash(key), &pin());
}

fn arrival(key: u32, version: u32) -> Arrival<u32, Version> {
    let entry = Entry { meta: Meta::new(hash(key), 100), key, value: Version::new(version) };
    Arrival { entry, times: None }
}

/// All that `read` can return beside `write`, on a stripe that has `keys` in version 0.
fn explore<T: Ord + Send + 'static>(
    keys: &'static [u32],
    write: fn(&Stripe, &mut Writer),
    read: fn(&Stripe) -> T,
) -> BTreeSet<T> {
    outcomes(move || {
        let (hot, mut writer) = Hot::new(
            &Arc::default(),
            Patience { limbo_weight: 1 << 20, line_weight: 64 << 10, crowd_weight: 1 << 20 },
        );
        keys.iter().for_each(|&key| insert(&mut writer, key, 0));
        flush_epoch();
        let stripe = Arc::new(Stripe { hot, completed: AtomicU32::new(0) });
        let reading = thread::spawn({
            let stripe = Arc::clone(&stripe);
            move || read(&stripe)
        });
        write(&stripe, &mut writer);
        let outcome = reading.join().unwrap();
        drop(writer);
        // What was deferred holds the table, whose end must come while its model is there.
        flush_epoch();
        assert_eq!(Arc::strong_count(&stripe.hot), 1);
        outcome
    })
}

/// What a model returns in all of its runs.
fn outcomes<T: Ord + Send + 'static>(model: impl Fn() -> T + Sync + Send + 'static) -> BTreeSet<T> {
    static ALONE: Mutex<()> = Mutex::new(());
    // The epoch is one for all models: what one of them defers, another might run.
    let _alone = ALONE.lock();
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let mut builder = Builder::new();
    builder.max_branches = 20_000;
    builder.check({
        let seen = Arc::clone(&seen);
        move || {
            let outcome = model();
            seen.lock().insert(outcome);
        }
    });
    mem::take(&mut seen.lock())
}

/// Runs what the epoch holds back. Loom's threads are one to it, and none of them is pinned here.
fn flush_epoch() {
    for _ in 0..8 {
        pin().flush();
    }
}

/// (1) Fails if the lane's store (`Bucket::set_slot`) or its load (`Bucket::slot`) is Relaxed.
#[test]
fn loom_an_entry_that_is_found_is_whole() {
    let found = explore(&[], |_, writer| insert(writer, 7, 1), |stripe| stripe.find(7));
    assert_eq!(found, [None, Some(1)].into());
}

/// (3) Fails if `relink` is an unlink and a link, in either order.
#[test]
fn loom_a_replaced_key_is_never_missing_nor_twice_there() {
    let offered = explore(&[7], |_, writer| replace(writer, 7, 1), |stripe| stripe.offered(7));
    assert_eq!(offered, [1].into());
}

/// (3) By coherence, which holds for one lane: fails if `relink` is an unlink and a link, in either
/// order, and as (1).
#[test]
fn loom_an_old_version_does_not_come_back() {
    let found = explore(&[7], |_, writer| replace(writer, 7, 1), |stripe| [7, 7].map(|key| stripe.find(key)));
    assert_eq!(found, [[Some(0), Some(0)], [Some(0), Some(1)], [Some(1), Some(1)]].into());
}

/// (3) Fails if the lock's hand-over is Relaxed, and as (1).
#[test]
fn loom_a_completed_change_is_seen() {
    let found = explore(
        &[7],
        |stripe, writer| {
            replace(writer, 7, 1);
            stripe.complete(1);
            remove(writer, 7);
            stripe.complete(2);
        },
        |stripe| (stripe.completed(), stripe.find(7)),
    );
    let before = [(0, Some(0)), (0, Some(1)), (0, None)];
    assert_eq!(found, before.into_iter().chain([(1, Some(1)), (1, None), (2, None)]).collect());
}

/// (4) Fails if the larger table is published without Release (`grow`) or found without Acquire
/// (`Hot::table`).
#[test]
fn loom_nothing_is_missing_while_the_table_grows() {
    let found = explore(
        &[100, 200, 300, 400, 500, 600, 700, 800, 900, 1000],
        |stripe, writer| {
            insert(writer, 1100, 1);
            stripe.complete(1);
        },
        |stripe| (stripe.completed(), stripe.find(1000), stripe.find(1100)),
    );
    assert_eq!(found, [(0, Some(0), None), (0, Some(0), Some(1)), (1, Some(0), Some(1))].into());
}

/// (5) Key 7 lies behind the twelve that fill its home, beside 8, which leaves. Fails if a tag's
/// store, or a count's, is two, with another tag or the count at 0 between them.
#[test]
fn loom_what_stays_is_found() {
    let found = explore(
        &[9, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 7, 8],
        |_, writer| {
            remove(writer, 8);
            remove(writer, 100);
            insert(writer, 200, 0);
        },
        |stripe| (stripe.find(7), stripe.find(9)),
    );
    assert_eq!(found, [(Some(0), Some(0))].into());
}

/// What [`Hot`] is, with a bit in place of the epoch: whether the one reader is pinned.
struct Pinnable {
    table: Table,
    slab: Slab<(u32, Version)>,
    /// Set and then a fence by the reader, a fence and then read by the writer, as the epoch's are.
    /// Release, where it is cleared, pairs with the writer's Acquire.
    pinned: AtomicU32,
}

// SAFETY: as for `Version`, which is all in the slab that loom does not know by itself; keys are read
// after the version.
unsafe impl Sync for Pinnable {}

impl Pinnable {
    fn new() -> Pinnable {
        let arena = Arc::default();
        let table = Table::new(&arena, 1);
        let slab = Slab::new(arena);
        Pinnable { table, slab, pinned: AtomicU32::new(0) }
    }

    fn insert(&self, key: u32, version: u32) {
        let slot = SlotId(0);
        self.slab.reserve(slot);
        // SAFETY: reserved, and never filled or emptied by `remove`.
        unsafe { self.slab.write(slot, (key, Version::new(version))) };
        self.table.link(hash(key), slot);
    }

    /// Whether it was emptied, too: if it cannot be seen any more.
    fn remove(&self, key: u32) -> bool {
        let slot = SlotId(0);
        self.table.unlink(hash(key), slot);
        fence(SeqCst);
        let is_seen = self.pinned.load(Acquire) != 0;
        if !is_seen {
            // SAFETY: filled by `insert`, and nobody can see it: that is what loom checks in
            // `with_mut`, before the value is gone.
            let entry = unsafe { self.slab.get(slot) };
            entry.1.0.with_mut(|_| ());
            // SAFETY: as above; `entry` is not used any more.
            drop(unsafe { self.slab.take(slot) });
        }
        !is_seen
    }

    fn find(&self, key: u32) -> Option<u32> {
        self.pinned.store(1, Relaxed);
        fence(SeqCst);
        let entries = self.table.probe(hash(key)).map(|slot| {
            // SAFETY: linked, and emptied by nobody who sees `pinned`: loom checks that in `get`.
            let entry = unsafe { self.slab.get(slot) };
            (entry.1.get(), entry.0)
        });
        let found = entries.into_iter().find(|found| found.1 == key).map(|found| found.0);
        self.pinned.store(0, Release);
        found
    }
}

/// (2) An emptied slot is filled again, with another key. Fails without either fence, if the writer's
/// comes before the unlinking, if the bit is cleared or read Relaxed, if `unlink` clears the tag
/// alone, and as (1).
#[test]
fn loom_an_entry_is_not_emptied_under_its_reader() {
    let found = outcomes(|| {
        let stripe = Arc::new(Pinnable::new());
        stripe.insert(7, 1);
        let reading = thread::spawn({
            let stripe = Arc::clone(&stripe);
            move || stripe.find(7)
        });
        let is_emptied = stripe.remove(7);
        if is_emptied {
            stripe.insert(8, 2);
        }
        (is_emptied, reading.join().unwrap())
    });
    assert_eq!(found, [(false, None), (false, Some(1)), (true, None), (true, Some(1))].into());
}

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use crossbeam_epoch::pin;

use super::*;
use crate::{
    shard::{
        Held,
        entry::{Arrival, Meta},
    },
    sync::{AtomicBool, Ordering::Release},
};

/// Runs what the epoch holds back, once nobody else is pinned.
fn flush_epoch() {
    for _ in 0..8 {
        pin().flush();
    }
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn arrival<K, V>(hash: KeyHash, key: K, value: V) -> Arrival<K, V> {
    Arrival { entry: Entry { meta: Meta::new(hash, 100), key, value }, times: None }
}

fn remove<K: Held, V: Held>(writer: &mut HotWriter<K, V>, slot: SlotId, guard: &Guard) {
    let hash = writer.entry(slot).meta.hash;
    writer.remove(slot, hash, guard);
}

fn empty<K, V>() -> (Arc<Hot<K, V>>, HotWriter<K, V>) {
    Hot::new(
        &Arc::default(),
        Patience { limbo_weight: 1 << 20, line_weight: 64 << 10, crowd_weight: 1 << 20 },
    )
}

/// A value that is counted while it lives.
struct Counted {
    live: Arc<AtomicUsize>,
    panics: bool,
}

impl Counted {
    fn new(live: &Arc<AtomicUsize>) -> Counted {
        live.fetch_add(1, Relaxed);
        Counted { live: Arc::clone(live), panics: false }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Relaxed);
        if self.panics {
            panic!("a user's drop that panics");
        }
    }
}

/// Any sequence of changes leaves the table as a map would be, whatever the hashes.
fn behaves_like_a_map(seed: u64, keys: u64, steps: u32, hash_of: impl Fn(u64) -> u64) {
    let (hot, mut writer) = empty::<u64, u64>();
    let mut model = HashMap::new();
    let mut random = seed;
    for step in 0..steps {
        let key = xorshift(&mut random) % keys;
        let hash = KeyHash(hash_of(key));
        let guard = pin();
        match (xorshift(&mut random) % 4, writer.slot_of(hash, &key)) {
            (0, Some(slot)) => {
                remove(&mut writer, slot, &guard);
                assert!(model.remove(&key).is_some());
            }
            (1 | 2, slot) => {
                let value = u64::from(step);
                match slot {
                    Some(slot) => writer.replace(slot, arrival(hash, key, value), &guard),
                    None => writer.insert(arrival(hash, key, value), || 0, &guard),
                };
                model.insert(key, value);
            }
            _ => {
                let found = hot.find(hash, &key, &guard).map(|found| found.entry.value);
                assert_eq!(found, model.get(&key).copied());
            }
        }
        assert_eq!(writer.len(), model.len());
        if step % 512 == 0 {
            writer.check();
        }
    }
    writer.check();
    let guard = pin();
    for key in 0..keys {
        let found = hot.find(KeyHash(hash_of(key)), &key, &guard).map(|found| found.entry.value);
        assert_eq!(found, model.get(&key).copied());
    }
    let mut from = SlotId(0);
    while let Some(slot) = writer.next_resident(from) {
        let entry = writer.entry(slot);
        assert_eq!(model.remove(&entry.key), Some(entry.value), "swept twice, or never there");
        from = slot.successor();
    }
    assert!(model.is_empty(), "the sweep left some out");
}

const STEPS: u32 = if cfg!(miri) { 300 } else { 20_000 };

#[test]
fn behaves_like_a_map_with_good_hashes() {
    behaves_like_a_map(1, 3000, STEPS * 2, |key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
}

#[test]
fn behaves_like_a_map_when_all_hashes_are_equal() {
    behaves_like_a_map(2, 60, STEPS, |_| 7);
}

#[test]
fn behaves_like_a_map_when_all_tags_are_equal() {
    behaves_like_a_map(3, 300, STEPS, |key| key | 5 << 40);
}

#[test]
fn behaves_like_a_map_when_all_homes_are_equal() {
    behaves_like_a_map(4, 100, STEPS, |key| key << 40 | 0x3_ffff);
}

#[test]
fn behaves_like_a_map_when_tags_are_neighbours() {
    behaves_like_a_map(5, 100, STEPS, |key| (key % 4) << 40);
}

#[test]
fn equal_hashes_are_all_named() {
    let (_hot, mut writer) = empty::<u64, ()>();
    let guard = pin();
    for key in 0..40 {
        writer.insert(arrival(KeyHash(key % 2), key, ()), || 0, &guard);
    }
    let keys = writer.slots_with_hash(KeyHash(1)).map(|slot| writer.entry(slot).key);
    let mut keys: Vec<u64> = keys.collect();
    keys.sort_unstable();
    assert!(keys.into_iter().eq((0..40).filter(|key| key % 2 == 1)));
}

#[test]
fn every_entry_is_dropped_once() {
    let live = Arc::new(AtomicUsize::new(0));
    let (hot, mut writer) = empty::<u64, Counted>();
    let mut slots = Vec::new();
    {
        let guard = pin();
        for key in 0..100 {
            let arrival = arrival(KeyHash(key), key, Counted::new(&live));
            slots.push(writer.insert(arrival, || 0, &guard));
        }
        for key in 0..20 {
            let old = slots[key as usize];
            slots[key as usize] =
                writer.replace(old, arrival(KeyHash(key), key, Counted::new(&live)), &guard);
        }
        for slot in slots.drain(60..) {
            remove(&mut writer, slot, &guard);
        }
        assert_eq!(hot.limbo_weight(), 60 * 100);
        assert_eq!(live.load(Relaxed), 120, "an entry went while a guard of its time was held");
    }
    wait_until(|| hot.rest.out_of_reach.load(Relaxed) == 32);
    assert_eq!(live.load(Relaxed), 120, "an announcement drops nothing");
    for _ in 0..40 {
        drop(writer.take_gone());
    }
    assert_eq!(live.load(Relaxed), 88, "28 of them are not announced");
    assert_eq!(hot.limbo_weight(), 28 * 100);
    writer.check();
    writer.hand_over(&pin());
    wait_until(|| live.load(Relaxed) == 60);
    assert_eq!(hot.limbo_weight(), 0);
    writer.check();

    // Left for `drop`: residents, announced entries in the line, and others.
    let guard = pin();
    for slot in slots.drain(20..) {
        remove(&mut writer, slot, &guard);
    }
    drop(guard);
    drop(writer);
    drop(hot);
    wait_until(|| {
        flush_epoch();
        live.load(Relaxed) == 0
    });
}

/// Tests run side by side share the epoch, so another one's guard may hold it back a while.
fn wait_until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if condition() {
            return;
        }
        flush_epoch();
        thread::yield_now();
    }
    panic!("the epoch never passed");
}

#[test]
fn slots_come_back_after_the_epoch_and_not_before() {
    let (hot, mut writer) = empty::<u64, u64>();
    let guard = pin();
    let first = writer.insert(arrival(KeyHash(1), 1, 1), || 0, &guard);
    let held = hot.resident(&writer, first, &guard).entry;
    remove(&mut writer, first, &guard);
    writer.hand_over(&guard);
    for key in 2..500 {
        let slot = writer.insert(arrival(KeyHash(key), key, key), || 0, &guard);
        assert_ne!(slot, first, "used again under a guard of its time");
        pin().flush();
    }
    assert_eq!((held.key, held.value), (1, 1));
    drop(guard);
    wait_until(|| !hot.rest.freed.lock().is_empty());
    assert_eq!(writer.insert(arrival(KeyHash(1), 1, 2), || 0, &pin()), first);
}

#[test]
fn a_drop_that_panics_harms_no_other_entry() {
    let live = Arc::new(AtomicUsize::new(0));
    let (hot, mut writer) = empty::<u64, Counted>();
    let guard = pin();
    for key in 0..40 {
        let mut value = Counted::new(&live);
        value.panics = key % 8 == 0;
        writer.insert(arrival(KeyHash(key), key, value), || 0, &guard);
    }
    for key in 0..20 {
        let slot = writer.slot_of(KeyHash(key), &key).unwrap();
        remove(&mut writer, slot, &guard);
    }
    writer.hand_over(&guard);
    drop(guard);
    wait_until(|| hot.limbo_weight() == 0);
    assert_eq!(live.load(Relaxed), 20);
    writer.check();
    drop((hot, writer));
    wait_until(|| live.load(Relaxed) == 0);
}

#[test]
fn an_empty_table_is_small_and_bytes_follow_it() {
    let (hot, mut writer) = empty::<u64, u64>();
    assert!(hot.bytes() < 128);
    for key in 0..10_000_u64 {
        let hash = KeyHash(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        writer.insert(arrival(hash, key, key), || 0, &pin());
    }
    let slab = (16 * 64 + 16 * 128 + 16 * 256 + 6 * 512) * size_of::<Entry<u64, u64>>();
    wait_until(|| hot.bytes() - slab <= 10_000 * 64 / 8 + size_of::<Table>());
    assert!(hot.bytes() - slab >= 10_000 * 64 / 10, "ten entries a bucket at the most");
}

#[test]
#[should_panic(expected = "another one's writer")]
fn another_stripes_writer_is_refused() {
    let (hot, _writer) = empty::<u64, u64>();
    let (_hot, other) = empty::<u64, u64>();
    hot.resident(&other, SlotId(0), &pin());
}

/// A key's version and the sum that ties it to the key.
#[derive(Clone, Copy)]
struct Version {
    version: u64,
    check: u64,
}

impl Version {
    fn new(key: u64, version: u64) -> Version {
        Version { version, check: key.rotate_left(32) ^ version ^ 0x5555 }
    }
}

/// Readers beside writers: no value of another key, no half-written one, no version older than one
/// that this reader has seen, nor than one that was complete before the `find` began.
#[test]
fn readers_see_whole_and_current_values() {
    const KEYS: u64 = 700;
    const ROUNDS: u64 = if cfg!(miri) { 40 } else { 60_000 };
    let (hot, writer) = empty::<u64, (Version, Counted)>();
    let live = Arc::new(AtomicUsize::new(0));
    let writer = Mutex::new((writer, vec![0; KEYS as usize]));
    let done: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    // Few homes and few tags: chains, equal tags, and now and then equal hashes.
    let hash_of = |key: u64| KeyHash((key % 61) | (key % 5) << 40 | (key / 610) << 50);

    let write = |mut random: u64| {
        for _ in 0..ROUNDS {
            let key = xorshift(&mut random) % KEYS;
            let hash = hash_of(key);
            let guard = pin();
            let mut locked = writer.lock();
            let (writer, versions) = &mut *locked;
            let slot = writer.slot_of(hash, &key);
            versions[key as usize] += 1;
            let version = versions[key as usize];
            let fresh = arrival(hash, key, (Version::new(key, version), Counted::new(&live)));
            match (slot, xorshift(&mut random) % 3) {
                (Some(slot), 0) => remove(writer, slot, &guard),
                (Some(slot), 1) => {
                    remove(writer, slot, &guard);
                    writer.insert(fresh, || 0, &guard);
                }
                (Some(slot), _) => {
                    writer.replace(slot, fresh, &guard);
                }
                (None, _) => {
                    writer.insert(fresh, || 0, &guard);
                }
            }
            done[key as usize].store(version, Release);
        }
    };
    let read = |mut random: u64| {
        let mut seen = vec![0; KEYS as usize];
        let mut hits = 0_u64;
        while !stop.load(Relaxed) || hits == 0 {
            let guard = pin();
            for _ in 0..16 {
                let key = xorshift(&mut random) % KEYS;
                let floor = done[key as usize].load(Acquire).max(seen[key as usize]);
                let Some(Resident { entry, .. }) = hot.find(hash_of(key), &key, &guard) else {
                    continue;
                };
                let (Version { version, check }, _) = entry.value;
                assert_eq!(entry.key, key);
                assert_eq!(check, Version::new(key, version).check, "torn or of another key");
                assert!(version >= floor, "key {key}: {version} after {floor}");
                seen[key as usize] = version;
                hits += 1;
            }
        }
    };
    thread::scope(|scope| {
        let writers = [scope.spawn(|| write(11)), scope.spawn(|| write(12))];
        scope.spawn(|| read(13));
        scope.spawn(|| read(14));
        for writer in writers {
            writer.join().unwrap();
        }
        stop.store(true, Relaxed);
    });

    let (mut writer, _) = writer.into_inner();
    writer.check();
    writer.hand_over(&pin());
    wait_until(|| live.load(Relaxed) == writer.len());
    assert_eq!(hot.limbo_weight(), 0);
    drop((hot, writer));
    wait_until(|| live.load(Relaxed) == 0);
}

#[test]
fn is_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Hot<String, AtomicU64>>();
    shared::<Mutex<HotWriter<String, AtomicU64>>>();
}

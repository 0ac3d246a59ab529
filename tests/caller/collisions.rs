//! Keys that an enemy has chosen: so that they meet in one place of a table, or share all 64 bits of their
//! hash. Neither needs more than algebra, once the seed is known; that is why it is random.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crate::common::{
    Random, cases, figure, from_env,
    value::{value, version},
};
use embercache::{Admission, Builder, Cache, KIB, MIB, WriteBehind, testing::MemoryDisk};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A thousand times as long as all inserts take.
const LIMIT: Duration = Duration::from_secs(20);

/// The bytes of XXH3's own secret from the eighth to the 56th, which are public.
const SECRET: [u64; 6] = [
    0x1cad_21f7_2c81_017c,
    0xdb97_9083_e96d_d4de,
    0x1f67_b3b7_a4a4_4072,
    0x78e5_c0cc_4ee6_79cb,
    0x2172_ffcc_7dd0_5a82,
    0x8e24_43f7_7446_08b8,
];

/// Line 43: many keys that would lie in one chain of one stripe, were the seed 0.
#[test]
fn a_flood_of_keys_that_collide_under_seed_0() {
    const KEYS: u64 = 100_000;
    let flood: Vec<u64> = (0..KEYS).map(flooding_key).collect();
    for key in &flood[..100] {
        let hash = xxh3_64_with_seed(&key.to_le_bytes(), 0);
        assert_eq!(hash & !FREE_BITS, CHAIN, "the algebra is wrong");
    }
    let others: Vec<u64> = (0..KEYS).collect();
    let caches = [&flood, &others].map(|keys| {
        let cache = Cache::<u64, u64>::in_memory().ram_entries(8 * KEYS).stripes(4).open().unwrap();
        let begun = Instant::now();
        for &key in keys {
            cache.insert(key, key).unwrap();
            assert!(begun.elapsed() < LIMIT, "the flood succeeds");
        }
        cache
    });
    // By turns, and the best of each: what else the machine does is not what is measured. Where it does much,
    // it takes more turns to see past it.
    let mut p99 = [Duration::MAX; 2];
    let mut rounds = 0;
    while rounds < cases(5) || p99[0] > 2 * p99[1] && rounds < cases(20) {
        rounds += 1;
        for ((cache, keys), p99) in caches.iter().zip([&flood, &others]).zip(&mut p99) {
            *p99 = (*p99).min(p99_of_look_ups(cache, keys));
        }
    }
    let [of_flood, of_others] = p99;
    figure(43, &format!("{KEYS} keys of a flood: p99 of look-ups {of_flood:?}, of other keys {of_others:?}"));
    assert!(of_flood <= 2 * of_others, "{of_flood:?}, and {of_others:?} of others");
}

fn p99_of_look_ups(cache: &Cache<u64, u64>, keys: &[u64]) -> Duration {
    let look_up = |&key: &u64| {
        let begun = Instant::now();
        assert_eq!(cache.get(&key), Some(key), "measuring a miss");
        begun.elapsed()
    };
    let mut times: Vec<Duration> = keys.iter().map(look_up).collect();
    let at = times.len() * 99 / 100;
    *times.select_nth_unstable(at).1
}

/// What the table asks of a hash, all equal: the stripe of four (the top), the tag and the home (the low half).
const CHAIN: u64 = 0x4000_5a00_1234_5678;
/// What it does not ask.
const FREE_BITS: u64 = 0x3fff_00ff_0000_0000;

/// The `number`th key whose hash under seed 0 lies in the chain.
fn flooding_key(number: u64) -> u64 {
    let free = (number & 0xff) << 32 | (number >> 8) << 48;
    assert_eq!(free & !FREE_BITS, 0, "there are no more");
    // The steps of XXH3 for eight bytes, backwards.
    const MULTIPLIER: u64 = 0x9fb2_1c65_1e98_df25;
    let mut hash = CHAIN | free;
    hash ^= hash >> 28 ^ hash >> 56;
    hash = hash.wrapping_mul(inverse(MULTIPLIER));
    hash ^= (hash >> 35) + 8;
    hash = hash.wrapping_mul(inverse(MULTIPLIER));
    // This step is the identity if it is done 64 times.
    (0..63).for_each(|_| hash ^= hash.rotate_left(49) ^ hash.rotate_left(24));
    (hash ^ SECRET[0] ^ SECRET[1]).rotate_left(32)
}

/// Modulo 2^64, of an odd number: each round doubles the bits that are right.
fn inverse(odd: u64) -> u64 {
    (0..6).fold(odd, |found, _| found.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(found))))
}

/// The seed is drawn once for a directory, and stays.
#[test]
fn each_directory_has_a_seed_of_its_own() {
    let seeds: Vec<u64> = (0..4)
        .map(|_| {
            let disk = MemoryDisk::new();
            let seed = || {
                builder(&disk).open().unwrap().close().unwrap();
                seed_of(&disk)
            };
            let first = seed();
            assert_eq!(seed(), first, "hashes on disk would name other keys");
            first
        })
        .collect();
    let is_own = |&seed: &u64| seed != 0 && seeds.iter().filter(|&&other| other == seed).count() == 1;
    assert!(seeds.iter().all(is_own), "{seeds:x?}");
}

/// Line 43: keys that share one hash, to the last bit. They may push each other out; none may be taken for
/// another: in RAM, on the way to disk, from there, and over restarts.
#[test]
fn keys_that_share_a_hash() {
    const KEYS: usize = 1_000;
    let mut disk = MemoryDisk::new();
    builder(&disk).open().unwrap().close().unwrap();
    let seed = seed_of(&disk);
    let keys = colliding_keys(seed, KEYS);
    let hash = xxh3_64_with_seed(&keys[0], seed);
    assert!(keys.iter().all(|key| xxh3_64_with_seed(key, seed) == hash), "the algebra is wrong");

    let mut cache = builder(&disk).open().unwrap();
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 43));
    let mut versions: HashMap<usize, u64> = HashMap::new();
    let (mut hits, mut disk_hits) = (0, 0);
    let operations = cases(20_000);
    for operation in 1..=operations {
        // Few of them often, the others now and then.
        let among = [8, 100, KEYS as u64][random.below(3) as usize];
        let index = random.below(among) as usize;
        let (key, number) = (&keys[index], index as u64);
        match random.below(100) {
            0..30 => {
                cache.insert(*key, value(number, operation, 100)).unwrap();
                versions.insert(index, operation);
            }
            30..40 => {
                cache.remove(key).unwrap();
                versions.remove(&index);
            }
            40..43 => cache.flush().unwrap(),
            43..46 => {
                if random.below(2) == 0 {
                    // With others of its hash in RAM, none could stay on disk.
                    cache.clear().unwrap();
                    cache.insert(*key, value(number, operation, 100)).unwrap();
                    cache.flush().unwrap();
                    versions = HashMap::from([(index, operation)]);
                    assert_eq!(cache.stats().disk_entries, 1);
                }
                disk_hits += cache.stats().disk_hits;
                if random.below(2) == 0 {
                    cache.close().unwrap();
                } else {
                    disk = disk.after_kill();
                }
                cache = builder(&disk).open().unwrap();
                (0..10).for_each(|other| _ = is_hit(&cache, &keys, other, &versions));
            }
            _ => {}
        }
        hits += u64::from(is_hit(&cache, &keys, index, &versions));
    }
    cache.check();
    assert!(hits > operations / 4 && disk_hits > operations / 400, "{hits} hits, {disk_hits} from disk");
    figure(
        43,
        &format!(
            "{KEYS} keys of one 64-bit hash: {operations} operations, {hits} hits, {disk_hits} from disk, 0 wrong"
        ),
    );
}

/// One key of a hash expires while the copy of another is on its way: that is not its copy, and goes on.
#[test]
fn a_key_that_expires_leaves_the_copy_of_another_alone() {
    /// Copies that are encoded before that: those of more than one group, the other key's among them.
    const BEFORE: u64 = 40;
    let disk = MemoryDisk::new();
    disk.set_clock(Duration::from_secs(1_000_000));
    let one_stripe = || builder(&disk).stripes(1).ram_entries(4_096).write_behind(WriteBehind::Never);
    one_stripe().open().unwrap().close().unwrap();
    let [brief, other] = colliding_keys(seed_of(&disk), 2).try_into().unwrap();

    let watched: Arc<OnceLock<Cache<[u8; 16], Vec<u8>>>> = Arc::default();
    let encoded = Arc::new(AtomicU64::new(0));
    let filter = {
        let (disk, watched, encoded) = (disk.clone(), Arc::clone(&watched), Arc::clone(&encoded));
        move |_: &[u8; 16], _: &Vec<u8>| {
            if let Some(cache) = watched.get()
                && encoded.fetch_add(1, SeqCst) == BEFORE
            {
                disk.advance_clock(Duration::from_secs(200));
                assert_eq!(cache.get(&brief), None);
            }
            true
        }
    };
    let cache = one_stripe().disk_filter(filter).open().unwrap();
    cache.insert_with_ttl(brief, b"brief".to_vec(), Duration::from_secs(100)).unwrap();
    cache.insert(other, b"old".to_vec()).unwrap();
    // One copy of a hash at a time: the first one's.
    cache.flush().unwrap();
    watched.set(cache.clone()).unwrap();
    (0..60_u128).for_each(|key| cache.insert(key.to_le_bytes(), vec![0]).unwrap());
    cache.flush().unwrap();
    assert!(encoded.load(SeqCst) > BEFORE, "nothing happened on the way");
    assert_eq!(cache.get(&other), Some(b"old".to_vec()));
    cache.insert(other, b"new".to_vec()).unwrap();
    let killed = disk.after_kill();
    let found = builder(&killed).open().unwrap().get(&other);
    assert!(found.is_none_or(|found| found == b"new"), "the overwritten value is back");
}

/// Whether the key is there, with what was stored under it.
fn is_hit(
    cache: &Cache<[u8; 16], Vec<u8>>,
    keys: &[[u8; 16]],
    index: usize,
    versions: &HashMap<usize, u64>,
) -> bool {
    let found = cache.get(&keys[index]).map(|bytes| version(index as u64, &bytes));
    assert!(found.is_none() || found == versions.get(&index).copied(), "{index} has {found:?}");
    found.is_some()
}

fn builder(disk: &MemoryDisk) -> Builder<[u8; 16], Vec<u8>> {
    let builder = Cache::builder("cache").ram_entries(64).stripes(2).segment_size(64 * KIB).disk(4 * MIB);
    builder.admission(Admission::All).io(Arc::new(disk.clone()))
}

fn seed_of(disk: &MemoryDisk) -> u64 {
    let contents = disk.contents();
    let (_, state) = contents.iter().find(|(path, _)| path == Path::new("cache/STATE")).unwrap();
    u64::from_le_bytes(state[32..40].try_into().unwrap())
}

/// So many keys of 16 bytes that have one hash under this seed. Up to its last, reversible step, XXH3 of
/// them is the sum of the low half with its bytes swapped, the high half, and the two halves of their
/// product xor-ed. With an even low half and a guess of the product's high half, the bits of the high half
/// follow one after the other from the lowest; about one of all guesses for a low half holds.
fn colliding_keys(seed: u64, count: usize) -> Vec<[u8; 16]> {
    const SUM: u64 = 0x0123_4567_89ab_cdef;
    let flip_low = (SECRET[2] ^ SECRET[3]).wrapping_add(seed);
    let flip_high = (SECRET[4] ^ SECRET[5]).wrapping_sub(seed);
    let high_of = |low: u64, guess: u64| {
        let wanted = SUM.wrapping_sub(low.swap_bytes());
        let sum = |high: u64| high.wrapping_add(low.wrapping_mul(high) ^ guess);
        let bits = 0..64_u32;
        let high = bits.fold(0, |high, bit| high | ((sum(high) ^ wanted) & 1 << bit));
        let product = u128::from(low) * u128::from(high);
        (product >> 64 == u128::from(guess)).then_some(high)
    };
    let lows = (2_u64..).step_by(2);
    let pairs = lows.flat_map(|low| (0..low).filter_map(move |guess| Some((low, high_of(low, guess)?))));
    let key = |(low, high): (u64, u64)| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(low ^ flip_low).to_le_bytes());
        key[8..].copy_from_slice(&(high ^ flip_high).to_le_bytes());
        key
    };
    pairs.map(key).take(count).collect()
}

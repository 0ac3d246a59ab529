//! What the benches share: seeded randomness, and a timer that also says what was measured.
#![allow(unreachable_pub, reason = "a module of four programs")]
#![allow(dead_code, reason = "each bench uses a part of this")]

use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use criterion::{Bencher, Criterion};
use embercache::{Cache, Key, Stats, Value};

/// Fixed, so that two runs measure the same.
pub const SEED: u64 = 0x0005_ea50_04ab_1e00;

/// Long enough to settle, short enough for all of them in four minutes.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args()
}

/// The first number that no `measure` has used. Relaxed: one thread measures.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Times `op`, called with numbers that rise from one call to the next, warm-up included, so that no
/// sample meets what the one before has just left in RAM. Shows `verify` what the cache has
/// counted meanwhile and how often `op` ran: a bench that quietly measures misses reports a
/// wonderful number.
pub fn measure<K: Key, V: Value>(
    bencher: &mut Bencher<'_>,
    cache: &Cache<K, V>,
    threads: usize,
    op: impl Fn(usize) + Sync,
    verify: impl Fn(&Grown, u64),
) {
    bencher.iter_custom(|iterations| {
        let before = cache.stats();
        let next = NEXT.fetch_add(iterations as usize, Relaxed);
        let took = time(threads, next..next + iterations as usize, &op);
        verify(&Grown { before, after: cache.stats() }, iterations * threads as u64);
        took
    });
}

/// How long the slowest thread takes.
fn time(threads: usize, numbers: std::ops::Range<usize>, op: &(impl Fn(usize) + Sync)) -> Duration {
    let barrier = Barrier::new(threads);
    let run = |thread: usize| {
        // Each thread is somewhere else in the same sequence.
        let ahead = thread * 7919;
        barrier.wait();
        let start = Instant::now();
        numbers.clone().for_each(|number| op(number + ahead));
        start.elapsed()
    };
    if threads == 1 {
        return run(0);
    }
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).max().unwrap()
    })
}

/// The figures before and after.
pub struct Grown {
    before: Stats,
    after: Stats,
}

impl Grown {
    /// By how much a counter grew.
    pub fn of(&self, counter: impl Fn(&Stats) -> u64) -> u64 {
        counter(&self.after) - counter(&self.before)
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The numbers below `count`, each once, in random order.
pub fn shuffled(count: usize) -> Vec<usize> {
    let mut random = Random(SEED);
    let mut numbers: Vec<usize> = (0..count).collect();
    for end in (1..count).rev() {
        numbers.swap(end, (random.next() % (end as u64 + 1)) as usize);
    }
    numbers
}

/// `len` numbers below `count`, drawn with probabilities like 1 / rank^exponent; the ranks lie
/// anywhere among the numbers.
pub fn zipf(count: usize, exponent: f64, len: usize) -> Vec<usize> {
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let number_of_rank = shuffled(count);
    let mut random = Random(SEED);
    (0..len)
        .map(|_| {
            let drawn = (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
            number_of_rank[cumulative.partition_point(|&bound| bound <= drawn).min(count - 1)]
        })
        .collect()
}

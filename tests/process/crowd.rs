//! More threads than cores: one that loses its core in the middle of a look-up holds back all that is displaced
//! meanwhile, and RAM stays near its budget all the same.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::common::{Random, cases, figure};
use embercache::{Cache, MIB};

const BUDGET: u64 = 8 * MIB;
const THREADS: u64 = 24;

#[test]
fn what_is_displaced_stays_within_bounds() {
    let _alone = crate::alone();
    let cache: Cache<u64, Vec<u8>> = Cache::in_memory().ram(BUDGET).open().unwrap();
    let end = Instant::now() + Duration::from_secs(2) * cases(1) as u32;
    let stop = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        for seed in 0..THREADS {
            let (cache, stop) = (&cache, &stop);
            scope.spawn(move || look_up_or_insert(cache, Random::new(seed), stop));
        }
        let mut most = 0;
        while Instant::now() < end {
            most = most.max(cache.stats().ram_used);
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Relaxed);
        most
    });
    let stats = cache.stats();
    let share = most as f64 / BUDGET as f64;
    figure(55, &format!("{THREADS} threads, {} inserts: {share:.2} of the budget at most", stats.inserts));
    assert!(stats.evictions > 100_000, "not full: nothing was tested");
    assert!(share < 2.0, "{most} bytes, and the budget is {BUDGET}");
}

fn look_up_or_insert(cache: &Cache<u64, Vec<u8>>, mut random: Random, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let key = random.below(200_000);
        if cache.get_with(&key, |value| value.len()).is_none() {
            cache.insert(key, vec![0; 200]).unwrap();
        }
    }
}

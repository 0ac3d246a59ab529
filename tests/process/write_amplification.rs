//! What the stats say was written is what the kernel was given, which counts by process.

use std::fs;

use crate::common::{
    Random, TempDir, TestCache, cases, figure,
    value::{self, value},
};
use embercache::{Admission, Cache, KIB, MIB, Stats};

/// Bytes that this process has passed to write calls.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.parse().unwrap()
}

/// Reclaim runs all the time, and writes what was read again, at most three quarters of each segment.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "there is no /proc")]
fn the_stats_say_what_was_written() {
    let _alone = crate::alone();
    let dir = tempfile::tempdir().unwrap();
    let before = written();
    let cache: Cache<u64, Vec<u8>> = Cache::builder(dir.path().join("cache"))
        .ram_entries(200)
        .disk(2 * MIB)
        .segment_size(64 * KIB)
        .admission(Admission::All)
        .open()
        .unwrap();
    for round in 0..4 {
        for key in 0..4_000_u64 {
            cache.insert(key, vec![round; 800]).unwrap();
            cache.get(&(key / 4 * 4).saturating_sub(1_200));
        }
    }
    cache.flush().unwrap();
    let stats = cache.stats();
    let passed = (written() - before) as f64;
    assert!(stats.reclaimed > 1_000 && stats.reinsertions > 500, "{stats:#?}");
    // 800 bytes of value, 8 of key, 32 of header. A record that was overwritten
    // while it was written again counts as bytes, and not as a reinsertion.
    let rewritten = stats.reinserted_bytes_written / 840;
    assert_eq!(stats.reinserted_bytes_written % 840, 0);
    assert!((stats.reinsertions..stats.reinsertions * 11 / 10).contains(&rewritten), "{stats:#?}");
    let new = (stats.record_bytes_written - stats.reinserted_bytes_written) as f64;
    let amplification = stats.write_amplification();
    assert!((amplification * new / passed - 1.0).abs() < 0.02, "{amplification} of {new}, not {passed}");
    assert!((1.05..1.45).contains(&amplification), "{amplification}");
    assert!(stats.disk_bytes <= 2 * MIB + 2 * 64 * KIB, "{} bytes on disk", stats.disk_bytes);
    cache.check();
}

/// Line 60: with a quarter of each segment written again at most, of what is asked for as shops are. Once the log is
/// full, since before that nothing is written again.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "there is no /proc")]
fn a_quarter_written_again_costs_little() {
    const KEYS: f64 = 40_000.0;
    const SKEW: f64 = 0.9;
    let _alone = crate::alone();
    let dir = TempDir::new();
    let builder = Cache::builder(dir.cache()).ram_entries(1_000).disk(6 * MIB).segment_size(64 * KIB);
    let cache: TestCache = builder.reinsertion(25).open().unwrap();
    let mut random = Random::new(60);
    // Ranks of a Zipf distribution, by the inverse of its continuous form.
    let mut zipf = || {
        let uniform = random.below(1 << 32) as f64 / (1_u64 << 32) as f64;
        (uniform * (KEYS.powf(1.0 - SKEW) - 1.0) + 1.0).powf(1.0 / (1.0 - SKEW)) as u64
    };
    let mut ask = || {
        let key = zipf();
        match cache.get(&key) {
            Some(found) => assert_eq!(value::version(key, &found), 1),
            None => cache.insert(key, value(key, 1, 400)).unwrap(),
        }
    };
    while cache.stats().reinsertions < 10_000 {
        (0..10_000).for_each(|_| ask());
    }
    cache.flush().unwrap();
    let (full, before) = (cache.stats(), written());
    (0..cases(400_000)).for_each(|_| ask());
    cache.flush().unwrap();
    let passed = (written() - before) as f64;
    let stats = cache.stats();
    let of = |count: fn(&Stats) -> u64| (count(&stats) - count(&full)) as f64;
    let records = of(|stats| stats.record_bytes_written);
    let new = records - of(|stats| stats.reinserted_bytes_written);
    let all = records
        + of(|stats| stats.footer_bytes_written)
        + of(|stats| stats.journal_bytes_written)
        + of(|stats| stats.state_bytes_written);
    figure(
        60,
        &format!(
            "{} records written, {} of them again: {:.3} bytes a byte, by the kernel {:.3}",
            records / 440.0,
            of(|stats| stats.reinsertions),
            all / new,
            passed / new,
        ),
    );
    assert!(stats.reclaimed > 1_000 && stats.reinsertions > 500, "{stats:#?}");
    assert!(of(|stats| stats.reinsertions) > records / 440.0 / 5.0, "{stats:#?}");
    assert!(all / new <= 1.35, "{all} for {new}");
    assert!((all / passed - 1.0).abs() < 0.02, "{all}, not {passed}");
}

//! `get_many` answers as many calls of `get` would.

use embercache::{Admission, Cache, MIB};

fn value(key: u64) -> Vec<u8> {
    key.to_le_bytes().repeat(20)
}

#[test]
fn every_key_gets_its_own_answer_from_either_tier() {
    let dir = tempfile::tempdir().unwrap();
    let builder = Cache::<u64, Vec<u8>>::builder(dir.path().join("cache"));
    let cache = builder.ram(MIB).disk(64 * MIB).admission(Admission::All).open().unwrap();
    for key in 0..20_000 {
        cache.insert(key, value(key)).unwrap();
    }
    cache.flush().unwrap();
    // More than a batch, and no whole number of batches; every third key was never stored.
    let keys: Vec<u64> = (0..1_001).map(|at| if at % 3 == 0 { 100_000 + at } else { at * 19 }).collect();
    let before = cache.stats();
    let found = cache.get_many(&keys);
    let after = cache.stats();
    assert_eq!(found.len(), keys.len());
    for (key, found) in keys.iter().zip(found) {
        assert_eq!(found, (*key < 100_000).then(|| value(*key)), "key {key}");
    }
    assert_eq!(after.misses - before.misses, 334);
    assert_eq!(after.ram_hits + after.disk_hits - before.ram_hits - before.disk_hits, 667);
    assert!(after.disk_hits > before.disk_hits, "RAM held all of it");
}

#[test]
fn any_number_of_keys_will_do() {
    let cache: Cache<String, u64> = Cache::in_memory().ram(MIB).open().unwrap();
    cache.insert("1".to_owned(), 1).unwrap();
    for len in [0, 1, 15, 16, 17, 32, 33] {
        let found = cache.get_many(vec!["1"; len]);
        assert_eq!(found, vec![Some(1); len]);
    }
}

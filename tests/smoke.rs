//! Life in short.
use embercache::{Cache, KIB, MIB};
use std::time::Instant;

#[test]
fn spills_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("cache");
    let open = || -> Cache<u64, Vec<u8>> {
        Cache::builder(&dir).ram(2 * MIB).disk(64 * MIB).segment_size(1024 * KIB).open().unwrap()
    };
    let cache = open();
    let t = Instant::now();
    for k in 0..20_000_u64 {
        cache.insert(k, vec![k as u8; 1000]).unwrap();
    }
    println!("insert {:?}", t.elapsed());
    cache.check();
    println!("{}", cache.stats());
    let mut found = 0;
    for k in 0..20_000_u64 {
        if let Some(v) = cache.get(&k) {
            assert_eq!(v, vec![k as u8; 1000]);
            found += 1;
        }
    }
    cache.check();
    println!("found {found}\n{}", cache.stats());
    assert_eq!(found, 20_000);
    cache.remove(&7).unwrap();
    cache.insert(8, vec![9; 9]).unwrap();
    cache.close().unwrap();
    drop(cache);
    let cache = open();
    println!("{:?}", cache.stats().recovery);
    let mut found = 0;
    for k in 0..20_000_u64 {
        if let Some(v) = cache.get(&k) {
            assert!(k != 7);
            assert_eq!(v, if k == 8 { vec![9; 9] } else { vec![k as u8; 1000] });
            found += 1;
        }
    }
    println!("found {found}\n{:#?}", cache.stats());
    assert_eq!(found, 19_999);
    cache.check();
}

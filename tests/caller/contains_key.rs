//! Whether a key is there is told without the value: it is neither cloned nor decoded.

use std::{thread, time::Duration};

use embercache::{Admission, Cache, Codec, CodecError, CodecId, MIB, WriteBehind};

/// A value that is only stored and dropped.
struct Untouchable;

impl Clone for Untouchable {
    fn clone(&self) -> Self {
        panic!("it was cloned")
    }
}

impl Codec for Untouchable {
    const ID: CodecId = CodecId(70_047);

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(7);
        Ok(())
    }

    fn decode(_: Vec<u8>) -> Result<Self, CodecError> {
        panic!("it was decoded")
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

#[test]
fn a_value_in_ram_is_not_cloned() {
    let cache: Cache<u64, Untouchable> = Cache::in_memory().ram(MIB).open().unwrap();
    cache.insert(1, Untouchable).unwrap();
    assert!(cache.contains_key(&1) && !cache.contains_key(&2));
    cache.remove(&1).unwrap();
    assert!(!cache.contains_key(&1));
    cache.insert_with_ttl(3, Untouchable, Duration::from_millis(100)).unwrap();
    assert!(cache.contains_key(&3));
    thread::sleep(Duration::from_millis(100));
    assert!(!cache.contains_key(&3), "it has expired");
    let stats = cache.stats();
    assert_eq!((stats.ram_hits, stats.misses), (0, 0), "it leaves a trace");
}

#[test]
fn a_value_on_disk_is_neither_cloned_nor_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let builder = Cache::<u64, Untouchable>::builder(dir.path().join("cache")).ram(MIB).disk(4 * MIB);
        builder.admission(Admission::All).write_behind(WriteBehind::Never).open().unwrap()
    };
    let cache = open();
    for key in 0..1_000 {
        cache.insert(key, Untouchable).unwrap();
    }
    cache.insert_with_ttl(1_000, Untouchable, Duration::from_secs(2)).unwrap();
    cache.close().unwrap();
    assert!(!cache.contains_key(&1), "it is closed");

    let cache = open();
    assert!((0..1_000).all(|key| cache.contains_key(&key)), "one is lost");
    assert!(!cache.contains_key(&1_001));
    cache.remove(&7).unwrap();
    assert!(!cache.contains_key(&7));
    thread::sleep(Duration::from_secs(2));
    assert!(!cache.contains_key(&1_000), "it has expired");
    let stats = cache.stats();
    assert_eq!((stats.disk_hits, stats.misses, stats.ram_entries), (0, 0, 0), "it leaves a trace");
}

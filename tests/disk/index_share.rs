//! Where the disk would hold more entries than RAM may index, the oldest leave early.

use std::time::Duration;

use crate::common::wait_until;
use embercache::{Admission, Cache, KIB, MIB, WriteBehind};

/// 40,000 entries of some 50 bytes fit on 4 MiB of disk; an index of a tenth of 1 MiB names
/// about 5,000 of them.
#[test]
fn the_index_keeps_to_its_share_of_ram() {
    let dir = tempfile::tempdir().unwrap();
    let cache: Cache<u64, u64> = Cache::builder(dir.path().join("cache"))
        .ram(MIB)
        .disk(4 * MIB)
        .segment_size(64 * KIB)
        .index_share(10)
        .admission(Admission::All)
        .open()
        .unwrap();
    for key in 0..40_000 {
        cache.insert(key, key).unwrap();
    }
    cache.flush().unwrap();
    let stats = cache.stats();
    let share = MIB / 10;
    assert!(stats.index_bytes <= share * 3 / 2, "{} bytes of index for {share}", stats.index_bytes);
    assert!(stats.disk_entries >= 3_000, "{} entries on disk", stats.disk_entries);
    assert!(stats.reclaimed > 10_000, "{} reclaimed", stats.reclaimed);
    assert!(stats.indexable_disk_bytes < MIB, "{} bytes would fit", stats.indexable_disk_bytes);
    cache.check();
}

/// RAM is full, and then its entries are copied to disk: their index takes from the same budget, and nobody inserts.
#[test]
fn an_index_that_grows_without_inserts_takes_from_the_entries() {
    const RAM: u64 = 8 * MIB;
    for write_behind in [WriteBehind::Never, WriteBehind::After(Duration::from_millis(40))] {
        let dir = tempfile::tempdir().unwrap();
        let builder = Cache::<u64, u64>::builder(dir.path().join("cache")).ram(RAM).disk(64 * MIB);
        let cache = builder.write_behind(write_behind).open().unwrap();
        let mut key = 0;
        while cache.stats().evictions == 0 {
            cache.insert(key, key).unwrap();
            key += 1;
        }
        if write_behind == WriteBehind::Never {
            cache.flush().unwrap();
        } else {
            wait_until("hits have been copied", Duration::from_secs(20), || {
                (0..key).for_each(|key| _ = cache.get(&key));
                cache.stats().index_bytes > RAM / 10
            });
        }
        wait_until("the budget is kept", Duration::from_secs(20), || cache.ram_used() <= RAM);
        assert!(cache.stats().index_bytes > RAM / 10);
    }
}

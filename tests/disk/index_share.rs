//! Where the disk would hold more entries than RAM may index, the oldest leave early.

use embercache::{Admission, Cache, KIB, MIB};

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

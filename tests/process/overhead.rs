//! What an entry takes in RAM beside its key and its value.

use embercache::{Cache, Error};

/// 16 bytes of metadata, 6.5 of a table that is full, 5 of the policy's rings and ghosts: however many entries
/// there is room for, tables and slabs end where the room does.
#[test]
fn an_entry_takes_thirteen_bytes_beside_its_fields() -> Result<(), Error> {
    const FIELDS: f64 = 32.0;
    let _alone = crate::alone();
    for entries in (30_000..90_000).step_by(5_000) {
        let cache: Cache<u64, u64> = Cache::in_memory().ram_entries(entries).stripes(8).open()?;
        (0..entries).try_for_each(|key| cache.insert(key, key))?;
        let stats = cache.stats();
        assert!(stats.ram_entries * 100 >= entries * 98, "{} of {entries} fit", stats.ram_entries);
        let beyond = stats.metadata_bytes as f64 / stats.ram_entries as f64 - FIELDS;
        println!("{entries} entries: {beyond:.1} B each beside 16 of metadata, key and value");
        assert!(beyond < 13.0, "{beyond} B at {entries} entries");
    }
    Ok(())
}

//! Writes the seed corpora from the files of real caches: `cargo run --example seeds`, in this directory.
//! Their random numbers differ each time; that is as good.

use std::{fs, path::Path, sync::Arc};

use embercache::{Cache, KIB, MIB, testing::MemoryDisk};
use embercache_fuzz::codecs;

/// Every check mended, and none; the kinds of the `metadata` target in the upper half.
const MENDED: u8 = 7;
const JOURNAL: u8 = 0x00;
const SNAPSHOT: u8 = 0x10;
const STATE: u8 = 0x20;

/// As many zeros stand at no file's end but as room for more.
const RESERVED_BYTES_MIN: usize = 1024;

fn main() {
    let disk = MemoryDisk::new();
    let open = |ttl: bool| -> Cache<u64, Vec<u8>> {
        let builder = Cache::builder("cache").ram_entries(4).stripes(2).segment_size(64 * KIB).disk(MIB);
        let builder = if ttl { builder.time_to_idle(std::time::Duration::from_secs(600)) } else { builder };
        builder.io(Arc::new(disk.clone())).open().expect("memory takes all writes")
    };
    let cache = open(false);
    for key in 0..6 {
        cache.insert(key, vec![key as u8; 10 * key as usize]).expect("it is open");
    }
    cache.flush().expect("memory takes all writes");
    cache.remove(&3).expect("it is open");
    for again in 0..3 {
        cache.insert(4, vec![again; 9]).expect("it is open");
        cache.flush().expect("memory takes all writes");
    }
    save(&disk.after_kill(), "killed");
    cache.close().expect("memory takes all writes");
    drop(cache);
    save(&disk, "closed");

    let cache = open(true);
    cache.insert(9, b"idle".to_vec()).expect("it is open");
    cache.clear().expect("memory takes all writes");
    cache.insert(10, b"after the clear".to_vec()).expect("it is open");
    cache.flush().expect("memory takes all writes");
    save(&disk.after_kill(), "cleared");
    drop(cache);

    // Inserts, overwrites and removes of the same few keys, with an end of every kind between them.
    for (name, options) in [("memory", [1, 0x21]), ("files", [0, 0x20]), ("through", [0x39, 0x20])] {
        let ops = (0..120_u8).flat_map(|n| [n.wrapping_mul(37), n % 7, n % 16, n]);
        put("operations", name, options.into_iter().chain(ops).collect());
    }
    for (name, input) in codecs::seeds() {
        put("codec", &name, input);
    }
}

/// Saves each of the disk's files for the target that reads it, without the room that is reserved behind it.
fn save(disk: &MemoryDisk, when: &str) {
    for (path, mut bytes) in disk.contents() {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let len = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        if bytes.len() - len >= RESERVED_BYTES_MIN {
            bytes.truncate(len.next_multiple_of(8));
        }
        let (target, kind) = match &name[..3] {
            "seg" => ("segment", 0),
            "inv" => ("metadata", JOURNAL),
            "ind" => ("metadata", SNAPSHOT),
            "STA" => ("metadata", STATE),
            _ => continue,
        };
        for (mend, how) in [(0, "raw"), (MENDED, "mended")] {
            put(target, &format!("{when}-{name}-{how}"), [&[kind | mend], &bytes[..]].concat());
        }
    }
}

fn put(target: &str, name: &str, bytes: Vec<u8>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&dir).expect("the corpus is writable");
    fs::write(dir.join(name), bytes).expect("the corpus is writable");
}

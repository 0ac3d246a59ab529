//! What the figures were measured on and with.

use std::{fs, thread};

use serde_json::{Value, json};

/// The lock file that this program was built with.
const LOCK: &str = include_str!("../Cargo.lock");
/// The crates whose versions say what was compared.
const CRATES: [&str; 13] = [
    "embercache",
    "quick_cache",
    "moka",
    "foyer",
    "dashmap",
    "parking_lot",
    "heed",
    "lmdb-master-sys",
    "redb",
    "fjall",
    "sled",
    "rusqlite",
    "libsqlite3-sys",
];

/// The first line of a file of results.
pub fn describe(is_quick: bool, repetitions: usize) -> Value {
    let versions: serde_json::Map<String, Value> =
        CRATES.iter().filter_map(|name| Some(((*name).to_owned(), version(name)?.into()))).collect();
    json!({
        "machine": {
            "cpu": field("/proc/cpuinfo", "model name"),
            "kind": fs::read_to_string("/sys/class/dmi/id/product_name").map(|kind| kind.trim().to_owned()).ok(),
            "cores": thread::available_parallelism().map_or(0, usize::from),
            "memory": field("/proc/meminfo", "MemTotal"),
            "kernel": rustix::system::uname().release().to_string_lossy(),
            "huge_pages": fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok(),
            "load": fs::read_to_string("/proc/loadavg").map(|load| load.trim().to_owned()).ok(),
        },
        "rustc": env!("RUSTC_VERSION"),
        "crates": versions,
        "quick": is_quick,
        "repetitions": repetitions,
    })
}

fn version(name: &str) -> Option<&'static str> {
    let (_, after) = LOCK.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    after.split('"').next()
}

/// The value of the first `name: value` in a file of the kernel's.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

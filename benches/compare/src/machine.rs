//! What the figures were measured on and with.

use std::{
    fs,
    process::Command,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// The lock file that this program was built with.
const LOCK: &str = include_str!("../Cargo.lock");
/// The C libraries behind two of the crates that this package names.
const BEHIND: [&str; 2] = ["libsqlite3-sys", "lmdb-master-sys"];

/// The first line of a file of results.
pub fn describe(is_quick: bool, repetitions: usize) -> Value {
    let named = dependencies(LOCK).into_iter().chain(BEHIND);
    let versions: serde_json::Map<String, Value> = named
        .filter_map(|name| entry(LOCK, name))
        .map(|(name, version)| (name.into(), version.into()))
        .collect();
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
        "unix_time": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        "commit": said_by("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]),
        "rustc": env!("RUSTC_VERSION"),
        "redis-server": said_by("redis-server", &["--version"]),
        "memcached": said_by("memcached", &["--version"]),
        "crates": versions,
        "quick": is_quick,
        "repetitions": repetitions,
    })
}

/// What a program prints, if it is there.
fn said_by(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What this package names as dependencies; where the lock file has several versions of one, followed by
/// the version that is meant.
fn dependencies(lock: &str) -> Vec<&str> {
    let this = format!("name = \"{}\"\n", env!("CARGO_PKG_NAME"));
    let Some((_, entry)) = lock.split_once(&this) else { return Vec::new() };
    let entry = entry.split_once("\n\n").map_or(entry, |(entry, _)| entry);
    entry.lines().filter_map(|line| line.strip_prefix(" \"")?.strip_suffix("\",")).collect()
}

/// The name and version of a dependency.
fn entry<'l>(lock: &'l str, named: &'l str) -> Option<(&'l str, &'l str)> {
    if let Some(both) = named.split_once(' ') {
        return Some(both);
    }
    let (_, after) = lock.split_once(&format!("name = \"{named}\"\nversion = \""))?;
    Some((named, after.split('"').next()?))
}

/// The value of the first `name: value` in a file of the kernel's.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_is_there_twice_is_listed_as_this_package_has_it() {
        let lock = "[[package]]\nname = \"cache\"\nversion = \"0.6.1\"\n\n\
             [[package]]\nname = \"cache\"\nversion = \"0.7.2\"\n\n\
             [[package]]\nname = \"embercache-compare\"\nversion = \"0.0.0\"\ndependencies = [\n\
             \x20\"cache 0.7.2\",\n \"moka\",\n]\n\n\
             [[package]]\nname = \"moka\"\nversion = \"0.12.1\"\ndependencies = [\n \"other\",\n]\n";
        let found: Vec<_> = dependencies(lock).into_iter().filter_map(|name| entry(lock, name)).collect();
        assert_eq!(found, [("cache", "0.7.2"), ("moka", "0.12.1")]);
    }

    #[test]
    fn the_lock_file_of_this_build_names_the_peers() {
        let names: Vec<_> = dependencies(LOCK)
            .into_iter()
            .filter_map(|name| entry(LOCK, name))
            .map(|(name, _)| name)
            .collect();
        for peer in ["embercache", "quick_cache", "heed", "foyer"] {
            assert!(names.contains(&peer), "{peer} is not among {names:?}");
        }
    }
}

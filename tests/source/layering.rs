//! The layers of the design, read from the source text: who may name whom, and where `unsafe` may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From the bottom up, as the map of ARCHITECTURE.md has them. A file may name the modules of its own layer, the leaves, and what its layer's
/// line lists; what it may not name is a lie about the design or a race about to be written.
const LAYERS: &[Layer] = &[
    Layer { name: "leaves", modules: LEAVES, may_name: &[] },
    Layer { name: "io", modules: &["io"], may_name: &[] },
    Layer { name: "time", modules: &["time"], may_name: &["io"] },
    Layer { name: "shard", modules: &["shard"], may_name: &["time"] },
    Layer { name: "log", modules: &["log"], may_name: &["time", "io"] },
    Layer { name: "tiers", modules: &["tiers"], may_name: &["shard", "log"] },
    Layer { name: "maintenance", modules: &["maintenance"], may_name: &["tiers", "shard", "log"] },
    Layer { name: "stats", modules: &["stats"], may_name: &["tiers", "shard", "log"] },
    Layer {
        name: "engine",
        modules: &["engine"],
        may_name: &["stats", "maintenance", "tiers", "shard", "log", "time", "io"],
    },
    Layer {
        name: "face",
        modules: FACE,
        may_name: &["engine", "stats", "maintenance", "tiers", "shard", "log", "time", "io"],
    },
];

/// What all may name, and what names nothing but its kind.
const LEAVES: &[&str] = &[
    "hash",
    "location",
    "error",
    "codec",
    "sync",
    "bell",
    "budget",
    "limits",
    "look_ups",
    "options",
    "origin",
    "processor",
];
/// What the user sees.
const FACE: &[&str] = &["lib", "cache", "builder", "lease"];

/// The only files that may contain `unsafe`: the map, the processor's own instructions, the lock-free hot table
/// with its memory, the lock-free list of segments, and the mark that forks lose.
const UNSAFE: &[&str] = &[
    "io/map.rs",
    "log/published.rs",
    "origin.rs",
    "processor.rs",
    "shard/arena.rs",
    "shard/hot.rs",
    "shard/hot/writer.rs",
    "shard/slab.rs",
];

struct Layer {
    name: &'static str,
    /// The modules directly below `src` that make it up.
    modules: &'static [&'static str],
    may_name: &'static [&'static str],
}

#[test]
fn every_arrow_points_down() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = top_module(&path);
        let Some(layer) = LAYERS.iter().find(|layer| layer.modules.contains(&module)) else {
            wrong.push(format!("{} is in no layer", path.display()));
            continue;
        };
        let allowed = [layer.modules, layer.may_name, LEAVES];
        for named in modules_named(&text) {
            if !allowed.iter().any(|modules| modules.contains(&named.as_str())) {
                wrong.push(format!("{} ({}) names crate::{named}", path.display(), layer.name));
            }
        }
    }
    assert!(wrong.is_empty(), "against the layering:\n{}", wrong.join("\n"));
}

/// An arrow to a layer above, or to nothing at all, would hold nobody to anything.
#[test]
fn every_layer_names_lower_ones() {
    let mut below = Vec::new();
    for layer in LAYERS {
        let unknown: Vec<_> = layer.may_name.iter().filter(|named| !below.contains(*named)).collect();
        assert!(unknown.is_empty(), "{} may name {unknown:?}", layer.name);
        let is_there =
            |module: &&str| root().join(module).is_dir() || root().join(format!("{module}.rs")).is_file();
        assert!(layer.modules.iter().all(is_there), "{} has modules that are not there", layer.name);
        below.extend(layer.modules);
    }
}

#[test]
fn unsafe_is_where_it_may_be() {
    for (path, text) in sources() {
        let allowed = UNSAFE.iter().any(|file| path == Path::new(file));
        let lines = text.lines().enumerate().filter(|(_, line)| is_unsafe(line));
        let found: Vec<usize> = lines.map(|(at, _)| at + 1).collect();
        assert!(allowed || found.is_empty(), "unsafe in {} at lines {found:?}", path.display());
    }
}

#[test]
fn locks_and_atomics_come_from_one_place() {
    for (path, text) in sources() {
        let text = without_comments(&text);
        let is_elsewhere = text.contains("parking_lot") || text.contains("atomic::");
        assert!(!is_elsewhere || path == Path::new("sync.rs"), "{} goes past crate::sync", path.display());
    }
}

/// The test reads what it thinks it reads.
#[test]
fn paths_are_found() {
    let text = "use crate::{\n    cache::Cache,\n    log::{self, Log}, // crate::no\n    io as disk,\n};\nfn f() -> crate::error::Error { crate::testing!() }";
    assert_eq!(modules_named(text), ["cache", "log", "io", "error"]);
    assert!(is_unsafe("    unsafe { read(p) }") && is_unsafe("unsafe impl Send for X {}"));
    assert!(!is_unsafe("// unsafe, one would think") && !is_unsafe("#![deny(unsafe_op_in_unsafe_fn)]"));
    let sources = sources();
    assert!(sources.len() > 10, "no sources were read");
    assert!(!sources.iter().any(|(path, _)| path.ends_with("tests.rs")), "tests may name anything");
}

/// The modules right behind `crate::`, in order, that are modules of ours.
fn modules_named(text: &str) -> Vec<String> {
    let text = without_comments(text);
    let mut found = Vec::new();
    for (at, marker) in text.match_indices("crate::") {
        let glued = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        let rest = &text[at + marker.len()..];
        if glued {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(list) => found.extend(heads(list)),
            None => found.extend(identifier(rest)),
        }
    }
    let is_module = |name: &String| root().join(name).is_dir() || root().join(format!("{name}.rs")).is_file();
    found.into_iter().filter(is_module).collect()
}

/// The first name of each item in a list whose opening brace has been read.
fn heads(list: &str) -> Vec<String> {
    let (mut depth, mut at_head, mut found) = (0, true, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            c if at_head && !c.is_whitespace() => {
                found.extend(identifier(&list[at..]));
                at_head = false;
            }
            _ => {}
        }
    }
    found
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// `log/record.rs` is part of `log`, `cache.rs` is `cache`.
fn top_module(path: &Path) -> &str {
    let first = path.components().next().expect("a file has a path").as_os_str().to_str().expect("ASCII");
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Every source file below `src`, its path from there, and its text, without the unit tests: they may
/// name anything.
fn sources() -> Vec<(PathBuf, String)> {
    let (mut found, mut only_tests) = (Vec::new(), Vec::new());
    let mut dirs = vec![root()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                only_tests.extend(test_files(&path, &text));
                let end = inline_tests(&text).unwrap_or(text.len());
                found.push((path, text[..end].to_owned()));
            }
        }
    }
    found.retain(|(path, _)| !only_tests.contains(path));
    found.sort();
    found.iter_mut().for_each(|(path, _)| *path = path.strip_prefix(root()).unwrap().to_owned());
    found
}

/// Where the tests at a file's foot begin.
fn inline_tests(text: &str) -> Option<usize> {
    let begins = |(at, marker): &(usize, &str)| {
        let item = text[at + marker.len()..].split_once('{').map(|(item, _)| item.trim());
        matches!(item, Some("mod tests" | "pub(crate) mod tests"))
    };
    text.match_indices("#[cfg(test)]\n").find(begins).map(|(at, _)| at)
}

/// The files that a file declares as tests: `#[cfg(test)] mod name;`.
fn test_files(path: &Path, text: &str) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap();
    let dir =
        if stem == "mod" || stem == "lib" { path.parent().unwrap().into() } else { path.with_extension("") };
    let declared = text.match_indices("#[cfg(test)]\n").filter_map(|(at, marker)| {
        let (name, rest) = text[at + marker.len()..].trim_start().strip_prefix("mod ")?.split_once(';')?;
        (!name.contains('{') && !rest.is_empty()).then(|| dir.join(format!("{name}.rs")))
    });
    declared.collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

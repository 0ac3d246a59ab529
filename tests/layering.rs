//! The layers of the design, read from the source text: who may name whom, and where `unsafe` may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From the bottom up. A file may name its own layer and what that layer's line lists; what it may
/// not name is a lie about the design or a race about to be written.
const LAYERS: &[Layer] = &[
    Layer { name: "leaves", files: LEAVES, may_name: LEAVES },
    Layer { name: "io", files: &["io"], may_name: &["io"] },
    Layer { name: "shard", files: &["shard"], may_name: &["shard"] },
    Layer { name: "log", files: &["log"], may_name: &["log", "io"] },
    Layer {
        name: "maintenance",
        files: MIDDLE,
        may_name: &["shard", "log", "io", "builder", "options", "limits"],
    },
    Layer { name: "cache", files: FACE, may_name: &["shard", "log", "io"] },
    Layer { name: "ext", files: &["ext", "bin"], may_name: FACE },
];

/// What all may name, and what names nothing but itself.
const LEAVES: &[&str] =
    &["hash", "location", "error", "codec", "stats", "time", "sync", "bell", "budget", "hits", "options"];
/// The engine room between the face and the tiers.
const MIDDLE: &[&str] = &["maintenance", "engine", "tiers"];
/// What the user sees, and what checks it.
const FACE: &[&str] = &["lib", "cache", "builder", "lease", "limits"];

/// The only files that may contain `unsafe`: the map and the lock-free hot table.
const UNSAFE: &[&str] = &["io/map.rs", "shard/hot.rs", "shard/slab.rs"];

struct Layer {
    name: &'static str,
    /// The modules directly below `src` that make it up.
    files: &'static [&'static str],
    may_name: &'static [&'static str],
}

#[test]
fn every_arrow_points_down() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = top_module(&path);
        let Some(layer) = LAYERS.iter().find(|layer| layer.files.contains(&module)) else {
            wrong.push(format!("{} is in no layer", path.display()));
            continue;
        };
        for named in modules_named(&text) {
            let own = layer.files.contains(&named.as_str());
            let leaf = LEAVES.contains(&named.as_str());
            let below = layer.may_name.contains(&named.as_str());
            let middle = layer.name == "cache" && MIDDLE.contains(&named.as_str());
            if !own && !leaf && !below && !middle {
                wrong.push(format!("{} ({}) names crate::{named}", path.display(), layer.name));
            }
        }
    }
    assert!(wrong.is_empty(), "against the layering:\n{}", wrong.join("\n"));
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

/// The test reads what it thinks it reads.
#[test]
fn paths_are_found() {
    let text = "use crate::{\n    cache::Cache,\n    log::{self, Log}, // crate::no\n    io as disk,\n};\nfn f() -> crate::error::Error { crate::testing!() }";
    assert_eq!(modules_named(text), ["cache", "log", "io", "error"]);
    assert!(is_unsafe("    unsafe { read(p) }") && is_unsafe("unsafe impl Send for X {}"));
    assert!(!is_unsafe("// unsafe, one would think") && !is_unsafe("#![deny(unsafe_op_in_unsafe_fn)]"));
    assert!(sources().len() > 10, "no sources were read");
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

/// Every source file below `src`, its path from there, and its text up to the inline tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![root()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

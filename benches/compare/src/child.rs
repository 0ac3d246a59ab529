//! What is measured in a process of its own: the RAM that a cache takes, and reopening.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    content::{Payload, shuffled},
    measure::{Sample, anonymous_bytes},
    peers::{
        ram::{caches, references},
        store::{OpenStore, Setup, Store, restarted},
    },
};

const VALUE_BYTES: usize = 200;
/// One key in so many is overwritten after the flush, and another removed.
const CHANGED: u64 = 100;
/// How long a child may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// What a child says when it has done all that was asked before its end.
const READY: &str = "ready";

/// Runs this program as a child and reads the sample that it prints.
pub fn sample(args: &[&str]) -> Result<Sample> {
    let mut child = spawn(args)?;
    let end = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            bail!("not done after {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("the child's answer")
}

/// Has a child fill a store in `dir`, flush it, change two keys in a hundred, and close it.
pub fn fill_and_close(peer: &str, dir: &Path, entries: u64) -> Result<()> {
    sample(&["fill", peer, &dir.to_string_lossy(), &entries.to_string()]).map(|_| ())
}

/// The same, killed by SIGKILL in place of the close.
pub fn fill_and_kill(peer: &str, dir: &Path, entries: u64) -> Result<()> {
    let mut child = spawn(&["fill-and-wait", peer, &dir.to_string_lossy(), &entries.to_string()])?;
    let stdout = child.stdout.take().context("it was piped")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    child.kill()?;
    let output = child.wait_with_output()?;
    ensure!(line.trim() == READY, "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Without backtraces: what it says on stderr ends up in a table.
fn spawn(args: &[&str]) -> Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("child").args(args).env("RUST_BACKTRACE", "0");
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// The child's side.
pub fn run(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let sample = match args[..] {
        ["ram-entry", peer, "u64", keys] => ram_entry::<u64>(peer, keys.parse()?)?,
        ["ram-entry", peer, "Arc", keys] => ram_entry::<Arc<[u8]>>(peer, keys.parse()?)?,
        ["ram-entry", peer, "array", keys] => ram_entry::<[u8; 100]>(peer, keys.parse()?)?,
        ["fill", peer, dir, entries] => {
            fill(peer, Path::new(dir), entries.parse()?)?.close()?;
            Sample::of(0.0)
        }
        ["fill-and-wait", peer, dir, entries] => {
            let _open = fill(peer, Path::new(dir), entries.parse()?)?;
            println!("{READY}");
            std::io::stdout().flush()?;
            thread::sleep(Duration::from_secs(60));
            bail!("nobody killed it");
        }
        ["reopen", peer, dir, entries] => reopen(peer, Path::new(dir), entries.parse()?)?,
        ["store-ram", peer, dir, entries] => store_ram(peer, Path::new(dir), entries.parse()?)?,
        _ => bail!("no such task: {args:?}"),
    };
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}

/// Anonymous memory an entry beyond its payload, of a cache that is filled with as many as it was made for.
fn ram_entry<V: Payload>(peer: &str, keys: u64) -> Result<Sample> {
    let mut peers = caches::<V>().into_iter().chain(references());
    let (_, open) = peers.find(|(name, _)| *name == peer).context("no such peer")?;
    let before = anonymous_bytes()?;
    let cache = open(keys)?;
    cache.insert_each(0..keys);
    let entries = cache.len();
    let grown = anonymous_bytes()?.saturating_sub(before);
    let beyond = grown as f64 / entries as f64 - V::PAYLOAD_BYTES as f64;
    Ok(Sample::of(beyond).with("entries", entries as f64))
}

fn fill(peer: &str, dir: &Path, entries: u64) -> Result<Box<dyn Store>> {
    let store = opener(peer)?(dir, setup(entries))?;
    store.insert_each(&Vec::from_iter(0..entries), 0, VALUE_BYTES)?;
    store.flush()?;
    for key in 0..entries {
        match Fate::of(key) {
            Fate::Kept => {}
            Fate::Overwritten => store.insert_each(&[key], 1, VALUE_BYTES)?,
            Fate::Removed => store.remove(key)?,
        }
    }
    Ok(store)
}

/// What happens to a key after the flush.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Overwritten,
    Removed,
}

impl Fate {
    fn of(key: u64) -> Fate {
        match key % CHANGED {
            0 => Fate::Overwritten,
            2 => Fate::Removed,
            _ => Fate::Kept,
        }
    }
}

/// Milliseconds from before `open` to the first verified value; then whether all the others are right.
fn reopen(peer: &str, dir: &Path, entries: u64) -> Result<Sample> {
    let open = opener(peer)?;
    let first = (entries / 2..).find(|&key| Fate::of(key) == Fate::Kept).context("there is one")?;
    let start = Instant::now();
    let store = open(dir, setup(entries))?;
    let found = store.check(first, 0)?;
    let took = start.elapsed();
    ensure!(found == Some(true), "the first key is wrong or gone");
    let audit = Audit::of(&*store, entries)?;
    store.close()?;
    Ok(audit.note(Sample::of(took.as_secs_f64() * 1e3)))
}

/// Anonymous memory that an open store takes once its entries were read, beyond a bare process.
fn store_ram(peer: &str, dir: &Path, entries: u64) -> Result<Sample> {
    let before = anonymous_bytes()?;
    let store = opener(peer)?(dir, setup(entries))?;
    let audit = Audit::of(&*store, entries)?;
    Ok(audit.note(Sample::of(anonymous_bytes()?.saturating_sub(before) as f64)))
}

/// What is in a store that was filled, changed and opened again.
#[derive(Default)]
struct Audit {
    entries: u64,
    read: u64,
    stale: u64,
    lost: u64,
    /// Overwritten since the flush, and not there in any version.
    unflushed_gone: u64,
}

impl Audit {
    /// Reads all entries, or of a slow peer as many as there is time for, in random order. What was
    /// overwritten after the flush may be gone, but may not be old, and what was removed may not be back.
    fn of(store: &dyn Store, entries: u64) -> Result<Audit> {
        let end = Instant::now() + Duration::from_secs(1) + Duration::from_micros(4) * entries as u32;
        let mut audit = Audit { entries, ..Audit::default() };
        for key in shuffled(entries) {
            let fate = Fate::of(key);
            match (store.check(key, u64::from(fate == Fate::Overwritten))?, fate) {
                (Some(true), Fate::Kept | Fate::Overwritten) | (None, Fate::Removed) => {}
                (Some(_), _) => audit.stale += 1,
                (None, Fate::Overwritten) => audit.unflushed_gone += 1,
                (None, Fate::Kept) => audit.lost += 1,
            }
            audit.read += 1;
            if audit.read.is_multiple_of(256) && Instant::now() >= end {
                break;
            }
        }
        Ok(audit)
    }

    fn note(self, sample: Sample) -> Sample {
        let found = format!("{} STALE, {} flushed entries lost", self.stale, self.lost);
        sample
            .with("read", self.read as f64 / self.entries as f64)
            .with("unflushed gone", self.unflushed_gone as f64)
            .with_fault((self.stale + self.lost > 0).then_some(found))
    }
}

fn opener(peer: &str) -> Result<OpenStore> {
    let found = restarted().into_iter().find(|(name, _)| *name == peer);
    Ok(found.context("no such peer")?.1)
}

/// RAM for as many values whatever the number of entries.
fn setup(entries: u64) -> Setup {
    Setup { entries, value_bytes: VALUE_BYTES, ram_entries: 4_096 }
}

//! Time by the wall and by the CPU, over any number of threads, of work that says what it found.

use std::{collections::BTreeMap, sync::Barrier, thread, time::Duration, time::Instant};

use anyhow::{Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What one thread's share of the work found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub ops: u64,
    pub hits: u64,
    /// Values that are not what was last stored under their key.
    pub lies: u64,
}

impl Tally {
    /// Counts one look-up: `None` for a miss, else whether the value was right.
    pub fn count(&mut self, found: Option<bool>) {
        self.ops += 1;
        self.hits += u64::from(found.is_some());
        self.lies += u64::from(found == Some(false));
    }

    /// An error unless each look-up hit, and told the truth.
    pub fn all_hits(self) -> Result<Tally> {
        self.no_lies()?;
        ensure!(self.hits == self.ops, "misses: {} of {}", self.ops - self.hits, self.ops);
        Ok(self)
    }

    /// An error if a value was wrong.
    pub fn no_lies(self) -> Result<Tally> {
        ensure!(self.lies == 0, "LIES: {} of {} values were wrong", self.lies, self.hits);
        Ok(self)
    }

    pub fn add(self, other: Tally) -> Tally {
        Tally { ops: self.ops + other.ops, hits: self.hits + other.hits, lies: self.lies + other.lies }
    }
}

/// What one repetition came to: one figure that is better the smaller it is, and more beside it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    pub value: f64,
    /// The same by the CPU time of the whole process, a peer's own threads included.
    pub cpu: Option<f64>,
    pub figures: BTreeMap<String, f64>,
    /// What was wrong although the work was done.
    pub fault: Option<String>,
}

impl Sample {
    pub fn of(value: f64) -> Sample {
        Sample { value, ..Sample::default() }
    }

    pub fn with(mut self, figure: &str, value: f64) -> Sample {
        self.figures.insert(figure.to_owned(), value);
        self
    }
}

/// What a stretch of work took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub wall: Duration,
    pub cpu: Duration,
}

impl Took {
    /// Nanoseconds an operation, by the wall over all threads: two threads at 100 ns are 50.
    pub fn per_op(self, ops: u64) -> Sample {
        let ns = |time: Duration| time.as_nanos() as f64 / ops as f64;
        Sample { value: ns(self.wall), cpu: Some(ns(self.cpu)), ..Sample::default() }
    }
}

/// Times `work`.
pub fn time<R>(work: impl FnOnce() -> R) -> (Took, R) {
    let (start, cpu) = (Instant::now(), cpu_time());
    let result = work();
    (Took { wall: start.elapsed(), cpu: cpu_time() - cpu }, result)
}

/// Runs `share` on each thread at once, from the moment that all are ready until the last is done.
pub fn time_threads<T: Send>(
    threads: usize,
    share: impl Fn(usize) -> Result<T> + Sync,
) -> Result<(Took, Vec<T>)> {
    if threads == 1 {
        let (took, result) = time(|| share(0));
        return Ok((took, vec![result?]));
    }
    let barrier = Barrier::new(threads + 1);
    let run = |thread| {
        barrier.wait();
        share(thread)
    };
    let run = &run;
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        barrier.wait();
        let (took, results) =
            time(|| handles.into_iter().map(|handle| handle.join().expect("it panicked")).collect());
        let results: Result<Vec<T>> = results;
        Ok((took, results?))
    })
}

/// Of this process, all of its threads.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes of RAM that this process holds that are not pages of files.
pub fn anonymous_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or_else(|| anyhow::anyhow!("no RssAnon in /proc/self/status"))?.trim().parse::<u64>()? * 1024)
}

/// Bytes that this process has caused to be written to the disk, dirtied pages of maps included.
pub fn written_bytes() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    Ok(line.ok_or_else(|| anyhow::anyhow!("no write_bytes in /proc/self/io"))?.trim().parse()?)
}

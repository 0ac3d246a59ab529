//! Time by the wall and by the CPU, over any number of threads, of work that says what it found.

use std::{
    any::Any,
    collections::BTreeMap,
    iter::Sum,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
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

    pub fn hit_ratio(self) -> f64 {
        self.hits as f64 / self.ops as f64
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Tally>>(tallies: I) -> Tally {
        tallies.fold(Tally::default(), Tally::add)
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

    pub fn with_fault(mut self, fault: impl Into<Option<String>>) -> Sample {
        self.fault = fault.into();
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

/// Keys between two looks at the clock: half a second of the slowest peer, and for those that
/// read in one transaction long enough that to begin it costs nothing.
const PIECE: usize = 4_096;

/// Works through `keys` by pieces, until all are done or the time is up: a slow peer does less of the
/// same.
pub fn within<'k>(
    limit: Duration,
    keys: impl IntoIterator<Item = &'k [u64]>,
    mut work: impl FnMut(&[u64]) -> Result<Tally>,
) -> Result<Tally> {
    let end = Instant::now() + limit;
    let mut tally = Tally::default();
    for piece in keys.into_iter().flat_map(|keys| keys.chunks(PIECE)) {
        tally = tally.add(work(piece)?);
        if Instant::now() >= end {
            break;
        }
    }
    Ok(tally)
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
        let join = |handle: thread::ScopedJoinHandle<'_, Result<T>>| {
            handle.join().unwrap_or_else(|panic| Err(anyhow!("panicked: {}", message(&*panic))))
        };
        let (took, results) = time(|| handles.into_iter().map(join).collect::<Vec<_>>());
        Ok((took, results.into_iter().collect::<Result<_>>()?))
    })
}

/// What a panic said.
pub fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// The value in the middle, or between the two that are.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let len = values.len();
    (len > 0).then(|| f64::midpoint(values[len / 2], values[(len - 1) / 2]))
}

/// Latencies of single operations, in nanoseconds.
pub struct Latencies(Vec<u64>);

impl Latencies {
    pub fn new(mut took: Vec<u64>) -> Result<Latencies> {
        ensure!(!took.is_empty(), "nothing was measured");
        took.sort_unstable();
        Ok(Latencies(took))
    }

    /// The smallest that at least this share of them do not exceed.
    pub fn at(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1] as f64
    }

    /// p99.9, with others beside it.
    pub fn sample(&self) -> Sample {
        Sample::of(self.at(0.999)).with("p50", self.at(0.5)).with("p99.99", self.at(0.9999))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let latencies = Latencies::new((1..=999).rev().collect()).unwrap();
        assert_eq!((latencies.at(0.5), latencies.at(0.999), latencies.at(1.0)), (500.0, 999.0, 999.0));
        assert_eq!(Latencies::new(vec![7]).unwrap().at(0.999), 7.0);
        assert!(Latencies::new(Vec::new()).is_err());
    }

    #[test]
    fn a_slow_peer_does_less_and_a_fast_one_all() {
        let keys: Vec<u64> = (0..4 * PIECE as u64).collect();
        let count = |piece: &[u64]| Tally { ops: piece.len() as u64, ..Tally::default() };
        let all =
            within(Duration::from_secs(60), [&keys[..10], &keys[10..]], |piece| Ok(count(piece))).unwrap();
        assert_eq!(all.ops, keys.len() as u64);
        let slow = |piece: &[u64]| {
            thread::sleep(Duration::from_millis(2));
            Ok(count(piece))
        };
        assert_eq!(within(Duration::from_millis(1), [&keys[..]], slow).unwrap().ops, PIECE as u64);
    }

    #[test]
    fn a_tally_tells_misses_from_lies() {
        let mut tally = Tally::default();
        [Some(true), None, Some(false), None].into_iter().for_each(|found| tally.count(found));
        assert_eq!((tally.ops, tally.hits, tally.lies), (4, 2, 1));
        assert!(tally.no_lies().unwrap_err().to_string().contains("LIES: 1 of 2"));
        let missed = Tally { ops: 2, hits: 1, lies: 0 };
        assert!(missed.no_lies().is_ok() && missed.all_hits().is_err());
    }

    #[test]
    fn threads_share_the_clock_and_a_panic_is_an_error() {
        let (took, shares) = time_threads(3, Ok).unwrap();
        assert_eq!(shares, [0, 1, 2]);
        assert!(took.wall > Duration::ZERO);
        let failed = time_threads(2, |thread| if thread == 1 { panic!("peer {thread}") } else { Ok(()) });
        assert_eq!(failed.unwrap_err().to_string(), "panicked: peer 1");
    }
}

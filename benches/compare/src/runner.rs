//! The repetitions in turns: A B C A B C, so that what disturbs the machine disturbs all alike.

use std::{
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    measure::{Sample, message},
    report::{Report, Row},
};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub is_quick: bool,
    pub repetitions: usize,
}

impl Scale {
    /// One of the two sizes.
    pub fn pick<T>(self, quick: T, full: T) -> T {
        if self.is_quick { quick } else { full }
    }

    /// When a slow peer may end a repetition before all of it is done.
    pub fn limit(self) -> Duration {
        self.pick(Duration::from_millis(200), Duration::from_millis(1_000))
    }
}

/// What embercache should reach.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At least so many times as good as this peer.
    Times(f64, &'static str),
    /// At least so many times as good as the best of the others.
    TimesBest(f64),
    /// At most this, in the contest's unit.
    AtMost(f64),
    /// The figure of this name at least so large.
    FigureAtLeast(&'static str, f64),
    /// The figure of this name at most so large.
    FigureAtMost(&'static str, f64),
    /// The figure of this name at least as large as that of each of the others.
    FigureAtLeastBest(&'static str),
    /// Nothing wrong beside the figures.
    NoFault,
}

/// One question to all peers.
#[derive(Clone, Debug)]
pub struct Contest {
    pub workload: &'static str,
    pub what: String,
    pub unit: &'static str,
    pub targets: Vec<Target>,
    /// Fewer than the scale's.
    repetitions: Option<usize>,
}

impl Contest {
    pub fn new(workload: &'static str, what: impl Display, unit: &'static str) -> Contest {
        Contest { workload, what: what.to_string(), unit, targets: Vec::new(), repetitions: None }
    }

    pub fn target(mut self, target: Target) -> Contest {
        self.targets.push(target);
        self
    }

    /// For what does not vary, or takes too long to do often.
    pub fn repetitions(mut self, repetitions: usize) -> Contest {
        self.repetitions = Some(repetitions);
        self
    }
}

/// A peer made ready, or what went wrong with that.
pub struct Entrant<T> {
    pub name: &'static str,
    pub state: Result<T, String>,
}

/// Asks the questions and keeps the answers.
pub struct Runner {
    pub scale: Scale,
    /// The names of the peers that were asked for; all if there are none.
    peers: Vec<String>,
    report: Report,
    started: Instant,
}

impl Runner {
    pub fn new(scale: Scale, peers: Vec<String>, report: Report) -> Runner {
        Runner { scale, peers, report, started: Instant::now() }
    }

    /// Whether this peer was asked for, itself or as a variant: `lmdb_kept` is one of `lmdb`.
    pub fn wants(&self, peer: &str) -> bool {
        let is_it = |wanted: &String| {
            peer.strip_prefix(wanted.as_str())
                .is_some_and(|rest| matches!(rest, "" | "*") || rest.starts_with('_'))
        };
        self.peers.is_empty() || self.peers.iter().any(is_it)
    }

    /// Makes each wanted peer ready, on all cores, since nothing is timed here.
    pub fn prepare<P, T>(
        &self,
        peers: Vec<(&'static str, P)>,
        ready: impl Fn(&P) -> Result<T> + Sync,
    ) -> Vec<Entrant<T>>
    where
        P: Sync,
        T: Send,
    {
        let wanted: Vec<_> = peers.into_iter().filter(|(name, _)| self.wants(name)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut entrants = Vec::new();
            // Relaxed: only that each index is drawn once matters.
            while let Some((name, peer)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.progress(format_args!("  making {name} ready"));
                entrants.push(Entrant { name, state: caught(|| ready(peer)) });
            }
            entrants
        };
        let mut entrants: Vec<_> = thread::scope(|scope| {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("its panics are caught")).collect()
        });
        entrants.sort_by_key(|entrant| wanted.iter().position(|(name, _)| *name == entrant.name));
        entrants
    }

    /// All repetitions of one contest; `run` gets the repetition's number. A peer that fails or lies is
    /// not run again, and is in the table with what it did.
    pub fn contest<T>(
        &mut self,
        contest: &Contest,
        entrants: &[Entrant<T>],
        run: impl Fn(&T, usize) -> Result<Sample>,
    ) -> Result<()> {
        self.progress(format_args!("{} {}", contest.workload, contest.what));
        let most = self.scale.repetitions;
        let rows = play(entrants, contest.repetitions.map_or(most, |some| some.min(most)), run);
        self.report.add(contest, &rows)
    }

    /// Time for the peers' background work to end, so that it is not counted as another's.
    pub fn settle(&self) {
        thread::sleep(Duration::from_millis(self.scale.pick(300, 2000)));
    }

    /// Says on stderr, where the tables are not, what is being done.
    pub fn progress(&self, what: impl Display) {
        eprintln!("[{:>4} s] {what}", self.started.elapsed().as_secs());
    }

    /// Ends the report; an error if embercache itself failed or lied.
    pub fn finish(mut self) -> Result<()> {
        self.progress("done");
        self.report.finish()
    }
}

fn play<T>(
    entrants: &[Entrant<T>],
    repetitions: usize,
    run: impl Fn(&T, usize) -> Result<Sample>,
) -> Vec<Row> {
    let row = |entrant: &Entrant<T>| Row {
        peer: entrant.name,
        samples: Vec::new(),
        failure: entrant.state.as_ref().err().cloned(),
    };
    let mut rows: Vec<Row> = entrants.iter().map(row).collect();
    for repetition in 0..repetitions {
        for (entrant, row) in entrants.iter().zip(&mut rows) {
            let (Ok(peer), None) = (&entrant.state, &row.failure) else { continue };
            match caught(|| run(peer, repetition)) {
                Ok(sample) => row.samples.push(sample),
                Err(failure) => row.failure = Some(failure),
            }
        }
    }
    rows
}

/// An error or a panic in one line.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T, String> {
    // A peer that panicked is not used again, so nobody sees what it left behind.
    let result = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        Err(panic) => Err(format!("panicked: {}", message(&*panic))),
    };
    result.map_err(|failure| failure.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use anyhow::{anyhow, bail};

    use super::*;
    use crate::measure::Tally;

    fn entrant(name: &'static str) -> Entrant<&'static str> {
        Entrant { name, state: Ok(name) }
    }

    /// A liar, a peer that breaks down at its second repetition and one that panics, between two that work.
    #[test]
    fn who_fails_or_lies_is_reported_and_not_run_again() {
        let mut entrants: Vec<_> = ["embercache", "liar", "frail", "hasty", "honest"].map(entrant).into();
        entrants.push(Entrant { name: "absent", state: Err(String::from("not installed")) });
        let rows = play(&entrants, 3, |name, repetition| {
            let mut tally = Tally::default();
            tally.count(Some(*name != "liar"));
            tally.no_lies()?;
            match (*name, repetition) {
                ("frail", 1) => Err(anyhow!("disk\n   full").context("insert")),
                ("hasty", _) => panic!("no such key"),
                _ => Ok(Sample::of(repetition as f64)),
            }
        });
        let failures: Vec<_> = rows.iter().map(|row| (row.samples.len(), row.failure.as_deref())).collect();
        let expected = [
            (3, None),
            (0, Some("LIES: 1 of 1 values were wrong")),
            (1, Some("insert: disk full")),
            (0, Some("panicked: no such key")),
            (3, None),
            (0, Some("not installed")),
        ];
        assert_eq!(failures, expected);
    }

    #[test]
    fn repetitions_are_in_turns() {
        let order = std::sync::Mutex::new(Vec::new());
        play(&["a", "b"].map(entrant), 2, |name, repetition| {
            order.lock().unwrap().push((*name, repetition));
            Ok(Sample::default())
        });
        assert_eq!(order.into_inner().unwrap(), [("a", 0), ("b", 0), ("a", 1), ("b", 1)]);
    }

    #[test]
    fn peers_are_made_ready_in_any_order_and_kept_in_theirs() {
        let runner = runner(&["lmdb", "moka"]);
        let delays = vec![("lmdb", 10), ("lmdb_kept", 50), ("lmdbx", 0), ("moka*", 1)];
        let entrants = runner.prepare(delays, |&delay| {
            thread::sleep(Duration::from_millis(delay));
            if delay == 1 { bail!("no room") } else { Ok(delay) }
        });
        let states: Vec<_> = entrants.into_iter().map(|entrant| (entrant.name, entrant.state)).collect();
        let expected = [("lmdb", Ok(10)), ("lmdb_kept", Ok(50)), ("moka*", Err(String::from("no room")))];
        assert_eq!(states, expected);
    }

    fn runner(peers: &[&str]) -> Runner {
        let file = tempfile::NamedTempFile::new().unwrap();
        let report = Report::create(file.path(), &serde_json::Value::Null).unwrap();
        let scale = Scale { is_quick: true, repetitions: 1 };
        Runner::new(scale, peers.iter().map(|&peer| peer.to_owned()).collect(), report)
    }
}

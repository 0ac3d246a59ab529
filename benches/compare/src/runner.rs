//! The repetitions in turns: A B C A B C, so that what disturbs the machine disturbs all alike.

use std::{fmt::Display, thread, time::Duration};

use anyhow::Result;

use crate::{
    measure::Sample,
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
}

/// One question to all peers.
#[derive(Clone, Debug)]
pub struct Contest {
    pub workload: &'static str,
    pub what: String,
    pub unit: &'static str,
    pub target: Option<Target>,
}

impl Contest {
    pub fn new(workload: &'static str, what: impl Display, unit: &'static str) -> Contest {
        Contest { workload, what: what.to_string(), unit, target: None }
    }

    pub fn target(mut self, target: Target) -> Contest {
        self.target = Some(target);
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
    peers: Vec<String>,
    report: Report,
}

impl Runner {
    pub fn new(scale: Scale, peers: Vec<String>, report: Report) -> Runner {
        Runner { scale, peers, report }
    }

    /// Whether this peer was asked for.
    pub fn wants(&self, peer: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|wanted| wanted == peer)
    }

    /// Makes each wanted peer ready, the one after the other.
    pub fn prepare<P, T>(
        &self,
        peers: Vec<(&'static str, P)>,
        ready: impl Fn(&P) -> Result<T>,
    ) -> Vec<Entrant<T>> {
        let wanted = peers.into_iter().filter(|(name, _)| self.wants(name));
        let prepare = |(name, peer): (&'static str, P)| {
            let state = ready(&peer).map_err(|error| format!("{error:#}"));
            Entrant { name, state }
        };
        wanted.map(prepare).collect()
    }

    /// All repetitions of one contest. A peer that fails or lies is not run again, and is in the
    /// table with what it did.
    pub fn contest<T>(
        &mut self,
        contest: &Contest,
        entrants: &[Entrant<T>],
        run: impl Fn(&T) -> Result<Sample>,
    ) -> Result<()> {
        let mut rows: Vec<Row> = entrants
            .iter()
            .map(|entrant| Row {
                peer: entrant.name,
                samples: Vec::new(),
                failure: entrant.state.as_ref().err().cloned(),
            })
            .collect();
        for _ in 0..self.scale.repetitions {
            for (entrant, row) in entrants.iter().zip(&mut rows) {
                let Ok(peer) = &entrant.state else { continue };
                if row.failure.is_some() {
                    continue;
                }
                match run(peer) {
                    Ok(sample) => row.samples.push(sample),
                    Err(error) => row.failure = Some(format!("{error:#}")),
                }
            }
        }
        self.report.add(contest, &rows)
    }

    /// Time for the peers' background work to end, so that it is not counted as another's.
    pub fn settle(&self) {
        thread::sleep(Duration::from_millis(self.scale.pick(300, 2000)));
    }
}

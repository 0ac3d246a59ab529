//! What plays a trace: a cache or a policy, asked for each key, and given it on a miss.

use indicatif::ProgressBar;

use crate::trace::{Request, Trace};

/// A cache under replay.
pub trait Player {
    /// Looks the key up, and stores it on a miss; whether it was there.
    fn request(&mut self, request: Request) -> bool;

    /// What else the player can tell once the trace has ended.
    fn details(&mut self) -> Details {
        Details::default()
    }
}

/// What only some players know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Details {
    pub clock_steps: Option<u64>,
    /// Of tables, slabs, rings and ghosts.
    pub metadata_bytes: Option<u64>,
    pub ram_entries: Option<u64>,
    pub disk: Option<DiskDetails>,
}

/// What the disk tier has done.
#[derive(Clone, Copy, Debug)]
pub struct DiskDetails {
    pub hits: u64,
    pub entries: u64,
    /// How many entries the log had once it was full, of those that it should have; not a number if it
    /// was never full.
    pub fill: f64,
    /// Records written, for whatever reason.
    pub writes: u64,
    /// Of these, records written again out of a segment that was reclaimed.
    pub rewrites: u64,
    pub record_bytes_written: u64,
}

/// How a trace went.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub requests: u64,
    pub misses: u64,
    /// What the missed requests weigh.
    pub missed_weight: u64,
    pub details: Details,
}

/// Requests between two looks at the clock: a progress bar is no part of the measured path.
const TICK_REQUESTS: u64 = 1 << 14;

impl Outcome {
    /// Plays the whole trace.
    pub fn of(player: &mut dyn Player, trace: &Trace, progress: &ProgressBar) -> Outcome {
        let (mut misses, mut missed_weight) = (0, 0);
        for (index, request) in trace.requests().enumerate() {
            if !player.request(request) {
                misses += 1;
                missed_weight += u64::from(request.weight);
            }
            if index as u64 % TICK_REQUESTS == TICK_REQUESTS - 1 {
                progress.inc(TICK_REQUESTS);
            }
        }
        progress.inc(trace.len() as u64 % TICK_REQUESTS);
        Outcome { requests: trace.len() as u64, misses, missed_weight, details: player.details() }
    }

    pub fn miss_ratio(&self) -> f64 {
        self.a_request(self.misses)
    }

    pub fn hit_ratio(&self) -> f64 {
        1.0 - self.miss_ratio()
    }

    pub fn disk_hit_ratio(&self) -> Option<f64> {
        self.details.disk.map(|disk| self.a_request(disk.hits))
    }

    pub fn ram_hit_ratio(&self) -> Option<f64> {
        self.disk_hit_ratio().map(|on_disk| self.hit_ratio() - on_disk)
    }

    pub fn rewrites_a_request(&self) -> Option<f64> {
        self.details.disk.map(|disk| self.a_request(disk.rewrites))
    }

    pub fn writes_a_request(&self) -> Option<f64> {
        self.details.disk.map(|disk| self.a_request(disk.writes))
    }

    pub fn steps_a_miss(&self) -> Option<f64> {
        self.details.clock_steps.map(|steps| steps as f64 / self.misses.max(1) as f64)
    }

    fn a_request(&self, count: u64) -> f64 {
        count as f64 / self.requests as f64
    }
}

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
    pub disk: Option<DiskDetails>,
}

/// What the disk tier has done.
#[derive(Clone, Copy, Debug)]
pub struct DiskDetails {
    pub hits: u64,
    pub entries: u64,
    /// Records written, for whatever reason.
    pub writes: u64,
    pub record_bytes_written: u64,
}

/// How a trace went.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub requests: u64,
    pub misses: u64,
    pub details: Details,
}

/// Requests between two looks at the clock: a progress bar is no part of the measured path.
const TICK_REQUESTS: u64 = 1 << 14;

impl Outcome {
    /// Plays the whole trace.
    pub fn of(player: &mut dyn Player, trace: &Trace, progress: &ProgressBar) -> Outcome {
        let mut misses = 0;
        for (index, request) in trace.requests().enumerate() {
            misses += u64::from(!player.request(request));
            if index as u64 % TICK_REQUESTS == TICK_REQUESTS - 1 {
                progress.inc(TICK_REQUESTS);
            }
        }
        progress.inc(trace.len() as u64 % TICK_REQUESTS);
        Outcome { requests: trace.len() as u64, misses, details: player.details() }
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

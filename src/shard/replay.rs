//! Replays recorded traces against the policy and asserts its figures.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::admission::{Gate, Readmission};
use super::duet::{Duet, Residents};
use super::entry::{Flags, Meta, SlotId};
use crate::hash::KeyHash;
use crate::options::Admission;

const REQUESTS_MAX: usize = 1_000_000;
const ENTRIES_MIN: usize = 50;
const SHARES: [f64; 5] = [0.001, 0.01, 0.05, 0.10, 0.25];

/// A trace over dense keys `0..distinct`, which serve as slot numbers too.
struct Trace {
    name: &'static str,
    requests: Vec<u32>,
    keys: Vec<u64>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/traces")
}

/// Says what was not done, past the harness, which keeps what passing tests print.
fn skip(what: &str) {
    writeln!(io::stderr(), "SKIPPED: {what}").expect("standard error is there");
}

impl Trace {
    /// `None`, loudly, where the trace is not on this machine: its licence keeps it out of the
    /// repository.
    fn load(file: &'static str, requests_max: usize) -> Option<Trace> {
        let path = directory().join(file);
        let Ok(compressed) = File::open(&path) else {
            skip(&format!("no trace {}", path.display()));
            return None;
        };
        let record_bytes = if file.ends_with(".k8s4.zst") { 12 } else { 8 };
        let mut bytes = Vec::new();
        ruzstd::decoding::StreamingDecoder::new(compressed)
            .unwrap()
            .take((requests_max * record_bytes) as u64)
            .read_to_end(&mut bytes)
            .unwrap();
        let mut numbers = HashMap::new();
        let mut keys = Vec::new();
        let requests = bytes
            .chunks_exact(record_bytes)
            .map(|record| {
                let key = u64::from_le_bytes(record[..8].try_into().unwrap());
                *numbers.entry(key).or_insert_with(|| {
                    keys.push(key);
                    keys.len() as u32 - 1
                })
            })
            .collect();
        let name = &file[..file.find('.').unwrap()];
        Some(Trace { name, requests, keys })
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        SHARES
            .iter()
            .map(|share| (share * self.keys.len() as f64) as usize)
            .filter(|&entries| entries >= ENTRIES_MIN)
    }

    fn metas(&self) -> Metas {
        let meta = |key: &u64| Meta::new(KeyHash::of(&key.to_le_bytes(), 0), 1);
        Metas(self.keys.iter().map(meta).collect())
    }
}

struct Metas(Vec<Meta>);

impl Residents for Metas {
    fn meta(&self, slot: SlotId) -> &Meta {
        &self.0[slot.0 as usize]
    }
}

struct Outcome {
    misses: usize,
    policy: Duet,
    steps_max: u64,
}

fn duet(trace: &Trace, entries: usize) -> Outcome {
    let metas = trace.metas();
    let mut resident = vec![false; trace.keys.len()];
    let mut policy = Duet::new(entries as u64);
    let (mut misses, mut steps_max, mut victims) = (0, 0, Vec::new());
    for &key in &trace.requests {
        if resident[key as usize] {
            metas.meta(SlotId(key)).hit();
            continue;
        }
        misses += 1;
        let steps_before = policy.steps();
        policy.insert(&metas, SlotId(key), &mut victims);
        steps_max = steps_max.max(policy.steps() - steps_before);
        resident[key as usize] = true;
        for victim in victims.drain(..) {
            resident[victim.0 as usize] = false;
        }
    }
    policy.check(&metas);
    Outcome { misses, policy, steps_max }
}

fn fifo(trace: &Trace, entries: usize) -> usize {
    let mut resident = vec![false; trace.keys.len()];
    let mut queue = vec![u32::MAX; entries];
    let mut misses = 0;
    for &key in &trace.requests {
        if resident[key as usize] {
            continue;
        }
        let place = &mut queue[misses % entries];
        if *place != u32::MAX {
            resident[*place as usize] = false;
        }
        *place = key;
        resident[key as usize] = true;
        misses += 1;
    }
    misses
}

/// By how much a policy with `misses` cuts those of `base`; negative where it is worse.
fn cut(base: usize, misses: usize) -> f64 {
    let (base, misses) = (base as f64, misses as f64);
    (base - misses) / base.max(misses)
}

/// What a set of traces comes to, a cell for each trace and size.
#[derive(Default)]
struct Score {
    cuts: Vec<f64>,
    miss_ratios: Vec<f64>,
}

impl Score {
    /// Replays every trace at every size, and asserts what holds for each cell.
    fn of(files: &[&'static str]) -> Score {
        let mut score = Score::default();
        for trace in files.iter().filter_map(|file| Trace::load(file, REQUESTS_MAX)) {
            for entries in trace.sizes() {
                score.add(&trace, entries);
            }
        }
        score
    }

    fn add(&mut self, trace: &Trace, entries: usize) {
        let Outcome { misses, policy, steps_max } = duet(trace, entries);
        let cut = cut(fifo(trace, entries), misses);
        let miss_ratio = misses as f64 / trace.requests.len() as f64;
        let steps = policy.steps() as f64 / misses as f64;
        let overhead_bytes = policy.overhead_bytes() as f64 / policy.len() as f64;
        let cell = format!(
            "{:9} {entries:6} entries: miss ratio {miss_ratio:.4}, cut {cut:+.4}, \
             {steps:.2} steps a miss, {steps_max} at most, {overhead_bytes:.1} bytes an entry",
            trace.name
        );
        eprintln!("{cell}");
        assert!(cut >= -0.06, "much worse than FIFO: {cell}");
        assert!(steps <= 2.0, "too many steps: {cell}");
        // A lost duel, and then a sweep.
        assert!(steps_max <= 4 + 64, "too long a sweep: {cell}");
        // Ghosts of 16 bytes (each a bucket at least), and rings that may be half vacant, of which each
        // begins and ends within a block.
        let limit_bytes = 16.0 + 8.0 + (64.0 + 4.0 * 512.0) / entries as f64;
        assert!(overhead_bytes <= limit_bytes, "too much memory: {cell}");
        self.cuts.push(cut);
        self.miss_ratios.push(miss_ratio);
    }

    /// Asserts the means, unless traces are missing.
    fn expect(&self, cells: usize, cut_min: f64, miss_ratio_max: f64) {
        if self.cuts.len() != cells {
            skip(&format!("{} of the {cells} means that the policy is held to", cells - self.cuts.len()));
            return;
        }
        let (cut, miss_ratio) = (mean(&self.cuts), mean(&self.miss_ratios));
        eprintln!("{cells} cells: mean cut {cut:.4}, mean miss ratio {miss_ratio:.4}");
        assert!(cut >= cut_min, "mean cut {cut:.4}, expected {cut_min}");
        assert!(miss_ratio <= miss_ratio_max, "mean miss ratio {miss_ratio:.4}");
    }
}

fn mean(of: &[f64]) -> f64 {
    of.iter().sum::<f64>() / of.len() as f64
}

/// RAM in front of a FIFO log of whole entries, which re-appends what was read since it was
/// written and is not in RAM.
struct TwoTiers {
    metas: Metas,
    resident: Vec<bool>,
    policy: Duet,
    gate: Gate,
    readmission: Readmission,
    log: VecDeque<u32>,
    log_entries: usize,
    log_wrapped: bool,
    on_disk: Vec<bool>,
    read: Vec<bool>,
    ram_hits: usize,
    disk_hits: usize,
    writes: usize,
}

impl TwoTiers {
    fn new(trace: &Trace, ram_entries: usize, admission: Admission) -> TwoTiers {
        let keys = trace.keys.len();
        let log_entries = 10 * ram_entries;
        let mut gate = Gate::new(admission, 1);
        gate.set_disk_entries(log_entries as u64);
        TwoTiers {
            metas: trace.metas(),
            resident: vec![false; keys],
            policy: Duet::new(ram_entries as u64),
            gate,
            readmission: Readmission::new(),
            log: VecDeque::new(),
            log_entries,
            log_wrapped: false,
            on_disk: vec![false; keys],
            read: vec![false; keys],
            ram_hits: 0,
            disk_hits: 0,
            writes: 0,
        }
    }

    fn get_or_insert(&mut self, key: u32) {
        let (slot, index) = (SlotId(key), key as usize);
        if self.resident[index] {
            self.ram_hits += 1;
            return self.metas.meta(slot).hit();
        }
        if self.on_disk[index] {
            self.disk_hits += 1;
            self.read[index] = true;
            if !self.comes_back(slot) {
                return;
            }
            self.metas.meta(slot).set(Flags::FROM_DISK);
        } else {
            self.metas.meta(slot).clear(Flags::FROM_DISK);
        }
        self.resident[index] = true;
        let mut victims = Vec::new();
        self.policy.insert(&self.metas, slot, &mut victims);
        for victim in victims {
            self.resident[victim.0 as usize] = false;
            let is_clean = self.on_disk[victim.0 as usize];
            if !is_clean && self.gate.admits(self.metas.meta(victim), self.log_wrapped) {
                self.append(victim.0);
            }
        }
    }

    fn comes_back(&mut self, slot: SlotId) -> bool {
        let (hash, residents) = (self.metas.meta(slot).hash, self.policy.len() as u64);
        let has_room = self.policy.weight() < self.policy.capacity();
        has_room || self.policy.knows(hash) || self.readmission.admits(hash, residents)
    }

    fn append(&mut self, key: u32) {
        while self.log.len() >= self.log_entries {
            self.log_wrapped = true;
            let oldest = self.log.pop_front().unwrap();
            let index = oldest as usize;
            if std::mem::take(&mut self.read[index]) && !self.resident[index] {
                self.log.push_back(oldest);
                self.writes += 1;
            } else {
                self.on_disk[index] = false;
            }
        }
        self.log.push_back(key);
        self.on_disk[key as usize] = true;
        self.writes += 1;
    }
}

/// Small enough for every run of the tests.
const SMALL_TRACES: [&str; 7] = [
    "2_pools.k8.zst",
    "cs.k8.zst",
    "gli.k8.zst",
    "multi1.k8.zst",
    "multi3.k8.zst",
    "zigzag.k8.zst",
    "web12.k8.zst",
];

const LARGE_TRACES: [&str; 10] = [
    "OLTP.k8.zst",
    "P3.k8.zst",
    "P12.k8.zst",
    "loop.k8.zst",
    "orm-busy.k8.zst",
    "gcc.k8.zst",
    "mcf.k8.zst",
    "swim.k8.zst",
    "corda.k8.zst",
    "adaptsize.k8s4.zst",
];

#[test]
fn small_traces_miss_less_than_with_fifo() {
    Score::of(&SMALL_TRACES).expect(24, 0.155, 0.620);
}

#[test]
#[ignore = "a minute without optimisation: cargo test --release replay -- --include-ignored"]
fn all_traces_miss_less_than_with_fifo() {
    let files = [&SMALL_TRACES[..], &LARGE_TRACES[..]].concat();
    Score::of(&files).expect(68, 0.110, 0.590);
}

#[test]
#[ignore = "half a minute without optimisation"]
fn oltp_hits_more_than_with_arc() {
    let Some(trace) = Trace::load("OLTP.k8.zst", REQUESTS_MAX) else {
        return;
    };
    let figures = [(1000, 41.5), (2000, 47.3), (5000, 56.2), (10_000, 63.4), (15_000, 66.8)];
    for (entries, expected) in figures {
        let misses = duet(&trace, entries).misses;
        let hit_percent = 100.0 * (1.0 - misses as f64 / trace.requests.len() as f64);
        eprintln!("OLTP {entries:6} entries: {hit_percent:.2} % hits");
        assert!(hit_percent >= expected, "{hit_percent} % at {entries} entries");
    }
}

/// Means over the traces: of hits, of hits in RAM, and of writes, each a request.
#[derive(Debug)]
struct TwoTierScore {
    hits: f64,
    ram_hits: f64,
    writes: f64,
}

impl TwoTierScore {
    fn of(traces: &[Trace], admission: Admission) -> TwoTierScore {
        let (mut hits, mut ram_hits, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        for trace in traces {
            let mut tiers = TwoTiers::new(trace, trace.keys.len() / 100, admission);
            trace.requests.iter().for_each(|&key| tiers.get_or_insert(key));
            let a_request = |count: usize| count as f64 / trace.requests.len() as f64;
            hits.push(a_request(tiers.ram_hits + tiers.disk_hits));
            ram_hits.push(a_request(tiers.ram_hits));
            writes.push(a_request(tiers.writes));
        }
        TwoTierScore { hits: mean(&hits), ram_hits: mean(&ram_hits), writes: mean(&writes) }
    }
}

/// The whole traces of keys without sizes, with RAM for 1 % of the keys and a log of ten times
/// that.
#[test]
#[ignore = "a minute without optimisation"]
fn the_gate_saves_writes_and_hits_more() {
    let files = [&SMALL_TRACES[..], &LARGE_TRACES[..]].concat();
    let traces: Vec<_> = files
        .iter()
        .filter(|file| file.ends_with(".k8.zst"))
        .filter_map(|file| Trace::load(file, usize::MAX >> 8))
        .filter(|trace| trace.keys.len() / 100 >= ENTRIES_MIN)
        .collect();
    let [all, duet, frugal] = [Admission::All, Admission::Duet, Admission::Frugal]
        .map(|admission| TwoTierScore::of(&traces, admission));
    eprintln!("{} traces:\nall {all:?}\nduet {duet:?}\nfrugal {frugal:?}", traces.len());
    if traces.len() != 11 {
        return eprintln!("SKIPPED: means over {} traces of 11", traces.len());
    }
    assert!(duet.hits > all.hits && duet.writes < all.writes / 2.0, "worse than writing all");
    assert!(duet.hits >= 0.570 && duet.writes <= 0.19, "{duet:?}");
    assert!(frugal.hits >= 0.561 && frugal.writes <= 0.135, "{frugal:?}");
    assert!(duet.ram_hits >= 0.418, "{duet:?}");
}

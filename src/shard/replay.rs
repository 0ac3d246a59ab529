//! Replays recorded traces against the policy and asserts its figures.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::admission::{Admission, Gate};
use super::clock::{Clock, Residents};
use super::entry::{Flags, Meta, SlotId};
use crate::hash::KeyHash;

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

impl Trace {
    /// `None`, loudly, where the trace is not on this machine: its licence keeps it out of the
    /// repository.
    fn load(file: &'static str) -> Option<Trace> {
        let path = directory().join(file);
        let Ok(compressed) = File::open(&path) else {
            eprintln!("SKIPPED: no trace {}", path.display());
            return None;
        };
        let record_bytes = if file.ends_with(".k8s4.zst") { 12 } else { 8 };
        let mut bytes = Vec::new();
        ruzstd::decoding::StreamingDecoder::new(compressed)
            .unwrap()
            .take((REQUESTS_MAX * record_bytes) as u64)
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
        let meta = |key: &u64| Meta::new(KeyHash::of(&key.to_le_bytes(), 0), 1, 0, 0);
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
    clock: Clock,
}

fn duet(trace: &Trace, entries: usize) -> Outcome {
    let metas = trace.metas();
    let mut resident = vec![false; trace.keys.len()];
    let mut clock = Clock::new(entries as u64);
    let (mut misses, mut victims) = (0, Vec::new());
    for &key in &trace.requests {
        if resident[key as usize] {
            metas.meta(SlotId(key)).hit();
            continue;
        }
        misses += 1;
        clock.insert(&metas, SlotId(key), &mut victims);
        resident[key as usize] = true;
        for victim in victims.drain(..) {
            resident[victim.0 as usize] = false;
        }
    }
    clock.check(&metas);
    Outcome { misses, clock }
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

const TRACES: [&str; 17] = [
    "OLTP.k8.zst",
    "P3.k8.zst",
    "P12.k8.zst",
    "2_pools.k8.zst",
    "cs.k8.zst",
    "gli.k8.zst",
    "multi1.k8.zst",
    "multi3.k8.zst",
    "loop.k8.zst",
    "zigzag.k8.zst",
    "orm-busy.k8.zst",
    "web12.k8.zst",
    "corda.k8.zst",
    "gcc.k8.zst",
    "mcf.k8.zst",
    "swim.k8.zst",
    "adaptsize.k8s4.zst",
];

#[test]
#[ignore]
fn set_a() {
    let (mut cuts, mut ratios, mut steps, mut inserts) = (Vec::new(), Vec::new(), 0, 0);
    for trace in TRACES.iter().filter_map(|file| Trace::load(file)) {
        for entries in trace.sizes() {
            let base = fifo(&trace, entries);
            let outcome = duet(&trace, entries);
            let ratio = outcome.misses as f64 / trace.requests.len() as f64;
            let cut = cut(base, outcome.misses);
            let clock = &outcome.clock;
            eprintln!(
                "{:10} {entries:7} miss {ratio:.4} cut {cut:+.4} steps/miss {:.3} sweep {} overhead {:.1}",
                trace.name,
                clock.steps() as f64 / clock.inserts() as f64,
                clock.sweep_steps_max(),
                clock.overhead_bytes() as f64 / clock.len() as f64,
            );
            cuts.push(cut);
            ratios.push(ratio);
            steps += clock.steps();
            inserts += clock.inserts();
        }
    }
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    eprintln!(
        "cells {} cut {:.4} miss {:.4} steps {:.3}",
        cuts.len(),
        mean(&cuts),
        mean(&ratios),
        steps as f64 / inserts as f64
    );
    if let Some(trace) = Trace::load("OLTP.k8.zst") {
        for entries in [1000, 2000, 5000, 10000, 15000] {
            let m = duet(&trace, entries).misses;
            eprintln!("OLTP {entries} hit {:.2} %", 100.0 * (1.0 - m as f64 / trace.requests.len() as f64));
        }
    }
}

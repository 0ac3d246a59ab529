//! A recorded trace: which keys were asked for, in order.

mod format;

use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result, ensure};

pub use format::Columns;
use format::Format;

/// One look-up of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The key's place in order of first use: `0..distinct`, so that a policy can index by it.
    pub number: u32,
    /// The key itself; where it is text, its number.
    pub key: u64,
    pub weight: u32,
}

/// A whole trace in memory.
#[derive(Debug, Default)]
pub struct Trace {
    pub name: String,
    numbers: Vec<u32>,
    /// By number.
    keys: Vec<u64>,
    /// By request; empty where each weighs one.
    weights: Vec<u32>,
    footprint: u64,
}

impl Trace {
    /// Reads at most `requests_max` requests of a file, whose name tells its format.
    pub fn read(path: &Path, columns: &Columns, requests_max: usize) -> Result<Trace> {
        let read = || {
            let format = Format::of(path, columns)?;
            let mut builder = TraceBuilder::new(format.name(), columns.in_bytes, requests_max);
            format.read(&mut builder)?;
            let trace = builder.trace;
            ensure!(!trace.is_empty(), "no requests");
            Ok(trace)
        };
        read().with_context(|| format!("cannot read the trace {}", path.display()))
    }

    /// Gives each key a weight of its own, in place of the requests' sizes.
    pub fn weigh(&mut self, weight_of: impl Fn(u64) -> u32) {
        let weights: Vec<u32> = self.keys.iter().map(|&key| weight_of(key)).collect();
        self.footprint = weights.iter().map(|&weight| u64::from(weight)).sum();
        self.weights = self.numbers.iter().map(|&number| weights[number as usize]).collect();
    }

    /// Makes each entry heavier by what a cache needs for it beside its bytes.
    pub fn add_overhead(&mut self, bytes: u32) {
        for weight in &mut self.weights {
            *weight = weight.saturating_add(bytes);
        }
        self.footprint += u64::from(bytes) * self.distinct() as u64;
    }

    #[cfg(test)]
    pub fn of(keys: &[u64]) -> Trace {
        let mut builder = TraceBuilder::new("test".to_owned(), false, usize::MAX);
        for &key in keys {
            builder.push_number(key, 1);
        }
        builder.trace
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    pub fn distinct(&self) -> usize {
        self.keys.len()
    }

    pub fn is_weighted(&self) -> bool {
        !self.weights.is_empty()
    }

    /// What all keys weigh together, each as it was first seen.
    pub fn footprint(&self) -> u64 {
        self.footprint
    }

    pub fn requests(&self) -> impl Iterator<Item = Request> {
        self.numbers.iter().enumerate().map(|(index, &number)| Request {
            number,
            key: self.keys[number as usize],
            weight: self.weights.get(index).copied().unwrap_or(1),
        })
    }
}

/// What a format pushes requests into, until it is full.
struct TraceBuilder {
    trace: Trace,
    in_bytes: bool,
    requests_max: usize,
    by_key: HashMap<u64, u32>,
    by_text: HashMap<Box<str>, u32>,
}

impl TraceBuilder {
    fn new(name: String, in_bytes: bool, requests_max: usize) -> TraceBuilder {
        let trace = Trace { name, ..Trace::default() };
        TraceBuilder { trace, in_bytes, requests_max, by_key: HashMap::new(), by_text: HashMap::new() }
    }

    fn is_full(&self) -> bool {
        self.trace.len() >= self.requests_max
    }

    fn push_number(&mut self, key: u64, bytes: u32) {
        let next = self.trace.keys.len() as u32;
        let number = *self.by_key.entry(key).or_insert(next);
        self.push(number, key, bytes);
    }

    fn push_text(&mut self, key: &str, bytes: u32) {
        let next = self.trace.keys.len() as u32;
        let number = match self.by_text.get(key) {
            Some(&number) => number,
            None => {
                self.by_text.insert(key.into(), next);
                next
            }
        };
        self.push(number, u64::from(number), bytes);
    }

    fn push(&mut self, number: u32, key: u64, bytes: u32) {
        let weight = if self.in_bytes { bytes.max(1) } else { 1 };
        if number as usize == self.trace.keys.len() {
            self.trace.keys.push(key);
            self.trace.footprint += u64::from(weight);
        }
        self.trace.numbers.push(number);
        if self.in_bytes {
            self.trace.weights.push(weight);
        }
    }
}

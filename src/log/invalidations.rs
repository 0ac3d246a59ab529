//! What the journal says, in a form that recovery can ask.

use std::collections::{HashMap, HashSet};

use super::{
    footer::FooterEntry,
    journal::{Entry, Event},
};
use crate::location::{SegmentId, Seq};

/// The journal's sum. Filled by `add`, then closed by `finish`, then asked.
#[derive(Debug, Default)]
pub(crate) struct Invalidations {
    /// Hash and seq; after `finish` sorted, with one seq a hash: the highest.
    hashes: Vec<(u64, Seq)>,
    barrier: Option<Seq>,
    dead_segments: HashSet<SegmentId>,
    dead_tails: HashMap<SegmentId, u32>,
    /// The highest seq of all entries.
    pub(crate) max_seq: Option<Seq>,
    /// The highest segment that any entry names.
    pub(crate) max_segment: Option<SegmentId>,
}

impl Invalidations {
    pub(crate) fn add(&mut self, Entry { event, seq }: Entry) {
        self.max_seq = self.max_seq.max(Some(seq));
        match event {
            Event::Invalidate(hash) => self.hashes.push((hash.0, seq)),
            Event::Barrier => self.barrier = self.barrier.max(Some(seq)),
            Event::SegmentDead(id) => {
                self.dead_segments.insert(id);
                self.max_segment = self.max_segment.max(Some(id));
            }
            Event::TailDead(id, offset) => {
                let tail = self.dead_tails.entry(id).or_insert(offset);
                *tail = offset.min(*tail);
                self.max_segment = self.max_segment.max(Some(id));
            }
        }
    }

    pub(crate) fn finish(&mut self) {
        self.hashes.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        self.hashes.dedup_by_key(|(hash, _)| *hash);
        self.hashes.shrink_to_fit();
    }

    pub(crate) fn is_dead(&self, id: SegmentId) -> bool {
        self.dead_segments.contains(&id)
    }

    /// Whether nothing in the journal is against this record.
    pub(crate) fn allow(&self, entry: &FooterEntry) -> bool {
        let id = entry.location.segment();
        let seq = Some(entry.seq);
        seq > self.barrier
            && seq > self.invalidated(entry)
            && !self.is_dead(id)
            && self.dead_tails.get(&id).is_none_or(|&tail| entry.location.offset() < tail)
    }

    fn invalidated(&self, entry: &FooterEntry) -> Option<Seq> {
        let at = self.hashes.binary_search_by_key(&entry.hash.0, |(hash, _)| *hash).ok()?;
        Some(self.hashes[at].1)
    }
}

//! The list of live segments.

use std::{collections::VecDeque, sync::Arc};

use super::segment::Segment;
use crate::location::{SegmentId, Seq};

/// The live segments, oldest first.
///
/// # Invariants
///
/// 1. Ids rise, and all are below `next_id`.
/// 2. A file that may still hold records is in `segments`, `creating` or `lingering`, so that
///    `min_base_seq` is a bound for every record on disk and in the batch (R5).
#[derive(Debug, Default)]
pub(crate) struct Table {
    segments: VecDeque<Arc<Segment>>,
    active: Option<SegmentId>,
    /// The base of a segment that is being created.
    pub(crate) creating: Option<Seq>,
    /// Removed, but the disk has not let go of the file yet.
    lingering: Vec<(SegmentId, Seq)>,
    pub(crate) next_id: u32,
}

/// The segments as look-ups see them, oldest first.
#[derive(Debug)]
pub(crate) struct Readable(Box<[(SegmentId, Arc<Segment>)]>);

impl Readable {
    pub(crate) fn get(&self, id: SegmentId) -> Option<&Segment> {
        let Readable(segments) = self;
        // Most often there are no gaps, and the place is the distance from the first.
        let guess = id.get().wrapping_sub(segments.first()?.0.get()) as usize;
        let at = match segments.get(guess) {
            Some((there, _)) if *there == id => guess,
            _ => segments.binary_search_by_key(&id, |(id, _)| *id).ok()?,
        };
        Some(&segments[at].1)
    }
}

impl Table {
    /// Takes recovered segments, oldest first.
    /// `lingering` are dead, but could not be unlinked: what says so must stay in the journal.
    pub(crate) fn new(segments: VecDeque<Arc<Segment>>, lingering: Vec<SegmentId>, next_id: u32) -> Table {
        debug_assert!(segments.iter().is_sorted_by(|a, b| a.id() < b.id()));
        let lingering = lingering.into_iter().map(|id| (id, Seq(0))).collect();
        Table { segments, lingering, next_id, ..Table::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.file_bytes).sum()
    }

    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        self.segments.iter()
    }

    /// All but the active one, oldest first.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter().filter(|segment| Some(segment.id()) != self.active)
    }

    pub(crate) fn get(&self, id: SegmentId) -> Option<&Arc<Segment>> {
        self.segments.get(self.find(id)?)
    }

    /// The segments, for look-ups.
    pub(crate) fn readable(&self) -> Readable {
        Readable(self.segments.iter().map(|segment| (segment.id(), Arc::clone(segment))).collect())
    }

    pub(crate) fn push_active(&mut self, segment: Arc<Segment>) {
        self.creating = None;
        self.active = Some(segment.id());
        self.segments.push_back(segment);
    }

    /// Puts the finished form of the active segment in its place.
    pub(crate) fn replace(&mut self, segment: Arc<Segment>) {
        self.active = None;
        if let Some(at) = self.find(segment.id()) {
            self.segments[at] = segment;
        }
    }

    /// Takes the segment out. Returns the files to be unlinked: its own, and those that lingered.
    pub(crate) fn remove(&mut self, id: SegmentId) -> Vec<SegmentId> {
        if self.active == Some(id) {
            self.active = None;
        }
        if let Some(segment) = self.find(id).and_then(|at| self.segments.remove(at)) {
            self.lingering.push((id, segment.header.base_seq));
        }
        self.lingering.iter().map(|&(id, _)| id).collect()
    }

    /// The file is gone.
    pub(crate) fn forget(&mut self, id: SegmentId) {
        self.lingering.retain(|&(lingering, _)| lingering != id);
    }

    /// No record on disk or in the batch has a lower seq.
    pub(crate) fn min_base_seq(&self) -> Option<Seq> {
        let live = self.segments.iter().map(|segment| segment.header.base_seq);
        let lingering = self.lingering.iter().map(|&(_, base_seq)| base_seq);
        live.chain(lingering).chain(self.creating).min()
    }

    fn find(&self, id: SegmentId) -> Option<usize> {
        self.segments.binary_search_by_key(&id, |segment| segment.id()).ok()
    }
}

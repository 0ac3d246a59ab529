//! Finding what of the past is alive, without an index.

use std::sync::Arc;

use super::{
    Log,
    directory::failed,
    footer::FooterEntry,
    invalidations::Invalidations,
    journal::{self, Event},
    segment::{self, Segment},
    state::State,
};
use crate::{error::Error, hash::KeyHash, io::is_shortage, location::Location, sync::Ordering::Relaxed};

impl Log {
    /// The live records of the stripes that are asked for, newest first: the first of a hash counts, the
    /// caller ignores later ones of the same hash. Looks at the segments that were there at
    /// `open`, then or later, for a stripe that nothing has been stored in or removed from since.
    ///
    /// Callers that want it parallel give each thread its own stripes: what takes time is filling
    /// the index, the footers are a small part of the log.
    ///
    /// # Errors
    ///
    /// There are no descriptors left for the files, which says nothing about them: what was found so far is not all.
    pub(crate) fn recover(
        &self,
        is_asked: impl Fn(usize) -> bool,
        stripe_bits: u32,
        found: &mut dyn FnMut(KeyHash, Location),
    ) -> Result<(), Error> {
        let Some(state) = &self.past.state else {
            return Ok(());
        };
        let Some(invalidations) = self.past_invalidations(state)? else {
            self.give_up_past("the journal is damaged");
            return Ok(());
        };
        let alive = |entry: &FooterEntry| {
            if invalidations.allow(entry) && entry.seq.0 > self.past.barrier.load(Relaxed) {
                let expired = self.has_expired(entry);
                self.counters.recovered_expired.fetch_add(u64::from(expired), Relaxed);
                return !expired;
            }
            self.counters.recovered_invalidated.fetch_add(1, Relaxed);
            false
        };
        let segments: Vec<_> = self.table.read().all().rev().cloned().collect();
        for segment in segments.iter().filter(|segment| segment.id().get() < self.past.first_own) {
            for entry in self.entries_for_good(segment)?.iter().rev() {
                if is_asked(entry.hash.stripe(stripe_bits)) && alive(entry) {
                    found(entry.hash, entry.location);
                }
            }
        }
        Ok(())
    }

    /// Gives back what only a recovery asks for: all that was there has been loaded.
    pub(crate) fn forget_past(&self) {
        *self.past.invalidations.lock() = None;
    }

    /// How many records the footers list.
    pub(crate) fn recorded(&self) -> u64 {
        let table = self.table.read();
        let trailers = table.all().filter_map(|segment| segment.trailer.as_ref());
        trailers.map(|trailer| u64::from(trailer.count)).sum()
    }

    /// What the journal of earlier runs says about their segments, as far as these still exist; `None` if it is damaged.
    fn past_invalidations(&self, state: &State) -> Result<Option<Arc<Invalidations>>, Error> {
        let mut known = self.past.invalidations.lock();
        if known.is_none() {
            *known = Some(self.read_past_journal(state)?.map(Arc::new));
        }
        Ok(known.clone().flatten())
    }

    fn read_past_journal(&self, state: &State) -> Result<Option<Invalidations>, Error> {
        // Keeps `trim_journal` from deleting a file between the look at STATE and the reading.
        let _journal = self.journal.lock();
        let (start, end) = (self.state.lock().state.journals.0, state.journals.1);
        match journal::read(&self.directory, &State { journals: (start.min(end), end), ..*state }) {
            Err(error) if is_shortage(&error) => {
                Err(failed("reading the journal in", &self.options.dir, error))
            }
            read => Ok(read.unwrap_or(None)),
        }
    }

    /// The segment's entries. What cannot be read now is made dead, lest it be read another day,
    /// when what has replaced it since is forgotten (R6).
    fn entries_for_good(&self, segment: &Segment) -> Result<Vec<FooterEntry>, Error> {
        let dead = match segment.entries() {
            Ok((entries, true)) => return Ok(entries),
            Err(error) if is_shortage(&error) => {
                return Err(failed("reading", &self.directory.segment(segment.id()), error));
            }
            Ok((entries, false)) => {
                let end = entries
                    .last()
                    .map_or(segment::HEADER_BYTES as u32, |entry| entry.location.offset() + entry.len);
                (entries, Event::TailDead(segment.id(), end))
            }
            Err(_) => (Vec::new(), Event::SegmentDead(segment.id())),
        };
        // If even that fails, `ensure_durable` stands in every later change's way.
        let _ = self.journal_durably(dead.1);
        Ok(dead.0)
    }

    fn has_expired(&self, entry: &FooterEntry) -> bool {
        entry.expiry != 0
            && (entry.expiry <= self.clock.now_s() || self.clock_went_back(entry.location, entry.expiry))
    }

    /// Records of earlier runs that the index does not have by now it never has, in this run and all later ones.
    pub(crate) fn give_up_past(&self, why: &str) {
        self.tell_later(format!("entries from before are given up; the next start will be cold: {why}"));
        // If it fails, `ensure_durable` stands in every later change's way.
        let _ = self.poison();
    }
}

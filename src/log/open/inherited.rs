//! The segments of earlier runs, as an open takes them in.

use std::{collections::VecDeque, io, sync::Arc};

use super::{
    super::{
        appender::write_footer,
        directory::{Name, failed},
        footer::{Footer, TRAILER_BYTES, Trailer},
        invalidations::Invalidations,
        journal::Event,
        layout::is_zero,
        scan::scan,
        segment::{self, Bytes, Segment, SegmentHeader},
        state::State,
    },
    Opening,
};
use crate::{
    error::Error,
    io::{IoFile, OpenMode, is_shortage},
    location::{Location, SegmentId, Seq},
    sync::Ordering::Relaxed,
};

/// What an open takes over.
#[derive(Default)]
pub(super) struct Inherited {
    pub(super) segments: VecDeque<Arc<Segment>>,
    /// Dead, and still there.
    pub(super) lingering: Vec<SegmentId>,
    pub(super) max_seq: Option<Seq>,
    pub(super) quarantined: u64,
    /// What the journal must say of files that could not be moved out of the way or cut.
    pub(super) events: Vec<Event>,
}

/// One file's part in [`Inherited`].
enum Found {
    Live(Segment),
    /// No record of this epoch, or none alive.
    Nothing,
    Damaged,
}

impl Opening {
    /// Takes in the segment files, oldest first. An error is one of the process, not of a file.
    pub(super) fn inherit_segments(
        &self,
        names: &[Name],
        state: &State,
        invalidations: Option<&Invalidations>,
    ) -> Result<Inherited, Error> {
        let mut ids: Vec<SegmentId> = names
            .iter()
            .filter_map(|name| if let Name::Segment(id) = name { Some(*id) } else { None })
            .collect();
        ids.sort_unstable();
        let mut inherited = Inherited::default();
        for id in ids {
            let dead = invalidations.is_some_and(|invalidations| invalidations.is_dead(id));
            match if dead { Ok(Found::Nothing) } else { self.inherit_segment(id, state) } {
                Ok(Found::Live(segment)) => {
                    if segment.trailer.is_none() {
                        inherited.events.push(Event::TailDead(id, segment.end()));
                    }
                    inherited.max_seq = inherited.max_seq.max(Some(segment.max_seq));
                    inherited.segments.push_back(Arc::new(segment));
                }
                Ok(Found::Nothing) => {
                    if !self.options.read_only && self.io.unlink(&self.directory.segment(id)).is_err() {
                        inherited.events.push(Event::SegmentDead(id));
                        inherited.lingering.push(id);
                    }
                }
                // It says nothing about the segment.
                Err(error) if is_shortage(&error) => {
                    return Err(failed("opening", &self.directory.segment(id), error));
                }
                Ok(Found::Damaged) | Err(_) => {
                    inherited.quarantined += 1;
                    if !self.options.read_only && self.directory.quarantine(id).is_err() {
                        inherited.events.push(Event::SegmentDead(id));
                        inherited.lingering.push(id);
                    }
                }
            }
        }
        Ok(inherited)
    }

    fn inherit_segment(&self, id: SegmentId, state: &State) -> io::Result<Found> {
        let path = self.directory.segment(id);
        let mode = if self.options.read_only { OpenMode::Read } else { OpenMode::Write };
        let file = self.io.open(&path, mode)?;
        let file_bytes = file.file_len()?;
        if file_bytes < segment::HEADER_BYTES as u64 {
            return Ok(if file_bytes == 0 { Found::Nothing } else { Found::Damaged });
        }
        let mut bytes = [0; segment::HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        let Some(header) = SegmentHeader::decode(&bytes) else {
            // Created, and nothing written to it yet.
            return Ok(if is_zero(&bytes) { Found::Nothing } else { Found::Damaged });
        };
        if header.epoch != state.epoch {
            return Ok(Found::Nothing);
        }
        if header.id != id || header.base_seq > Seq::MAX {
            return Ok(Found::Damaged);
        }
        if let Some(trailer) = read_trailer(&*file, &header, file_bytes)? {
            let bytes = self.files.readable(header, &*file, file_bytes);
            let (end, seed) = (trailer.data_end, state.hash_seed);
            let segment = Segment::finished(header, bytes, end, Ok(trailer), file_bytes, seed);
            segment.synced.store(state.clean, Relaxed);
            return Ok(Found::Live(segment));
        }
        self.seal_as_found(file, header, file_bytes, state.hash_seed)
    }

    /// Takes in a segment without a trailer: the one that the last run was filling, or a damaged one. It is
    /// sealed where its whole records end, so that the next start sees the same.
    fn seal_as_found(
        &self,
        file: Arc<dyn IoFile>,
        header: SegmentHeader,
        file_bytes: u64,
        hash_seed: u64,
    ) -> io::Result<Found> {
        let limit = file_bytes.min(u64::from(Location::SEGMENT_BYTES_MAX)) as u32;
        let bytes = Bytes::File(Arc::clone(&file));
        let (entries, end) = scan(&bytes, &header, limit, hash_seed)?;
        if entries.is_empty() {
            return Ok(Found::Nothing);
        }
        let mut footer = Footer::new(header.base_seq);
        entries.iter().for_each(|entry| footer.push(entry));
        let trailer = footer.trailer(header.salt);
        let finished =
            |bytes, footer, file_bytes| Segment::finished(header, bytes, end, footer, file_bytes, hash_seed);
        if self.options.read_only {
            return Ok(Found::Live(finished(bytes, Err(trailer.max_seq), file_bytes)));
        }
        if self.outlives_power() {
            // To believe a trailer is to believe what it lists.
            file.sync()?;
        }
        let sealed = write_footer(&*file, footer.bytes(), &trailer, header.salt).and_then(|file_bytes| {
            // What was cut off could be read another day, when the key has another value.
            if self.outlives_power() { file.sync().map(|()| file_bytes) } else { Ok(file_bytes) }
        });
        Ok(Found::Live(match sealed {
            Ok(file_bytes) => {
                finished(self.files.readable(header, &*file, file_bytes), Ok(trailer), file_bytes)
            }
            Err(_) => finished(bytes, Err(trailer.max_seq), file_bytes),
        }))
    }
}

fn read_trailer(file: &dyn IoFile, header: &SegmentHeader, file_bytes: u64) -> io::Result<Option<Trailer>> {
    let Some(at) = file_bytes.checked_sub(TRAILER_BYTES as u64) else {
        return Ok(None);
    };
    let mut bytes = [0; TRAILER_BYTES];
    file.read_exact_at(&mut bytes, at)?;
    Ok(Trailer::decode(&bytes, header.salt, file_bytes))
}

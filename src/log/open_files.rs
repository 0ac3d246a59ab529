//! How sealed segments are read: through maps, or by system calls. These need an open file; so many at most are
//! open, however many segments there are.

use std::{io, sync::Arc};

use super::{
    directory::Directory,
    segment::{Bytes, HEADER_BYTES, SegmentHeader},
};
use crate::{
    io::{IoFile, OpenMode},
    location::SegmentId,
    options::ReadMode,
    sync::Mutex,
};

/// The files that are open at the moment.
///
/// A slot is its segment's id modulo their number. Ids are given out one after the other, so segments
/// meet in a slot only where there are more of them than slots.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    directory: Arc<Directory>,
    mode: ReadMode,
    /// Each guards itself alone, also while a file is opened: so there are never more open than slots, but
    /// for those that a reader has just been lent. Nothing else is locked under it.
    slots: Box<[Mutex<Option<OpenFile>>]>,
}

type OpenFile = (SegmentId, Arc<dyn IoFile>);

impl OpenFiles {
    pub(crate) fn new(directory: Arc<Directory>, mode: ReadMode, open_max: usize) -> OpenFiles {
        OpenFiles { directory, mode, slots: (0..open_max.max(1)).map(|_| Mutex::default()).collect() }
    }

    /// How a file that has its last length is read from now on.
    pub(crate) fn readable(
        self: &Arc<Self>,
        header: SegmentHeader,
        file: &dyn IoFile,
        file_bytes: u64,
    ) -> Bytes {
        if self.mode == ReadMode::Map
            && let Ok(map) = file.map(file_bytes as usize)
        {
            return Bytes::Map(map);
        }
        // Strict, or one of the file systems that cannot map.
        Bytes::Lazy(LazyFile { files: Arc::clone(self), header })
    }

    fn slot(&self, id: SegmentId) -> &Mutex<Option<OpenFile>> {
        &self.slots[id.get() as usize % self.slots.len()]
    }

    /// Opens the segment's file, if it still is the one of that header.
    fn open(&self, header: &SegmentHeader) -> io::Result<Arc<dyn IoFile>> {
        let file = self.directory.io.open(&self.directory.segment(header.id), OpenMode::Read)?;
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        if SegmentHeader::decode(&bytes) != Some(*header) {
            return Err(io::Error::other("another file is in the segment's place"));
        }
        Ok(file)
    }
}

/// A sealed segment's file, opened when it is read.
#[derive(Debug)]
pub(crate) struct LazyFile {
    files: Arc<OpenFiles>,
    header: SegmentHeader,
}

impl LazyFile {
    /// The open file. Once it was unlinked and another has taken its slot, there is none.
    pub(crate) fn get(&self) -> io::Result<Arc<dyn IoFile>> {
        let mut slot = self.files.slot(self.header.id).lock();
        if let Some((id, file)) = &*slot
            && *id == self.header.id
        {
            return Ok(Arc::clone(file));
        }
        // First the one, then the other: the limit is kept, also that of the process.
        *slot = None;
        let file = self.files.open(&self.header)?;
        *slot = Some((self.header.id, Arc::clone(&file)));
        Ok(file)
    }
}

/// Nobody reads the segment any more, so an unlinked file gives its room back.
impl Drop for LazyFile {
    fn drop(&mut self) {
        let mut slot = self.files.slot(self.header.id).lock();
        if slot.as_ref().is_some_and(|(id, _)| *id == self.header.id) {
            *slot = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        io::{Io, memory::MemoryDisk},
        location::Seq,
    };

    struct Bench {
        disk: Arc<MemoryDisk>,
        files: Arc<OpenFiles>,
    }

    impl Bench {
        fn new(open_max: usize) -> Bench {
            let disk = Arc::new(MemoryDisk::new());
            let directory = Directory::enter(disk.clone(), "/cache".into()).unwrap();
            Bench { disk, files: Arc::new(OpenFiles::new(Arc::new(directory), ReadMode::Strict, open_max)) }
        }

        fn segment(&self, id: u32) -> LazyFile {
            let header = SegmentHeader {
                id: SegmentId::new(id).unwrap(),
                epoch: 1,
                salt: id.into(),
                base_seq: Seq(3),
            };
            let path = self.files.directory.segment(header.id);
            let file = self.disk.open(&path, OpenMode::CreateNew).unwrap();
            file.write_all_at(&header.encode(), 0).unwrap();
            LazyFile { files: Arc::clone(&self.files), header }
        }

        fn unlink(&self, segment: &LazyFile) {
            self.disk.unlink(&self.files.directory.segment(segment.header.id)).unwrap();
        }

        fn open_ids(&self) -> Vec<u32> {
            let ids = self.files.slots.iter().filter_map(|slot| Some(slot.lock().as_ref()?.0.get()));
            ids.collect()
        }
    }

    #[test]
    fn few_are_open_and_all_are_read() {
        let bench = Bench::new(3);
        let segments: Vec<LazyFile> = (10..20).map(|id| bench.segment(id)).collect();
        assert_eq!(bench.open_ids(), []);
        for segment in segments.iter().chain(&segments) {
            let mut salt = [0; 1];
            segment.get().unwrap().read_exact_at(&mut salt, 24).unwrap();
            assert_eq!(u32::from(salt[0]), segment.header.id.get());
        }
        assert_eq!(bench.open_ids(), [18, 19, 17]);
        drop(segments);
        assert_eq!(bench.open_ids(), []);
    }

    #[test]
    fn an_unlinked_file_is_read_as_long_as_it_is_open() {
        let bench = Bench::new(2);
        let (one, three) = (bench.segment(1), bench.segment(3));
        one.get().unwrap();
        bench.unlink(&one);
        one.get().unwrap();
        three.get().unwrap();
        assert_eq!(one.get().unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(one);
        assert_eq!(bench.open_ids(), []);
    }

    #[test]
    fn another_file_in_its_place_is_not_read() {
        let bench = Bench::new(1);
        let (one, two) = (bench.segment(1), bench.segment(2));
        let path = |segment: &LazyFile| bench.files.directory.segment(segment.header.id);
        one.get().unwrap();
        bench.disk.rename(&path(&two), &path(&one)).unwrap();
        one.get().unwrap();
        assert!(two.get().is_err());
        assert_eq!(one.get().unwrap_err().kind(), io::ErrorKind::Other);
    }
}

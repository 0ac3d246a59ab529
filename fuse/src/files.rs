//! What is in the file system.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
};

pub(crate) const ROOT: u64 = 1;

/// Something that happened to the file which is recorded.
#[derive(Clone, Debug)]
pub enum Event {
    /// Bytes were written at an offset.
    Write(u64, Vec<u8>),
    /// All that was written before outlives the machine from now on.
    Sync,
}

/// # Invariants
///
/// 1. Every name leads to a node; a node without a name has open handles, and goes with the last.
pub(crate) struct Files {
    nodes: HashMap<u64, Node>,
    next: u64,
    recording: Option<Recording>,
}

pub(crate) struct Node {
    pub(crate) content: Content,
    pub(crate) mode: u16,
    names: u32,
    handles: u32,
}

pub(crate) enum Content {
    Directory(BTreeMap<OsString, u64>),
    File(Vec<u8>),
}

struct Recording {
    node: u64,
    events: Vec<Event>,
}

impl Files {
    pub(crate) fn new() -> Files {
        let root = Node { content: Content::Directory(BTreeMap::new()), mode: 0o755, names: 1, handles: 0 };
        Files { nodes: HashMap::from([(ROOT, root)]), next: ROOT + 1, recording: None }
    }

    pub(crate) fn node(&self, node: u64) -> Option<&Node> {
        self.nodes.get(&node)
    }

    pub(crate) fn names(&self, directory: u64) -> Option<&BTreeMap<OsString, u64>> {
        match &self.nodes.get(&directory)?.content {
            Content::Directory(names) => Some(names),
            Content::File(_) => None,
        }
    }

    pub(crate) fn find(&self, directory: u64, name: &OsStr) -> Option<u64> {
        self.names(directory)?.get(name).copied()
    }

    pub(crate) fn bytes(&self, file: u64) -> Option<&Vec<u8>> {
        match &self.nodes.get(&file)?.content {
            Content::File(bytes) => Some(bytes),
            Content::Directory(_) => None,
        }
    }

    /// Puts a new file or directory into one. `None` if that is no directory.
    pub(crate) fn create(
        &mut self,
        directory: u64,
        name: &OsStr,
        content: Content,
        mode: u16,
    ) -> Option<u64> {
        let node = self.next;
        self.names_mut(directory)?.insert(name.to_owned(), node);
        self.nodes.insert(node, Node { content, mode, names: 1, handles: 0 });
        self.next += 1;
        Some(node)
    }

    /// Takes a name away, and with the last the node. Whether there was such a name.
    pub(crate) fn unlink(&mut self, directory: u64, name: &OsStr) -> bool {
        let Some(node) = self.names_mut(directory).and_then(|names| names.remove(name)) else {
            return false;
        };
        if let Some(node) = self.nodes.get_mut(&node) {
            node.names -= 1;
        }
        self.drop_unused(node);
        true
    }

    /// Moves a name, over another if there is one. Whether there was such a name.
    pub(crate) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> bool {
        let Some(node) = self.find(from.0, from.1) else { return false };
        self.unlink(to.0, to.1);
        self.names_mut(from.0).map(|names| names.remove(from.1));
        self.names_mut(to.0).map(|names| names.insert(to.1.to_owned(), node));
        true
    }

    pub(crate) fn opened(&mut self, node: u64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.handles += 1;
        }
    }

    pub(crate) fn released(&mut self, node: u64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.handles -= 1;
        }
        self.drop_unused(node);
    }

    pub(crate) fn set_mode(&mut self, node: u64, mode: u16) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.mode = mode;
        }
    }

    /// Cuts or extends a file. Whether it is one.
    pub(crate) fn set_len(&mut self, file: u64, len: u64) -> bool {
        self.bytes_mut(file).map(|bytes| bytes.resize(len as usize, 0)).is_some()
    }

    /// Whether the file is one.
    pub(crate) fn write(&mut self, file: u64, offset: u64, written: &[u8]) -> bool {
        let Some(bytes) = self.bytes_mut(file) else { return false };
        let (start, end) = (offset as usize, offset as usize + written.len());
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(written);
        self.record(file, || Event::Write(offset, written.to_vec()));
        true
    }

    pub(crate) fn synced(&mut self, file: u64) {
        self.record(file, || Event::Sync);
    }

    /// Remembers from now on what happens to a file.
    pub(crate) fn start_recording(&mut self, node: u64) {
        self.recording = Some(Recording { node, events: Vec::new() });
    }

    /// How much has been recorded.
    pub(crate) fn recorded(&self) -> usize {
        self.recording.as_ref().map_or(0, |recording| recording.events.len())
    }

    pub(crate) fn take_recorded(&mut self) -> Vec<Event> {
        self.recording.take().map(|recording| recording.events).unwrap_or_default()
    }

    fn record(&mut self, file: u64, event: impl FnOnce() -> Event) {
        if let Some(recording) = self.recording.as_mut().filter(|recording| recording.node == file) {
            recording.events.push(event());
        }
    }

    fn names_mut(&mut self, directory: u64) -> Option<&mut BTreeMap<OsString, u64>> {
        match &mut self.nodes.get_mut(&directory)?.content {
            Content::Directory(names) => Some(names),
            Content::File(_) => None,
        }
    }

    fn bytes_mut(&mut self, file: u64) -> Option<&mut Vec<u8>> {
        match &mut self.nodes.get_mut(&file)?.content {
            Content::File(bytes) => Some(bytes),
            Content::Directory(_) => None,
        }
    }

    fn drop_unused(&mut self, node: u64) {
        if self.nodes.get(&node).is_some_and(|node| node.names == 0 && node.handles == 0) {
            self.nodes.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlinked_file_lives_as_long_as_its_handles() {
        let mut files = Files::new();
        let file = files.create(ROOT, OsStr::new("a"), Content::File(Vec::new()), 0o600).unwrap();
        files.opened(file);
        assert!(files.write(file, 2, b"x"));
        assert!(files.unlink(ROOT, OsStr::new("a")));
        assert_eq!(files.bytes(file).unwrap(), &[0, 0, b'x']);
        files.released(file);
        assert!(files.node(file).is_none());
    }

    #[test]
    fn a_rename_replaces() {
        let mut files = Files::new();
        let mut make = |name: &str, byte| {
            files.create(ROOT, OsStr::new(name), Content::File(vec![byte]), 0o600).unwrap()
        };
        let (a, b) = (make("a", 1), make("b", 2));
        assert!(files.rename((ROOT, OsStr::new("a")), (ROOT, OsStr::new("b"))));
        assert_eq!(files.find(ROOT, OsStr::new("b")), Some(a));
        assert!(files.find(ROOT, OsStr::new("a")).is_none() && files.node(b).is_none());
    }

    #[test]
    fn what_happens_to_one_file_is_recorded() {
        let mut files = Files::new();
        let disk = files.create(ROOT, OsStr::new("a"), Content::File(vec![0; 9]), 0o600).unwrap();
        let other = files.create(ROOT, OsStr::new("b"), Content::File(vec![0; 9]), 0o600).unwrap();
        files.write(disk, 0, b"before");
        files.start_recording(disk);
        files.write(other, 0, b"other");
        files.write(disk, 4, b"xy");
        files.synced(disk);
        assert_eq!(files.recorded(), 2);
        let events = files.take_recorded();
        assert!(matches!(&events[..], [Event::Write(4, bytes), Event::Sync] if bytes == b"xy"));
    }
}

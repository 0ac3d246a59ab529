//! The bytes of a file in memory.

use std::sync::Arc;

/// What was written, and zeros up to the length. A copy costs nothing until one of the two changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// Never longer than `len`.
    written: Arc<Vec<u8>>,
    len: usize,
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len < self.written.len() {
            Arc::make_mut(&mut self.written).truncate(len);
        }
        self.len = len;
    }

    pub(super) fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        let written = Arc::make_mut(&mut self.written);
        if written.len() < end {
            written.resize(end, 0);
        }
        written[at..end].copy_from_slice(bytes);
        self.len = self.len.max(end);
    }

    /// Fills `out` from `at`; `false` if that is more than there is.
    pub(super) fn read(&self, out: &mut [u8], at: usize) -> bool {
        if at.checked_add(out.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        let written = self.written.get(at..).unwrap_or_default();
        let (from_written, zeros) = out.split_at_mut(written.len().min(out.len()));
        from_written.copy_from_slice(&written[..from_written.len()]);
        zeros.fill(0);
        true
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        bytes.extend_from_slice(&self.written);
        bytes.resize(self.len, 0);
        bytes
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Content {
        Content { len: bytes.len(), written: Arc::new(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Write(Vec<u8>, usize),
        SetLen(usize),
        Copy,
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = prop_oneof![
            (prop::collection::vec(any::<u8>(), 0..20), 0_usize..60).prop_map(|(b, at)| Change::Write(b, at)),
            (0_usize..90).prop_map(Change::SetLen),
            Just(Change::Copy),
        ];
        prop::collection::vec(change, 0..30)
    }

    proptest! {
        #[test]
        fn it_is_what_a_vector_would_be(changes in changes()) {
            let (mut content, mut vector) = (Content::default(), Vec::new());
            let mut copies = Vec::new();
            for change in changes {
                match change {
                    Change::Write(bytes, at) => {
                        vector.resize(vector.len().max(at + bytes.len()), 0);
                        vector[at..at + bytes.len()].copy_from_slice(&bytes);
                        content.write(&bytes, at);
                    }
                    Change::SetLen(len) => {
                        vector.resize(len, 0);
                        content.set_len(len);
                    }
                    Change::Copy => copies.push((content.clone(), vector.clone())),
                }
                prop_assert_eq!((content.len(), content.to_vec()), (vector.len(), vector.clone()));
                for (at, len) in [(0, vector.len()), (vector.len() / 2, vector.len() / 3), (vector.len(), 0)] {
                    let mut out = vec![7; len];
                    prop_assert!(content.read(&mut out, at));
                    prop_assert_eq!(&out, &vector[at..at + len]);
                }
                let at = vector.len();
                prop_assert!(!content.read(&mut [0], at) && !content.read(&mut [0; 2], usize::MAX));
            }
            prop_assert!(copies.iter().all(|(copy, then)| copy.to_vec() == *then));
        }
    }
}

//! Operations on a cache that are judged beside an [`Oracle`], by threads or schedules that overlap.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{
    Cache, Error,
    oracle::{Floor, Oracle},
    value::{self, value},
};

/// Uses a cache of [checkable](value) values, and fails the test at the first stale one.
#[derive(Clone, Copy)]
pub(crate) struct Witness<'a> {
    pub(crate) cache: &'a Cache<u64, Vec<u8>>,
    pub(crate) oracle: &'a Oracle,
    /// Values that were seen.
    pub(crate) hits: &'a AtomicU64,
    /// Others may close the cache meanwhile, from when on nothing happens here.
    pub(crate) may_be_closed: bool,
}

impl Witness<'_> {
    pub(crate) fn get(self, key: u64) {
        let floor = self.oracle.floor(key);
        if let Some(found) = self.cache.get(&key) {
            self.judge(key, &found, floor);
        }
    }

    pub(crate) fn peek(self, key: u64) {
        let floor = self.oracle.floor(key);
        if let Some(found) = self.cache.peek(&key) {
            self.judge(key, &found, floor);
        }
    }

    pub(crate) fn insert(self, key: u64, len: usize) {
        let (version, start) = (self.oracle.next_version(), self.oracle.now());
        if self.is_done(self.cache.insert(key, value(key, version, len))).is_some() {
            self.oracle.ended(key, version);
            self.oracle.invalidated(key, start);
        }
    }

    pub(crate) fn remove(self, key: u64) {
        let start = self.oracle.now();
        if self.is_done(self.cache.remove(&key)).is_some() {
            self.oracle.invalidated(key, start);
        }
    }

    pub(crate) fn clear(self) {
        let start = self.oracle.now();
        if self.is_done(self.cache.clear()).is_some() {
            self.oracle.cleared(start);
        }
    }

    pub(crate) fn flush(self) {
        self.is_done(self.cache.flush());
    }

    pub(crate) fn load(self, key: u64, len: usize) {
        let floor = self.oracle.floor(key);
        let mut loaded = None;
        let found = self.cache.get_or_insert_with(&key, || {
            let version = self.oracle.next_version();
            loaded = Some(version);
            self.oracle.leased(key, version);
            value(key, version, len)
        });
        if let Some(version) = loaded {
            self.oracle.ended(key, version);
        }
        self.judge(key, &found, floor);
    }

    pub(crate) fn lease(self, key: u64, len: usize) {
        let Some(lease) = self.is_done(self.cache.lease(&key)) else { return };
        let version = self.oracle.next_version();
        self.oracle.leased(key, version);
        let start = self.oracle.now();
        let Some(stored) = self.is_done(lease.fill(value(key, version, len))) else { return };
        self.oracle.ended(key, version);
        if stored {
            self.oracle.filled(key, start);
        }
    }

    /// Whether a value that was found by a look-up which began at `floor` is one that it may have found.
    pub(crate) fn judge(self, key: u64, found: &[u8], floor: Floor) {
        let version = value::version(key, found);
        assert!(!self.oracle.is_stale(key, version, floor), "stale: version {version} of key {key}");
        self.hits.fetch_add(1, Relaxed);
    }

    /// What came of it, unless the cache was closed by somebody who may do that.
    fn is_done<T>(self, result: Result<T, Error>) -> Option<T> {
        match result {
            Err(Error::Closed) if self.may_be_closed => None,
            result => Some(result.expect("this disk never fails")),
        }
    }
}

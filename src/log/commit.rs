//! Group commit: one sync of the journal for everybody who waits for one.

use crate::{
    error::Error,
    location::JournalEnd,
    sync::{AtomicU64, Condvar, Mutex, Ordering::Relaxed},
};

/// Who waits for the journal to be durable. The first does the sync, for all that is journaled by then;
/// who comes meanwhile waits for it, and one of them does the next.
#[derive(Debug, Default)]
pub(super) struct GroupCommit {
    /// Guards who does it. Nothing happens under it.
    state: Mutex<State>,
    done: Condvar,
    /// `State::durable`, to be read without the lock. Relaxed: it only grows, and who reads an old value
    /// asks under the lock.
    durable: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Every entry before it outlives the machine, or the next start is cold.
    durable: JournalEnd,
    is_syncing: bool,
}

impl GroupCommit {
    /// Returns once the journal is durable up to `end`. `sync` says how far it has made it so; if it
    /// fails, the next in line tries its own.
    pub(super) fn wait(
        &self,
        end: JournalEnd,
        sync: impl FnOnce() -> Result<JournalEnd, Error>,
    ) -> Result<(), Error> {
        if end.0 <= self.durable.load(Relaxed) {
            return Ok(());
        }
        let mut state = self.state.lock();
        while state.durable < end && state.is_syncing {
            self.done.wait(&mut state);
        }
        if state.durable >= end {
            return Ok(());
        }
        state.is_syncing = true;
        drop(state);
        let synced = sync();
        let mut state = self.state.lock();
        state.is_syncing = false;
        if let Ok(durable) = synced {
            state.durable = state.durable.max(durable);
            self.durable.store(state.durable.0, Relaxed);
        }
        drop(state);
        self.done.notify_all();
        synced.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread, time::Duration};

    use super::*;
    use crate::sync::AtomicUsize;

    #[test]
    fn one_sync_is_for_all_that_wait() {
        let commits = Arc::new(GroupCommit::default());
        let (syncs, journaled) = (AtomicUsize::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let end = JournalEnd(journaled.fetch_add(1, Relaxed) + 1);
                        let sync = || {
                            let covered = JournalEnd(journaled.load(Relaxed));
                            thread::sleep(Duration::from_millis(1));
                            syncs.fetch_add(1, Relaxed);
                            Ok(covered)
                        };
                        commits.wait(end, sync).unwrap();
                        assert!(commits.state.lock().durable >= end, "acknowledged too early");
                    }
                });
            }
        });
        let syncs = syncs.load(Relaxed);
        assert!(syncs < 160, "{syncs} syncs for 320 that waited");
    }

    #[test]
    fn who_waits_for_a_sync_that_fails_tries_his_own() {
        let commits = GroupCommit::default();
        let failed = commits.wait(JournalEnd(1), || Err(Error::Closed));
        assert!(failed.is_err());
        commits.wait(JournalEnd(1), || Ok(JournalEnd(1))).unwrap();
        commits.wait(JournalEnd(1), || unreachable!("it is durable")).unwrap();
    }
}

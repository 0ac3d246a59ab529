//! How operations wake the maintenance thread, ask something of it, and wait for it.

use std::{cell::Cell, collections::VecDeque, ptr, time::Duration};

use crate::{
    error::Error,
    sync::{
        AtomicBool, Condvar, Mutex,
        Ordering::Relaxed,
        mpsc::{self, Receiver, SyncSender},
        thread_local,
    },
};

thread_local! {
    /// The bell that this thread sleeps by, which lives as long as the thread runs; null if it sleeps by none.
    static ATTENDED: Cell<*const Bell> = const { Cell::new(ptr::null()) };
}

/// What can be asked of the maintenance thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Copy everything that is only in RAM to disk.
    Flush,
    /// Forget everything.
    Clear,
    /// Copy what there is time for, write the snapshot, and end.
    Close,
}

/// A request and where its answer goes.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) answer: SyncSender<Result<(), Error>>,
}

/// One thread sleeps by it, all others ring it.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Guards what is asked. Nothing else is locked under it, and nothing runs there but the question
    /// of `wait_for_room`, which loads a counter.
    state: Mutex<State>,
    /// The maintenance thread waits here for something to do.
    rung: Condvar,
    /// Operations wait here for room.
    room: Condvar,
    /// Whether a ring is worth taking the lock. Relaxed: a ring that sees it too late is
    /// made up for by the sleeper's timeout.
    asleep: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    rung: bool,
    calls: VecDeque<Call>,
    waiting_for_room: usize,
    /// Nobody answers any more.
    ended: bool,
}

impl Bell {
    /// Wakes the maintenance thread, if it sleeps.
    pub(crate) fn ring(&self) {
        if self.asleep.load(Relaxed) {
            self.state.lock().rung = true;
            self.rung.notify_one();
        }
    }

    /// The calling thread is the one that sleeps by this bell.
    pub(crate) fn attend(&self) {
        ATTENDED.with(|attended| attended.set(self));
    }

    /// Whether the caller is run by this cache's maintenance thread, a codec or a drop, say: to wait for that
    /// thread would be to wait for itself.
    pub(crate) fn is_attendant(&self) -> bool {
        ATTENDED.with(|attended| ptr::eq(attended.get(), self))
    }

    /// Whether the caller is run by the maintenance thread of any cache.
    pub(crate) fn is_attended_here() -> bool {
        ATTENDED.with(|attended| !attended.get().is_null())
    }

    /// Asks for something and waits for the answer.
    pub(crate) fn call(&self, request: Request) -> Result<(), Error> {
        if self.is_attendant() {
            return Err(Error::Unsupported {
                what: "a flush or clear by code that the cache's own thread runs",
            });
        }
        let answered = self.post(request)?;
        // The sender is dropped unanswered where the thread has ended.
        answered.recv().unwrap_or(Err(Error::Closed))
    }

    /// Asks for something; the answer will be in the receiver.
    pub(crate) fn post(&self, request: Request) -> Result<Receiver<Result<(), Error>>, Error> {
        let (answer, answered) = mpsc::sync_channel(1);
        let mut state = self.state.lock();
        if state.ended {
            return Err(Error::Closed);
        }
        state.calls.push_back(Call { request, answer });
        drop(state);
        self.rung.notify_one();
        Ok(answered)
    }

    /// Waits while `is_full`, which the maintenance thread changes.
    pub(crate) fn wait_for_room(&self, is_full: impl Fn() -> bool) {
        if self.is_attendant() {
            return;
        }
        let mut state = self.state.lock();
        state.waiting_for_room += 1;
        while is_full() && !state.ended {
            state.rung = true;
            self.rung.notify_one();
            self.room.wait(&mut state);
        }
        state.waiting_for_room -= 1;
    }

    /// Says that there may be room.
    pub(crate) fn made_room(&self) {
        if self.state.lock().waiting_for_room > 0 {
            self.room.notify_all();
        }
    }

    /// Sleeps until rung, called or `pause` is over; the call, if there is one.
    pub(crate) fn sleep(&self, pause: Duration) -> Option<Call> {
        let mut state = self.state.lock();
        if !state.rung && state.calls.is_empty() {
            self.asleep.store(true, Relaxed);
            self.rung.wait_for(&mut state, pause);
            self.asleep.store(false, Relaxed);
        }
        state.rung = false;
        state.calls.pop_front()
    }

    /// As `sleep`, but deaf to `ring`, which costs nothing then: to wake a thread takes longer than many
    /// operations. Whoever calls or waits for room is heard.
    pub(crate) fn doze(&self, pause: Duration) -> Option<Call> {
        let mut state = self.state.lock();
        if !state.rung && state.calls.is_empty() && !pause.is_zero() {
            self.rung.wait_for(&mut state, pause);
        }
        state.calls.pop_front()
    }

    /// Nobody will answer any more: every caller is sent off.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        let unanswered = std::mem::take(&mut state.calls);
        drop(state);
        drop(unanswered);
        self.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Instant, thread};

    const PAUSE: Duration = Duration::from_millis(100);

    /// How long a thread rests while another does `disturb`, over and over.
    fn rested(rest: impl Fn(&Bell) -> Option<Call> + Sync, disturb: impl Fn(&Bell)) -> Duration {
        let bell = Bell::default();
        let begun = Instant::now();
        thread::scope(|scope| {
            let resting = scope.spawn(|| rest(&bell).map_or_else(|| begun.elapsed(), |_| Duration::ZERO));
            while !resting.is_finished() {
                disturb(&bell);
                thread::sleep(Duration::from_millis(1));
            }
            resting.join().unwrap()
        })
    }

    #[test]
    fn who_dozes_hears_calls_and_no_rings() {
        let post = |bell: &Bell| drop(bell.post(Request::Flush).unwrap());
        assert!(rested(|bell| bell.sleep(60 * PAUSE), Bell::ring) < 60 * PAUSE);
        assert!(rested(|bell| bell.doze(PAUSE), Bell::ring) >= PAUSE);
        assert_eq!(rested(|bell| bell.doze(60 * PAUSE), post), Duration::ZERO);
    }
}

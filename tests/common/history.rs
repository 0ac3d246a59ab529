//! What was asked of a cache that lies on a recorder's disk, when, and what of it was acknowledged; and
//! from that, what a cache opened on any moment of the record may and must hold.

use std::{collections::HashMap, sync::Mutex};

use embercache::{
    Error,
    testing::{RecorderDisk, Replay, Step},
};

/// What was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Insert(u64),
    Remove(u64),
    Clear,
    Flush,
    Open,
    Close,
}

/// One call. An insert's version is its number.
#[derive(Clone, Copy, Debug)]
struct Call {
    what: What,
    /// When it began and returned, as far as that has happened by the moment that the history is of.
    start: Option<u64>,
    end: Option<u64>,
    /// It returned `Ok`.
    is_acked: bool,
}

/// All calls of all lives of a directory, in no order but that of their stamps.
#[derive(Debug, Default)]
pub(crate) struct History {
    calls: Mutex<Vec<Call>>,
    life: u64,
    /// A cold start: nothing from before is owed.
    forgotten: u64,
}

impl Clone for History {
    fn clone(&self) -> History {
        let calls = Mutex::new(self.calls.lock().unwrap().clone());
        History { calls, ..*self }
    }
}

impl History {
    /// Calls, with a note of it before and after in the disk's record. The call is told its number.
    pub(crate) fn call<R>(
        &self,
        disk: &RecorderDisk,
        what: What,
        call: impl FnOnce(u64) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(Call { what, start: None, end: None, is_acked: false });
            calls.len() - 1
        };
        disk.note(2 * number as u64);
        let result = call(number as u64);
        self.calls.lock().unwrap()[number].is_acked = result.is_ok();
        disk.note(2 * number as u64 + 1);
        result
    }

    /// Takes in what a replay has met.
    pub(crate) fn note(&mut self, note: u64, replay: &Replay) {
        let stamp = self.life << 40 | replay.at() as u64;
        let call = &mut self.calls.get_mut().unwrap()[note as usize / 2];
        *if note.is_multiple_of(2) { &mut call.start } else { &mut call.end } = Some(stamp);
    }

    /// Goes through a record up to so many events.
    pub(crate) fn advance(&mut self, replay: &mut Replay, events: usize) {
        while replay.at() < events
            && let Some(step) = replay.advance()
        {
            if let Step::Note(note) = step {
                self.note(note, replay);
            }
        }
    }

    /// Ends a life at this moment: what had not begun never will, and what had not returned is over, but
    /// was never acknowledged.
    pub(crate) fn end_life(&mut self) {
        self.life += 1;
        let now = (self.life << 40) - 1;
        for call in self.calls.get_mut().unwrap() {
            match (call.start, call.end) {
                // A number, once drawn, stays: versions are numbers.
                (None, _) => *call = Call { start: Some(now), end: Some(now), is_acked: false, ..*call },
                (Some(_), None) => *call = Call { end: Some(now), is_acked: false, ..*call },
                _ => {}
            }
        }
    }

    /// This life has found nothing of the ones before.
    pub(crate) fn forget(&mut self) {
        self.forgotten = self.life << 40;
    }

    /// Whether there is such a call in this life, by this moment.
    pub(crate) fn has_begun(&self, what: What) -> bool {
        self.of_this_life(what, |call| call.start)
    }

    /// Whether such a call of this life has returned, by this moment.
    pub(crate) fn has_ended(&self, what: What) -> bool {
        self.of_this_life(what, |call| call.end)
    }

    fn of_this_life(&self, what: What, moment: impl Fn(&Call) -> Option<u64>) -> bool {
        let calls = self.calls.lock().unwrap();
        calls.iter().any(|call| call.what == what && moment(call).is_some_and(|at| at >> 40 == self.life))
    }

    /// What each key below `keys` may and must hold.
    pub(crate) fn judgement(&self, keys: u64) -> Judgement {
        let calls = self.calls.lock().unwrap();
        let mut owed = HashMap::new();
        let mut floors = vec![0; keys as usize];
        // A life that lost an insert cannot be asked for it by the flush of a later one.
        let is_safe = |end: u64| {
            let flushes = calls.iter().filter(|call| matches!(call.what, What::Flush | What::Close));
            let mut starts = flushes.filter(|call| call.returned_ok()).filter_map(|call| call.start);
            starts.any(|start| end < start && start >> 40 == end >> 40)
        };
        for key in 0..keys {
            let on_key = || calls.iter().enumerate().filter(move |(_, call)| call.what.is_about(key));
            let acked = on_key().filter(|(_, call)| call.returned_ok());
            floors[key as usize] = acked.filter_map(|(_, call)| call.start).max().unwrap_or(0);
            let Some((version, last)) =
                on_key().filter(|(_, call)| call.start.is_some()).max_by_key(|(_, call)| call.start)
            else {
                continue;
            };
            let is_alone = on_key()
                .filter(|(number, call)| *number != version && call.start.is_some())
                .all(|(_, call)| call.end.is_some_and(|end| Some(end) < last.start));
            let is_safe = last.end.is_some_and(is_safe);
            let is_insert = matches!(last.what, What::Insert(_)) && last.returned_ok();
            if is_insert && is_alone && is_safe && last.start >= Some(self.forgotten) {
                owed.insert(key, version as u64);
            }
        }
        Judgement { calls: calls.clone(), floors, owed }
    }
}

impl What {
    /// Whether it makes void what the key had.
    fn is_about(self, key: u64) -> bool {
        match self {
            What::Insert(of) | What::Remove(of) => of == key,
            What::Clear => true,
            What::Flush | What::Open | What::Close => false,
        }
    }
}

impl Call {
    fn returned_ok(&self) -> bool {
        self.is_acked && self.end.is_some()
    }
}

/// What a cache may and must hold at one moment.
#[derive(Debug)]
pub(crate) struct Judgement {
    calls: Vec<Call>,
    /// The latest start of what was acknowledged to have made a key's values void.
    floors: Vec<u64>,
    /// Keys and versions that a flush has made safe.
    pub(crate) owed: HashMap<u64, u64>,
}

impl Judgement {
    /// What is wrong with finding this version under the key, if anything is.
    pub(crate) fn lie(&self, key: u64, version: u64) -> Option<String> {
        let call = self.calls.get(version as usize).filter(|call| call.what == What::Insert(key));
        let wrong = match call.map(|call| (call.start, call.end)) {
            None => "was never asked for",
            Some((None, _)) => "was not even begun",
            Some((_, Some(end))) if end < self.floors[key as usize] => "is stale",
            Some(_) => return None,
        };
        Some(format!("version {version} of key {key} {wrong}: {:#?}", self.of(key)))
    }

    /// What was called about a key, for a person to read.
    pub(crate) fn of(&self, key: u64) -> Vec<String> {
        let is_shown =
            |call: &Call| call.what.is_about(key) || !matches!(call.what, What::Insert(_) | What::Remove(_));
        let calls = self.calls.iter().enumerate().filter(|(_, call)| is_shown(call) && call.start.is_some());
        calls.map(|(number, call)| format!("{number} {call:x?}")).collect()
    }
}

//! The loads under way: who may still store what it is loading, and who waits for it (R8).

use std::{borrow::Borrow, collections::hash_map::Entry, sync::Arc};

use crate::{
    hash::{HashMapByKeyHash, KeyHash},
    sync::{
        Condvar, Mutex,
        thread::{self, ThreadId},
    },
};

/// The right to store one load's value. Never used twice in a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoadId(u64);

/// One stripe's loads under way, by key hash.
///
/// A load that is not in the table is dead: whatever it brings is not stored. An insert, a remove
/// or a clear takes it out, and who asks afterwards starts a new one.
#[derive(Debug)]
pub(crate) struct Loads<K, V> {
    under_way: HashMapByKeyHash<Load<K, V>>,
    last_id: u64,
}

/// One load under way.
#[derive(Debug)]
pub(crate) struct Load<K, V> {
    id: LoadId,
    key: K,
    /// The leases, and the load that leads, which may still fill it.
    holders: u32,
    /// The one that loads on behalf of those who wait, if any does.
    flight: Option<Arc<Flight<V>>>,
}

/// What one who found nothing is to do.
#[derive(Debug)]
pub(crate) enum Turn<V> {
    /// Load, fill, and tell those who wait.
    Lead(LoadId, Arc<Flight<V>>),
    /// Another is loading it.
    Wait(Arc<Flight<V>>),
    /// Load for yourself, and store nothing: another key with the same hash is being loaded, or the calling thread
    /// leads the load of this one, and would wait for itself.
    Alone,
}

impl<K: Eq, V> Loads<K, V> {
    pub(crate) fn new() -> Loads<K, V> {
        Loads { under_way: HashMapByKeyHash::default(), last_id: 0 }
    }

    /// Joins the load of `key`, or starts it, and takes `owned` then. What is left of that is dropped
    /// outside the lock.
    pub(crate) fn join<Q: Eq + ?Sized>(&mut self, hash: KeyHash, key: &Q, owned: &mut Option<K>) -> Turn<V>
    where
        K: Borrow<Q>,
    {
        let Some(load) = self.load_of(hash, key, owned) else { return Turn::Alone };
        if let Some(flight) = &load.flight {
            return if flight.is_led_here() { Turn::Alone } else { Turn::Wait(flight.clone()) };
        }
        let flight = Arc::new(Flight::new());
        load.flight = Some(flight.clone());
        load.holders += 1;
        Turn::Lead(load.id, flight)
    }

    /// Takes a lease on `key` beside whatever else loads it; `None` if another key with the same
    /// hash is being loaded.
    pub(crate) fn lease<Q: Eq + ?Sized>(
        &mut self,
        hash: KeyHash,
        key: &Q,
        owned: &mut Option<K>,
    ) -> Option<LoadId>
    where
        K: Borrow<Q>,
    {
        let load = self.load_of(hash, key, owned)?;
        load.holders += 1;
        Some(load.id)
    }

    fn load_of<Q: Eq + ?Sized>(
        &mut self,
        hash: KeyHash,
        key: &Q,
        owned: &mut Option<K>,
    ) -> Option<&mut Load<K, V>>
    where
        K: Borrow<Q>,
    {
        match self.under_way.entry(hash) {
            Entry::Occupied(load) => Some(load.into_mut()).filter(|load| load.key.borrow() == key),
            Entry::Vacant(place) => {
                self.last_id += 1;
                let key = owned.take().expect("the caller brings the key");
                // Not compared: were that to panic, a load would stay that nobody holds.
                Some(place.insert(Load { id: LoadId(self.last_id), key, holders: 0, flight: None }))
            }
        }
    }

    /// Whether what this load brings may be stored.
    #[cfg(test)]
    fn is_alive(&self, hash: KeyHash, id: LoadId) -> bool {
        self.under_way.get(&hash).is_some_and(|load| load.id == id)
    }

    /// Whether what this load brings may be stored, which the caller does then, under the same lock. From now on
    /// it is found in the cache, and nobody waits for it any more: who finds that it has expired loads anew.
    pub(crate) fn fill(&mut self, hash: KeyHash, id: LoadId) -> bool {
        let Some(load) = self.under_way.get_mut(&hash).filter(|load| load.id == id) else { return false };
        // Not its last handle: whoever leads has one until it releases the load.
        load.flight = None;
        true
    }

    /// One holder is done with the load, whether it stored a value or not: `led` is what others waited for, if it
    /// loaded on their behalf. What comes back is to be dropped outside the lock.
    #[must_use]
    pub(crate) fn release(
        &mut self,
        hash: KeyHash,
        id: LoadId,
        led: Option<&Arc<Flight<V>>>,
    ) -> Option<Load<K, V>> {
        let load = self.under_way.get_mut(&hash).filter(|load| load.id == id)?;
        // By now it may be another's.
        load.flight.take_if(|flight| led.is_some_and(|led| Arc::ptr_eq(flight, led)));
        load.holders -= 1;
        if load.holders > 0 {
            return None;
        }
        self.under_way.remove(&hash)
    }

    /// An invalidation of the key: its loads are dead. What comes back is to be dropped outside the lock.
    #[must_use]
    #[inline]
    pub(crate) fn kill(&mut self, hash: KeyHash) -> Option<Load<K, V>> {
        // Most caches have none, and an empty map is asked faster so.
        if self.under_way.is_empty() { None } else { self.under_way.remove(&hash) }
    }

    /// An invalidation of every key. What comes back is to be dropped outside the lock.
    pub(crate) fn kill_all(&mut self) -> impl Iterator<Item = Load<K, V>> + use<K, V> {
        std::mem::take(&mut self.under_way).into_values()
    }
}

/// One load that others wait for.
#[derive(Debug)]
pub(crate) struct Flight<V> {
    leader: ThreadId,
    /// Guards the outcome; nothing else is locked and no user code but `V::clone` runs under it.
    outcome: Mutex<Outcome<V>>,
    landed: Condvar,
}

#[derive(Debug)]
enum Outcome<V> {
    Loading,
    Loaded(V),
    /// The loader failed or panicked: the next one loads.
    Abandoned,
}

impl<V> Flight<V> {
    /// Of a load that the calling thread leads.
    fn new() -> Flight<V> {
        let leader = thread::current().id();
        Flight { leader, outcome: Mutex::new(Outcome::Loading), landed: Condvar::new() }
    }

    /// Whether the calling thread leads it: it asks again in its load, or in what it drops beside that.
    fn is_led_here(&self) -> bool {
        self.leader == thread::current().id()
    }

    /// Hands the value to everyone who waits.
    pub(crate) fn land(&self, value: V) {
        *self.outcome.lock() = Outcome::Loaded(value);
        self.landed.notify_all();
    }

    /// Sends those who wait off to load it themselves, unless it has landed.
    pub(crate) fn abandon(&self) {
        let mut outcome = self.outcome.lock();
        if matches!(*outcome, Outcome::Loading) {
            *outcome = Outcome::Abandoned;
        }
        drop(outcome);
        self.landed.notify_all();
    }

    /// Waits for the value; `None` if the one who loads gave up.
    pub(crate) fn wait(&self) -> Option<V>
    where
        V: Clone,
    {
        let mut outcome = self.outcome.lock();
        loop {
            match &*outcome {
                Outcome::Loading => self.landed.wait(&mut outcome),
                Outcome::Loaded(value) => return Some(value.clone()),
                Outcome::Abandoned => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: KeyHash = KeyHash(1);

    /// How another thread joins the load of 7.
    fn join_elsewhere(loads: &mut Loads<u32, u32>) -> Turn<u32> {
        thread::scope(|scope| scope.spawn(|| loads.join(HASH, &7, &mut Some(7))).join().unwrap())
    }

    #[test]
    fn one_leads_and_the_others_wait() {
        let mut loads = Loads::<u32, u32>::new();
        let Turn::Lead(id, flight) = loads.join(HASH, &7, &mut Some(7)) else { panic!("nobody led before") };
        assert!(matches!(join_elsewhere(&mut loads), Turn::Wait(_)));
        assert!(matches!(loads.join(HASH, &7, &mut Some(7)), Turn::Alone), "it would wait for itself");
        flight.land(70);
        assert_eq!(flight.wait(), Some(70));
        assert!(loads.is_alive(HASH, id));
        drop(loads.release(HASH, id, Some(&flight)));
        assert!(!loads.is_alive(HASH, id));
    }

    #[test]
    fn who_asks_after_an_invalidation_starts_anew() {
        let mut loads = Loads::<u32, u32>::new();
        let Turn::Lead(old, led) = loads.join(HASH, &7, &mut Some(7)) else { panic!("nobody led before") };
        drop(loads.kill(HASH));
        let Turn::Lead(new, _) = loads.join(HASH, &7, &mut Some(7)) else { panic!("the dead load leads") };
        assert!(!loads.is_alive(HASH, old));
        assert!(loads.is_alive(HASH, new));
        drop(loads.release(HASH, old, Some(&led)));
        assert!(loads.is_alive(HASH, new), "a dead load's end ended the living one");
    }

    #[test]
    fn a_lease_outlives_the_leader_beside_it() {
        let mut loads = Loads::<u32, u32>::new();
        let lease = loads.lease(HASH, &7, &mut Some(7)).unwrap();
        let Turn::Lead(id, flight) = loads.join(HASH, &7, &mut Some(7)) else {
            panic!("a lease leads nobody")
        };
        flight.abandon();
        assert_eq!(flight.wait(), None);
        drop(loads.release(HASH, id, Some(&flight)));
        assert!(loads.is_alive(HASH, lease));
    }

    #[test]
    fn who_asks_when_a_load_was_stored_starts_anew() {
        let mut loads = Loads::<u32, u32>::new();
        let lead = |loads: &mut Loads<u32, u32>| match loads.join(HASH, &7, &mut Some(7)) {
            Turn::Lead(id, flight) => (id, flight),
            _ => panic!("it is to be had no more"),
        };
        let (first, stored) = lead(&mut loads);
        assert!(loads.fill(HASH, first));
        let (second, _under_way) = lead(&mut loads);
        drop(loads.release(HASH, first, Some(&stored)));
        assert!(matches!(join_elsewhere(&mut loads), Turn::Wait(_)), "it ended another's flight");
        assert!(loads.fill(HASH, second));
    }

    #[test]
    fn a_key_of_the_same_hash_loads_alone() {
        let mut loads = Loads::<u32, u32>::new();
        let _lease = loads.lease(HASH, &7, &mut Some(7)).unwrap();
        assert!(matches!(loads.join(HASH, &8, &mut Some(8)), Turn::Alone));
        assert!(loads.lease(HASH, &8, &mut Some(8)).is_none());
    }
}

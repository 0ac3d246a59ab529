//! A cache beside a database, and the peers that can be one, each by the idiom that it offers.

use std::{path::Path, sync::Arc};

use anyhow::{Result, anyhow};
use embercache::{Cache, GIB};

use super::{
    foyer, lmdb,
    server::{Clients, Kind, Server, Transport},
    store::{OpenStore, Setup, Store},
};
use crate::database::PRODUCT_BYTES;

/// Asks the database.
pub type Load<'l> = &'l mut dyn FnMut() -> Result<Vec<u8>>;

/// A cache beside a database, shared by threads.
pub trait Aside: Send + Sync {
    /// Lends the cached value to `read`, or else the one that `load` returns, which is then cached.
    fn look_up(&self, key: u64, load: Load<'_>, read: &mut dyn FnMut(&[u8])) -> Result<()>;

    /// Called after the database has changed.
    fn invalidate(&self, key: u64) -> Result<()>;

    /// Ends the process' part of it.
    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Opens the cache whenever the service begins. The directory outlives the service, or the server does.
pub type Site = Box<dyn Fn() -> Result<Box<dyn Aside>> + Send + Sync>;

/// Prepares a directory for this many entries.
pub type Prepare = fn(&Path, u64) -> Result<Site>;

/// The caches in RAM have room for one entry in so many; the others for all.
const RAM_SHARE: u64 = 10;

pub fn sites() -> Vec<(&'static str, Prepare)> {
    vec![
        ("embercache", tiers as Prepare),
        ("no_cache", |_, _| Ok(Box::new(|| Ok(Box::new(Nothing))))),
        ("quick_cache", |_, entries| {
            let room = (entries / RAM_SHARE) as usize;
            Ok(Box::new(move || Ok(Box::new(quick_cache::sync::Cache::<u64, Arc<[u8]>>::new(room)))))
        }),
        ("moka", |_, entries| {
            let room = entries / RAM_SHARE;
            Ok(Box::new(move || Ok(Box::new(moka::sync::Cache::<u64, Arc<[u8]>>::new(room)))))
        }),
        ("lmdb", |dir, entries| Ok(store(lmdb::open, dir, entries))),
        ("foyer_tuned", |dir, entries| Ok(store(foyer::open_tuned, dir, entries))),
        ("redis_tcp", |dir, entries| server(Kind::Redis, Transport::Tcp, dir, entries)),
        ("redis_unix", |dir, entries| server(Kind::Redis, Transport::Unix, dir, entries)),
        ("memcached_tcp", |dir, entries| server(Kind::Memcached, Transport::Tcp, dir, entries)),
        ("memcached_unix", |dir, entries| server(Kind::Memcached, Transport::Unix, dir, entries)),
    ]
}

fn tiers(dir: &Path, entries: u64) -> Result<Site> {
    let dir = dir.join("cache");
    Ok(Box::new(move || {
        let disk = entries * 1024 + GIB;
        let builder = Cache::builder(&dir).ram_entries(entries / RAM_SHARE).disk(disk);
        Ok(Box::new(Tiers(builder.open()?)))
    }))
}

fn store(open: OpenStore, dir: &Path, entries: u64) -> Site {
    let dir = dir.to_owned();
    let setup = Setup { entries, value_bytes: PRODUCT_BYTES, ram_entries: entries / RAM_SHARE };
    Box::new(move || Ok(Box::new(Stored(open(&dir, setup)?))))
}

/// With memory for all: it is elsewhere, where there may be plenty. It stays when the service ends.
fn server(kind: Kind, transport: Transport, dir: &Path, entries: u64) -> Result<Site> {
    let server = Arc::new(Server::start(kind, transport, dir, (entries >> 10) + 64)?);
    Ok(Box::new(move || Ok(Box::new(Clients::new(Arc::clone(&server))))))
}

/// Ours: a load is not stored if its key was invalidated since it began.
struct Tiers(Cache<u64, Vec<u8>>);

impl Aside for Tiers {
    fn look_up(&self, key: u64, load: Load<'_>, read: &mut dyn FnMut(&[u8])) -> Result<()> {
        if self.0.get_with(&key, |value| read(value)).is_none() {
            read(&self.0.try_get_or_insert_with(&key, load)?);
        }
        Ok(())
    }

    fn invalidate(&self, key: u64) -> Result<()> {
        self.0.remove(&key)?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }
}

struct Nothing;

impl Aside for Nothing {
    fn look_up(&self, _key: u64, load: Load<'_>, read: &mut dyn FnMut(&[u8])) -> Result<()> {
        read(&load()?);
        Ok(())
    }

    fn invalidate(&self, _key: u64) -> Result<()> {
        Ok(())
    }
}

impl Aside for quick_cache::sync::Cache<u64, Arc<[u8]>> {
    fn look_up(&self, key: u64, load: Load<'_>, read: &mut dyn FnMut(&[u8])) -> Result<()> {
        read(&self.get_or_insert_with(&key, || Ok::<_, anyhow::Error>(load()?.into()))?);
        Ok(())
    }

    fn invalidate(&self, key: u64) -> Result<()> {
        self.remove(&key);
        Ok(())
    }
}

impl Aside for moka::sync::Cache<u64, Arc<[u8]>> {
    fn look_up(&self, key: u64, load: Load<'_>, read: &mut dyn FnMut(&[u8])) -> Result<()> {
        let value = self.try_get_with(key, || Ok::<_, anyhow::Error>(load()?.into()));
        read(&value.map_err(|error| anyhow!("{error:#}"))?);
        Ok(())
    }

    fn invalidate(&self, key: u64) -> Result<()> {
        moka::sync::Cache::invalidate(self, &key);
        Ok(())
    }
}

/// A store: look up, load, insert.
struct Stored(Box<dyn Store>);

impl Aside for Stored {
    fn look_up(&self, key: u64, load: Load<'_>, read: &mut dyn FnMut(&[u8])) -> Result<()> {
        if !self.0.get(key, read)? {
            let value = load()?;
            self.0.insert(key, &value)?;
            read(&value);
        }
        Ok(())
    }

    fn invalidate(&self, key: u64) -> Result<()> {
        self.0.remove(key)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.0.flush()?;
        self.0.close()
    }
}

impl Aside for Clients {
    fn look_up(&self, key: u64, load: Load<'_>, read: &mut dyn FnMut(&[u8])) -> Result<()> {
        if !self.with(|client| client.get(key, read))? {
            let value = load()?;
            self.with(|client| client.set(key, &value))?;
            read(&value);
        }
        Ok(())
    }

    fn invalidate(&self, key: u64) -> Result<()> {
        self.with(|client| client.delete(key))
    }
}

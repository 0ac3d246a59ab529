//! redis-server and memcached, where they are installed: a process of their own, asked over a socket.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;

use super::store::{BATCH, Setup, Store};
use crate::content::bytes;

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Memcached,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Unix,
}

/// A running server. Ends with this value.
pub struct Server {
    kind: Kind,
    address: Address,
    process: Child,
}

enum Address {
    Port(u16),
    Socket(PathBuf),
}

impl Server {
    /// Starts one that keeps nothing on disk and evicts beyond this much memory.
    pub fn start(kind: Kind, transport: Transport, dir: &Path, memory_mib: u64) -> Result<Server> {
        let address = match transport {
            Transport::Tcp => Address::Port(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()),
            Transport::Unix => Address::Socket(dir.join("socket")),
        };
        let mut command = match kind {
            Kind::Redis => redis(&address, dir),
            Kind::Memcached => memcached(&address),
        };
        match kind {
            Kind::Redis => command.args(["--maxmemory", &format!("{memory_mib}mb")]),
            Kind::Memcached => command.args(["-m", &memory_mib.to_string()]),
        };
        Server::run(kind, address, command)
    }

    /// Starts a Redis that loads what the one before has saved in `dir`, and is killed when this process is.
    fn restart(dir: &Path) -> Result<Server> {
        let address = Address::Socket(dir.join("socket"));
        let redis = redis(&address, dir);
        // It would not be told of by what starts it.
        let is_there = Command::new(redis.get_program()).arg("--version").stdout(Stdio::null()).status();
        is_there.context("SKIPPED, redis-server cannot be run")?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(redis.get_program()).args(redis.get_args());
        Server::run(Kind::Redis, address, command)
    }

    fn run(kind: Kind, address: Address, mut command: Command) -> Result<Server> {
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.with_context(|| format!("SKIPPED, {} cannot be run", binary(kind)))?;
        let mut server = Server { kind, address, process };
        server.wait()?;
        Ok(server)
    }

    /// A new connection.
    pub fn connect(&self) -> Result<Client> {
        let stream: Box<dyn Stream> = match &self.address {
            Address::Port(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Socket(path) => Box::new(UnixStream::connect(path)?),
        };
        Ok(Client { kind: self.kind, stream: BufReader::new(stream) })
    }

    /// Until it answers.
    fn wait(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.connect().and_then(|mut client| client.get(0, &mut |_| {})).is_err() {
            ensure!(Instant::now() < end, "{} does not answer", binary(self.kind));
            if let Some(status) = self.process.try_wait()? {
                bail!("{} ended at once: {status}", binary(self.kind));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What it was to keep it has saved. Both fail only if it has ended before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn binary(kind: Kind) -> &'static str {
    match kind {
        Kind::Redis => "redis-server",
        Kind::Memcached => "memcached",
    }
}

/// One that writes to the disk only when it is told to.
fn redis(address: &Address, dir: &Path) -> Command {
    let mut command = Command::new(binary(Kind::Redis));
    match address {
        Address::Port(port) => command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]),
        Address::Socket(path) => command.args(["--port", "0", "--unixsocket"]).arg(path),
    };
    command.args(["--save", "", "--appendonly", "no", "--maxmemory-policy", "allkeys-lru", "--dir"]).arg(dir);
    command
}

fn memcached(address: &Address) -> Command {
    let mut command = Command::new(binary(Kind::Memcached));
    match address {
        Address::Port(port) => command.args(["-l", "127.0.0.1", "-p", &port.to_string()]),
        Address::Socket(path) => command.arg("-s").arg(path),
    };
    // As root it wants to be told as whom to run; it ignores that as anybody else.
    command.args(["-u", "root", "-t", "2"]);
    command
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A connection, for one request at a time.
pub struct Client {
    kind: Kind,
    stream: BufReader<Box<dyn Stream>>,
}

impl Client {
    /// Lends the value to `read`; whether there was one.
    pub fn get(&mut self, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        match self.kind {
            Kind::Redis => self.send(&[format!("*2\r\n$3\r\nGET\r\n$16\r\n{key:016x}\r\n").as_bytes()])?,
            Kind::Memcached => self.send(&[format!("get {key:016x}\r\n").as_bytes()])?,
        }
        let head = self.line()?;
        let len = match self.kind {
            Kind::Redis if head == "$-1" => return Ok(false),
            Kind::Redis => head.strip_prefix('$'),
            Kind::Memcached if head == "END" => return Ok(false),
            Kind::Memcached => head.strip_prefix("VALUE ").and_then(|head| head.rsplit(' ').next()),
        };
        let len: usize = len.with_context(|| format!("the answer was {head}"))?.parse()?;
        let mut value = vec![0; len + 2];
        self.stream.read_exact(&mut value)?;
        if self.kind == Kind::Memcached {
            self.expect(&["END"])?;
        }
        read(&value[..len]);
        Ok(true)
    }

    pub fn set(&mut self, key: u64, value: &[u8]) -> Result<()> {
        let len = value.len();
        match self.kind {
            Kind::Redis => {
                self.send(&[redis_set(key, len).as_bytes(), value, b"\r\n"])?;
                self.expect(&["+OK"])
            }
            Kind::Memcached => {
                self.send(&[format!("set {key:016x} 0 0 {len}\r\n").as_bytes(), value, b"\r\n"])?;
                self.expect(&["STORED"])
            }
        }
    }

    pub fn delete(&mut self, key: u64) -> Result<()> {
        match self.kind {
            Kind::Redis => {
                self.send(&[format!("*2\r\n$3\r\nDEL\r\n$16\r\n{key:016x}\r\n").as_bytes()])?;
                self.expect(&[":0", ":1"])
            }
            Kind::Memcached => {
                self.send(&[format!("delete {key:016x}\r\n").as_bytes()])?;
                self.expect(&["DELETED", "NOT_FOUND"])
            }
        }
    }

    /// A Redis command of one word.
    fn command(&mut self, word: &str) -> Result<()> {
        self.send(&[word.as_bytes(), b"\r\n"])?;
        self.expect(&["+OK"])
    }

    /// By one write, so that it is one packet.
    fn send(&mut self, parts: &[&[u8]]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(&parts.concat())?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn expect(&mut self, answers: &[&str]) -> Result<()> {
        let line = self.line()?;
        ensure!(answers.contains(&line.as_str()), "the answer was {line}");
        Ok(())
    }
}

/// What goes before the value of this length.
fn redis_set(key: u64, len: usize) -> String {
    format!("*3\r\n$3\r\nSET\r\n$16\r\n{key:016x}\r\n${len}\r\n")
}

/// A connection for each thread that wants one at the same time.
pub struct Clients {
    server: Arc<Server>,
    /// Those that no thread uses now. Guards only the list.
    idle: Mutex<Vec<Client>>,
}

impl Clients {
    pub fn new(server: Arc<Server>) -> Clients {
        Clients { server, idle: Mutex::new(Vec::new()) }
    }

    /// Lends an idle connection, or a new one. One that failed is not used again: the rest of an answer may
    /// still be under way.
    pub fn with<R>(&self, work: impl FnOnce(&mut Client) -> Result<R>) -> Result<R> {
        let idle = self.idle.lock().pop();
        let mut client = idle.map_or_else(|| self.server.connect(), Ok)?;
        let result = work(&mut client)?;
        self.idle.lock().push(client);
        Ok(result)
    }
}

/// Redis as a store that is opened and closed: its snapshot is what survives.
struct Redis {
    clients: Clients,
    server: Arc<Server>,
}

pub fn open_redis(dir: &Path, _setup: Setup) -> Result<Box<dyn Store>> {
    let server = Arc::new(Server::restart(dir)?);
    Ok(Box::new(Redis { clients: Clients::new(Arc::clone(&server)), server }))
}

impl Store for Redis {
    fn get(&self, key: u64, read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.clients.with(|client| client.get(key, read))
    }

    fn insert(&self, key: u64, value: &[u8]) -> Result<()> {
        self.clients.with(|client| client.set(key, value))
    }

    fn remove(&self, key: u64) -> Result<()> {
        self.clients.with(|client| client.delete(key))
    }

    fn flush(&self) -> Result<()> {
        self.clients.with(|client| client.command("SAVE"))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()?;
        drop(self.clients);
        drop(self.server);
        Ok(())
    }

    /// By pipelines.
    fn insert_each(&self, keys: &[u64], version: u64, value_bytes: usize) -> Result<()> {
        self.clients.with(|client| {
            for batch in keys.chunks(BATCH) {
                let mut requests = Vec::new();
                for &key in batch {
                    requests.extend_from_slice(redis_set(key, value_bytes).as_bytes());
                    requests.extend_from_slice(&bytes(key, version, value_bytes));
                    requests.extend_from_slice(b"\r\n");
                }
                client.send(&[&requests])?;
                batch.iter().try_for_each(|_| client.expect(&["+OK"]))?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes where the server is not installed, with a word about it.
    fn keeps_what_it_is_given(kind: Kind, transport: Transport) {
        let dir = tempfile::tempdir().unwrap();
        let server = match Server::start(kind, transport, dir.path(), 64) {
            Ok(server) => server,
            Err(error) if format!("{error:#}").starts_with("SKIPPED") => return eprintln!("{error:#}"),
            Err(error) => panic!("{error:#}"),
        };
        let clients = Clients::new(Arc::new(server));
        let get = |key| {
            let mut value = Vec::new();
            let found = clients.with(|client| client.get(key, &mut |found| value = found.to_vec())).unwrap();
            found.then_some(value)
        };
        let binary = b"a\r\nEND\r\n$-1\r\n\0b".to_vec();
        clients.with(|client| client.set(1, &binary)).unwrap();
        clients.with(|client| client.set(2, b"")).unwrap();
        assert_eq!((get(1), get(2), get(3)), (Some(binary), Some(Vec::new()), None));
        clients.with(|client| client.delete(1)).unwrap();
        clients.with(|client| client.delete(1)).unwrap();
        assert_eq!((get(1), get(2)), (None, Some(Vec::new())));
    }

    #[test]
    fn a_store_of_redis_comes_back_with_what_it_saved() {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup { entries: 2_000, value_bytes: 200, ram_entries: 0 };
        let open = || match open_redis(dir.path(), setup) {
            Ok(store) => Some(store),
            Err(error) if format!("{error:#}").starts_with("SKIPPED") => None,
            Err(error) => panic!("{error:#}"),
        };
        let Some(store) = open() else { return eprintln!("SKIPPED, it is not installed") };
        store.insert_each(&Vec::from_iter(0..2_000), 0, 200).unwrap();
        store.remove(7).unwrap();
        store.close().unwrap();
        let store = open().unwrap();
        assert_eq!((store.check(1_999, 0).unwrap(), store.check(7, 0).unwrap()), (Some(true), None));
    }

    #[test]
    fn the_clients_speak_the_servers_protocols() {
        for kind in [Kind::Redis, Kind::Memcached] {
            for transport in [Transport::Tcp, Transport::Unix] {
                keeps_what_it_is_given(kind, transport);
            }
        }
    }
}

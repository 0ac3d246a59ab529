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
            Kind::Redis => redis(&address, dir, memory_mib),
            Kind::Memcached => memcached(&address, memory_mib),
        };
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
        while !self.connect().and_then(|mut client| client.get(0, &mut |_| {})).is_ok_and(|found| !found) {
            ensure!(Instant::now() < end, "{} does not answer", binary(self.kind));
            if let Some(status) = self.process.try_wait()? {
                bail!("{} ended at once: {status}", binary(self.kind));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It keeps nothing, so it needs no other end. Both fail only if it has ended before.
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

fn redis(address: &Address, dir: &Path, memory_mib: u64) -> Command {
    let mut command = Command::new(binary(Kind::Redis));
    match address {
        Address::Port(port) => command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]),
        Address::Socket(path) => command.args(["--port", "0", "--unixsocket"]).arg(path),
    };
    command.args(["--save", "", "--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]);
    command.args(["--maxmemory", &format!("{memory_mib}mb")]).arg("--dir").arg(dir);
    command
}

fn memcached(address: &Address, memory_mib: u64) -> Command {
    let mut command = Command::new(binary(Kind::Memcached));
    match address {
        Address::Port(port) => command.args(["-l", "127.0.0.1", "-p", &port.to_string()]),
        Address::Socket(path) => command.arg("-s").arg(path),
    };
    // As root it wants to be told as whom to run; it ignores that as anybody else.
    command.args(["-u", "root", "-t", "2", "-m", &memory_mib.to_string()]);
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
                let head = format!("*3\r\n$3\r\nSET\r\n$16\r\n{key:016x}\r\n${len}\r\n");
                self.send(&[head.as_bytes(), value, b"\r\n"])?;
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
    fn the_clients_speak_the_servers_protocols() {
        for kind in [Kind::Redis, Kind::Memcached] {
            for transport in [Transport::Tcp, Transport::Unix] {
                keeps_what_it_is_given(kind, transport);
            }
        }
    }
}

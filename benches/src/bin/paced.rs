// SPDX-License-Identifier: Apache-2.0
//! `weft-bench-paced`: an open-loop load of a fixed rate by HTTP/1.1.
//!
//! One thread, the pacer, sleeps until a request is due and writes it to a free connection; it never waits
//! for an answer. A thread for each connection reads. Where no connection is free, the request waits for
//! one, and the wait is part of its latency.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use weft_benches::open_loop::{Arrivals, Clock, Monotonic, Report, pace};

/// How long an answer may take before the run fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// Send GET requests at random times of a fixed rate; print latencies, and how late the sender was.
#[derive(Debug, Parser)]
struct Cli {
    /// Where to send them.
    address: SocketAddr,
    /// The path of each request.
    path: String,
    /// Requests a second.
    #[arg(long, default_value_t = 3_000.0)]
    rate: f64,
    /// Length of the window, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // By default a sleep may end 50 us late; that would be a third of what is measured (proc(5)).
    fs::write("/proc/self/timerslack_ns", "1").context("cannot set the timer slack")?;
    let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", cli.path, cli.address).into_bytes();
    let load = Arc::new(Load::open(&cli, request)?);
    let readers: Vec<_> = (0..cli.connections)
        .map(|index| {
            let load = Arc::clone(&load);
            thread::spawn(move || load.read_answers(index))
        })
        .collect();
    let arrivals = Arrivals::new(cli.rate, Duration::from_secs_f64(cli.seconds));
    let lateness = pace(&load.clock, arrivals, |due| load.start(due));
    let finished = lateness.and_then(|lateness| load.wait().map(|()| lateness));
    load.close();
    for reader in readers {
        if reader.join().is_err() {
            bail!("a thread panicked");
        }
    }
    let mut pool = load.pool();
    if let Some(error) = pool.error.take() {
        return Err(error);
    }
    let report = Report::new(std::mem::take(&mut pool.latencies), finished?, pool.queued);
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// The connections, and what was measured on them.
struct Load {
    clock: Monotonic,
    request: Vec<u8>,
    streams: Vec<TcpStream>,
    pool: Mutex<Pool>,
    changed: Condvar,
}

#[derive(Default)]
struct Pool {
    /// Connections without a request, the one that was used longest ago first.
    free: VecDeque<usize>,
    /// For each connection, when its request was due.
    due: Vec<Duration>,
    /// Requests that are due and have no connection.
    waiting: VecDeque<Duration>,
    /// How many had to wait.
    queued: u64,
    latencies: Vec<Duration>,
    /// The first failure of a reader.
    error: Option<anyhow::Error>,
}

impl Load {
    /// Opens all connections and sends one request on each, so that what a first request costs is not measured.
    fn open(cli: &Cli, request: Vec<u8>) -> anyhow::Result<Self> {
        let mut streams = Vec::new();
        for _ in 0..cli.connections {
            let stream = TcpStream::connect(cli.address)
                .with_context(|| format!("cannot connect to {}", cli.address))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            (&stream).write_all(&request)?;
            read_answer(&stream, &mut vec![0; 16 * 1024])?;
            // From here on a reader waits as long as the window, and `wait` sees to the deadline.
            stream.set_read_timeout(None)?;
            streams.push(stream);
        }
        let due = vec![Duration::ZERO; streams.len()];
        let pool = Pool { free: (0..streams.len()).collect(), due, ..Pool::default() };
        Ok(Self {
            clock: Monotonic(Instant::now()),
            request,
            streams,
            pool: Mutex::new(pool),
            changed: Condvar::new(),
        })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the request that was due at `due` on the next free connection, or leaves it to wait for one.
    fn start(&self, due: Duration) -> anyhow::Result<()> {
        let mut pool = self.pool();
        let Some(index) = pool.free.pop_front() else {
            pool.waiting.push_back(due);
            pool.queued += 1;
            return Ok(());
        };
        pool.due[index] = due;
        drop(pool);
        (&self.streams[index]).write_all(&self.request).context("cannot send")
    }

    /// Reads answers of one connection until it is closed.
    fn read_answers(&self, index: usize) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match read_answer(&self.streams[index], &mut buffer) {
                Ok(true) => {
                    if let Err(error) = self.answered(index) {
                        return self.fail(index, error);
                    }
                }
                Ok(false) => return self.fail(index, anyhow::anyhow!("the connection was closed")),
                Err(error) => return self.fail(index, error),
            }
        }
    }

    /// Notes the latency, and gives the connection to the request that has waited longest.
    fn answered(&self, index: usize) -> anyhow::Result<()> {
        let now = self.clock.now();
        let mut pool = self.pool();
        let latency = now.saturating_sub(pool.due[index]);
        pool.latencies.push(latency);
        if let Some(due) = pool.waiting.pop_front() {
            pool.due[index] = due;
            drop(pool);
            return (&self.streams[index]).write_all(&self.request).context("cannot send");
        }
        pool.free.push_back(index);
        if pool.free.len() == self.streams.len() {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// The end of a connection is a failure only where a request is under way on it.
    fn fail(&self, index: usize, error: anyhow::Error) {
        let mut pool = self.pool();
        if !pool.free.contains(&index) {
            pool.error.get_or_insert(error);
            self.changed.notify_all();
        }
    }

    /// Waits until every request is answered.
    fn wait(&self) -> anyhow::Result<()> {
        let busy = |pool: &mut Pool| pool.free.len() < self.streams.len() && pool.error.is_none();
        let waited = self.changed.wait_timeout_while(self.pool(), PATIENCE, busy);
        let (pool, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            bail!(
                "no answer within {} s on {} connections",
                PATIENCE.as_secs(),
                self.streams.len() - pool.free.len()
            );
        }
        Ok(())
    }

    /// Ends the readers.
    fn close(&self) {
        for stream in &self.streams {
            // A connection that the other side closed needs no shutdown.
            stream.shutdown(Shutdown::Both).unwrap_or(());
        }
    }
}

/// Reads one whole answer, which must be a 200 with a content-length; false at the end of the connection.
fn read_answer(mut stream: &TcpStream, buffer: &mut [u8]) -> anyhow::Result<bool> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).context("no answer")?;
        if read == 0 {
            return Ok(false);
        }
        filled += read;
        if let Some(length) = answer_length(&buffer[..filled])? {
            if filled > length {
                bail!("more bytes than one answer");
            }
            if filled == length {
                return Ok(true);
            }
        }
        if filled == buffer.len() {
            bail!("an answer of more than {} bytes", buffer.len());
        }
    }
}

/// The length of the answer with its head, once the head is complete.
fn answer_length(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        bail!("unexpected answer: {}", text.lines().next().unwrap_or_default());
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let body: usize = length.context("no content-length")?.trim().parse()?;
    Ok(Some(head + 4 + body))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(answer_length(answer).unwrap(), Some(answer.len()));
        assert_eq!(answer_length(&answer[..20]).unwrap(), None);
        assert!(answer_length(b"HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n").is_err());
    }

    /// Takes two connections and answers the first request of each at once, and later ones when told.
    #[test]
    fn requests_start_when_due_although_none_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut streams = Vec::new();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                streams.push(stream);
            }
            streams
        });
        let cli = Cli { address, path: "/".into(), rate: 1.0, seconds: 1.0, connections: 2 };
        let load = Load::open(&cli, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()).unwrap();
        let mut streams = server.join().unwrap();

        for due in 1..=3 {
            load.start(Duration::from_micros(due)).unwrap();
        }
        // Both connections have a request, though nothing was answered, and the third waits.
        for stream in &mut streams {
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        }
        assert_eq!(load.pool().waiting.len(), 1);
        assert_eq!(load.pool().queued, 1);
        load.answered(0).unwrap();
        assert!(streams[0].read(&mut [0; 1024]).unwrap() > 0, "the freed connection takes it up");
        assert_eq!(load.pool().due[0], Duration::from_micros(3), "its latency counts from when it was due");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! An open-loop load of a fixed rate: requests are due at random times, whether or not earlier ones were
//! answered, and a latency counts from the time at which the request was due.
//!
//! Each of 32 threads has one keep-alive connection and a Poisson process of its own; together they are
//! a Poisson process of the asked rate.
//!
//! Usage: `weft-bench-paced ADDRESS PATH RATE SECONDS` prints
//! `{"requests": ..., "p50_us": ..., "p99_us": ...}`.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const THREADS: u32 = 32;
/// How long an answer may take before the run fails.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, path, rate, seconds] = arguments.as_slice() else {
        bail!("usage: weft-bench-paced ADDRESS PATH RATE SECONDS");
    };
    let address: SocketAddr = address.parse().context("ADDRESS")?;
    let rate = rate.parse::<f64>().context("RATE")? / f64::from(THREADS);
    let span = Duration::from_secs(seconds.parse().context("SECONDS")?);
    // By default a sleep may end 50 us late; that would be a third of what is measured (proc(5)).
    fs::write("/proc/self/timerslack_ns", "1").context("cannot set the timer slack")?;
    let start = Instant::now() + Duration::from_millis(50);
    let threads: Vec<_> = (0..THREADS)
        .map(|seed| {
            let path = path.clone();
            thread::spawn(move || {
                one_connection(address, &path, Arrivals::new(seed, rate, start), start + span)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for thread in threads {
        match thread.join() {
            Ok(own) => latencies.extend(own?),
            Err(_) => bail!("a thread panicked"),
        }
    }
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        let index = index.min(latencies.len().saturating_sub(1));
        latencies.get(index).map_or(0.0, |latency: &Duration| latency.as_secs_f64() * 1e6)
    };
    let answer = serde_json::json!({ "requests": latencies.len(), "p50_us": at(0.5), "p99_us": at(0.99) });
    println!("{answer}");
    Ok(())
}

/// The times at which requests are due, without end.
struct Arrivals {
    random: u64,
    rate: f64,
    due: Instant,
}

impl Arrivals {
    fn new(seed: u32, rate: f64, start: Instant) -> Self {
        // Any odd number does; the same seeds give the same arrivals to every proxy.
        Self { random: u64::from(seed) * 2 + 0x9e37_79b9_7f4a_7c15, rate, due: start }
    }

    /// Xorshift, and the exponential distribution of the time to the next arrival.
    fn next(&mut self) -> Instant {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let uniform = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        self.due += Duration::from_secs_f64(-(1.0 - uniform).ln() / self.rate);
        self.due
    }
}

fn one_connection(
    address: SocketAddr,
    path: &str,
    mut arrivals: Arrivals,
    end: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let mut buffer = vec![0; 16 * 1024];
    let mut latencies = Vec::new();
    loop {
        let due = arrivals.next();
        if due >= end {
            return Ok(latencies);
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(request.as_bytes())?;
        read_answer(&mut stream, &mut buffer)?;
        latencies.push(due.elapsed());
    }
}

/// Reads one whole answer, which must be a 200 with a content-length.
fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).context("no answer")?;
        if read == 0 {
            bail!("the connection was closed");
        }
        filled += read;
        if let Some(length) = answer_length(&buffer[..filled])? {
            if filled > length {
                bail!("more bytes than one answer");
            }
            if filled == length {
                return Ok(());
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
    use super::*;

    #[test]
    fn arrivals_have_the_asked_rate() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(3, 1000.0, start);
        let last = (0..100_000).map(|_| arrivals.next()).last().unwrap();
        let seconds = last.duration_since(start).as_secs_f64();
        assert!((seconds - 100.0).abs() < 3.0, "100,000 arrivals at 1,000 a second took {seconds} s");
    }

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(answer_length(answer).unwrap(), Some(answer.len()));
        assert_eq!(answer_length(&answer[..20]).unwrap(), None);
        assert!(answer_length(b"HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}

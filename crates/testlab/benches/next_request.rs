// SPDX-License-Identifier: Apache-2.0
//! From a written file to the next request that follows it: a controller, weft-node as a gateway and two origins
//! as processes on loopback, without root.
//!
//! `cargo build --release --workspace --bins && cargo bench -p weft-testlab --bench next_request -- 50`

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use weft_testlab::loopback::{HOST, Loopback};
use weft_testlab::peer::http::VERSION;

/// Changes, where none are asked for.
const CHANGES: u32 = 50;
/// Between two changes: longer than a stream of changes can put one off.
const PAUSE: Duration = Duration::from_millis(300);
/// A change that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let changes = env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(CHANGES);
    let loopback = Loopback::start()?;
    let mut client = Client::connect(loopback.address)?;
    let mut delays = Vec::new();
    let mut requests = Vec::new();
    set(&loopback, 0)?;
    wait_for(&mut client, 0)?;
    for change in 1..=changes {
        sleep(PAUSE);
        let begin = Instant::now();
        client.version()?;
        requests.push(begin.elapsed());
        let begin = Instant::now();
        set(&loopback, change)?;
        wait_for(&mut client, change)?;
        delays.push(begin.elapsed());
    }
    loopback.stop()?;
    println!("written file to the answer of the next request that follows it: {}", spread(delays));
    println!("one such request alone: {}", spread(requests));
    Ok(())
}

/// All requests go to one version and then to the other.
fn set(loopback: &Loopback, change: u32) -> anyhow::Result<()> {
    loopback.set_weights(change % 2, 1 - change % 2)
}

fn wait_for(client: &mut Client, change: u32) -> anyhow::Result<()> {
    let wanted = if change % 2 == 1 { "v1" } else { "v2" };
    let begin = Instant::now();
    while client.version()? != wanted {
        ensure!(begin.elapsed() < LONGEST, "change {change} is not followed");
    }
    Ok(())
}

fn spread(mut durations: Vec<Duration>) -> String {
    durations.sort();
    let (least, most) = (durations.first().copied(), durations.last().copied());
    let middle = durations.get(durations.len() / 2).copied();
    let of = |duration: Option<Duration>| format!("{:.2?}", duration.unwrap_or_default());
    format!("min {}, median {}, max {} of {}", of(least), of(middle), of(most), durations.len())
}

/// One connection with keep-alive, over which one request follows the other.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LONGEST))?;
        Ok(Client { stream, read: Vec::new() })
    }

    /// Which version answers a request.
    fn version(&mut self) -> anyhow::Result<String> {
        write!(self.stream, "GET /pay HTTP/1.1\r\nhost: {HOST}\r\n\r\n")?;
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            self.more()?;
        };
        let head = String::from_utf8(self.read[..end].to_vec())?;
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let length: usize = field("content-length").context("an answer without length")?.parse()?;
        while self.read.len() < end + length {
            self.more()?;
        }
        self.read.drain(..end + length);
        field(VERSION).with_context(|| format!("no version answers, but {head}"))
    }

    fn more(&mut self) -> anyhow::Result<()> {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes)?;
        ensure!(count > 0, "the gateway has closed the connection");
        self.read.extend_from_slice(&bytes[..count]);
        Ok(())
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Opens connections one after the other and measures each `connect(2)`; or takes them.
//!
//! Usage: `weft-bench-connect to ADDRESS COUNT` prints `{"p50_us": ..., "p99_us": ...}`;
//! `weft-bench-connect listen ADDRESS` prints `ready ADDRESS` and closes what it accepts.

use std::env;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["to", address, count] => measure(address.parse()?, count.parse()?),
        ["listen", address] => listen(address.parse()?),
        _ => bail!("usage: weft-bench-connect to ADDRESS COUNT | listen ADDRESS"),
    }
}

fn measure(address: SocketAddr, count: usize) -> anyhow::Result<()> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        times.push(start.elapsed());
        // The server closes first, so that the state TIME_WAIT, and its port, stay on its side.
        let read = stream.read(&mut [0; 16])?;
        if read != 0 {
            bail!("{address} is not the listener of this benchmark");
        }
    }
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    println!("{}", serde_json::json!({ "p50_us": at(0.5), "p99_us": at(0.99) }));
    Ok(())
}

fn listen(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    println!("ready {}", listener.local_addr()?);
    // The end of standard input asks us to stop.
    thread::spawn(|| {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        std::process::exit(0);
    });
    for stream in listener.incoming() {
        drop(stream);
    }
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0
//! What a worker does for a request, from its bytes to those of its answer: route, policy, metrics, record.
//!
//! Only its turns count, not the client and the origin, which are in the same process. With Valgrind:
//!
//! ```sh
//! cargo build -p weft-node-proxy --example turn_instructions --profile dist
//! valgrind --tool=callgrind --toggle-collect='*Turns*turn*' --callgrind-out-file=/tmp/out \
//!     target/dist/examples/turn_instructions http1 10000
//! ```
//!
//! The instructions that it prints, divided by the requests; `callgrind_annotate --inclusive=yes /tmp/out` has them
//! by function.

#[path = "../tests/cost/lab.rs"]
mod lab;

use lab::{Lab, Protocol};

/// Connections of clients, and requests under way on each with HTTP/2, as the benchmark of the whole proxy counts
/// instructions.
const CLIENTS: usize = 4;
const STREAMS: usize = 8;

/// What the tests count is counted by Valgrind here.
pub(crate) fn counted<T>(does: impl FnOnce() -> T) -> (T, usize, isize) {
    (does(), 0, 0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (protocol, at_once) = match arguments.next().as_deref() {
        Some("http1") => (Protocol::Http1, 1),
        Some("http2") => (Protocol::Http2, STREAMS),
        _ => return Err("usage: turn_instructions http1|http2 [REQUESTS]".into()),
    };
    let requests: usize = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let mut lab = Lab::new(protocol);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| lab.open()).collect();
    let rounds = requests.div_ceil(CLIENTS * at_once);
    (0..rounds).for_each(|_| lab.ask_at_once(&mut clients, at_once));
    println!("{} requests", rounds * CLIENTS * at_once);
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0
//! Questions to a daemon's admin socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The longest answer.
const MAX_ANSWER: u64 = 64 << 20;

/// The body of the answer to a GET; an error unless the status is 200.
pub fn get(socket: &Path, path: &str) -> anyhow::Result<String> {
    let shown = || format!("{path} of {}", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(shown)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    // An answer to HTTP/1.0 ends with the connection and has no chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: weft\r\n\r\n").with_context(shown)?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).with_context(shown)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{}: no answer", shown()))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{}: {status}: {body}", shown());
    }
    Ok(body.to_owned())
}

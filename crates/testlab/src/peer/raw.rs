// SPDX-License-Identifier: Apache-2.0
//! Sends bytes as they are, for requests that no proper client makes, and tells what comes back.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// How many bytes are read at most.
const MAX_ANSWER: u64 = 1 << 20;

/// What is sent, and how.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The server.
    address: SocketAddr,
    /// What to send; `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH` are escapes.
    #[arg(long, allow_hyphen_values = true)]
    text: String,
    /// Repeats the text this many times.
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// Sends this after the text, for example the end of a header.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    then: String,
    /// Sends this once the first bytes have come back, for example what follows an upgrade.
    #[arg(long, allow_hyphen_values = true)]
    after_answer: Option<String>,
    /// Sends one byte, then waits this long, in milliseconds.
    #[arg(long, value_parser = super::milliseconds)]
    slow_ms: Option<Duration>,
    /// Closes our direction after the last byte.
    #[arg(long)]
    half_close: bool,
    /// How long to read for, in milliseconds; less when the server closes.
    #[arg(long, default_value = "1000", value_parser = super::milliseconds)]
    read_ms: Duration,
}

/// What came back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The bytes, as text.
    pub text: String,
    /// The server closed the connection.
    pub closed: bool,
    /// Why not all was sent or read.
    pub error: Option<String>,
}

/// Sends, reads and prints the [`Answer`].
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut bytes = unescape(&options.text)?.repeat(options.times);
    bytes.extend(unescape(&options.then)?);
    let after_answer = options.after_answer.as_deref().map(unescape).transpose()?;
    let stream = TcpStream::connect(options.address).await.context("connect")?;
    let (mut read, mut write) = stream.into_split();
    let mut answer = Answer::default();
    let mut received = Vec::new();
    let answered = Notify::new();
    let sending = async {
        match options.slow_ms {
            None => write.write_all(&bytes).await?,
            Some(pause) => {
                for byte in bytes.chunks(1) {
                    write.write_all(byte).await?;
                    tokio::time::sleep(pause).await;
                }
            }
        }
        if let Some(bytes) = after_answer {
            tokio::time::timeout(options.read_ms, answered.notified()).await?;
            write.write_all(&bytes).await?;
        }
        if options.half_close {
            write.shutdown().await?;
        }
        std::io::Result::Ok(())
    };
    let reading = tokio::time::timeout(options.read_ms, async {
        let mut bounded = (&mut read).take(MAX_ANSWER);
        while bounded.read_buf(&mut received).await? > 0 {
            answered.notify_one();
        }
        std::io::Result::Ok(())
    });
    let (sent, read) = tokio::join!(sending, reading);
    answer.error = sent.err().map(|error| format!("send: {error}"));
    match read {
        Ok(Ok(())) => answer.closed = true,
        Ok(Err(error)) => answer.error = Some(format!("read: {error}")),
        Err(_) => {}
    }
    answer.text = String::from_utf8_lossy(&received).into_owned();
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}

fn unescape(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let Some((&kind, tail)) = rest.split_first() else { bail!("the text ends in an escape") };
        rest = tail;
        bytes.push(match kind {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let digits = rest.get(..2).context("\\x needs two digits")?;
                rest = &rest[2..];
                u8::from_str_radix(std::str::from_utf8(digits)?, 16)?
            }
            other => bail!("no such escape: \\{}", char::from(other)),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_bytes() {
        assert_eq!(unescape(r"a\r\n\x00\\\0").unwrap(), b"a\r\n\0\\\0");
    }

    #[test]
    fn an_unknown_escape_is_an_error() {
        assert!(unescape(r"\q").is_err());
        assert!(unescape(r"\x1").is_err());
        assert!(unescape("\\").is_err());
    }
}

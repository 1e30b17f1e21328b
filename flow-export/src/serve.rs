// SPDX-License-Identifier: Apache-2.0
//! The stream of flows that the admin endpoint serves at `/flows` and `weft observe` reads.
//!
//! One JSON value a line: `{"flow":{...}}`, or `{"lost":{"count":17}}` where the reader was too slow.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::mpsc;
use weft_time::{Timestamp, TimestampError};

use crate::{Filter, FilterError, Flow, FlowReader, FlowRing, Read};

/// Bytes that are sent in one piece, about.
const CHUNK_BYTES: usize = 16 * 1024;
/// Pieces on their way to a client; a client that does not read them holds no more than this.
const CHUNKS: usize = 4;
/// How long a client may leave its pieces unread before it is let go.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// Flows that are read before other tasks of the thread get their turn.
const TURN: usize = 512;

/// Hubble's default without `--last`, `--since` or `--follow`.
pub const DEFAULT_LAST: usize = 20;

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A flow.
    Flow(Box<Flow>),
    /// Flows that the reader missed.
    Lost {
        /// How many.
        count: u64,
    },
}

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct FlowQuery {
    /// Conditions.
    pub filter: Filter,
    /// How many of the last matching flows to begin with; all that are kept when absent.
    pub last: Option<usize>,
    /// Nothing before this.
    pub since: Option<Timestamp>,
    /// Go on with new flows.
    pub follow: bool,
}

/// A query that is not understood.
#[derive(Debug, Error)]
pub enum QueryError {
    /// A filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// `since` is no time.
    #[error(transparent)]
    Since(#[from] TimestampError),
    /// Another parameter.
    #[error("`{value}` is no value for `{name}` in the query of flows")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: String,
    },
    /// Text that is not percent-encoded UTF-8.
    #[error("the query of flows is not percent-encoded UTF-8")]
    Encoding,
}

impl FlowQuery {
    /// Reads the query part of a URL: filters by name, repeated for several values, and `last`, `since`
    /// and `follow`.
    ///
    /// # Errors
    /// When a parameter is not known or its value does not fit.
    pub fn parse(query: &str) -> Result<FlowQuery, QueryError> {
        let mut parsed = FlowQuery::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            let refuse = |name| QueryError::Value { name, value: value.clone() };
            match name.as_str() {
                "last" => parsed.last = Some(value.parse().map_err(|_ignored| refuse("last"))?),
                "since" => parsed.since = Some(value.parse()?),
                "follow" => match value.as_str() {
                    "" | "true" => parsed.follow = true,
                    "false" => parsed.follow = false,
                    _ => return Err(refuse("follow")),
                },
                name => parsed.filter.add(name, &value)?,
            }
        }
        if parsed.last.is_none() && parsed.since.is_none() {
            parsed.last = Some(if parsed.follow { 0 } else { DEFAULT_LAST });
        }
        Ok(parsed)
    }
}

/// The stream for one client: the pieces of the body, and the task that makes them. The task ends when the
/// receiver is dropped, when all is sent and nothing is to follow, or when the client stops reading.
pub fn serve(
    ring: &FlowRing,
    query: FlowQuery,
) -> (mpsc::Receiver<Bytes>, impl Future<Output = ()> + Send + use<>) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let reader = ring.reader(query.last.unwrap_or(usize::MAX), &query.filter);
    (receiver, async move { stream(reader, &query, &sender).await })
}

async fn stream(mut reader: FlowReader, query: &FlowQuery, sender: &mpsc::Sender<Bytes>) {
    // Without `follow` the stream ends with what was there when it began, also on a busy node.
    let mut left = if query.follow { u64::MAX } else { reader.unread() };
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    while left > 0 {
        let mut turn = 0;
        while chunk.len() < CHUNK_BYTES && turn < TURN && left > 0 {
            let Some(read) = reader.try_next() else { break };
            left -= match &read {
                Read::Flow(_) => 1,
                Read::Lost(count) => (*count).min(left),
            };
            append(&mut chunk, read, query);
            turn += 1;
        }
        if !chunk.is_empty() && send(sender, chunk.split().freeze()).await.is_err() {
            return;
        }
        if turn == 0 {
            if !query.follow {
                return;
            }
            tokio::select! {
                read = reader.next() => append(&mut chunk, read, query),
                () = sender.closed() => return,
            }
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// Why a stream ended early.
struct Gone;

async fn send(sender: &mpsc::Sender<Bytes>, chunk: Bytes) -> Result<(), Gone> {
    match tokio::time::timeout(CLIENT_PATIENCE, sender.send(chunk)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

fn append(chunk: &mut BytesMut, read: Read, query: &FlowQuery) {
    let written = match read {
        Read::Lost(count) => serde_json::to_writer(chunk.writer(), &LineRef::Lost { count }),
        Read::Flow(flow) if wanted(&flow, query) => {
            serde_json::to_writer(chunk.writer(), &LineRef::Flow(&flow))
        }
        Read::Flow(_) => return,
    };
    // Flows have only fields that JSON can say, and memory takes every byte.
    debug_assert!(written.is_ok());
    chunk.put_u8(b'\n');
}

fn wanted(flow: &Flow, query: &FlowQuery) -> bool {
    query.since.is_none_or(|since| flow.time >= since) && query.filter.matches(flow)
}

/// [`Line`] without a copy of the flow.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum LineRef<'a> {
    Flow(&'a Flow),
    Lost { count: u64 },
}

/// Percent-encodes a value for a query.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn decode(text: &str) -> Result<String, QueryError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                let value = high.zip(low).map(|(high, low)| high * 16 + low).ok_or(QueryError::Encoding)?;
                // Two hexadecimal digits are at most 255.
                value as u8
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_ignored| QueryError::Encoding)
}

#[cfg(test)]
mod tests;

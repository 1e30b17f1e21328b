// SPDX-License-Identifier: Apache-2.0
//! A client of our own, for single requests: connections that then stay idle, and what a proxy changes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// How long an answer may take; under valgrind the first one takes long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A field of a message's head: its name in lower case, and its value.
pub(crate) type Field = (String, String);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<Field>,
    pub(crate) body: Vec<u8>,
}

/// Opens an HTTP/1.1 connection and reads the answer to one request without a body.
pub(crate) fn http1(address: SocketAddr, method: &str, path: &str) -> anyhow::Result<(TcpStream, Answer)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: weft-bench\r\n\r\n")?;
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).context("no answer")?;
        if read == 0 {
            bail!("the proxy closed the connection: {}", String::from_utf8_lossy(&received));
        }
        received.extend_from_slice(&chunk[..read]);
        if let Some(answer) = http1_answer(&received)? {
            return Ok((stream, answer));
        }
    }
}

/// The answer, once it is complete.
fn http1_answer(received: &[u8]) -> anyhow::Result<Option<Answer>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&received[..end]);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    let fields = fields(&head);
    let body = received[end + 4..].to_vec();
    let length = fields.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse());
    match length.transpose()? {
        Some(length) if body.len() < length => Ok(None),
        Some(_) => Ok(Some(Answer { status, fields, body })),
        None => bail!("an answer without a length: {head}"),
    }
}

/// The fields behind the first line of a head.
pub(crate) fn fields(head: &str) -> Vec<Field> {
    let field = |line: &str| {
        // The pseudo-fields of HTTP/2 begin with a colon.
        let colon = line.get(1..)?.find(':')? + 1;
        Some((line[..colon].to_ascii_lowercase(), line[colon + 1..].trim().to_owned()))
    };
    head.lines().skip(1).filter_map(field).collect()
}

/// A client of HTTP/2, whose connections live as long as it.
#[derive(Debug)]
pub(crate) struct Http2 {
    runtime: Runtime,
    connections: Vec<SendRequest<Bytes>>,
}

impl Http2 {
    /// A client without connections.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, connections: Vec::new() })
    }

    /// Opens a connection and reads the answer to one request without a body.
    pub(crate) fn ask(&mut self, address: SocketAddr, method: &str, path: &str) -> anyhow::Result<Answer> {
        let exchange = async { timeout(PATIENCE, http2(address, method, path)).await.context("no answer")? };
        let (connection, answer) = self.runtime.block_on(exchange)?;
        self.connections.push(connection);
        Ok(answer)
    }
}

async fn http2(
    address: SocketAddr,
    method: &str,
    path: &str,
) -> anyhow::Result<(SendRequest<Bytes>, Answer)> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (client, connection) = h2::client::handshake(stream).await?;
    // An error of the connection shows in its streams.
    tokio::spawn(async move { connection.await.unwrap_or(()) });
    let mut client = client.ready().await?;
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .header("user-agent", "weft-bench")
        .body(())?;
    let (answer, _) = client.send_request(request, true)?;
    let (head, mut inbound) = answer.await?.into_parts();
    let value = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = head.headers.iter().map(|(name, text)| (name.as_str().to_owned(), value(text))).collect();
    let mut body = Vec::new();
    while let Some(chunk) = inbound.data().await {
        let chunk = chunk?;
        inbound.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok((client, Answer { status: head.status.as_u16(), fields, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: a:b\r\n\r\nabc";
        assert!(http1_answer(&answer[..answer.len() - 1]).unwrap().is_none());
        let read = http1_answer(answer).unwrap().unwrap();
        assert_eq!((read.status, read.body.as_slice()), (200, &b"abc"[..]));
        assert_eq!(read.fields[1], ("x".to_owned(), "a:b".to_owned()));
        assert!(http1_answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn pseudo_fields_have_their_colon_in_the_name() {
        let fields = fields("GET / HTTP/2\r\n:scheme: http\r\nte: trailers\r\n\r\n");
        let expected = [(":scheme", "http"), ("te", "trailers")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(fields, expected);
    }
}

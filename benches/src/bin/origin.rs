// SPDX-License-Identifier: Apache-2.0
//! `weft-bench-origin`: the origin behind every proxy, one thread. It must cost little, since it shares its
//! core with the load generator. What it answers to which path is in `traffic.rs`.

use std::env;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_benches::traffic;

/// Largest request head that is read.
const MAX_HEAD: usize = 16 * 1024;
/// Largest body of an answer.
const MAX_BODY: usize = 4 * 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let addresses: Vec<String> = env::args().skip(1).collect();
    let [http1, http2] = addresses.as_slice() else {
        bail!("usage: weft-bench-origin HTTP1_ADDRESS HTTP2_ADDRESS");
    };
    let http1 = TcpListener::bind(http1).await.with_context(|| format!("cannot listen on {http1}"))?;
    let http2 = TcpListener::bind(http2).await.with_context(|| format!("cannot listen on {http2}"))?;
    let filler = Bytes::from(vec![b'x'; MAX_BODY]);
    loop {
        tokio::select! {
            accepted = http1.accept() => spawn_http1(accepted?.0, filler.clone()),
            accepted = http2.accept() => spawn_http2(accepted?.0, filler.clone()),
        }
    }
}

// A connection that breaks ends alone; the proxy under test reports it.
fn spawn_http1(stream: TcpStream, filler: Bytes) {
    tokio::spawn(async move { Http1::new(stream, filler).serve().await.unwrap_or(()) });
}

fn spawn_http2(stream: TcpStream, filler: Bytes) {
    tokio::spawn(async move { serve_http2(stream, filler).await.unwrap_or(()) });
}

/// One connection.
struct Http1 {
    stream: TcpStream,
    filler: Bytes,
    small: Vec<u8>,
    buffer: Vec<u8>,
    filled: usize,
}

/// What matters of a request's head.
struct Head {
    /// With the empty line.
    length: usize,
    body: usize,
    close: bool,
}

impl Http1 {
    fn new(stream: TcpStream, filler: Bytes) -> Self {
        let small =
            [answer_head(traffic::SMALL_ANSWER).as_bytes(), &filler[..traffic::SMALL_ANSWER]].concat();
        Self { stream, filler, small, buffer: vec![0; MAX_HEAD], filled: 0 }
    }

    async fn serve(mut self) -> anyhow::Result<()> {
        self.stream.set_nodelay(true)?;
        loop {
            let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            self.filled += read;
            while let Some(head) = request_head(&self.buffer[..self.filled])? {
                let close = head.close;
                self.answer(head).await?;
                if close {
                    return Ok(());
                }
            }
            if self.filled == self.buffer.len() {
                bail!("request head of more than {MAX_HEAD} bytes");
            }
        }
    }

    /// Answers one request, and moves what is behind it to the start of the buffer.
    async fn answer(&mut self, head: Head) -> anyhow::Result<()> {
        let request = &self.buffer[..head.length];
        if path_is(request, traffic::SEEN) {
            let seen = request.to_vec();
            self.consume(head.length + head.body).await?;
            self.stream.write_all(&[answer_head(seen.len()).as_bytes(), &seen].concat()).await?;
        } else if path_is(request, traffic::ECHO) {
            self.consume(head.length + head.body).await?;
            self.stream.write_all(answer_head(head.body).as_bytes()).await?;
            let body = self.filler.get(..head.body).context("request body too large")?;
            self.stream.write_all(body).await?;
        } else {
            self.consume(head.length + head.body).await?;
            self.stream.write_all(&self.small).await?;
        }
        Ok(())
    }

    /// Drops a request of this length, of which the rest is still to be read.
    async fn consume(&mut self, length: usize) -> anyhow::Result<()> {
        let mut missing = length.saturating_sub(self.filled);
        self.buffer.copy_within(length.min(self.filled)..self.filled, 0);
        self.filled = self.filled.saturating_sub(length);
        let mut chunk = if missing > 0 { vec![0; 64 * 1024] } else { Vec::new() };
        while missing > 0 {
            let room = chunk.len().min(missing);
            let read = self.stream.read(&mut chunk[..room]).await?;
            if read == 0 {
                bail!("the request ended early");
            }
            missing -= read;
        }
        Ok(())
    }
}

/// The head of the first request; none when it is not complete.
fn request_head(bytes: &[u8]) -> anyhow::Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = bytes[..end].to_ascii_lowercase();
    let value = |name: &[u8]| {
        let start = head.windows(name.len()).position(|window| window == name)? + name.len();
        let rest = &head[start..];
        let end = rest.iter().position(|byte| *byte == b'\r').unwrap_or(rest.len());
        std::str::from_utf8(&rest[..end]).ok().map(str::trim)
    };
    if value(b"\r\ntransfer-encoding:").is_some() {
        bail!("a request body without a length");
    }
    let body = value(b"\r\ncontent-length:").map_or(Ok(0), str::parse).context("content-length")?;
    let close = value(b"\r\nconnection:").is_some_and(|value| value == "close");
    Ok(Some(Head { length: end + 4, body, close }))
}

fn path_is(request: &[u8], path: &str) -> bool {
    let mut words = request.split(|byte| *byte == b' ');
    words.nth(1) == Some(path.as_bytes())
}

fn answer_head(body: usize) -> String {
    let date = traffic::DATE;
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: {date}\r\ncontent-length: {body}\r\n\r\n"
    )
}

async fn serve_http2(stream: TcpStream, filler: Bytes) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(1000)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .handshake::<_, Bytes>(stream)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let filler = filler.clone();
        tokio::spawn(async move { answer_http2(request, respond, filler).await.unwrap_or(()) });
    }
    Ok(())
}

async fn answer_http2(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    filler: Bytes,
) -> anyhow::Result<()> {
    let (head, mut body) = request.into_parts();
    let answer = Response::builder()
        .header("content-type", "application/grpc")
        .header("date", traffic::DATE)
        .body(())?;
    let mut stream;
    if head.uri.path() == traffic::GRPC_STREAM {
        stream = respond.send_response(answer, false)?;
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            // Envoy takes empty frames for a flood when several streams end together.
            if !chunk.is_empty() {
                stream.send_data(chunk, false)?;
            }
        }
    } else {
        let mut received = 0;
        while let Some(chunk) = body.data().await {
            let length = chunk?.len();
            received += length;
            body.flow_control().release_capacity(length)?;
        }
        stream = respond.send_response(answer, false)?;
        let answer = match head.uri.path() {
            traffic::GRPC_ECHO if received <= filler.len() => filler.slice(..received),
            traffic::GRPC_ECHO => bail!("request body too large"),
            traffic::GRPC_SEEN => Bytes::from(seen_http2(&head)),
            _ => Bytes::copy_from_slice(&traffic::message()),
        };
        stream.send_data(answer, false)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)?;
    Ok(())
}

/// The head of the request, a field to a line, as [`traffic::SEEN`] has it for HTTP/1.1.
fn seen_http2(head: &http::request::Parts) -> String {
    let authority = head.uri.authority().map_or("", |authority| authority.as_str());
    let scheme = head.uri.scheme_str().unwrap_or_default();
    let mut seen = format!("{} {} HTTP/2\r\n", head.method, head.uri.path());
    seen.push_str(&format!(":authority: {authority}\r\n:scheme: {scheme}\r\n"));
    for (name, value) in &head.headers {
        seen.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
    }
    seen + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_long_its_request_is() {
        let head = |text: &str| request_head(text.as_bytes());
        let post =
            head("POST /api/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 70\r\n\r\nxx").unwrap().unwrap();
        assert_eq!((post.length, post.body, post.close), (56, 70, false));
        assert!(head("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap().unwrap().close);
        assert!(head("GET / HTTP/1.1\r\nhost").unwrap().is_none());
        assert!(head("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}

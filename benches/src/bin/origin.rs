// SPDX-License-Identifier: Apache-2.0
//! The origin behind every proxy: one thread, a fixed 1 KB answer by HTTP/1.1, a small gRPC-like answer
//! with trailers by HTTP/2. It must cost little, since it shares its core with the load generator.
//!
//! Usage: `weft-bench-origin HTTP1_ADDRESS HTTP2_ADDRESS`

use std::env;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Body of the HTTP/1.1 answer, in bytes.
const BODY: usize = 1024;
/// A gRPC message of 105 bytes with its 5-byte prefix.
const MESSAGE: usize = 110;
/// Largest request head that is read.
const MAX_HEAD: usize = 16 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let addresses: Vec<String> = env::args().skip(1).collect();
    let [http1, http2] = addresses.as_slice() else {
        bail!("usage: weft-bench-origin HTTP1_ADDRESS HTTP2_ADDRESS");
    };
    let http1 = TcpListener::bind(http1).await.with_context(|| format!("cannot listen on {http1}"))?;
    let http2 = TcpListener::bind(http2).await.with_context(|| format!("cannot listen on {http2}"))?;
    loop {
        tokio::select! {
            accepted = http1.accept() => spawn_http1(accepted?.0),
            accepted = http2.accept() => spawn_http2(accepted?.0),
        }
    }
}

// A connection that breaks ends alone; the proxy under test reports it.
fn spawn_http1(stream: TcpStream) {
    tokio::spawn(async move { serve_http1(stream).await.unwrap_or(()) });
}

fn spawn_http2(stream: TcpStream) {
    tokio::spawn(async move { serve_http2(stream).await.unwrap_or(()) });
}

async fn serve_http1(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let answer = http1_answer();
    let mut buffer = vec![0; MAX_HEAD];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut start = 0;
        while let Some(end) = request_end(&buffer[start..filled])? {
            start += end;
            stream.write_all(&answer).await?;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        if filled == buffer.len() {
            bail!("request head of more than {MAX_HEAD} bytes");
        }
    }
}

/// Where the first request ends; none when it is not complete. The load has no request bodies.
fn request_end(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = bytes[..end].to_ascii_lowercase();
    let has = |name: &[u8]| head.windows(name.len()).any(|window| window == name);
    if has(b"\r\ntransfer-encoding:") || has(b"\r\ncontent-length:") && !has(b"\r\ncontent-length: 0") {
        bail!("request with a body");
    }
    Ok(Some(end + 4))
}

fn http1_answer() -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {BODY}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + BODY, b'x');
    answer
}

async fn serve_http2(stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut connection =
        h2::server::Builder::new().max_concurrent_streams(1000).handshake::<_, Bytes>(stream).await?;
    let message = Bytes::from(vec![b'm'; MESSAGE]);
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let message = message.clone();
        tokio::spawn(async move { answer_http2(request, respond, message).await.unwrap_or(()) });
    }
    Ok(())
}

async fn answer_http2(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    message: Bytes,
) -> anyhow::Result<()> {
    let mut body = request.into_body();
    while let Some(chunk) = body.data().await {
        let length = chunk?.len();
        body.flow_control().release_capacity(length)?;
    }
    let head = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(message, false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)?;
    Ok(())
}

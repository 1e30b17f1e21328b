// SPDX-License-Identifier: Apache-2.0
//! Drives the server's side of one connection: read a head, ask the handler, write the response, again.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use http::{Method, StatusCode, Version};
use weft_ebpf_common::reason::Reason;

use super::{
    decode::{self, Decoded, Decoder},
    encode::{self, Encoder, ResponsePlan},
    fields::Length,
    parse::{self, Framing},
    scan::{HEAD_TOO_LARGE, HeadScan},
    server_body::{Conn, RequestBody},
    wire::Output,
};
use crate::{
    body::{Body, BodyError, Frame},
    config::ServerConfig,
    drain::Drain,
    error::ProtocolError,
    handler::{Handler, Served},
    io::{Io, RawStream, relay},
    message::{Delivery, OnUpgrade, Request, RequestHead, Response, ResponseHead},
};

/// Serves HTTP/1.1 until the connection ends. `input` was read already.
pub(crate) async fn serve<H: Handler>(
    io: Box<dyn Io>,
    input: BytesMut,
    config: Rc<ServerConfig>,
    handler: Rc<H>,
    drain: Drain,
) -> Served {
    let conn = Rc::new(RefCell::new(Conn::new(io, input, config)));
    let mut served = Served { requests: 0, failure: None };
    loop {
        let (head, framing) = match poll_fn(|cx| poll_head(&mut conn.borrow_mut(), cx, &drain)).await {
            Ok(next) => next,
            Err(NoHead::Close(failure)) => {
                served.failure = failure;
                return served;
            }
            Err(NoHead::Refuse(error)) => {
                handler.on_protocol_error(&error);
                served.failure = Some(error.reason);
                refuse(&conn, &error).await;
                return served;
            }
        };
        served.requests += 1;
        // On the heap, so that an idle connection does not keep room for it.
        match Box::pin(exchange(&conn, &*handler, &drain, head, framing)).await {
            Ok(Next::Request) => {}
            Ok(Next::Close) => {
                close(&conn).await;
                return served;
            }
            Ok(Next::Ended) => return served,
            Err(reason) => {
                served.failure = Some(reason);
                return served;
            }
        }
    }
}

/// Why there is no next request.
enum NoHead {
    Refuse(ProtocolError),
    Close(Option<Reason>),
}

impl From<ProtocolError> for NoHead {
    fn from(error: ProtocolError) -> Self {
        NoHead::Refuse(error)
    }
}

/// What follows an exchange.
enum Next {
    Request,
    /// Say that nothing more will come, and close.
    Close,
    /// The stream was handed over or is gone.
    Ended,
}

fn poll_head(
    conn: &mut Conn,
    cx: &mut Context<'_>,
    drain: &Drain,
) -> Poll<Result<(RequestHead, Framing), NoHead>> {
    loop {
        if let Some(len) = head_len(conn)? {
            return Poll::Ready(take_head(conn, len).map_err(NoHead::Refuse));
        }
        let idle = conn.wire.input.is_empty();
        if idle && drain.poll_draining(cx).is_ready() {
            return Poll::Ready(Err(NoHead::Close(None)));
        }
        let h1 = &conn.config.h1;
        let timeout = if idle { h1.idle_timeout } else { h1.head_timeout };
        let n = match conn.wire.poll_fill_timed(cx, timeout) {
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                let ending = if idle { NoHead::Close(None) } else { NoHead::Refuse(HEAD_TIMEOUT) };
                return Poll::Ready(Err(ending));
            }
            Poll::Ready(Err(_)) => 0,
            Poll::Pending => return Poll::Pending,
        };
        if n == 0 {
            // An end between requests fails nobody's request.
            let failure = (!idle).then_some(Reason::ClientReset);
            return Poll::Ready(Err(NoHead::Close(failure)));
        }
    }
}

/// The bytes of the head in the buffer, if it is complete.
fn head_len(conn: &mut Conn) -> Result<Option<usize>, ProtocolError> {
    let h1 = &conn.config.h1;
    if conn.wire.input.is_empty() {
        return Ok(None);
    }
    let mut len = conn.scan.section_len(&conn.wire.input)?;
    if len == Some(2) {
        // One empty line before a request is ignored (RFC 9112 section 2.2).
        conn.wire.input.advance(2);
        len = conn.scan.section_len(&conn.wire.input)?;
    }
    match len {
        Some(len) if len > h1.max_head_bytes => Err(HEAD_TOO_LARGE),
        Some(len) => Ok(Some(len)),
        None => {
            let buffered = conn.wire.input.len();
            conn.scan.check_limits(buffered, h1.max_head_bytes, h1.max_target_bytes, h1.max_headers)?;
            Ok(None)
        }
    }
}

fn take_head(conn: &mut Conn, len: usize) -> Result<(RequestHead, Framing), ProtocolError> {
    let bytes = decode::take(&mut conn.wire.input, len);
    let (head, framing) = parse::request(bytes, &conn.config.h1, &conn.config.scheme)?;
    conn.request += 1;
    conn.received = 0;
    conn.body_error = None;
    conn.wants_continue = framing.expects_continue;
    conn.decoder = match framing.length {
        Length::Unsaid => Decoder::Done,
        Length::Bytes(bytes) => Decoder::length(bytes),
        Length::Chunked => Decoder::chunked(),
    };
    conn.wire.read_timer.clear();
    Ok((head, framing))
}

const HEAD_TIMEOUT: ProtocolError = ProtocolError::new(
    Reason::RequestTimeout,
    StatusCode::REQUEST_TIMEOUT,
    "the head was not complete within the time allowed",
);

/// Answers a request that could not be read, and closes: what follows it cannot be trusted.
async fn refuse(conn: &Rc<RefCell<Conn>>, error: &ProtocolError) {
    let Some(status) = error.status else { return };
    let head = ResponseHead::new(status);
    let plan = ResponsePlan { is_head: false, version: Version::HTTP_11, close: true };
    encode::response(conn.borrow_mut().wire.output.tail(), &head, &plan, Encoder::Length(0), Some(0));
    close(conn).await;
}

/// Flushes, says that nothing more will come, and reads a little of what the client still sends: a
/// reset would take the response away from it (RFC 9112 section 9.6).
async fn close(conn: &Rc<RefCell<Conn>>) {
    let ended = poll_fn(|cx| {
        let conn = &mut *conn.borrow_mut();
        match conn.poll_flush(cx) {
            Poll::Ready(Ok(())) => conn.wire.poll_shutdown(cx),
            other => other,
        }
    });
    if ended.await.is_err() {
        return;
    }
    let mut budget = LINGER_BYTES;
    let linger = poll_fn(|cx| {
        let conn = &mut *conn.borrow_mut();
        loop {
            conn.wire.input.clear();
            match conn.wire.poll_fill(cx) {
                Poll::Ready(Ok(n)) if n > 0 && n < budget => budget -= n,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    // Running out of time is the expected end of a client that keeps its side open.
    tokio::time::timeout(LINGER_TIME, linger).await.unwrap_or_default();
}

/// What is read of a client after the last response.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

async fn exchange<H: Handler>(
    conn: &Rc<RefCell<Conn>>,
    handler: &H,
    drain: &Drain,
    head: RequestHead,
    framing: Framing,
) -> Result<Next, Reason> {
    let plan = ResponsePlan {
        is_head: head.method == Method::HEAD,
        version: head.version,
        close: !framing.keep_alive,
    };
    let request = conn.borrow().request;
    let offered_upgrade = head.upgrade.is_some();
    let body = match conn.borrow().decoder.is_done() {
        true => Body::empty(),
        false => Body::from_source(Box::new(RequestBody::new(conn.clone(), request))),
    };
    let response = {
        let mut call = Box::pin(handler.call(Request { head, body }));
        poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => conn.borrow_mut().poll_gone(cx).map(|()| Err(Reason::ClientReset)),
        })
        .await?
    };
    if response.head.status == StatusCode::SWITCHING_PROTOCOLS && offered_upgrade {
        return switch(conn, response).await;
    }
    respond(conn, drain, response, plan).await
}

async fn respond(
    conn: &Rc<RefCell<Conn>>,
    drain: &Drain,
    mut response: Response,
    mut plan: ResponsePlan,
) -> Result<Next, Reason> {
    if response.head.status.is_informational() {
        // A switch that nobody offered, or an interim status as the final one.
        response.head = ResponseHead::new(StatusCode::BAD_GATEWAY);
        response.body = Body::empty();
    }
    let length = response.body.content_length();
    let mut encoder = plan.encoder(response.head.status, length);
    plan.close |= response.close || drain.is_draining();
    let start = {
        let conn = &mut *conn.borrow_mut();
        plan.close |= !conn.can_drain();
        // An interim response may not follow the final one.
        conn.wants_continue = false;
        let start = conn.wire.output.sent;
        encode::response(conn.wire.output.tail(), &response.head, &plan, encoder, length);
        start
    };
    let written = write_body(conn, &mut response.body, &mut encoder).await;
    // The upstream's connection goes back to its pool, or is closed, before the client's next request.
    drop(response.body);
    if let Some(observer) = response.observer {
        let conn = conn.borrow();
        let sent_bytes = written.content.min(conn.wire.output.sent - start);
        observer.delivered(Delivery { sent_bytes, received_bytes: conn.received, failure: written.failure });
    }
    if let Some(reason) = written.failure {
        return Err(reason);
    }
    conn.borrow_mut().request += 1;
    if plan.close || !drain_request(conn).await {
        return Ok(Next::Close);
    }
    Ok(Next::Request)
}

struct Written {
    /// Content bytes that were taken from the body.
    content: u64,
    failure: Option<Reason>,
}

/// Writes the content, several pieces at once where they are there.
async fn write_body(conn: &Rc<RefCell<Conn>>, body: &mut Body, encoder: &mut Encoder) -> Written {
    let mut content = 0;
    let failure = loop {
        let frame = match *encoder == Encoder::None || body.is_end() {
            true => None,
            false => match poll_fn(|cx| poll_frame_or_flush(conn, body, cx)).await {
                Ok(frame) => frame,
                Err(reason) => break Some(reason),
            },
        };
        let pushed = push_frame(&mut conn.borrow_mut().wire.output, encoder, frame, &mut content);
        match pushed {
            Pushed::End(failure) => break failure,
            Pushed::More => {}
            Pushed::Full => {
                if let Err(error) = poll_fn(|cx| conn.borrow_mut().poll_flush(cx)).await {
                    break Some(write_failure(&error));
                }
            }
        }
    };
    let flushed = poll_fn(|cx| conn.borrow_mut().poll_flush(cx)).await;
    Written { content, failure: failure.or_else(|| flushed.err().as_ref().map(write_failure)) }
}

enum Pushed {
    More,
    /// Flush before the next frame.
    Full,
    End(Option<Reason>),
}

/// Queues one frame, or the end where there is none.
fn push_frame(out: &mut Output, encoder: &mut Encoder, frame: PolledFrame, content: &mut u64) -> Pushed {
    let complete = match frame {
        Some(Ok(Frame::Data(bytes))) => {
            *content += bytes.len() as u64;
            match encoder.data(out, bytes) {
                true if out.has_room() => return Pushed::More,
                true => return Pushed::Full,
                false => false,
            }
        }
        Some(Ok(Frame::Trailers(trailers))) => encoder.finish(out, Some(&trailers)),
        None => encoder.finish(out, None),
        Some(Err(error)) => return Pushed::End(Some(error.reason)),
    };
    Pushed::End((!complete).then_some(CUT_SHORT))
}

/// The body ended before its announced length, or went past it.
const CUT_SHORT: Reason = Reason::UpstreamReset;

type PolledFrame = Option<Result<Frame, BodyError>>;

/// The next frame; while there is none, what was written so far goes out.
fn poll_frame_or_flush(
    conn: &Rc<RefCell<Conn>>,
    body: &mut Body,
    cx: &mut Context<'_>,
) -> Poll<Result<PolledFrame, Reason>> {
    if let Poll::Ready(frame) = body.poll_frame(cx) {
        return Poll::Ready(Ok(frame));
    }
    let conn = &mut *conn.borrow_mut();
    if let Poll::Ready(Err(error)) = conn.poll_flush(cx) {
        return Poll::Ready(Err(write_failure(&error)));
    }
    conn.poll_gone(cx).map(|()| Err(Reason::ClientReset))
}

fn write_failure(error: &io::Error) -> Reason {
    tracing::trace!(%error, "response not written");
    Reason::ClientReset
}

/// Sends the 101 and hands the client's stream over.
async fn switch(conn: &Rc<RefCell<Conn>>, response: Response) -> Result<Next, Reason> {
    let Response { head, body, observer, on_upgrade, .. } = response;
    let received = {
        let conn = &mut *conn.borrow_mut();
        if !conn.decoder.is_done() {
            return Err(Reason::BadRequest);
        }
        encode::switching(conn.wire.output.tail(), &head);
        conn.received
    };
    let flushed = poll_fn(|cx| conn.borrow_mut().poll_flush(cx)).await;
    let failure = flushed.err().as_ref().map(write_failure);
    if let Some(observer) = observer {
        observer.delivered(Delivery { sent_bytes: 0, received_bytes: received, failure });
    }
    if let Some(reason) = failure {
        return Err(reason);
    }
    let client = conn.borrow_mut().wire.take_raw();
    let idle = conn.borrow().config.h1.idle_timeout;
    hand_over(client, body, on_upgrade, idle).await;
    Ok(Next::Ended)
}

async fn hand_over(client: RawStream, body: Body, on_upgrade: Option<OnUpgrade>, idle: Duration) {
    match (on_upgrade, body.into_upgraded()) {
        (Some(on_upgrade), _) => on_upgrade(client).await,
        (None, Ok(upstream)) => {
            let mut both = pin!(relay(client, upstream, idle));
            let (moved, ended) = both.as_mut().await;
            tracing::debug!(
                bytes_recv = moved.a_to_b,
                bytes_sent = moved.b_to_a,
                ?ended,
                "upgraded stream ended"
            );
        }
        (None, Err(_)) => {}
    }
}

impl Conn {
    /// Whether the rest of the request may be read away, so that the connection can be kept.
    fn can_drain(&self) -> bool {
        let small = self.decoder.remaining().is_none_or(|rest| rest <= self.config.h1.max_drain_bytes);
        // A client that waits for 100 may or may not send its body: nobody can tell what comes next.
        let settled = self.decoder.is_done() || !self.wants_continue;
        small && settled && self.body_error.is_none()
    }
}

/// Reads the rest of the request away. False if the connection cannot be kept.
async fn drain_request(conn: &Rc<RefCell<Conn>>) -> bool {
    if conn.borrow().decoder.is_done() {
        return conn.borrow().body_error.is_none();
    }
    conn.borrow_mut().scan = HeadScan::default();
    let mut budget = conn.borrow().config.h1.max_drain_bytes;
    let drained = poll_fn(|cx| {
        let conn = &mut *conn.borrow_mut();
        loop {
            match conn.decoder.decode(&mut conn.wire.input, &conn.config.h1) {
                Ok(Decoded::Data(bytes)) => match budget.checked_sub(bytes.len() as u64) {
                    Some(rest) => budget = rest,
                    None => return Poll::Ready(false),
                },
                Ok(Decoded::End | Decoded::Trailers(_)) => return Poll::Ready(true),
                Ok(Decoded::NeedMore) => match conn.wire.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                },
                Err(_) => return Poll::Ready(false),
            }
        }
    });
    let limit = conn.borrow().config.h1.head_timeout;
    tokio::time::timeout(limit, drained).await.unwrap_or(false)
}

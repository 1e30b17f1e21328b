// SPDX-License-Identifier: Apache-2.0
//! Drives machines over pieces of a stream, and writes down what they say.

use weft_http::{
    error::Error,
    h1::{Client, Event, Length, Limits, Server},
    head::{Head, Scheme},
};

use crate::support::{lines, request, respond, text};

/// What a machine said of a stream, pieces of content put together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Log(Vec<String>);

impl Log {
    fn note(&mut self, event: &Event<'_>, head: &Head) {
        match event {
            Event::Head => {
                let start = [head.method_text(), head.target(), head.authority().unwrap_or_default()];
                let start = start.map(text).join(" ");
                self.0.push(format!("{start} {} {:?} {:?}", head.status(), head.version(), lines(head)));
            }
            Event::Data(data) => match self.0.last_mut() {
                Some(last) if last.starts_with("data ") => last.push_str(&text_exact(data)),
                _ => self.0.push(format!("data {}", text_exact(data))),
            },
            Event::Trailers => self.0.push(format!("trailers {:?}", lines(head))),
            Event::End => self.0.push("end".to_owned()),
        }
    }
}

fn text_exact(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Drives a machine over pieces; every turn uses up bytes or gives an event, or the test fails.
fn drive(
    pieces: &[&[u8]],
    mut receive: impl FnMut(&[u8], &mut Log) -> Result<(usize, bool), Error>,
) -> (Log, Option<Error>, usize) {
    let (mut log, mut buffer) = (Log::default(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 10_000, "a loop");
            match receive(&buffer, &mut log) {
                Err(error) => return (log, Some(error), 0),
                Ok((used, more)) => {
                    assert!(used <= buffer.len());
                    buffer.drain(..used);
                    if !more {
                        break;
                    }
                }
            }
        }
    }
    (log, None, buffer.len())
}

pub(crate) fn serve(pieces: &[&[u8]]) -> (Log, Option<Error>, usize) {
    serve_beside(pieces, &[])
}

/// The same with one head for all, which other connections fill in between with these starts of theirs.
pub(crate) fn serve_beside(pieces: &[&[u8]], others: &[&[u8]]) -> (Log, Option<Error>, usize) {
    let limits = Limits { connect: true, ..Limits::default() };
    let mut server = Server::new(limits, Scheme::Http);
    let (mut head, mut out, mut others) = (Head::new(), Vec::new(), others.iter().cycle());
    drive(pieces, |input, log| {
        if let Some(other) = others.next() {
            // Whatever came of it.
            Server::new(limits, Scheme::Http).receive(other, &mut head).ok();
        }
        let (used, event) = server.receive(input, &mut head)?;
        if let Some(event) = event {
            log.note(&event, &head);
            if matches!(event, Event::End | Event::Trailers) {
                respond(&mut server, 200, b"x", &mut out);
            }
        }
        Ok((used, event.is_some()))
    })
}

pub(crate) fn ask(pieces: &[&[u8]], method: &str) -> (Log, Option<Error>, usize) {
    let mut client = Client::new(Limits::default());
    let mut out = Vec::new();
    client.send_head(&request(method, "/"), Length::Bytes(0), &mut out).expect("idle");
    drive(pieces, |input, log| {
        let mut head = Head::new();
        let (used, event) = client.receive(input, &mut head)?;
        if let Some(event) = event {
            log.note(&event, &head);
            if client.is_idle() {
                client.send_head(&request(method, "/"), Length::Bytes(0), &mut out).expect("idle");
            }
        }
        Ok((used, event.is_some()))
    })
}

/// The input in pieces of these lengths, used again and again.
pub(crate) fn cut<'a>(mut input: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for len in cuts.iter().cycle() {
        if input.is_empty() {
            break;
        }
        let (piece, rest) = input.split_at((*len).clamp(1, input.len()));
        pieces.push(piece);
        input = rest;
    }
    pieces
}

// SPDX-License-Identifier: Apache-2.0
//! A proxy between a client and one upstream, in memory.

use weft_http::{
    error::Error,
    h1::{Client, Event, Limits, Server},
    head::{Head, Scheme},
};

use crate::support::respond;

/// What came of the bytes of one client.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) upstream: Vec<u8>,
    pub(crate) answers: Vec<u8>,
    pub(crate) refused: Option<Error>,
    /// Requests whose heads went upstream, and those that did as a whole.
    pub(crate) requests: usize,
    pub(crate) complete: usize,
}

/// Sends everything to one upstream, which answers each request as soon as it is complete. The client sends
/// pieces of this many bytes.
pub(crate) fn proxy(input: &[u8], piece: usize) -> Outcome {
    let (mut server, mut client) =
        (Server::new(Limits::default(), Scheme::Http), Client::new(Limits::default()));
    let (mut outcome, mut buffer) = (Outcome::default(), Vec::new());
    for piece in input.chunks(piece) {
        buffer.extend_from_slice(piece);
        if let Err(error) = forward(&mut server, &mut client, &mut buffer, &mut outcome) {
            server.refuse(&error, &mut outcome.answers);
            outcome.refused = Some(error);
            break;
        }
    }
    outcome
}

fn forward(
    server: &mut Server,
    client: &mut Client,
    buffer: &mut Vec<u8>,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    loop {
        let mut head = Head::new();
        let (used, event) = server.receive(buffer, &mut head)?;
        let ended = match event {
            None => {
                buffer.drain(..used);
                return Ok(());
            }
            Some(Event::Head) => {
                outcome.requests += 1;
                client.send_head(&head, server.content_length(), &mut outcome.upstream)?;
                false
            }
            Some(Event::Data(data)) => {
                client.send_data(data, &mut outcome.upstream)?;
                false
            }
            Some(Event::Trailers) => {
                client.send_trailers(&head, &mut outcome.upstream)?;
                true
            }
            Some(Event::End) => {
                client.finish(&mut outcome.upstream)?;
                true
            }
        };
        buffer.drain(..used);
        if ended {
            outcome.complete += 1;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            let (used, _) = client.receive(answer, &mut head)?;
            client.receive(&answer[used..], &mut head)?;
            respond(server, 200, b"", &mut outcome.answers);
        }
    }
}

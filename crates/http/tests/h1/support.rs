// SPDX-License-Identifier: Apache-2.0
//! A connection whose peer is a script, and what came of it.

use weft_http::{
    error::Error,
    h1::{Client, Event, Length, Limits, Server},
    head::{Head, Name, Scheme, Value},
};

/// What one request or response brought.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) head: Head,
    pub(crate) content: Vec<u8>,
    pub(crate) trailers: Vec<String>,
}

impl Message {
    pub(crate) fn line(&self) -> String {
        format!("{} {}", text(self.head.method_text()), text(self.head.target()))
    }
}

/// A server's end that answers each complete request by a function.
pub(crate) struct Peer<F> {
    pub(crate) server: Server,
    pub(crate) input: Vec<u8>,
    pub(crate) out: Vec<u8>,
    pub(crate) seen: Vec<String>,
    pub(crate) error: Option<Error>,
    message: Message,
    answer: F,
}

impl<F: FnMut(&mut Server, &Message, &mut Vec<u8>)> Peer<F> {
    pub(crate) fn new(answer: F) -> Self {
        Peer::with(Limits::default(), answer)
    }

    pub(crate) fn with(limits: Limits, answer: F) -> Self {
        Peer {
            server: Server::new(limits, Scheme::Http),
            input: Vec::new(),
            out: Vec::new(),
            seen: Vec::new(),
            error: None,
            message: Message::default(),
            answer,
        }
    }

    /// Gives the bytes to the machine, and answers what they complete; what was written since.
    pub(crate) fn feed(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.input.extend_from_slice(bytes.as_ref());
        self.run();
        text(&std::mem::take(&mut self.out))
    }

    pub(crate) fn run(&mut self) {
        while self.error.is_none() {
            let mut head = Head::new();
            match self.server.receive(&self.input, &mut head) {
                Ok((used, event)) => {
                    let ended = match event {
                        None => {
                            self.input.drain(..used);
                            return;
                        }
                        Some(Event::Head) => {
                            self.message = Message { head, ..Message::default() };
                            self.seen.push(self.message.line());
                            false
                        }
                        Some(Event::Data(data)) => {
                            self.message.content.extend_from_slice(data);
                            false
                        }
                        Some(Event::Trailers) => {
                            self.message.trailers = lines(&head);
                            true
                        }
                        Some(Event::End) => true,
                    };
                    self.input.drain(..used);
                    if ended {
                        (self.answer)(&mut self.server, &self.message, &mut self.out);
                    }
                }
                Err(error) => {
                    self.server.refuse(&error, &mut self.out);
                    self.error = Some(error);
                }
            }
        }
    }
}

/// Answers with this status and content.
pub(crate) fn respond(server: &mut Server, status: u16, content: &[u8], out: &mut Vec<u8>) {
    server.send_head(&response(status), Length::Bytes(content.len() as u64), out).expect("a response is due");
    server.send_data(content, out).expect("as announced");
    server.finish(out).expect("as announced");
}

pub(crate) fn response(status: u16) -> Head {
    let mut head = Head::new();
    head.start_response(status).expect("a status");
    head
}

pub(crate) fn request(method: &str, target: &str) -> Head {
    let mut head = Head::new();
    head.start_request(method.as_bytes(), target.as_bytes(), b"a.example").expect("valid");
    head
}

pub(crate) fn add(head: &mut Head, name: &str, value: &str) {
    let name = Name::new(name.as_bytes()).expect("a name");
    head.append(&name, Value::new(value.as_bytes()).expect("a value")).expect("room");
}

/// Everything that a client's machine makes of the bytes, until they give nothing or an error.
pub(crate) fn read_response(client: &mut Client, input: &mut Vec<u8>) -> Result<(Vec<Message>, bool), Error> {
    let (mut messages, mut ended): (Vec<Message>, bool) = (Vec::new(), false);
    loop {
        let mut head = Head::new();
        let (used, event) = client.receive(input, &mut head)?;
        match event {
            None => {
                input.drain(..used);
                return Ok((messages, ended));
            }
            Some(Event::Head) => messages.push(Message { head, ..Message::default() }),
            Some(Event::Data(data)) => {
                if messages.is_empty() {
                    // Its head came before.
                    messages.push(Message::default());
                }
                messages.last_mut().expect("pushed").content.extend_from_slice(data);
            }
            Some(Event::Trailers) => {
                messages.last_mut().expect("a head").trailers = lines(&head);
                ended = true;
            }
            Some(Event::End) => ended = true,
        }
        input.drain(..used);
        if ended {
            return Ok((messages, ended));
        }
    }
}

pub(crate) fn lines(head: &Head) -> Vec<String> {
    head.iter().map(|(name, value)| text(&[name, b": ", value].concat())).collect()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

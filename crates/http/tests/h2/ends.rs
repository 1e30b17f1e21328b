// SPDX-License-Identifier: Apache-2.0
//! Our two ends as programs: a server that answers with what it got, and a client that asks and compares.

use std::collections::{BTreeMap, VecDeque};

use weft_http::{
    h2::{Config, Connection, ErrorCode, Event, OpenError, Received, StreamId},
    head::Head,
};

use crate::exchange::{Fields, Message, add_fields, answer_fields, own_fields};

/// A connection, and what its owner does with the events.
pub(crate) trait End {
    /// Does what needs no event.
    fn start(&mut self) {}
    fn connection(&mut self) -> (&mut Connection, &mut Head, &mut Vec<u8>);
    fn on(&mut self, event: Event<'_>);
    fn is_done(&self) -> bool;

    /// Takes what came; returns how much of it is done with.
    fn take(&mut self, mut input: &[u8]) -> usize {
        let length = input.len();
        loop {
            let (connection, head, out) = self.connection();
            let Received { consumed, event } = connection.receive(input, head, out);
            input = &input[consumed..];
            match event {
                Some(event) => self.on(event),
                None => break,
            }
        }
        self.start();
        length - input.len()
    }
}

/// Octets that are worth a frame.
const SMALLEST: usize = 1000;

/// Content that waits to be sent, and what comes behind it.
#[derive(Default)]
struct Outgoing {
    content: VecDeque<Vec<u8>>,
    /// Octets to release once a piece was sent.
    releases: bool,
    complete: bool,
    trailers: Option<Fields>,
    sent: bool,
}

impl Outgoing {
    /// Sends what is accepted.
    fn flush(&mut self, connection: &mut Connection, stream: StreamId, out: &mut Vec<u8>) {
        // The crate ends a connection on which many small frames come (`too_many_data_frames`).
        let waiting: usize = self.content.iter().map(Vec::len).sum();
        if !self.complete && waiting < SMALLEST {
            return;
        }
        let joined: Vec<u8> = self.content.drain(..).flatten().collect();
        self.content.extend((!joined.is_empty()).then_some(joined));
        while let Some(piece) = self.content.front_mut() {
            let Ok(accepted) = connection.send_data(stream, piece, false, out) else { return };
            if self.releases {
                connection.release(stream, accepted, out);
            }
            piece.drain(..accepted);
            if !piece.is_empty() {
                return;
            }
            self.content.pop_front();
        }
        if !self.complete || self.sent {
            return;
        }
        self.sent = true;
        match &self.trailers {
            None => assert_eq!(connection.send_data(stream, b"", true, out), Ok(0)),
            Some(fields) => {
                let mut head = Head::new();
                add_fields(&mut head, fields);
                connection.send_trailers(stream, &head, out).unwrap();
            }
        }
    }
}

/// Answers each request with what it got.
pub(crate) struct Echo {
    pub(crate) connection: Connection,
    head: Head,
    pub(crate) out: Vec<u8>,
    streams: BTreeMap<u32, (StreamId, Outgoing)>,
    next: u32,
    pub(crate) failure: Option<ErrorCode>,
}

impl Echo {
    pub(crate) fn new(config: &Config) -> Echo {
        let mut out = Vec::new();
        let connection = Connection::server(config, &mut out);
        Echo { connection, head: Head::new(), out, streams: BTreeMap::new(), next: 1, failure: None }
    }

    fn answer(&mut self, stream: StreamId, end: bool) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (method, path) = (text(self.head.method_text()), text(self.head.target()));
        let fields = answer_fields(&method, &path, &own_fields(&self.head));
        let mut head = Head::new();
        if path.len().is_multiple_of(3) {
            head.start_response(103).unwrap();
            self.connection.send_head(stream, &head, false, &mut self.out).unwrap();
        }
        head.start_response(200).unwrap();
        add_fields(&mut head, &fields);
        self.connection.send_head(stream, &head, end, &mut self.out).unwrap();
        let token = self.next;
        self.next += 1;
        if !end {
            self.connection.set_token(stream, token);
            self.streams.insert(token, (stream, Outgoing { releases: true, ..Outgoing::default() }));
        }
    }
}

impl End for Echo {
    fn connection(&mut self) -> (&mut Connection, &mut Head, &mut Vec<u8>) {
        (&mut self.connection, &mut self.head, &mut self.out)
    }

    fn is_done(&self) -> bool {
        false
    }

    fn on(&mut self, event: Event<'_>) {
        let token = match event {
            Event::Head { stream, end, .. } => return self.answer(stream, end),
            Event::Data { token, content, end, .. } => {
                if let Some((_, outgoing)) = self.streams.get_mut(&token) {
                    outgoing.content.push_back(content.to_vec());
                    outgoing.complete |= end;
                }
                token
            }
            Event::Trailers { token, .. } => {
                if let Some((_, outgoing)) = self.streams.get_mut(&token) {
                    outgoing.complete = true;
                    outgoing.trailers = Some(own_fields(&self.head));
                }
                token
            }
            Event::Window { token, .. } => token,
            Event::Reset { token, .. } => {
                self.streams.remove(&token);
                return;
            }
            Event::Closed { failure } => {
                self.failure = Some(failure.code);
                return;
            }
            Event::Rejected { stream, .. } => {
                if let Some(stream) = stream {
                    let mut head = Head::new();
                    head.start_response(431).unwrap();
                    self.connection.send_head(stream, &head, true, &mut self.out).unwrap();
                }
                return;
            }
            Event::Interim { .. } | Event::GoAway { .. } => return,
        };
        if let Some((stream, outgoing)) = self.streams.get_mut(&token) {
            outgoing.flush(&mut self.connection, *stream, &mut self.out);
            if outgoing.sent {
                self.streams.remove(&token);
            }
        }
    }
}

/// What a client got for one of its requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) interim: usize,
    pub(crate) fields: Fields,
    pub(crate) content: Vec<u8>,
    pub(crate) trailers: Option<Fields>,
    pub(crate) complete: bool,
    pub(crate) reset: Option<ErrorCode>,
    pub(crate) given_up: bool,
}

/// Asks for each message, as many at once as the server takes.
pub(crate) struct Asker {
    pub(crate) connection: Connection,
    head: Head,
    pub(crate) out: Vec<u8>,
    messages: Vec<Message>,
    /// Numbers of the messages that are not sent.
    waiting: VecDeque<u32>,
    streams: BTreeMap<u32, (StreamId, Outgoing)>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) failure: Option<ErrorCode>,
}

impl Asker {
    pub(crate) fn new(config: &Config, messages: Vec<Message>) -> Asker {
        let mut out = Vec::new();
        let connection = Connection::client(config, &mut out);
        let answers = messages.iter().map(|_| Answer::default()).collect();
        let (head, streams) = (Head::new(), BTreeMap::new());
        let waiting = (0..messages.len() as u32).collect();
        Asker { connection, head, out, messages, waiting, streams, answers, failure: None }
    }

    fn ask(&mut self) {
        if self.connection.pending().handshake {
            // The crate takes trailers of a request that it refused for an error of the connection.
            return;
        }
        while let Some(&token) = self.waiting.front() {
            let message = &self.messages[token as usize];
            let mut head = Head::new();
            head.start_request(message.method.as_bytes(), message.path.as_bytes(), b"a.test").unwrap();
            add_fields(&mut head, &message.fields);
            let end = message.content.is_empty() && message.trailers.is_none();
            let stream = match self.connection.open(&head, end, token, &mut self.out) {
                Ok(stream) => stream,
                Err(OpenError::Full | OpenError::Closing) => return,
                Err(error) => panic!("{error}"),
            };
            let content = message.content.chunks(message.piece).map(<[u8]>::to_vec).collect();
            let trailers = message.trailers.clone();
            let mut outgoing = Outgoing { content, trailers, complete: true, sent: end, releases: false };
            outgoing.flush(&mut self.connection, stream, &mut self.out);
            self.streams.insert(token, (stream, outgoing));
            self.waiting.pop_front();
        }
    }

    fn finish(&mut self, token: u32) {
        self.answers[token as usize].complete = true;
        self.close(token);
    }

    fn close(&mut self, token: u32) {
        // What is not sent is given up: the server has said all that it will.
        if let Some((stream, outgoing)) = self.streams.remove(&token)
            && !outgoing.sent
        {
            self.connection.reset(stream, ErrorCode::CANCEL, &mut self.out);
        }
        self.ask();
    }
}

impl End for Asker {
    fn start(&mut self) {
        self.ask();
    }

    fn connection(&mut self) -> (&mut Connection, &mut Head, &mut Vec<u8>) {
        (&mut self.connection, &mut self.head, &mut self.out)
    }

    fn is_done(&self) -> bool {
        self.failure.is_some() || (self.waiting.is_empty() && self.streams.is_empty())
    }

    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Interim { token, .. } => self.answers[token as usize].interim += 1,
            Event::Head { token, end, .. } => {
                let answer = &mut self.answers[token as usize];
                assert_eq!(answer.status, 0);
                answer.status = self.head.status();
                answer.fields = own_fields(&self.head);
                if end {
                    self.finish(token);
                }
            }
            Event::Data { stream, token, content, end } => {
                let answer = &mut self.answers[token as usize];
                answer.content.extend_from_slice(content);
                let give_up = self.messages[token as usize].given_up;
                if !end && give_up.is_some_and(|after| answer.content.len() > after) {
                    answer.given_up = true;
                    self.connection.reset(stream, ErrorCode::CANCEL, &mut self.out);
                    self.streams.remove(&token);
                    return self.ask();
                }
                self.connection.release(stream, content.len(), &mut self.out);
                if end {
                    self.finish(token);
                }
            }
            Event::Trailers { token, .. } => {
                self.answers[token as usize].trailers = Some(own_fields(&self.head));
                self.finish(token);
            }
            Event::Window { token, .. } => {
                if let Some((stream, outgoing)) = self.streams.get_mut(&token) {
                    outgoing.flush(&mut self.connection, *stream, &mut self.out);
                }
            }
            Event::Reset { token, failure, unprocessed, .. } => {
                self.streams.remove(&token);
                if unprocessed {
                    // The server had no place for it, and had not said so yet.
                    self.waiting.push_back(token);
                } else {
                    self.answers[token as usize].reset = Some(failure.code);
                }
                self.ask();
            }
            Event::Closed { failure } => self.failure = Some(failure.code),
            Event::GoAway { .. } => {}
            Event::Rejected { .. } => panic!("{event:?}"),
        }
        self.ask();
    }
}

/// Checks that each message was answered as it has to be.
pub(crate) fn check(messages: &[Message], answers: &[Answer]) {
    for (message, answer) in messages.iter().zip(answers) {
        assert_eq!((answer.status, answer.reset), (200, None), "{message:?} {answer:?}");
        assert_eq!(
            sorted(&answer.fields),
            sorted(&answer_fields(&message.method, &message.path, &message.fields))
        );
        if answer.given_up {
            assert!(message.content.starts_with(&answer.content));
            continue;
        }
        assert!(answer.complete, "{message:?}");
        assert!(answer.content == message.content, "{message:?}");
        // A block of trailers without fields is the same as none.
        let wanted = message.trailers.clone().unwrap_or_default();
        assert_eq!(sorted(&answer.trailers.clone().unwrap_or_default()), sorted(&wanted), "{message:?}");
    }
}

/// Fields of different names may change places in a map; those of one name keep their order.
pub(crate) fn sorted(fields: &Fields) -> Fields {
    let mut sorted = fields.clone();
    sorted.sort_by(|one, other| one.0.cmp(&other.0));
    sorted
}

// SPDX-License-Identifier: Apache-2.0
//! A worker whose turns and clock are moved by hand, and peers of it that say what they are told to: for what
//! depends on the order of events, and on deadlines that nobody wants to wait for.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::sync::mpsc;
use weft_ebpf_common::reason::Reason;
use weft_http::{
    h2::{Config, Connection, ErrorCode, Event, StreamId},
    head::{Head, Kind, Name, Value},
};
use weft_ir::{Resource, Snapshot};
use weft_node_proxy::{
    Compiler, DialConfig, Dialer, Ends, Entrance, Limits, MeshState, Records, Turns, Worker, WorkerMetrics,
    WorkerParts, ring,
};

use crate::support::listener;

/// The address of the gateway's listener, on which nobody listens: connections are handed to the worker.
const GATEWAY: ([u8; 4], u16) = ([192, 0, 2, 80], 80);
/// Time for a connection to an endpoint to be made.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);

/// The state of a snapshot with these resources.
pub(crate) fn compile(revision: u64, resources: Vec<Resource>) -> Arc<MeshState> {
    let mut snapshot = Snapshot { revision, ..Snapshot::default() };
    resources.into_iter().for_each(|resource| snapshot.insert(resource));
    let (state, rejected) = Compiler::new("node-a".into(), vec![]).compile(&snapshot, &[]);
    assert_eq!(rejected, []);
    state
}

/// A worker at a state, and what it records.
pub(crate) fn worker(state: Arc<MeshState>, limits: Limits) -> (Rc<Worker>, Records) {
    let (recorder, records) = ring(4096, Arc::default());
    let dial = DialConfig { mark: None, ports: 1..=1, taken: None, connect_timeout: CONNECT };
    let worker = Worker::new(WorkerParts {
        seed: 1,
        state,
        retired: mpsc::channel(1).0,
        metrics: Arc::new(WorkerMetrics::default()),
        recorder,
        dialer: Dialer::new(dial, 0),
        limits,
        connections: 64,
        transparent: false,
    });
    (worker, records)
}

/// A worker that turns when it is told to.
pub(crate) struct ByHand {
    turns: Turns,
    records: Records,
    revision: u64,
}

impl ByHand {
    /// A gateway, with these resources beside its listener.
    pub(crate) fn gateway(mut resources: Vec<Resource>) -> ByHand {
        resources.push(listener("http", GATEWAY.into(), ""));
        ByHand::new(resources)
    }

    /// A worker with nothing but these resources.
    pub(crate) fn new(resources: Vec<Resource>) -> ByHand {
        let (worker, records) = worker(compile(1, resources), Limits::default());
        ByHand { turns: Turns::new(worker).expect("a set of sockets"), records, revision: 1 }
    }

    /// Serves these resources from now on.
    pub(crate) fn publish(&mut self, resources: Vec<Resource>) {
        self.revision += 1;
        self.turns.publish(compile(self.revision, resources));
    }

    /// A connection to the gateway.
    pub(crate) fn connect(&mut self) -> Plain {
        let client = ([198, 51, 100, 7], 40_000).into();
        let entrance = Entrance::Gateway(GATEWAY.into());
        self.admit(Ends { client, destination: GATEWAY.into(), entrance })
    }

    /// A connection that is said to have been redirected.
    pub(crate) fn redirected(&mut self, client: [u8; 4], destination: SocketAddr) -> Plain {
        self.admit(Ends { client: (client, 40_000).into(), destination, entrance: Entrance::Redirected })
    }

    fn admit(&mut self, ends: Ends) -> Plain {
        let listener = Origin::listen([127, 0, 0, 1]);
        let stream = TcpStream::connect(listener.address()).expect("a connection");
        let (accepted, _) = listener.0.accept().expect("it is there");
        self.turns.admit(accepted, ends).expect("admitted");
        Plain::new(stream)
    }

    /// One turn.
    pub(crate) fn turn(&mut self) {
        self.turns.turn().expect("a turn");
    }

    /// Puts its clock forward, and lets it find what is due.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.turns.pass(time);
        self.turn();
    }

    /// Turns until something holds, at most 10 s.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            self.turn();
            if holds() {
                return;
            }
            assert!(Instant::now() < until, "never: {what}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// So many turns that whatever is to come of what was sent has come.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20 {
            self.turn();
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// The reasons of what has been recorded since the last time.
    pub(crate) fn reasons(&mut self) -> Vec<Option<Reason>> {
        self.records.by_ref().map(|named| named.ended.reason).collect()
    }
}

/// Accepts connections to an endpoint.
pub(crate) struct Origin(TcpListener);

impl Origin {
    pub(crate) fn listen(address: [u8; 4]) -> Origin {
        let listener = TcpListener::bind(SocketAddr::from((address, 0))).expect("a free port");
        listener.set_nonblocking(true).expect("an option");
        Origin(listener)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    /// The next connection, if one is there.
    pub(crate) fn accept(&self) -> Option<TcpStream> {
        self.0.accept().ok().map(|(stream, _)| stream)
    }
}

/// A peer that sends bytes, and keeps those that come.
pub(crate) struct Plain {
    pub(crate) stream: TcpStream,
    pub(crate) came: Vec<u8>,
    /// Nothing more comes.
    pub(crate) ended: bool,
}

impl Plain {
    pub(crate) fn new(stream: TcpStream) -> Plain {
        stream.set_nonblocking(true).expect("an option");
        stream.set_nodelay(true).expect("an option");
        Plain { stream, came: Vec::new(), ended: false }
    }

    /// Sends a few bytes, for which there is always room.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("room for a few bytes");
    }

    /// Sends as much as there is room for.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        self.stream.write(bytes).unwrap_or(0)
    }

    /// Has it reset its connection, and not end it.
    pub(crate) fn reset_when_dropped(&mut self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("an option");
    }

    /// What has come so far, as text.
    pub(crate) fn text(&mut self) -> String {
        self.read();
        String::from_utf8_lossy(&self.came).into_owned()
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self) {
        let mut buffer = [0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.came.extend_from_slice(&buffer[..count]);
                    continue;
                }
                Err(error) => self.ended |= error.kind() != io::ErrorKind::WouldBlock,
            }
            return;
        }
    }
}

/// One end of an HTTP/2 connection.
pub(crate) struct Http2 {
    stream: TcpStream,
    pub(crate) connection: Connection,
    head: Head,
    input: Vec<u8>,
    output: Vec<u8>,
    streams: BTreeMap<u32, StreamId>,
    /// What has come, in words, by stream.
    pub(crate) seen: Vec<(u32, String)>,
    /// What comes is not taken, so that windows fill.
    pub(crate) keeps: bool,
    /// Octets of content that have come.
    pub(crate) octets: usize,
}

impl Http2 {
    /// The client's end of a connection.
    pub(crate) fn client(plain: Plain, config: &Config) -> Http2 {
        Http2::new(plain.stream, |output| Connection::client(config, output))
    }

    /// The endpoint's end of a connection.
    pub(crate) fn server(stream: TcpStream, config: &Config) -> Http2 {
        Http2::new(Plain::new(stream).stream, |output| Connection::server(config, output))
    }

    fn new(stream: TcpStream, begin: impl FnOnce(&mut Vec<u8>) -> Connection) -> Http2 {
        let mut output = Vec::new();
        let connection = begin(&mut output);
        let (input, streams, seen) = (Vec::new(), BTreeMap::new(), Vec::new());
        Http2 { stream, connection, head: Head::new(), input, output, streams, seen, keeps: false, octets: 0 }
    }

    /// Sends a request; `fields` begin with method and path.
    pub(crate) fn ask(&mut self, method: &str, path: &str, fields: &[(&str, &str)], end: bool) -> u32 {
        let mut head = Head::new();
        head.start_request(method.as_bytes(), path.as_bytes(), b"web.shop").expect("a request");
        self.open(&head, fields, end)
    }

    /// Sends a head with more fields.
    pub(crate) fn open(&mut self, head: &Head, fields: &[(&str, &str)], end: bool) -> u32 {
        let head = with_fields(head.clone(), fields);
        let id = self.connection.open(&head, end, 0, &mut self.output).expect("a stream");
        self.streams.insert(id.number(), id);
        self.poll();
        id.number()
    }

    /// Answers a request.
    pub(crate) fn answer(&mut self, stream: u32, status: u16, fields: &[(&str, &str)], end: bool) {
        let mut head = Head::new();
        head.start_response(status).expect("a status");
        let head = with_fields(head, fields);
        let id = self.streams[&stream];
        self.connection.send_head(id, &head, end, &mut self.output).expect("it waits");
        self.poll();
    }

    /// Sends content; how much of it was taken.
    pub(crate) fn data(&mut self, stream: u32, content: &[u8], end: bool) -> usize {
        let id = self.streams[&stream];
        let taken = self.connection.send_data(id, content, end, &mut self.output).expect("a stream");
        self.poll();
        taken
    }

    pub(crate) fn reset(&mut self, stream: u32, code: ErrorCode) {
        self.connection.reset(self.streams[&stream], code, &mut self.output);
        self.poll();
    }

    /// Reads what is there, and writes what is to be written.
    pub(crate) fn poll(&mut self) {
        let mut buffer = [0; 65_536];
        while let Ok(count) = self.stream.read(&mut buffer) {
            if count == 0 {
                self.seen.push((0, "end".into()));
                break;
            }
            self.input.extend_from_slice(&buffer[..count]);
        }
        loop {
            let input = std::mem::take(&mut self.input);
            let received = self.connection.receive(&input, &mut self.head, &mut self.output);
            let (consumed, more) = (received.consumed, received.event.is_some());
            if let Some(event) = received.event {
                self.note(event);
            }
            self.input = input[consumed..].to_vec();
            if !more {
                break;
            }
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(_) => break,
            }
        }
    }

    fn note(&mut self, event: Event<'_>) {
        let ends = |end: bool| if end { " end" } else { "" };
        let (id, words) = match event {
            Event::Head { stream, end, .. } => (stream, format!("{}{}", words(&self.head), ends(end))),
            Event::Interim { stream, .. } => (stream, words(&self.head)),
            Event::Data { stream, content, end, .. } => {
                self.octets += content.len();
                if !self.keeps {
                    self.connection.release(stream, content.len(), &mut self.output);
                }
                (stream, format!("data {}{}", String::from_utf8_lossy(content), ends(end)))
            }
            Event::Trailers { stream, .. } => (stream, "trailers".into()),
            Event::Reset { stream, failure, .. } => (stream, format!("reset {}", failure.code.0)),
            Event::GoAway { code } => return self.seen.push((0, format!("goaway {}", code.0))),
            Event::Closed { failure } => return self.seen.push((0, format!("closed {}", failure.code.0))),
            Event::Window { .. } | Event::Rejected { .. } => return,
        };
        self.streams.insert(id.number(), id);
        self.seen.push((id.number(), words));
    }

    /// The head that came last.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// What came on a stream, in words.
    pub(crate) fn on(&mut self, stream: u32) -> Vec<String> {
        self.poll();
        self.seen.iter().filter(|(number, _)| *number == stream).map(|(_, words)| words.clone()).collect()
    }

    /// Heads of requests that came, with their streams.
    pub(crate) fn requests(&mut self) -> Vec<(u32, String)> {
        self.poll();
        let request = |words: &str| words.starts_with(|first: char| first.is_ascii_uppercase());
        self.seen.iter().filter(|(_, words)| request(words)).cloned().collect()
    }
}

/// A peer of either version.
pub(crate) enum Peer {
    Plain(Plain),
    Http2(Box<Http2>),
}

impl Peer {
    /// The client's end of a connection.
    pub(crate) fn client(plain: Plain, http2: bool) -> Peer {
        match http2 {
            true => Peer::Http2(Box::new(Http2::client(plain, &Config::default()))),
            false => Peer::Plain(plain),
        }
    }

    /// The endpoint's end of a connection.
    pub(crate) fn server(stream: TcpStream, http2: bool) -> Peer {
        match http2 {
            true => Peer::Http2(Box::new(Http2::server(stream, &Config::default()))),
            false => Peer::Plain(Plain::new(stream)),
        }
    }

    /// Asks for a path.
    pub(crate) fn get(&mut self, path: &str) {
        match self {
            Peer::Plain(plain) => {
                plain.send(format!("GET {path} HTTP/1.1\r\nhost: web.shop\r\n\r\n").as_bytes())
            }
            Peer::Http2(http2) => drop(http2.ask("GET", path, &[], true)),
        }
    }

    /// The status of its first request.
    pub(crate) fn status(&mut self) -> Option<String> {
        let words = match self {
            Peer::Plain(plain) => plain.text().strip_prefix("HTTP/1.1 ")?.to_owned(),
            Peer::Http2(http2) => http2.on(1).first()?.clone(),
        };
        words.split(' ').next().map(str::to_owned)
    }

    /// How many requests have come.
    pub(crate) fn requests(&mut self) -> usize {
        match self {
            Peer::Plain(plain) => plain.text().matches(" HTTP/1.1\r\n").count(),
            Peer::Http2(http2) => http2.requests().len(),
        }
    }

    /// Answers its first request.
    pub(crate) fn answer(&mut self) {
        match self {
            Peer::Plain(plain) => plain.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
            Peer::Http2(http2) => http2.answer(1, 200, &[], true),
        }
    }
}

fn with_fields(mut head: Head, fields: &[(&str, &str)]) -> Head {
    for (name, value) in fields {
        let name = Name::new(name.as_bytes()).expect("a name");
        let value = Value::new(value.as_bytes()).expect("a value");
        head.append(&name, value).expect("room");
    }
    head
}

fn words(head: &Head) -> String {
    match head.kind() {
        Kind::Request => {
            let protocol = head.protocol().map(|protocol| format!(" {}", String::from_utf8_lossy(protocol)));
            let text = |octets| String::from_utf8_lossy(octets).into_owned();
            format!("{} {}{}", text(head.method_text()), text(head.target()), protocol.unwrap_or_default())
        }
        Kind::Response => head.status().to_string(),
        Kind::Trailers => "trailers".into(),
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What HTTP/2 costs an intermediary: gRPC-like requests (a message of 105 octets each way, trailers) through a
//! server's and a client's end, between a client and an upstream that are in the same process.
//!
//! Only what the intermediary does counts. With Valgrind:
//!
//! ```sh
//! cargo build -p weft-http --example h2_instructions --release
//! valgrind --tool=callgrind --toggle-collect='*relay_turn*' --callgrind-out-file=/tmp/out \
//!     target/release/examples/h2_instructions 20000
//! ```
//!
//! The instructions that it prints, divided by the requests. With `distinct` behind the number, each request has
//! an `x-request-id` of its own, so that no two heads are the same. Without Valgrind it checks that everything arrived.

use weft_http::{
    h2::{Config, Connection, Event, Received, StreamId},
    head::{FieldName, Head, Name, Value},
};

/// Streams that are under way at once, as in the benchmark of the whole proxy.
const STREAMS: usize = 32;

/// The content of a message: five octets of gRPC's frame and a hundred.
const MESSAGE: [u8; 105] = [7; 105];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let requests: usize = std::env::args().nth(1).map_or(Ok(1000), |text| text.parse())?;
    let mut lab = Lab::new(std::env::args().nth(2).as_deref() == Some("distinct"));
    lab.exchange()?;
    let mut done = 0;
    while done < requests {
        lab.client.ask()?;
        let before = lab.client.trailers;
        lab.exchange()?;
        let answered = lab.client.trailers - before;
        if answered != STREAMS {
            return Err(format!("{answered} of {STREAMS} requests were answered").into());
        }
        done += answered;
    }
    println!("{done} requests, {} octets of content", lab.client.content);
    Ok(())
}

/// A client, the intermediary, and an upstream.
struct Lab {
    client: Client,
    relay: Relay,
    upstream: Upstream,
}

impl Lab {
    fn new(distinct: bool) -> Lab {
        Lab { client: Client::new(distinct), relay: Relay::new(), upstream: Upstream::new() }
    }

    /// Carries octets until nobody has any.
    fn exchange(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        loop {
            let from_client = std::mem::take(&mut self.client.out);
            let from_upstream = std::mem::take(&mut self.upstream.out);
            if from_client.is_empty() && from_upstream.is_empty() && self.relay.is_quiet() {
                return Ok(());
            }
            relay_turn(&mut self.relay, &from_client, &from_upstream)?;
            self.client.turn(&self.relay.to_client);
            self.upstream.turn(&self.relay.to_upstream)?;
            self.relay.to_client.clear();
            self.relay.to_upstream.clear();
        }
    }
}

/// The intermediary: what it does is what is measured.
struct Relay {
    front: Connection,
    back: Connection,
    head: Head,
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
    /// The streams of an exchange on both sides; its place is the token of both.
    exchanges: Vec<Option<(StreamId, StreamId)>>,
    free: Vec<u32>,
}

impl Relay {
    fn new() -> Relay {
        let (mut to_client, mut to_upstream) = (Vec::new(), Vec::new());
        Relay {
            front: Connection::server(&Config::default(), &mut to_client),
            back: Connection::client(&Config::default(), &mut to_upstream),
            head: Head::new(),
            to_client,
            to_upstream,
            exchanges: Vec::new(),
            free: Vec::new(),
        }
    }

    fn is_quiet(&self) -> bool {
        self.to_client.is_empty() && self.to_upstream.is_empty()
    }

    fn pair(&self, token: u32) -> Option<(StreamId, StreamId)> {
        *self.exchanges.get(token as usize)?
    }
}

#[inline(never)]
fn relay_turn(
    relay: &mut Relay,
    from_client: &[u8],
    from_upstream: &[u8],
) -> Result<(), Box<dyn std::error::Error>> {
    requests(relay, from_client)?;
    responses(relay, from_upstream)
}

fn requests(relay: &mut Relay, mut input: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    loop {
        let Received { consumed, event } = relay.front.receive(input, &mut relay.head, &mut relay.to_client);
        input = &input[consumed..];
        match event {
            None => return Ok(()),
            Some(Event::Head { stream, end, .. }) => {
                let token = relay.free.pop().unwrap_or_else(|| {
                    relay.exchanges.push(None);
                    relay.exchanges.len() as u32 - 1
                });
                let back = relay.back.open(&relay.head, end, token, &mut relay.to_upstream)?;
                relay.front.set_token(stream, token);
                relay.exchanges[token as usize] = Some((stream, back));
            }
            Some(Event::Data { stream, token, content, end }) => {
                if let Some((_, back)) = relay.pair(token) {
                    relay.back.send_data(back, content, end, &mut relay.to_upstream)?;
                }
                relay.front.release(stream, content.len(), &mut relay.to_client);
            }
            Some(other) => return Err(format!("{other:?}").into()),
        }
    }
}

fn responses(relay: &mut Relay, mut input: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    loop {
        let Received { consumed, event } = relay.back.receive(input, &mut relay.head, &mut relay.to_upstream);
        input = &input[consumed..];
        match event {
            None => return Ok(()),
            Some(Event::Head { token, end, .. }) => {
                if let Some((front, _)) = relay.pair(token) {
                    relay.front.send_head(front, &relay.head, end, &mut relay.to_client)?;
                }
            }
            Some(Event::Data { stream, token, content, end }) => {
                if let Some((front, _)) = relay.pair(token) {
                    relay.front.send_data(front, content, end, &mut relay.to_client)?;
                }
                relay.back.release(stream, content.len(), &mut relay.to_upstream);
            }
            Some(Event::Trailers { token, .. }) => {
                if let Some((front, _)) = relay.pair(token) {
                    relay.front.send_trailers(front, &relay.head, &mut relay.to_client)?;
                }
                relay.exchanges[token as usize] = None;
                relay.free.push(token);
            }
            Some(other) => return Err(format!("{other:?}").into()),
        }
    }
}

/// Asks as gRPC clients do.
struct Client {
    connection: Connection,
    request: Head,
    head: Head,
    out: Vec<u8>,
    content: usize,
    trailers: usize,
    /// Each request has an id of its own, so that no two heads are the same.
    distinct: bool,
    asked: u64,
    request_without_id: Head,
}

impl Client {
    fn new(distinct: bool) -> Client {
        let mut out = Vec::new();
        let connection = Connection::client(&Config::default(), &mut out);
        let mut request = Head::new();
        let target = b"/shop.v1.CheckoutService/PlaceOrder";
        request.start_request(b"POST", target, b"checkout.shop.svc.cluster.local:8080").unwrap_or_default();
        fields(
            &mut request,
            &[
                ("content-type", "application/grpc"),
                ("user-agent", "grpc-go/1.64.0"),
                ("te", "trailers"),
                ("grpc-accept-encoding", "gzip"),
                ("grpc-timeout", "1S"),
            ],
        );
        let request_without_id = request.clone();
        let (head, content, trailers, asked) = (Head::new(), 0, 0, 0);
        Client { connection, request, head, out, content, trailers, distinct, asked, request_without_id }
    }

    fn ask(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        for _ in 0..STREAMS {
            if self.distinct {
                self.asked += 1;
                let id = format!("{:032x}", self.asked.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let id = Value::new(id.as_bytes())?;
                self.request.set(&Name::Known(FieldName::XRequestId), id)?;
                if self.asked.is_multiple_of(64) {
                    // A head grows with each change.
                    self.request = self.request_without_id.clone();
                }
            }
            let stream = self.connection.open(&self.request, false, 0, &mut self.out)?;
            self.connection.send_data(stream, &MESSAGE, true, &mut self.out)?;
        }
        Ok(())
    }

    fn turn(&mut self, mut input: &[u8]) {
        loop {
            let Received { consumed, event } = self.connection.receive(input, &mut self.head, &mut self.out);
            input = &input[consumed..];
            match event {
                None => return,
                Some(Event::Data { stream, content, .. }) => {
                    self.content += content.len();
                    self.connection.release(stream, content.len(), &mut self.out);
                }
                Some(Event::Trailers { .. }) => self.trailers += 1,
                Some(_) => {}
            }
        }
    }
}

/// Answers as gRPC servers do.
struct Upstream {
    connection: Connection,
    head: Head,
    response: Head,
    trailers: Head,
    out: Vec<u8>,
}

impl Upstream {
    fn new() -> Upstream {
        let mut out = Vec::new();
        let connection = Connection::server(&Config::default(), &mut out);
        let (mut response, mut trailers) = (Head::new(), Head::new());
        response.start_response(200).unwrap_or_default();
        fields(&mut response, &[("content-type", "application/grpc")]);
        fields(&mut trailers, &[("grpc-status", "0"), ("grpc-message", "")]);
        Upstream { connection, head: Head::new(), response, trailers, out }
    }

    fn turn(&mut self, mut input: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
        loop {
            let Received { consumed, event } = self.connection.receive(input, &mut self.head, &mut self.out);
            input = &input[consumed..];
            match event {
                None => return Ok(()),
                Some(Event::Data { stream, content, end, .. }) => {
                    self.connection.release(stream, content.len(), &mut self.out);
                    if end {
                        self.connection.send_head(stream, &self.response, false, &mut self.out)?;
                        self.connection.send_data(stream, &MESSAGE, false, &mut self.out)?;
                        self.connection.send_trailers(stream, &self.trailers, &mut self.out)?;
                    }
                }
                Some(_) => {}
            }
        }
    }
}

fn fields(head: &mut Head, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (Name::new(name.as_bytes()), Value::new(value.as_bytes())) {
            head.append(&name, value).unwrap_or_default();
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What the HTTP/1.1 part of one proxied request costs, for callgrind.
//!
//! Runs requests through both machines as a proxy does: request in, request out, response in, response out,
//! with 1 KB of JSON back. `browser` sends nine fields and gets five, `h2load` two and two, which is what the
//! benchmarks send. Run it with two counts and divide the difference of the instructions by that of the
//! counts:
//!
//! ```text
//! cargo build -p weft-http --profile dist --example h1_instructions
//! valgrind --tool=callgrind target/dist/examples/h1_instructions browser 1000
//! valgrind --tool=callgrind target/dist/examples/h1_instructions browser 3000
//! ```

use std::{error::Error, hint::black_box};

use weft_http::{
    h1::{Client, Event, Limits, Server},
    head::{Head, Scheme},
};

const H2LOAD: [&[u8]; 2] = [
    b"GET /api/orders/42 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: h2load nghttp2/1.52.0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1024\r\n\r\n",
];

const BROWSER: [&[u8]; 2] = [REQUEST, RESPONSE_HEAD];

const REQUEST: &[u8] = b"GET /api/orders/42?page=1 HTTP/1.1\r\n\
    Host: bench.weft.test\r\n\
    User-Agent: loadgen/1.0\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    X-Request-Id: 7f1c2d3e-4a5b-6c7d-8e9f-0a1b2c3d4e5f\r\n\
    Cookie: session=0123456789abcdef\r\n\
    Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";

const RESPONSE_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 1024\r\n\
    Date: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
    Server: origin\r\n\
    Cache-Control: no-store\r\n\r\n";

/// What a worker keeps from request to request.
struct Worker {
    server: Server,
    client: Client,
    request: Head,
    response: Head,
    upstream: Vec<u8>,
    downstream: Vec<u8>,
}

impl Worker {
    /// One request from the client to the server, and its response back.
    fn exchange(&mut self, request: &[u8], response: &[u8]) -> Result<(), weft_http::error::Error> {
        self.upstream.clear();
        self.downstream.clear();
        let (used, _) = self.server.receive(request, &mut self.request)?;
        self.server.receive(&request[used..], &mut self.response)?;
        let length = self.server.content_length();
        self.client.send_head(&self.request, length, &mut self.upstream)?;

        let (used, _) = self.client.receive(response, &mut self.response)?;
        let length = self.client.content_length();
        self.server.send_head(&self.response, length, &mut self.downstream)?;
        let mut rest = &response[used..];
        while let (used, Some(event)) = self.client.receive(rest, &mut self.request)? {
            rest = &rest[used..];
            match event {
                Event::Data(data) => self.server.send_data(data, &mut self.downstream)?,
                Event::End => self.server.finish(&mut self.downstream)?,
                Event::Head | Event::Trailers => {}
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let [request, head] = match arguments.next().as_deref() {
        Some("h2load") => H2LOAD,
        Some("browser") | None => BROWSER,
        Some(other) => return Err(format!("{other} is neither browser nor h2load").into()),
    };
    let count: u64 = arguments.next().map_or(Ok(10_000), |count| count.parse())?;
    let response = [head, &[b'x'; 1024]].concat();
    let mut worker = Worker {
        server: Server::new(Limits::default(), Scheme::Http),
        client: Client::new(Limits::default()),
        request: Head::new(),
        response: Head::new(),
        upstream: Vec::new(),
        downstream: Vec::new(),
    };
    for _ in 0..count {
        worker.exchange(black_box(request), black_box(&response))?;
        black_box((&worker.upstream, &worker.downstream));
    }
    println!("{count} requests of {} and {} bytes", worker.upstream.len(), worker.downstream.len());
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0
//! Forwards every request to one upstream, without policy: what the wire layer alone costs.
//!
//! `relay LISTEN UPSTREAM h1|h2`, for example
//! `cargo run -p weft-codec --example relay -- 127.0.0.1:8081 127.0.0.1:8080 h1`

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use anyhow::Context;
use http::StatusCode;
use tokio::{
    net::{TcpListener, TcpStream},
    task::LocalSet,
};
use weft_codec::{
    config::{H1Config, H2Config, ServerConfig},
    drain::DrainTrigger,
    error::{ProtocolError, UpstreamError},
    h1::{H1Upstream, Recycle},
    h2::H2Upstream,
    handler::Handler,
    message::{Request, Response, ResponseHead},
    serve::serve_connection,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Idle connections of this worker.
#[derive(Default)]
struct Pool {
    idle: RefCell<Vec<H1Upstream>>,
}

impl Recycle for Pool {
    fn recycle(&self, upstream: H1Upstream) {
        self.idle.borrow_mut().push(upstream);
    }
}

struct Relay {
    upstream: SocketAddr,
    h2: Option<RefCell<Option<H2Upstream>>>,
    pool: Rc<Pool>,
    h1_config: Rc<H1Config>,
    h2_config: Rc<H2Config>,
}

impl Relay {
    async fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.upstream).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn h1(&self) -> std::io::Result<H1Upstream> {
        loop {
            let idle = self.pool.idle.borrow_mut().pop();
            let Some(mut upstream) = idle else { break };
            if upstream.is_usable() {
                return Ok(upstream);
            }
        }
        let recycle: Rc<dyn Recycle> = self.pool.clone();
        Ok(H1Upstream::new(self.connect().await?, self.h1_config.clone(), Some(recycle)))
    }

    async fn h2(&self, slot: &RefCell<Option<H2Upstream>>) -> anyhow::Result<H2Upstream> {
        let current = slot.borrow().clone();
        if let Some(upstream) = current.filter(H2Upstream::is_usable) {
            return Ok(upstream);
        }
        let handshake = H2Upstream::handshake(self.connect().await?, self.h2_config.clone());
        let (upstream, driver) = handshake.await.map_err(|error| anyhow::anyhow!("{error}"))?;
        tokio::task::spawn_local(driver);
        *slot.borrow_mut() = Some(upstream.clone());
        Ok(upstream)
    }

    async fn forward(&self, request: Request) -> anyhow::Result<Response> {
        let sent: Result<_, UpstreamError> = match &self.h2 {
            Some(slot) => self.h2(slot).await?.send(&request.head, request.body).await,
            None => self.h1().await?.send(&request.head, request.body).await,
        };
        let (head, body) = sent.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Response::new(head, body))
    }
}

impl Handler for Relay {
    async fn call(&self, request: Request) -> Response {
        match self.forward(request).await {
            Ok(response) => response,
            Err(error) => {
                eprintln!("{error:#}");
                Response::new(ResponseHead::new(StatusCode::BAD_GATEWAY), Default::default())
            }
        }
    }

    fn on_protocol_error(&self, error: &ProtocolError) {
        eprintln!("{error}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: relay LISTEN UPSTREAM h1|h2";
    let listen: SocketAddr = args.next().context(usage)?.parse()?;
    let upstream: SocketAddr = args.next().context(usage)?.parse()?;
    let h2 = (args.next().context(usage)? == "h2").then(RefCell::default);
    let handler = Rc::new(Relay {
        upstream,
        h2,
        pool: Rc::default(),
        h1_config: Rc::default(),
        h2_config: Rc::default(),
    });
    let listener = TcpListener::bind(listen).await?;
    let (config, drain) = (Rc::new(ServerConfig::default()), DrainTrigger::new());
    LocalSet::new()
        .run_until(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let served = serve_connection(stream, config.clone(), handler.clone(), drain.drain());
                tokio::task::spawn_local(served);
            }
        })
        .await
}

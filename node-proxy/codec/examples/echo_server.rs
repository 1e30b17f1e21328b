// SPDX-License-Identifier: Apache-2.0
//! Answers every request with its own content: a peer for h2spec, h2load and curl.
//!
//! `cargo run -p weft-codec --example echo_server -- 127.0.0.1:8080`

use std::rc::Rc;

use http::StatusCode;
use tokio::{net::TcpListener, task::LocalSet};
use weft_codec::{
    body::Body,
    config::ServerConfig,
    drain::DrainTrigger,
    error::ProtocolError,
    handler::Handler,
    message::{Request, Response, ResponseHead},
    serve::serve_connection,
};

struct Echo;

impl Handler for Echo {
    async fn call(&self, request: Request) -> Response {
        match request.body.buffer(1 << 20).await {
            Ok(Ok(content)) => {
                let content = if content.is_empty() { "hello\n".into() } else { content };
                Response::new(ResponseHead::new(StatusCode::OK), Body::full(content))
            }
            Ok(Err(_)) => Response::empty(StatusCode::PAYLOAD_TOO_LARGE),
            Err(_) => Response::empty(StatusCode::BAD_REQUEST),
        }
    }

    fn on_protocol_error(&self, error: &ProtocolError) {
        eprintln!("{error}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(&address).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let (config, handler, drain) = (Rc::new(ServerConfig::default()), Rc::new(Echo), DrainTrigger::new());
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

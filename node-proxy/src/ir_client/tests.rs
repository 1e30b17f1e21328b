// SPDX-License-Identifier: Apache-2.0
//! The client against a controller of no more than tonic and the publisher, over real TLS sockets.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut};
use futures_util::{Stream, future, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service, http},
    server::{Grpc, StreamingService},
    transport::{Server, server::Connected},
};
use weft_identity::Authority;
use weft_ir::{
    Identity, IdentityNumber, Resource,
    publish::{Change, Publisher},
    stream::{Batch, FromNode},
    wire,
};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

type Batches = Pin<Box<dyn Stream<Item = Result<Batch, Status>> + Send>>;

/// Serves a fixed publisher, and pushes only in answer to what the node says.
#[derive(Clone)]
struct Controller {
    token: JoinToken,
    publisher: Arc<Mutex<Publisher>>,
}

impl Controller {
    fn applied(&self) -> Option<u64> {
        let publisher = self.publisher.lock().unwrap();
        publisher.nodes().next().and_then(|(_, report)| report.applied)
    }

    fn answer(&self, message: FromNode) -> Result<Vec<Batch>, Status> {
        let mut publisher = self.publisher.lock().unwrap();
        let refused = |error: weft_ir::publish::PublishError| Status::failed_precondition(error.to_string());
        match message {
            FromNode::Hello(hello) => publisher.on_hello(&hello).map_err(refused)?,
            FromNode::Ack(ack) => publisher.on_ack(&"node-1".into(), ack).map_err(refused)?,
        }
        publisher.next_batch(&"node-1".into()).map_err(refused)
    }
}

impl StreamingService<FromNode> for Controller {
    type Response = Batch;
    type ResponseStream = Batches;
    type Future = future::Ready<Result<Response<Batches>, Status>>;

    fn call(&mut self, request: Request<Streaming<FromNode>>) -> Self::Future {
        let authorization = request.metadata().get("authorization");
        if !authorization.is_some_and(|value| self.token.authorizes(value.as_bytes())) {
            return future::ready(Err(Status::unauthenticated("a wrong token")));
        }
        let state = (self.clone(), request.into_inner(), Vec::new().into_iter());
        let batches = stream::try_unfold(state, async |(controller, mut inbound, mut frames)| {
            loop {
                if let Some(frame) = frames.next() {
                    return Ok(Some((frame, (controller, inbound, frames))));
                }
                let Some(message) = inbound.message().await? else { return Ok(None) };
                frames = controller.answer(message)?.into_iter();
            }
        });
        future::ready(Ok(Response::new(Box::pin(batches))))
    }
}

impl Service<http::Request<Body>> for Controller {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let controller = self.clone();
        Box::pin(async move { Ok(Grpc::new(ControllerCodec).streaming(controller, request).await) })
    }
}

#[derive(Clone, Copy)]
struct ControllerCodec;

impl Codec for ControllerCodec {
    type Encode = Batch;
    type Decode = FromNode;
    type Encoder = ControllerCodec;
    type Decoder = ControllerCodec;

    fn encoder(&mut self) -> ControllerCodec {
        ControllerCodec
    }

    fn decoder(&mut self) -> ControllerCodec {
        ControllerCodec
    }
}

impl Encoder for ControllerCodec {
    type Item = Batch;
    type Error = Status;

    fn encode(&mut self, batch: Batch, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(wire::encode_to_node(batch));
        Ok(())
    }
}

impl Decoder for ControllerCodec {
    type Item = FromNode;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<FromNode>, Status> {
        Ok(Some(wire::decode_from_node(src.copy_to_bytes(src.remaining())).unwrap()))
    }
}

struct Accepted(TlsStream<TcpStream>);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Serves exactly one connection, until it ends or the handle is aborted: which cuts it.
async fn serve(
    controller: Controller,
    config: Arc<ServerConfig>,
    address: &str,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let Ok(tls) = TlsAcceptor::from(config).accept(tcp).await else { return };
        let incoming = stream::iter([Ok::<_, io::Error>(Accepted(tls))]);
        Server::builder().serve_with_incoming(controller, incoming).await.unwrap();
    });
    (address, task)
}

fn parts(directory: &Path) -> (Controller, Arc<ServerConfig>) {
    let authority = Authority::open(&directory.join("pki")).unwrap();
    let token = authority.token().clone();
    let publisher = Arc::new(Mutex::new(Publisher::new(1)));
    (Controller { token, publisher }, tls::controller_server(authority).unwrap())
}

fn put(controller: &Controller, number: u32) {
    let identity = Identity { number: IdentityNumber(number), labels: BTreeMap::new() };
    let change = Change { upserts: vec![Resource::Identity(identity)], removes: Vec::new() };
    controller.publisher.lock().unwrap().commit(change);
}

fn config(directory: &Path, address: SocketAddr, token: &JoinToken) -> IrClientConfig {
    IrClientConfig {
        address: address.to_string(),
        token: token.clone(),
        node: "node-1".into(),
        state_dir: directory.join("state"),
    }
}

async fn revision(client: &IrClient, wanted: u64) -> Arc<Commit> {
    let mut states = client.states();
    let found = states.wait_for(|state| state.as_ref().is_some_and(|s| s.position.revision == wanted));
    timeout(DEADLINE, found).await.unwrap().unwrap().clone().unwrap()
}

async fn eventually(mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, poll).await.unwrap();
}

#[tokio::test]
async fn a_controller_with_another_authority_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (controller, tls) = parts(home.path());
    let (address, _task) = serve(controller, tls, "127.0.0.1:0").await;
    let token = JoinToken::generate(b"another authority").unwrap();
    let client = IrClient::spawn(config(home.path(), address, &token)).unwrap();
    let mut link = client.link();
    let status =
        timeout(DEADLINE, link.wait_for(|link| link.error.is_some())).await.unwrap().unwrap().clone();
    assert!(status.error.unwrap().contains("UnknownIssuer"));
    assert!(client.states().borrow().is_none());
}

#[tokio::test]
async fn a_restart_begins_with_what_was_applied_and_resumes_by_delta() {
    let home = tempfile::tempdir().unwrap();
    let (controller, tls) = parts(home.path());
    put(&controller, 1);
    let (address, task) = serve(controller.clone(), tls.clone(), "127.0.0.1:0").await;
    let config = config(home.path(), address, &controller.token);
    let client = IrClient::spawn(config.clone()).unwrap();
    let first = revision(&client, 1).await;
    assert_eq!(controller.applied(), None, "received is not applied");
    client.acks().applied(first.position, Vec::new()).await;
    eventually(|| controller.applied() == Some(1)).await;

    task.abort();
    put(&controller, 2);
    drop(task.await);
    client.shutdown().await;

    let client = IrClient::spawn(config).unwrap();
    let restored = client.states().borrow().clone().unwrap();
    assert_eq!(restored.snapshot, first.snapshot, "from disk, while no controller is there");
    client.acks().applied(restored.position, Vec::new()).await;
    let (_, _task) = serve(controller.clone(), tls, &address.to_string()).await;
    let second = revision(&client, 2).await;
    assert_eq!((second.changed.len(), second.snapshot.resources.len()), (1, 2), "a delta");
    client.acks().applied(second.position, Vec::new()).await;
    eventually(|| controller.applied() == Some(2)).await;
}

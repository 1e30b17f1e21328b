// SPDX-License-Identifier: Apache-2.0
//! The client against a controller of no more than tonic and the publisher, over real TLS sockets.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    future::Future,
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt as _, Stream, future, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::pki_types::CertificateDer, server::TlsStream};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, StreamingService, UnaryService},
    transport::{Server, server::Connected},
};
use weft_grpc::Wire;
use weft_identity::{NODE_LIFETIME, Peer, Registrar, tls};
use weft_ir::{
    Identity, IdentityNumber, Resource,
    publish::{Change, Publisher},
    stream::{Certificates, FromNode, JOIN_PATH, JoinRequest, STREAM_PATH, ToNode, Versions},
    wire,
};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

type Messages = Pin<Box<dyn Stream<Item = Result<ToNode, Status>> + Send>>;

/// Serves a fixed publisher, and pushes only in answer to what the node says. Registers nodes like the
/// real one.
#[derive(Clone)]
struct Controller {
    registrar: Arc<Registrar>,
    publisher: Arc<Mutex<Publisher>>,
    counts: Arc<Mutex<Counts>>,
}

/// What a node was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    joins: usize,
    renewals: usize,
    streams: usize,
    /// Refuse as many streams, as if the certificate were wrong in some way that nobody names.
    to_refuse: usize,
    /// End streams after the hello, as if another process had one.
    contest: bool,
    /// Answers to the ping that follows each hello.
    pongs: usize,
}

impl Controller {
    fn count(&self, what: impl FnOnce(&mut Counts)) -> Counts {
        let mut counts = self.counts.lock().unwrap();
        what(&mut counts);
        *counts
    }

    fn counts(&self) -> Counts {
        self.count(|_| {})
    }

    fn applied(&self) -> Option<u64> {
        let publisher = self.publisher.lock().unwrap();
        publisher.nodes().next().and_then(|(_, report)| report.applied)
    }

    fn answer(&self, message: FromNode) -> Result<Vec<ToNode>, Status> {
        let mut publisher = self.publisher.lock().unwrap();
        let refused = |error: weft_ir::publish::PublishError| Status::failed_precondition(error.to_string());
        let mut messages = Vec::new();
        match message {
            FromNode::Hello(_) if self.counts().contest => {
                return Err(Status::already_exists("another process speaks as node node-1"));
            }
            FromNode::Hello(hello) => {
                publisher.on_hello(hello).map_err(refused)?;
                messages.push(ToNode::Ping);
            }
            FromNode::Ack(ack) => publisher.on_ack(&"node-1".into(), ack).map_err(refused)?,
            FromNode::Pong => {
                self.count(|counts| counts.pongs += 1);
                return Ok(messages);
            }
        }
        let frames = publisher.next_batch(&"node-1".into()).map_err(refused)?;
        let ahead = publisher.node("node-1").and_then(|report| report.ahead.clone());
        messages.extend(ahead.map(|reason| ToNode::Withheld { reason }));
        messages.extend(frames.into_iter().map(ToNode::Batch));
        Ok(messages)
    }
}

impl StreamingService<FromNode> for Controller {
    type Response = ToNode;
    type ResponseStream = Messages;
    type Future = future::Ready<Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<Streaming<FromNode>>) -> Self::Future {
        let admitted = peer(&request).and_then(|peer| {
            let refused = |error: weft_identity::Refusal| Status::unauthenticated(error.to_string());
            self.registrar.admits(&peer, SystemTime::now()).map_err(refused)
        });
        if let Err(status) = admitted {
            return future::ready(Err(status));
        }
        if self.counts().to_refuse > 0 {
            self.count(|counts| counts.to_refuse -= 1);
            return future::ready(Err(Status::unknown("no")));
        }
        self.count(|counts| counts.streams += 1);
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
        Box::pin(async move {
            Ok(match request.uri().path() {
                STREAM_PATH => {
                    let codec = Wire::new(wire::encode_to_node, wire::decode_from_node);
                    Grpc::new(codec).streaming(controller, request).await
                }
                JOIN_PATH => {
                    let codec = Wire::new(wire::encode_certificates, wire::decode_join);
                    Grpc::new(codec).unary(controller, request).await
                }
                _ => {
                    let codec = Wire::new(wire::encode_certificates, wire::decode_renew);
                    Grpc::new(codec).unary(controller, request).await
                }
            })
        })
    }
}

impl UnaryService<JoinRequest> for Controller {
    type Response = Certificates;
    type Future = future::Ready<Result<Response<Certificates>, Status>>;

    fn call(&mut self, request: Request<JoinRequest>) -> Self::Future {
        let authorization = request.metadata().get("authorization");
        if !authorization.is_some_and(|value| self.registrar.token().authorizes(value.as_bytes())) {
            return future::ready(Err(Status::unauthenticated("a wrong token")));
        }
        self.count(|counts| counts.joins += 1);
        let JoinRequest { node, request } = request.into_inner();
        let host = [127, 0, 0, 1].into();
        future::ready(answer(self.registrar.join(&node.parse().unwrap(), &request, host, SystemTime::now())))
    }
}

impl UnaryService<()> for Controller {
    type Response = Certificates;
    type Future = future::Ready<Result<Response<Certificates>, Status>>;

    fn call(&mut self, request: Request<()>) -> Self::Future {
        self.count(|counts| counts.renewals += 1);
        let peer = peer(&request).unwrap();
        future::ready(answer(self.registrar.renew(&peer, SystemTime::now())))
    }
}

fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Option<Peer>>().cloned().flatten();
    peer.ok_or_else(|| Status::unauthenticated("no certificate"))
}

fn answer(
    chain: Result<Vec<CertificateDer<'static>>, weft_identity::Refusal>,
) -> Result<Response<Certificates>, Status> {
    let chain = chain.map_err(|error| Status::permission_denied(error.to_string()))?;
    Ok(Response::new(Certificates { chain: chain.iter().map(|one| one.to_vec().into()).collect() }))
}

struct Accepted(TlsStream<TcpStream>);

impl Connected for Accepted {
    type ConnectInfo = Option<Peer>;

    fn connect_info(&self) -> Option<Peer> {
        let certificate = self.0.get_ref().1.peer_certificates()?.first()?;
        Peer::read(certificate).ok()
    }
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

/// Serves connections until the handle is aborted: which cuts them.
async fn serve(controller: Controller, address: &str) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = TlsAcceptor::from(tls::controller_server(&controller.registrar).unwrap());
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (tls, controller) = (tls.clone(), controller.clone());
            connections.spawn(async move {
                let Ok(tls) = tls.accept(tcp).await else { return };
                let incoming = stream::iter([Ok::<_, io::Error>(Accepted(tls))]);
                Server::builder().serve_with_incoming(controller, incoming).await.unwrap();
            });
        }
    });
    (address, task)
}

fn controller(directory: &Path) -> Controller {
    controller_with(directory, NODE_LIFETIME)
}

fn controller_with(directory: &Path, lifetime: Duration) -> Controller {
    let registrar = Arc::new(Registrar::open(&directory.join("controller"), lifetime).unwrap());
    Controller { registrar, publisher: Arc::new(Mutex::new(Publisher::new(1))), counts: Arc::default() }
}

fn put(controller: &Controller, number: u32) {
    let identity = Identity { number: IdentityNumber(number), labels: BTreeMap::new() };
    let change = Change { upserts: vec![Resource::Identity(identity)], ..Change::default() };
    controller.publisher.lock().unwrap().commit(change);
}

fn config(directory: &Path, address: SocketAddr, token: &JoinToken) -> IrClientConfig {
    let taken = StateDirectory::take(&directory.join("state"), DEADLINE).now_or_never();
    IrClientConfig {
        address: address.to_string(),
        token: token.clone(),
        account: None,
        node: "node-1".into(),
        directory: Arc::new(taken.expect("nobody has it").unwrap()),
    }
}

/// A client and its tasks, which end with it.
struct Running {
    client: IrClient,
    _tasks: Supervisor,
}

impl std::ops::Deref for Running {
    type Target = IrClient;

    fn deref(&self) -> &IrClient {
        &self.client
    }
}

impl Running {
    async fn shutdown(self) {
        self.client.shutdown().await;
    }
}

fn start(config: IrClientConfig) -> Result<Running, IrClientError> {
    let mut tasks = Supervisor::new();
    Ok(Running { client: IrClient::start(config, &mut tasks)?, _tasks: tasks })
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
    let (address, _task) = serve(controller(home.path()), "127.0.0.1:0").await;
    let token = JoinToken::generate(b"another authority").unwrap();
    let client = start(config(home.path(), address, &token)).unwrap();
    let mut link = client.link();
    let status =
        timeout(DEADLINE, link.wait_for(|link| link.error.is_some())).await.unwrap().unwrap().clone();
    let error = status.error.unwrap();
    assert!(error.contains("not the controller that wrote this node's join token"), "{error}");
    assert!(error.contains("UnknownIssuer"), "{error}");
    assert!(client.states().borrow().is_none());
}

#[tokio::test]
async fn a_restart_begins_with_what_was_applied_and_resumes_by_delta() {
    let home = tempfile::tempdir().unwrap();
    let controller = controller(home.path());
    put(&controller, 1);
    let (address, task) = serve(controller.clone(), "127.0.0.1:0").await;
    let config = config(home.path(), address, controller.registrar.token());
    let client = start(config.clone()).unwrap();
    let first = revision(&client, 1).await;
    assert_eq!(controller.applied(), None, "received is not applied");
    client.acks().applied(first.position, Vec::new()).await;
    eventually(|| controller.applied() == Some(1)).await;

    task.abort();
    put(&controller, 2);
    drop(task.await);
    client.shutdown().await;

    let client = start(config).unwrap();
    let restored = client.states().borrow().clone().unwrap();
    assert_eq!(restored.snapshot, first.snapshot, "from disk, while no controller is there");
    client.acks().applied(restored.position, Vec::new()).await;
    let (_, _task) = serve(controller.clone(), &address.to_string()).await;
    let second = revision(&client, 2).await;
    assert_eq!((second.changed.len(), second.snapshot.resources.len()), (1, 2), "a delta");
    client.acks().applied(second.position, Vec::new()).await;
    eventually(|| controller.applied() == Some(2)).await;
    assert_eq!(controller.counts().joins, 1, "the certificate outlives a restart, the token is shown once");
}

async fn connected(client: &IrClient) {
    timeout(DEADLINE, client.link().wait_for(|link| link.connected)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_without_a_break_of_the_stream() {
    let home = tempfile::tempdir().unwrap();
    // Whole seconds, as certificates count them.
    let controller = controller_with(home.path(), Duration::from_secs(4));
    put(&controller, 1);
    let (address, _task) = serve(controller.clone(), "127.0.0.1:0").await;
    let config = config(home.path(), address, controller.registrar.token());
    let client = start(config.clone()).unwrap();
    revision(&client, 1).await;
    eventually(|| controller.counts().renewals >= 3).await;
    let counts = controller.counts();
    assert_eq!((counts.joins, counts.streams), (1, 1), "all on one stream");
    client.shutdown().await;
    let client = start(config).unwrap();
    connected(&client).await;
    assert_eq!(controller.counts().joins, 1, "the renewed one is on disk");
}

#[tokio::test]
async fn a_node_whose_name_was_forgotten_or_whose_certificate_is_not_taken_joins_again() {
    let home = tempfile::tempdir().unwrap();
    let controller = controller(home.path());
    let (address, _task) = serve(controller.clone(), "127.0.0.1:0").await;
    let config = config(home.path(), address, controller.registrar.token());
    let run = async || {
        let client = start(config.clone()).unwrap();
        connected(&client).await;
        client.shutdown().await;
        controller.counts().joins
    };
    assert_eq!(run().await, 1);
    let name = "node-1".parse().unwrap();
    assert!(Registrar::forget(&home.path().join("controller"), &name).unwrap());
    controller.registrar.sweep(SystemTime::now()).unwrap();
    assert_eq!(run().await, 2);
    controller.count(|counts| counts.to_refuse = 2);
    assert_eq!(run().await, 2, "two refusals may have any reason");
    controller.count(|counts| counts.to_refuse = 3);
    assert_eq!(run().await, 3);
}

#[tokio::test]
async fn a_name_that_another_key_has_is_refused_and_the_error_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let controller = controller(home.path());
    let (address, _task) = serve(controller.clone(), "127.0.0.1:0").await;
    let real = start(config(home.path(), address, controller.registrar.token())).unwrap();
    connected(&real).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let thief = start(config(elsewhere.path(), address, controller.registrar.token())).unwrap();
    let mut link = thief.link();
    let status =
        timeout(DEADLINE, link.wait_for(|link| link.error.is_some())).await.unwrap().unwrap().clone();
    assert!(status.error.unwrap().contains("run `weft-controller forget-node node-1`"));
    assert!(real.link().borrow().connected);
    assert_eq!(controller.counts().streams, 1);
}

/// Waits for a stream that is not there, and returns why.
async fn error(client: &IrClient) -> String {
    let mut link = client.link();
    let found = timeout(DEADLINE, link.wait_for(|link| link.error.is_some())).await;
    found.expect("an error in time").unwrap().error.as_deref().unwrap().to_owned()
}

#[tokio::test]
async fn an_address_without_a_controller_is_named_with_what_to_look_at() {
    let home = tempfile::tempdir().unwrap();
    let token = JoinToken::generate(b"any").unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let other = mute.local_addr().unwrap();
    let _answers = tokio::spawn(async move {
        loop {
            use tokio::io::AsyncWriteExt as _;
            let (mut tcp, _) = mute.accept().await.unwrap();
            drop(tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        }
    });
    for (address, hint) in [
        (free.to_string(), "is the controller running"),
        (other.to_string(), "does not speak TLS"),
        ("weft.invalid:15010".to_owned(), "is --controller right"),
    ] {
        let place = home.path().join(address.replace(':', "-"));
        let client =
            start(IrClientConfig { address: address.clone(), ..config(&place, free, &token) }).unwrap();
        let error = error(&client).await;
        assert!(error.contains(hint) && error.contains(&address), "{address}: {error}");
    }
}

/// A node that has applied what this controller has, and has ended.
async fn ended(home: &Path, controller: &Controller) -> (SocketAddr, JoinHandle<()>) {
    put(controller, 1);
    let (address, task) = serve(controller.clone(), "127.0.0.1:0").await;
    let client = start(config(home, address, controller.registrar.token())).unwrap();
    let newest = controller.publisher.lock().unwrap().revision();
    let first = revision(&client, newest).await;
    client.acks().applied(first.position, Vec::new()).await;
    eventually(|| controller.applied() == Some(newest)).await;
    client.shutdown().await;
    (address, task)
}

#[tokio::test]
async fn with_a_damaged_credential_it_serves_what_was_saved_and_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let controller = controller(home.path());
    let (address, _task) = ended(home.path(), &controller).await;
    let path = home.path().join("state").join(CREDENTIAL);
    let config = || config(home.path(), address, controller.registrar.token());
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    let client = start(config()).unwrap();
    assert!(client.states().borrow().is_some(), "what was saved is served");
    connected(&client).await;
    assert_eq!(controller.counts().joins, 2, "with the key that it has");
    assert!(client.link().borrow().notes.is_empty(), "and all is well again");
    client.shutdown().await;

    fs::write(&path, b"").unwrap();
    let client = start(config()).unwrap();
    assert!(client.states().borrow().is_some());
    assert!(error(&client).await.contains("forget-node node-1"));
    assert!(client.link().borrow().notes.iter().any(|note| note.contains("forget-node node-1")));
    assert!(Registrar::forget(&home.path().join("controller"), &"node-1".parse().unwrap()).unwrap());
    controller.registrar.sweep(SystemTime::now()).unwrap();
    connected(&client).await;
    timeout(DEADLINE, client.link().wait_for(|link| link.notes.is_empty())).await.unwrap().unwrap();
    client.shutdown().await;

    // It cannot even be read.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let client = start(config()).unwrap();
    assert!(client.states().borrow().is_some());
    assert!(error(&client).await.contains(CREDENTIAL));
}

#[tokio::test]
async fn a_directory_of_another_node_is_refused_and_its_state_not_served() {
    let home = tempfile::tempdir().unwrap();
    let controller = controller(home.path());
    let (address, _task) = ended(home.path(), &controller).await;
    let config = || config(home.path(), address, controller.registrar.token());
    let refused = start(IrClientConfig { node: "node-2".into(), ..config() });
    let error = refused.map(drop).unwrap_err().to_string();
    assert!(error.contains("credential of node node-1") && error.contains("this is node node-2"), "{error}");
    fs::remove_file(home.path().join("state").join(CREDENTIAL)).unwrap();
    let client = start(IrClientConfig { node: "node-2".into(), ..config() }).unwrap();
    assert!(client.states().borrow().is_none(), "the state of another node");
}

#[tokio::test]
async fn a_ping_is_answered_and_who_is_told_of_another_process_waits_for_long() {
    let home = tempfile::tempdir().unwrap();
    let controller = controller(home.path());
    let (address, _task) = serve(controller.clone(), "127.0.0.1:0").await;
    let client = start(config(home.path(), address, controller.registrar.token())).unwrap();
    eventually(|| controller.counts().pongs == 1).await;
    client.shutdown().await;
    controller.count(|counts| counts.contest = true);
    let client = start(config(home.path(), address, controller.registrar.token())).unwrap();
    let mut link = client.link();
    let contested =
        link.wait_for(|link| link.error.as_ref().is_some_and(|error| error.contains("another process")));
    let contested = timeout(DEADLINE, contested).await.map(drop);
    assert!(contested.is_ok(), "{:?}", client.link().borrow());
    let streams = controller.counts().streams;
    // After any other end of a stream, several tries come within this time.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(controller.counts().streams, streams);
}

#[tokio::test]
async fn a_node_that_knows_more_than_its_controller_knows_why_nothing_comes() {
    let home = tempfile::tempdir().unwrap();
    let old = controller(home.path());
    old.publisher.lock().unwrap().commit(Change { versions: Versions::of("files", 9), ..Change::default() });
    let (address, task) = ended(home.path(), &old).await;
    task.abort();
    drop(task.await);
    let other = Controller { publisher: Arc::new(Mutex::new(Publisher::new(2))), ..old.clone() };
    put(&other, 7);
    let (_, _task) = serve(other.clone(), &address.to_string()).await;
    let client = start(config(home.path(), address, old.registrar.token())).unwrap();
    let mut link = client.link();
    let status =
        timeout(DEADLINE, link.wait_for(|link| link.stuck.is_some())).await.unwrap().unwrap().clone();
    let reason = status.stuck.unwrap().reason;
    assert!(reason.contains("was told files 9, and this controller knows nothing"), "{reason}");
    assert!(reason.contains("touch") && status.connected, "{reason}");
    other
        .publisher
        .lock()
        .unwrap()
        .commit(Change { versions: Versions::of("files", 9), ..Change::default() });
    client.shutdown().await;
    let client = start(config(home.path(), address, old.registrar.token())).unwrap();
    let restored = client.states().borrow().clone().unwrap();
    client.acks().applied(restored.position, Vec::new()).await;
    let mut states = client.states();
    let newer = states.wait_for(|state| state.as_ref().is_some_and(|state| state.position.epoch == 2));
    timeout(DEADLINE, newer).await.unwrap().unwrap();
    assert_eq!(client.link().borrow().stuck, None);
}

#[tokio::test]
async fn a_state_directory_that_is_removed_while_it_runs_keeps_the_name() {
    let home = tempfile::tempdir().unwrap();
    let controller = controller(home.path());
    put(&controller, 1);
    let (address, _task) = serve(controller.clone(), "127.0.0.1:0").await;
    let client = start(config(home.path(), address, controller.registrar.token())).unwrap();
    let first = revision(&client, 1).await;
    fs::remove_dir_all(home.path().join("state")).unwrap();
    client.acks().applied(first.position, Vec::new()).await;
    eventually(|| home.path().join("state").join(CREDENTIAL).exists()).await;
    assert_eq!(client.link().borrow().lost, 1);
    client.shutdown().await;
    let client = start(config(home.path(), address, controller.registrar.token())).unwrap();
    connected(&client).await;
    assert_eq!(controller.counts().joins, 1, "with the same key and certificate");
}

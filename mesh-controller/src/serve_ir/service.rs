// SPDX-License-Identifier: Apache-2.0
//! The gRPC service `weft.ir.v1.State`, and the task of each stream.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::{
    Stream, StreamExt as _, future,
    stream::{self, PollNext},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, StreamingService},
    transport::{self, Server},
};
use weft_grpc::Wire;
use weft_identity::{Peer, Registrar};
use weft_ir::{
    stream::{
        Batch, FromNode, Hello, JOIN_PATH, MAX_FRAME_BYTES, MAX_REJECTION_BYTES, MAX_REJECTIONS, RENEW_PATH,
        STREAM_PATH, ToNode,
    },
    wire,
};
use weft_runtime::supervise::PeerTasks;

use super::{
    accept::Connection,
    actor::Command,
    join::{Join, MAX_JOIN_BYTES, Registration, Renew, admission, certified, status},
    session::{NOTICES, Session},
};

/// A quiet connection is asked for a sign of life this often, and closed without one.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

const STREAM: PeerTasks = PeerTasks::new("state stream");

/// How often an open stream is asked whether its node still has its name.
const RECHECK: Duration = Duration::from_secs(5);

/// A node needs one stream, and one more to renew its certificate.
const STREAMS_PER_CONNECTION: u32 = 2;

/// The header of a request: the token and what gRPC adds.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The largest message of a node: an acknowledgement with all its rejections, and room for their keys.
const MAX_FROM_NODE_BYTES: usize = MAX_REJECTIONS * MAX_REJECTION_BYTES + MAX_FRAME_BYTES;

/// The gRPC service.
#[derive(Clone, Debug)]
pub(super) struct StateService {
    registration: Registration,
    /// The time for a node's hello, once its stream is open.
    greeting: Duration,
    commands: mpsc::Sender<Command>,
    sessions: Arc<AtomicU64>,
}

type Messages = Pin<Box<dyn Stream<Item = Result<ToNode, Status>> + Send>>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves connections until the server stops.
pub(super) async fn serve(
    service: StateService,
    incoming: impl Stream<Item = io::Result<Connection>>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), transport::Error> {
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION);
    // Both a stop and the end of the server's owner end the wait.
    let stop = async move { drop(stopped.changed().await) };
    server.serve_with_incoming_shutdown(service, incoming, stop).await
}

impl StateService {
    pub(super) fn new(
        registration: Registration,
        greeting: Duration,
        commands: mpsc::Sender<Command>,
    ) -> StateService {
        StateService { registration, greeting, commands, sessions: Arc::default() }
    }

    /// The node that wants a stream, if it may have one.
    fn admit(&self, request: &Request<Streaming<FromNode>>) -> Result<Peer, Status> {
        let Registration { registrar, counters, .. } = &self.registration;
        let peer = certified(request).inspect_err(|_| counters.unauthorized.add())?;
        registrar.admits(&peer, SystemTime::now()).map_err(|refusal| {
            counters.refused.add();
            status(&refusal)
        })?;
        admission(request)?.admit();
        Ok(peer)
    }

    fn open(&self, request: Request<Streaming<FromNode>>) -> Result<Response<Messages>, Status> {
        let peer = self.admit(&request)?;
        let from = admission(&request)?.address();
        let (batches, outbound) = mpsc::channel(1);
        let (notices, to_notice) = mpsc::channel(NOTICES);
        let (end, ended) = oneshot::channel();
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let session = Session { number, from, batches: batches.clone(), notices, end, is_told: false };
        let service = self.clone();
        STREAM.start(async move {
            let mut inbound = request.into_inner();
            let followed = match service.hello(&mut inbound, &peer).await {
                Ok(hello) => service.follow(hello, inbound, peer, session, ended).await,
                Err(status) => Err(status),
            };
            if let Err(status) = followed {
                // The node may have gone before it can read why.
                drop(batches.send(Err(status)).await);
            }
        });
        let frames = received(outbound).flat_map(frames);
        let notices = received(to_notice).map(Ok);
        // A notice is about what comes after it.
        let messages = stream::select_with_strategy(notices, frames, |(): &mut ()| PollNext::Left);
        Ok(Response::new(Box::pin(messages)))
    }
}

fn received<T>(channel: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    stream::unfold(channel, async |mut channel| channel.recv().await.map(|message| (message, channel)))
}

fn frames(batch: Result<Vec<Batch>, Status>) -> stream::Iter<std::vec::IntoIter<Result<ToNode, Status>>> {
    let frames: Vec<_> = match batch {
        Ok(frames) => frames.into_iter().map(|frame| Ok(ToNode::Batch(frame))).collect(),
        Err(status) => vec![Err(status)],
    };
    stream::iter(frames)
}

impl StateService {
    /// The first message, which must be of the node whose certificate was shown.
    async fn hello(&self, inbound: &mut Streaming<FromNode>, peer: &Peer) -> Result<Hello, Status> {
        let hello = match timeout(self.greeting, inbound.message()).await {
            Ok(Ok(Some(FromNode::Hello(hello)))) => hello,
            Ok(Ok(_)) => return Err(Status::invalid_argument("a stream begins with a hello")),
            Ok(Err(status)) => return Err(status),
            Err(_) => return Err(Status::deadline_exceeded("no hello in time")),
        };
        if hello.node == *peer.node.shared() {
            return Ok(hello);
        }
        self.registration.counters.refused.add();
        tracing::warn!(node = %peer.node, claims = ?hello.node, "a node says it is another");
        Err(Status::permission_denied(format!("the certificate is of node {}, the hello is not", peer.node)))
    }

    /// Reads what a node says, until its stream ends or its name is no longer its own.
    async fn follow(
        &self,
        hello: Hello,
        mut inbound: Streaming<FromNode>,
        peer: Peer,
        session: Session,
        mut ended: oneshot::Receiver<Status>,
    ) -> Result<(), Status> {
        let (node, number) = (hello.node.clone(), session.number);
        let (commands, registrar) = (&self.commands, &self.registration.registrar);
        let stopped = |_| Status::unavailable("the controller is stopping");
        commands.send(Command::Hello { hello, session }).await.map_err(stopped)?;
        let result = loop {
            let message = tokio::select! {
                message = inbound.message() => message,
                refusal = revoked(registrar, &peer) => break Err(refusal),
                status = &mut ended => {
                    return Err(status.unwrap_or_else(|_| Status::unavailable("the controller is stopping")));
                }
            };
            match message {
                Ok(Some(FromNode::Ack(ack))) => {
                    let command = Command::Ack { node: node.clone(), session: number, ack };
                    commands.send(command).await.map_err(stopped)?;
                }
                Ok(Some(FromNode::Pong)) => {
                    let command = Command::Pong { node: node.clone(), session: number };
                    commands.send(command).await.map_err(stopped)?;
                }
                Ok(Some(FromNode::Hello(_))) => break Err(Status::invalid_argument("a second hello")),
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            }
        };
        commands.send(Command::Gone { node, session: number }).await.map_err(stopped)?;
        result
    }
}

/// Waits until the name of this node is bound to its key no longer: it has expired or was forgotten.
async fn revoked(registrar: &Registrar, peer: &Peer) -> Status {
    loop {
        if let Err(refusal) = registrar.admits(peer, SystemTime::now()) {
            return status(&refusal);
        }
        sleep(RECHECK).await;
    }
}

impl StreamingService<FromNode> for StateService {
    type Response = ToNode;
    type ResponseStream = Messages;
    type Future = future::Ready<Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<Streaming<FromNode>>) -> Self::Future {
        future::ready(self.open(request))
    }
}

impl Service<http::Request<Body>> for StateService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                STREAM_PATH => {
                    let codec = Wire::new(wire::encode_to_node, wire::decode_from_node);
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_FROM_NODE_BYTES);
                    grpc.streaming(service, request).await
                }
                JOIN_PATH => {
                    let codec = Wire::new(wire::encode_certificates, wire::decode_join);
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_JOIN_BYTES);
                    grpc.unary(Join(service.registration), request).await
                }
                RENEW_PATH => {
                    let codec = Wire::new(wire::encode_certificates, wire::decode_renew);
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_JOIN_BYTES);
                    grpc.unary(Renew(service.registration), request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

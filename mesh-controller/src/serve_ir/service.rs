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
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, future, stream};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, StreamingService},
    transport::Server,
};
use weft_identity::JoinToken;
use weft_ir::stream::{
    Batch, FromNode, Hello, MAX_FRAME_BYTES, MAX_REJECTION_BYTES, MAX_REJECTIONS, STREAM_PATH,
};

use super::{
    StreamCounters,
    accept::{Admission, Connection},
    actor::{Command, Session},
    codec::ControllerCodec,
};

/// A quiet connection is asked for a sign of life this often, and closed without one.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A node needs one stream, and one more while it replaces the first.
const STREAMS_PER_CONNECTION: u32 = 2;

/// The header of a request: the token and what gRPC adds.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The largest message of a node: an acknowledgement with all its rejections, and room for their keys.
const MAX_FROM_NODE_BYTES: usize = MAX_REJECTIONS * MAX_REJECTION_BYTES + MAX_FRAME_BYTES;

/// Who may come in.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) token: JoinToken,
    /// The time for a node's hello, once its stream is open.
    pub(super) greeting: Duration,
    pub(super) counters: Arc<StreamCounters>,
}

/// The gRPC service.
#[derive(Clone, Debug)]
pub(super) struct StateService {
    door: Door,
    commands: mpsc::Sender<Command>,
    sessions: Arc<AtomicU64>,
}

type Batches = Pin<Box<dyn Stream<Item = Result<Batch, Status>> + Send>>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves connections until the server stops.
pub(super) async fn serve(
    service: StateService,
    incoming: impl Stream<Item = io::Result<Connection>>,
    mut stopped: watch::Receiver<bool>,
) {
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION);
    // Both a stop and the end of the server's owner end the wait.
    let stop = async move { drop(stopped.changed().await) };
    if let Err(error) = server.serve_with_incoming_shutdown(service, incoming, stop).await {
        tracing::error!(%error, "the state server has failed");
    }
}

impl StateService {
    pub(super) fn new(door: Door, commands: mpsc::Sender<Command>) -> StateService {
        StateService { door, commands, sessions: Arc::default() }
    }

    fn open(&self, request: Request<Streaming<FromNode>>) -> Result<Response<Batches>, Status> {
        let authorization = request.metadata().get("authorization");
        if !authorization.is_some_and(|value| self.door.token.authorizes(value.as_bytes())) {
            self.door.counters.unauthorized.add();
            return Err(Status::unauthenticated("the join token is not this controller's"));
        }
        if let Some(admission) = request.extensions().get::<Admission>() {
            admission.admit();
        }
        let (batches, outbound) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let session = Session { number, batches: batches.clone(), end };
        let (commands, greeting) = (self.commands.clone(), self.door.greeting);
        tokio::spawn(async move {
            let mut inbound = request.into_inner();
            let followed = match hello(&mut inbound, greeting).await {
                Ok(hello) => follow(hello, inbound, commands, session, ended).await,
                Err(status) => Err(status),
            };
            if let Err(status) = followed {
                // The node may have gone before it can read why.
                drop(batches.send(Err(status)).await);
            }
        });
        let outbound = stream::unfold(outbound, async |mut outbound| {
            outbound.recv().await.map(|batch| (batch, outbound))
        });
        Ok(Response::new(Box::pin(outbound.flat_map(frames))))
    }
}

fn frames(batch: Result<Vec<Batch>, Status>) -> stream::Iter<std::vec::IntoIter<Result<Batch, Status>>> {
    let frames: Vec<_> = match batch {
        Ok(frames) => frames.into_iter().map(Ok).collect(),
        Err(status) => vec![Err(status)],
    };
    stream::iter(frames)
}

/// Reads what a node says, until its stream ends.
async fn follow(
    hello: Hello,
    mut inbound: Streaming<FromNode>,
    commands: mpsc::Sender<Command>,
    session: Session,
    mut ended: oneshot::Receiver<Status>,
) -> Result<(), Status> {
    let (node, number) = (hello.node.clone(), session.number);
    let stopped = |_| Status::unavailable("the controller is stopping");
    commands.send(Command::Hello { hello, session }).await.map_err(stopped)?;
    let result = loop {
        let message = tokio::select! {
            message = inbound.message() => message,
            status = &mut ended => {
                return Err(status.unwrap_or_else(|_| Status::unavailable("the controller is stopping")));
            }
        };
        match message {
            Ok(Some(FromNode::Ack(ack))) => {
                let command = Command::Ack { node: node.clone(), session: number, ack };
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

async fn hello(inbound: &mut Streaming<FromNode>, greeting: Duration) -> Result<Hello, Status> {
    match timeout(greeting, inbound.message()).await {
        Ok(Ok(Some(FromNode::Hello(hello)))) => Ok(hello),
        Ok(Ok(_)) => Err(Status::invalid_argument("a stream begins with a hello")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("no hello in time")),
    }
}

impl StreamingService<FromNode> for StateService {
    type Response = Batch;
    type ResponseStream = Batches;
    type Future = future::Ready<Result<Response<Batches>, Status>>;

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
            if request.uri().path() != STREAM_PATH {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let mut grpc = Grpc::new(ControllerCodec).max_decoding_message_size(MAX_FROM_NODE_BYTES);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

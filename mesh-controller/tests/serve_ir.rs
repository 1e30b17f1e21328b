// SPDX-License-Identifier: Apache-2.0
//! The state server over real TLS sockets, with a client of no more than tonic and the subscriber.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::{Buf, BufMut};
use futures_util::stream;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Endpoint,
};
use weft_identity::{Authority, JoinToken, tls};
use weft_ir::{
    Identity, IdentityNumber, Resource, ResourceKey,
    stream::{Batch, FromNode, Hello, Position, STREAM_PATH},
    subscribe::{Commit, Progress, Subscriber},
    wire,
};
use weft_mesh_controller::serve_ir::{IrLimits, IrServer, IrServerConfig};

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
struct NodeCodec;

impl Codec for NodeCodec {
    type Encode = FromNode;
    type Decode = Batch;
    type Encoder = NodeCodec;
    type Decoder = NodeCodec;

    fn encoder(&mut self) -> NodeCodec {
        NodeCodec
    }

    fn decoder(&mut self) -> NodeCodec {
        NodeCodec
    }
}

impl Encoder for NodeCodec {
    type Item = FromNode;
    type Error = Status;

    fn encode(&mut self, message: FromNode, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(wire::encode_from_node(&message));
        Ok(())
    }
}

impl Decoder for NodeCodec {
    type Item = Batch;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Batch>, Status> {
        Ok(Some(wire::decode_to_node(src.copy_to_bytes(src.remaining())).unwrap()))
    }
}

struct Stream {
    inbound: Streaming<Batch>,
    outbound: mpsc::Sender<FromNode>,
}

impl Stream {
    async fn open(
        address: SocketAddr,
        token: &JoinToken,
        bearer: &str,
        hello: Hello,
    ) -> Result<Stream, Status> {
        let config = tls::controller_client(token).unwrap();
        let connector = tower::service_fn(move |_| {
            let config = config.clone();
            async move {
                let tcp = TcpStream::connect(address).await?;
                TlsConnector::from(config).connect(tls::controller_name(), tcp).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("https://controller.weft.internal");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let (outbound, messages) = mpsc::channel(4);
        outbound.send(FromNode::Hello(hello)).await.unwrap();
        let messages = stream::unfold(messages, async |mut m| m.recv().await.map(|message| (message, m)));
        let mut request = Request::new(Box::pin(messages));
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        let response = grpc.streaming(request, PathAndQuery::from_static(STREAM_PATH), NodeCodec).await?;
        Ok(Stream { inbound: response.into_inner(), outbound })
    }

    async fn commit(&mut self, node: &mut Subscriber) -> Arc<Commit> {
        loop {
            let batch = timeout(DEADLINE, self.inbound.message()).await.unwrap().unwrap().unwrap();
            if let Progress::Commit(commit) = node.frame(batch).unwrap() {
                return commit;
            }
        }
    }

    async fn apply(&self, node: &mut Subscriber, position: Position) {
        let ack = node.applied(position, Vec::new()).unwrap();
        self.outbound.send(FromNode::Ack(ack)).await.unwrap();
    }
}

async fn start(directory: &Path) -> (IrServer, JoinToken) {
    start_with(directory, IrLimits::default()).await
}

async fn start_with(directory: &Path, limits: IrLimits) -> (IrServer, JoinToken) {
    let authority = Authority::open(directory).unwrap();
    let token = authority.token().clone();
    let tls = tls::controller_server(authority).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (IrServer::start(listener, IrServerConfig { tls, token: token.clone(), limits }).unwrap(), token)
}

fn state(numbers: std::ops::Range<u32>) -> BTreeMap<ResourceKey, Resource> {
    let identity = |number| Identity { number: IdentityNumber(number), labels: BTreeMap::new() };
    numbers.map(identity).map(Resource::Identity).map(|resource| (resource.key(), resource)).collect()
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (server, token) = start(home.path()).await;
    let hello = Subscriber::new("a".into()).hello();
    for bearer in ["Bearer nonsense", &JoinToken::generate(b"other").unwrap().authorization()] {
        let refused = Stream::open(server.address(), &token, bearer, hello.clone()).await;
        assert_eq!(refused.err().map(|status| status.code()), Some(Code::Unauthenticated));
    }
    assert!(server.handle().watch_acks().borrow().nodes.is_empty());
    server.shutdown().await;
}

#[tokio::test]
async fn a_cut_stream_resumes_and_the_report_follows_what_is_applied() {
    let home = tempfile::tempdir().unwrap();
    let (server, token) = start(home.path()).await;
    let mut node = Subscriber::new("a".into());
    let bearer = token.authorization();
    let mut reports = server.handle().watch_acks();

    let hello = node.hello();
    let mut stream = Stream::open(server.address(), &token, &bearer, hello).await.unwrap();
    assert_eq!(server.handle().publish(state(0..5000)).await, Ok(1));
    let first = stream.commit(&mut node).await;
    assert_eq!(first.snapshot.resources.len(), 5000);
    assert_eq!(reports.borrow_and_update().behind(1).count(), 1, "received is not applied");
    stream.apply(&mut node, first.position).await;
    timeout(DEADLINE, reports.wait_for(|report| report.behind(1).count() == 0)).await.unwrap().unwrap();

    drop(stream);
    timeout(DEADLINE, reports.wait_for(|report| !report.nodes["a"].connected)).await.unwrap().unwrap();
    assert_eq!(server.handle().publish(state(1..5001)).await, Ok(2));
    let hello = node.hello();
    assert_eq!(hello.resume.map(|at| at.revision), Some(1));
    let mut stream = Stream::open(server.address(), &token, &bearer, hello).await.unwrap();
    let second = stream.commit(&mut node).await;
    assert_eq!((second.changed.len(), second.removed.len()), (1, 1), "a delta");
    stream.apply(&mut node, second.position).await;
    let applied = |report: &Arc<_>| {
        let report: &weft_mesh_controller::serve_ir::IrReport = report;
        report.nodes["a"].applied == Some(2)
    };
    timeout(DEADLINE, reports.wait_for(applied)).await.unwrap().unwrap();
    server.shutdown().await;
    let end = timeout(DEADLINE, stream.inbound.message()).await.unwrap();
    assert!(end.is_err() || end.unwrap().is_none());
}

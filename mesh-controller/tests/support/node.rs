// SPDX-License-Identifier: Apache-2.0
//! A node of no more than tonic and the subscriber.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, unreachable_pub, reason = "not every test needs all of it")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, BufMut};
use futures_util::stream;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Endpoint,
};
use weft_identity::{JoinToken, tls};
use weft_ir::{
    stream::{Batch, FromNode, Hello, Position, STREAM_PATH},
    subscribe::{Commit, Progress, Subscriber},
    wire,
};

/// Long enough for anything that happens at all.
pub const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
pub struct NodeCodec;

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

/// An open stream, as a node has it.
pub struct Stream {
    pub inbound: Streaming<Batch>,
    pub outbound: mpsc::Sender<FromNode>,
}

impl Stream {
    pub async fn open(
        address: SocketAddr,
        token: &JoinToken,
        bearer: &str,
        hello: Hello,
    ) -> Result<Stream, Status> {
        let stream = Stream::open_silent(address, token, bearer).await?;
        stream.outbound.send(FromNode::Hello(hello)).await.unwrap();
        Ok(stream)
    }

    /// Opens a stream and says nothing on it.
    pub async fn open_silent(address: SocketAddr, token: &JoinToken, bearer: &str) -> Result<Stream, Status> {
        let config = tls::controller_client(token).unwrap();
        let connector = tower::service_fn(move |_| {
            let config = config.clone();
            async move {
                let tcp = TcpStream::connect(address).await?;
                TlsConnector::from(config).connect(tls::controller_name(), tcp).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("https://controller.weft.internal");
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let (outbound, messages) = mpsc::channel(4);
        let messages = stream::unfold(messages, async |mut m| m.recv().await.map(|message| (message, m)));
        let mut request = Request::new(Box::pin(messages));
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        let response = grpc.streaming(request, PathAndQuery::from_static(STREAM_PATH), NodeCodec).await?;
        Ok(Stream { inbound: response.into_inner(), outbound })
    }

    /// Reads until a batch is complete.
    pub async fn commit(&mut self, node: &mut Subscriber) -> Arc<Commit> {
        loop {
            let batch = timeout(DEADLINE, self.inbound.message()).await.unwrap().unwrap().unwrap();
            if let Progress::Commit(commit) = node.frame(batch).unwrap() {
                return commit;
            }
        }
    }

    /// Acknowledges.
    pub async fn apply(&self, node: &mut Subscriber, position: Position) {
        let ack = node.applied(position, Vec::new()).unwrap();
        self.outbound.send(FromNode::Ack(ack)).await.unwrap();
    }
}

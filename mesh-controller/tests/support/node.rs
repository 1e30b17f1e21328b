// SPDX-License-Identifier: Apache-2.0
//! A node of no more than tonic and the subscriber.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, unreachable_pub, reason = "not every test needs all of it")]

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::CertificateDer};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use weft_grpc::Wire;
use weft_identity::{Credential, JoinToken, tls};
use weft_ir::{
    stream::{
        Certificates, FromNode, Hello, JOIN_PATH, JoinRequest, Position, RENEW_PATH, STREAM_PATH, ToNode,
    },
    subscribe::{Commit, Progress, Subscriber},
    wire,
};

/// Long enough for anything that happens at all.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Bytes that all nodes of this process have sent and received, with TLS.
pub static SENT: AtomicU64 = AtomicU64::new(0);
pub static RECEIVED: AtomicU64 = AtomicU64::new(0);

/// A connection whose bytes are counted.
struct Counted(TcpStream);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.0).poll_read(cx, buf);
        RECEIVED.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        done
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.0).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = done {
            SENT.fetch_add(count as u64, Ordering::Relaxed);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A node's side of its identity, with a state directory of its own.
pub struct Member {
    pub credential: Credential,
    /// The address that it connects from, where that is not the kernel's choice.
    pub from: Option<IpAddr>,
    _home: tempfile::TempDir,
}

impl Member {
    /// A node that has the token and has not joined.
    pub fn stranger(token: &JoinToken, name: &str) -> Member {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("credential.pem");
        let credential = Credential::open(&path, name.parse().unwrap(), token.clone()).unwrap();
        Member { credential, from: None, _home: home }
    }

    /// A node that has joined.
    pub async fn join(address: SocketAddr, token: &JoinToken, name: &str) -> Result<Member, Status> {
        let mut member = Member::stranger(token, name);
        let request = member.credential.request().unwrap();
        member.ask(address, name, request, &token.authorization()).await?;
        Ok(member)
    }

    /// Asks for a certificate with any name, request and header, and takes what comes.
    pub async fn ask(
        &mut self,
        address: SocketAddr,
        name: &str,
        request: Vec<u8>,
        bearer: &str,
    ) -> Result<(), Status> {
        let answer = self.ask_raw(address, name, request, bearer).await?;
        self.take(answer);
        Ok(())
    }

    /// Asks for a certificate with any name, request and header.
    pub async fn ask_raw(
        &self,
        address: SocketAddr,
        name: &str,
        request: Vec<u8>,
        bearer: &str,
    ) -> Result<Certificates, Status> {
        let message = JoinRequest { node: name.into(), request: request.into() };
        let codec = Wire::new(wire::encode_join, wire::decode_certificates);
        let mut grpc = self.dial(address).await?;
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        let answer = grpc.unary(request, PathAndQuery::from_static(JOIN_PATH), codec).await?;
        Ok(answer.into_inner())
    }

    /// Renews the certificate.
    pub async fn renew(&mut self, address: SocketAddr) -> Result<(), Status> {
        let codec = Wire::new(wire::encode_renew, wire::decode_certificates);
        let mut grpc = self.dial(address).await?;
        let answer = grpc.unary(Request::new(()), PathAndQuery::from_static(RENEW_PATH), codec).await?;
        self.take(answer.into_inner());
        Ok(())
    }

    /// The same node once more, as if its directory had been copied.
    pub fn copied(&mut self, token: &JoinToken) -> Member {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("credential.pem");
        self.credential.keep().unwrap();
        std::fs::copy(self._home.path().join("credential.pem"), &path).unwrap();
        let credential = Credential::open(&path, self.credential.node().clone(), token.clone()).unwrap();
        Member { credential, from: None, _home: home }
    }

    fn take(&mut self, answer: Certificates) {
        let chain = answer.chain.into_iter().map(|one| CertificateDer::from(one.to_vec())).collect();
        self.credential.accept(chain).unwrap();
    }

    async fn dial(&self, address: SocketAddr) -> Result<Grpc<Channel>, Status> {
        let config = tls::controller_client(&self.credential).unwrap();
        let from = self.from;
        let connector = tower::service_fn(move |_| {
            let config = config.clone();
            async move {
                let socket = TcpSocket::new_v4()?;
                if let Some(from) = from {
                    socket.bind(SocketAddr::new(from, 0))?;
                }
                let tcp = Counted(socket.connect(address).await?);
                TlsConnector::from(config).connect(tls::controller_name(), tcp).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("https://controller.weft.internal");
        let channel = endpoint.connect_with_connector(connector).await;
        let mut grpc = Grpc::new(channel.map_err(|error| Status::unavailable(error.to_string()))?);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }
}

/// An open stream, as a node has it.
pub struct Stream {
    pub inbound: Streaming<ToNode>,
    pub outbound: mpsc::Sender<FromNode>,
}

impl Stream {
    pub async fn open(address: SocketAddr, member: &Member, hello: Hello) -> Result<Stream, Status> {
        let stream = Stream::open_silent(address, member).await?;
        stream.outbound.send(FromNode::Hello(hello)).await.unwrap();
        Ok(stream)
    }

    /// Opens a stream and says nothing on it.
    pub async fn open_silent(address: SocketAddr, member: &Member) -> Result<Stream, Status> {
        let mut grpc = member.dial(address).await?;
        let (outbound, messages) = mpsc::channel(4);
        let messages = stream::unfold(messages, async |mut m| m.recv().await.map(|message| (message, m)));
        let codec = Wire::new(|message| wire::encode_from_node(&message), wire::decode_to_node);
        let request = Request::new(Box::pin(messages));
        let response = grpc.streaming(request, PathAndQuery::from_static(STREAM_PATH), codec).await?;
        Ok(Stream { inbound: response.into_inner(), outbound })
    }

    /// Reads until a batch is complete.
    pub async fn commit(&mut self, node: &mut Subscriber) -> Arc<Commit> {
        loop {
            let ToNode::Batch(batch) = self.next().await.unwrap() else { continue };
            if let Progress::Commit(commit) = node.frame(batch).unwrap() {
                return commit;
            }
        }
    }

    /// The next message.
    pub async fn next(&mut self) -> Result<ToNode, Status> {
        let next = timeout(DEADLINE, self.inbound.message()).await.expect("a message in time")?;
        Ok(next.expect("a stream that goes on"))
    }

    /// Answers every ping, and takes all else as it comes, until the stream ends.
    pub async fn answer_pings(mut self) -> Status {
        loop {
            match self.inbound.message().await {
                Ok(Some(ToNode::Ping)) => self.outbound.send(FromNode::Pong).await.unwrap(),
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("ended"),
                Err(status) => return status,
            }
        }
    }

    /// Acknowledges.
    pub async fn apply(&self, node: &mut Subscriber, position: Position) {
        let ack = node.applied(position, Vec::new()).unwrap();
        self.outbound.send(FromNode::Ack(ack)).await.unwrap();
    }
}

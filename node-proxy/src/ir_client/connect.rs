// SPDX-License-Identifier: Apache-2.0
//! Opens a stream to the controller.

use std::{io, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::ClientConfig};
use tonic::{
    Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, metadata::MetadataValue,
    transport::Endpoint,
};
use tower::service_fn;
use weft_identity::{JoinToken, tls};
use weft_ir::stream::{Batch, FromNode, MAX_MESSAGE_BYTES, STREAM_PATH};

use super::codec::NodeCodec;

/// The time for name lookup, TCP, TLS and the answer's head together.
const CONNECT: Duration = Duration::from_secs(10);

/// A quiet connection is asked for a sign of life this often, and closed without one.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How the controller is reached.
pub(super) struct Dial {
    pub(super) address: String,
    pub(super) token: JoinToken,
    pub(super) tls: Arc<ClientConfig>,
}

/// Why there is no stream. Each names what to look at.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cannot connect to the controller at {address}: {}", chain(source))]
    Connect { address: String, source: tonic::transport::Error },
    #[error("the controller at {address} does not answer within {CONNECT:?}")]
    Timeout { address: String },
    #[error("the controller at {address} refused the stream: {}", source.message())]
    Refused { address: String, source: Status },
    #[error("the join token is no valid header value")]
    Token,
}

impl Dial {
    /// Opens a stream that sends what comes through the channel.
    pub(super) async fn open(
        &self,
        outbound: mpsc::Receiver<FromNode>,
    ) -> Result<Streaming<Batch>, ConnectError> {
        let open = self.open_unbounded(outbound);
        timeout(CONNECT, open)
            .await
            .unwrap_or_else(|_| Err(ConnectError::Timeout { address: self.address.clone() }))
    }

    async fn open_unbounded(
        &self,
        outbound: mpsc::Receiver<FromNode>,
    ) -> Result<Streaming<Batch>, ConnectError> {
        let mut authorization =
            MetadataValue::try_from(self.token.authorization()).or(Err(ConnectError::Token))?;
        authorization.set_sensitive(true);
        let failed = |source| ConnectError::Connect { address: self.address.clone(), source };
        let (address, tls) = (self.address.clone(), self.tls.clone());
        let connector = service_fn(move |_| connect(address.clone(), tls.clone()));
        // The address is dialled by the connector; the URI only fills the request's authority.
        let channel = Endpoint::from_static("https://controller.weft.internal")
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(failed)?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        grpc.ready().await.map_err(failed)?;
        let mut request = Request::new(messages(outbound));
        request.metadata_mut().insert("authorization", authorization);
        let response = grpc.streaming(request, PathAndQuery::from_static(STREAM_PATH), NodeCodec).await;
        let refused = |source| ConnectError::Refused { address: self.address.clone(), source };
        response.map(tonic::Response::into_inner).map_err(refused)
    }
}

fn messages(outbound: mpsc::Receiver<FromNode>) -> impl Stream<Item = FromNode> + Send + 'static {
    stream::unfold(outbound, async |mut outbound| outbound.recv().await.map(|message| (message, outbound)))
}

async fn connect(address: String, tls: Arc<ClientConfig>) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(&address).await?;
    tcp.set_nodelay(true)?;
    Ok(TokioIo::new(TlsConnector::from(tls).connect(tls::controller_name(), tcp).await?))
}

/// The innermost causes: tonic's own message is only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

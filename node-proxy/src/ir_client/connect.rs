// SPDX-License-Identifier: Apache-2.0
//! Opens a stream to the controller, and gets the certificate that it takes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{Stream, stream};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, pki_types::CertificateDer},
};
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use tower::service_fn;
use weft_grpc::Wire;
use weft_identity::{Credential, CredentialError, tls};
use weft_ir::{
    stream::{
        Certificates, FromNode, JOIN_PATH, JoinRequest, MAX_MESSAGE_BYTES, RENEW_PATH, STREAM_PATH, ToNode,
    },
    wire,
};
use weft_runtime::supervise;

/// The time for name lookup, TCP, TLS and the answer's head together.
const CONNECT: Duration = Duration::from_secs(10);

/// A quiet connection is asked for a sign of life this often, and closed without one.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate with which the controller has refused so many streams in a row is not tried again: it may
/// have expired by the controller's clock.
const REFUSALS: u32 = 3;

/// How the controller is reached.
pub(super) struct Dial {
    address: String,
    /// The file with the token of a service account.
    account: Option<PathBuf>,
    /// What makes the node who it is; nothing as long as the file cannot be read or written.
    credential: Option<Credential>,
    open: Box<dyn Fn() -> Result<Credential, CredentialError> + Send + Sync>,
    /// Why the certificate is in memory only.
    unkept: Option<String>,
    /// Streams that were refused in a row.
    refusals: u32,
}

/// A stream, and the connection that carries it.
pub(super) struct Opened {
    pub(super) inbound: Streaming<ToNode>,
    pub(super) channel: Channel,
}

/// Why there is no stream. Each names what to look at.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cannot connect to the controller at {address}: {}", chain(source))]
    Connect { address: String, source: tonic::transport::Error },
    #[error(
        "the controller at {address} does not answer within {CONNECT:?}: is it running, and is a firewall in between?"
    )]
    Timeout { address: String },
    #[error("the controller at {address} refused {what}: {}", reason(source))]
    Refused { address: String, what: &'static str, source: Status },
    #[error("cannot use the node's credential: {}", supervise::chain(.0))]
    Credential(#[from] CredentialError),
    #[error("cannot set up TLS to the controller: {}", chain(.0))]
    Tls(#[from] tls::TlsError),
    #[error("the join token is no valid header value")]
    Token,
    #[error("cannot read the token of the service account in {}: {source}", path.display())]
    Account { path: PathBuf, source: io::Error },
}

impl Dial {
    /// Opens the credential by this function: at once, and where that fails, with each try to connect.
    ///
    /// # Errors
    /// When the credential is another node's.
    pub(super) fn new(
        address: String,
        account: Option<PathBuf>,
        open: impl Fn() -> Result<Credential, CredentialError> + Send + Sync + 'static,
    ) -> Result<Dial, CredentialError> {
        let mut dial =
            Dial { address, account, credential: None, open: Box::new(open), unkept: None, refusals: 0 };
        match dial.opened() {
            Ok(credential) => dial.credential = Some(credential),
            Err(foreign @ CredentialError::Foreign { .. }) => return Err(foreign),
            // Each try to connect tries again, and says so.
            Err(_) => {}
        }
        Ok(dial)
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// How long the node's certificate is good for.
    pub(super) fn left(&self) -> Option<Duration> {
        self.credential.as_ref()?.left(SystemTime::now())
    }

    /// What is wrong with the file of the credential, one line each.
    pub(super) fn notes(&self) -> Vec<String> {
        let noted = self.credential.iter().flat_map(Credential::notes);
        noted.chain(&self.unkept).cloned().collect()
    }

    /// Takes another certificate, for the next connection.
    pub(super) fn renewed(&mut self, chain: Vec<CertificateDer<'static>>) -> Result<(), CredentialError> {
        if let Some(credential) = &mut self.credential {
            credential.accept(chain)?;
        }
        self.keep();
        Ok(())
    }

    /// Writes the credential, where that is not on disk as it should be.
    pub(super) fn keep(&mut self) {
        self.unkept = self.credential.as_mut().and_then(kept);
    }

    /// Opens a stream that sends what comes through the channel. A node without a certificate joins first.
    pub(super) async fn open(&mut self, outbound: mpsc::Receiver<FromNode>) -> Result<Opened, ConnectError> {
        let mut credential = self.opened()?;
        let opened = self.open_as(&mut credential, outbound).await;
        self.refusals = match &opened {
            Err(ConnectError::Refused { .. }) => self.refusals + 1,
            Err(_) => self.refusals,
            Ok(_) => 0,
        };
        let unknown = |error: &ConnectError| matches!(error, ConnectError::Refused { source, .. } if source.code() == Code::Unauthenticated);
        if opened.as_ref().is_err_and(unknown) || self.refusals >= REFUSALS {
            credential.forget();
            self.refusals = 0;
        }
        self.credential = Some(credential);
        opened
    }

    /// The credential, from memory or from its file.
    fn opened(&mut self) -> Result<Credential, CredentialError> {
        if let Some(credential) = self.credential.take() {
            return Ok(credential);
        }
        let credential = (self.open)()?;
        credential.notes().iter().for_each(|note| tracing::warn!("{note}"));
        Ok(credential)
    }

    async fn open_as(
        &mut self,
        credential: &mut Credential,
        outbound: mpsc::Receiver<FromNode>,
    ) -> Result<Opened, ConnectError> {
        if credential.left(SystemTime::now()).is_none() {
            credential.forget();
            let chain = self.within(self.join(credential)).await?;
            credential.accept(chain)?;
            self.unkept = kept(credential);
            tracing::info!(node = %credential.node(), "joined: the node has a certificate of its own");
        }
        self.within(self.stream(credential, outbound)).await
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let late = |_| Err(ConnectError::Timeout { address: self.address.clone() });
        timeout(CONNECT, work).await.unwrap_or_else(late)
    }

    /// Exchanges the join token for a certificate.
    async fn join(&self, credential: &Credential) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
        let authorization = match &self.account {
            Some(path) => account(path).await?,
            None => credential.token().authorization(),
        };
        let mut authorization = MetadataValue::try_from(authorization).or(Err(ConnectError::Token))?;
        authorization.set_sensitive(true);
        let node = credential.node().shared().clone();
        let mut request = Request::new(JoinRequest { node, request: credential.request()?.into() });
        request.metadata_mut().insert("authorization", authorization);
        let mut grpc = Grpc::new(self.dial(credential).await?);
        grpc.ready().await.map_err(|source| self.failed(source))?;
        let codec = Wire::new(wire::encode_join, wire::decode_certificates);
        let answer = grpc.unary(request, PathAndQuery::from_static(JOIN_PATH), codec).await;
        answer
            .map(|answer| certificates(answer.into_inner()))
            .map_err(|source| self.refused("to let it join", source))
    }

    async fn stream(
        &self,
        credential: &Credential,
        outbound: mpsc::Receiver<FromNode>,
    ) -> Result<Opened, ConnectError> {
        let channel = self.dial(credential).await?;
        let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        grpc.ready().await.map_err(|source| self.failed(source))?;
        let codec = Wire::new(|message| wire::encode_from_node(&message), wire::decode_to_node);
        let request = Request::new(messages(outbound));
        let response = grpc.streaming(request, PathAndQuery::from_static(STREAM_PATH), codec).await;
        let response = response.map_err(|source| self.refused("the stream", source))?;
        Ok(Opened { inbound: response.into_inner(), channel })
    }

    async fn dial(&self, credential: &Credential) -> Result<Channel, ConnectError> {
        let (address, tls) = (self.address.clone(), tls::controller_client(credential)?);
        let connector = service_fn(move |_| connect(address.clone(), tls.clone()));
        // The address is dialled by the connector; the URI only fills the request's authority.
        Endpoint::from_static("https://controller.weft.internal")
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: tonic::transport::Error) -> ConnectError {
        ConnectError::Connect { address: self.address.clone(), source }
    }

    fn refused(&self, what: &'static str, source: Status) -> ConnectError {
        ConnectError::Refused { address: self.address.clone(), what, source }
    }
}

/// Writes the credential, and says where that fails.
fn kept(credential: &mut Credential) -> Option<String> {
    let error = credential.keep().err()?;
    let error = supervise::chain(&error);
    let note = format!("the node's certificate is in memory only, and lost with a restart: {error}");
    tracing::error!("{note}");
    Some(note)
}

/// Asks for a certificate that is good for longer, on the connection of an open stream.
pub(super) async fn renew(channel: Channel) -> Result<Vec<CertificateDer<'static>>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
    let codec = Wire::new(wire::encode_renew, wire::decode_certificates);
    let answer = grpc.unary(Request::new(()), PathAndQuery::from_static(RENEW_PATH), codec);
    let late = |_| Err(Status::deadline_exceeded("the controller does not answer"));
    Ok(certificates(timeout(CONNECT, answer).await.unwrap_or_else(late)?.into_inner()))
}

fn certificates(answer: Certificates) -> Vec<CertificateDer<'static>> {
    answer.chain.into_iter().map(|certificate| CertificateDer::from(certificate.to_vec())).collect()
}

fn messages(outbound: mpsc::Receiver<FromNode>) -> impl Stream<Item = FromNode> + Send + 'static {
    stream::unfold(outbound, async |mut outbound| outbound.recv().await.map(|message| (message, outbound)))
}

/// What a node shows that joins as a pod of it. The kubelet writes the file again long before the token expires.
async fn account(path: &Path) -> Result<String, ConnectError> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|source| ConnectError::Account { path: path.to_owned(), source })?;
    Ok(format!("Bearer {}", text.trim()))
}

/// The address that is given, or that stands in the file which is given.
async fn written(address: String) -> io::Result<String> {
    let Some(path) = address.strip_prefix("file:") else { return Ok(address) };
    let unread = |error: io::Error| io::Error::other(format!("cannot read its address in {path}: {error}"));
    Ok(tokio::fs::read_to_string(path).await.map_err(unread)?.trim().to_owned())
}

async fn connect(address: String, tls: Arc<ClientConfig>) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let lookup = |error: io::Error| {
        io::Error::other(format!(
            "its name is not known ({error}): is --controller right, and does DNS answer?"
        ))
    };
    let address = written(address).await?;
    let addresses: Vec<_> = lookup_host(&address).await.map_err(lookup)?.collect();
    let tcp = TcpStream::connect(&*addresses).await?;
    tcp.set_nodelay(true)?;
    Ok(TokioIo::new(TlsConnector::from(tls).connect(tls::controller_name(), tcp).await?))
}

/// What the controller said, or what came in place of its answer.
fn reason(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => chain(source),
        None => status.message().to_owned(),
    }
}

/// The innermost cause, since tonic's own message is only "transport error", with what it means.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let innermost = causes.clone().last().map(ToString::to_string).unwrap_or_default();
    match causes.into_iter().find_map(explain) {
        Some(meaning) => format!("{meaning} ({innermost})"),
        None => innermost,
    }
}

fn explain(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    let hint = "nothing listens there: is the controller running, and is this the address of its --listen?";
    tls::explain(error)
        .or_else(|| error.downcast_ref::<io::Error>().filter(|error| refused(error)).map(|_| hint))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn what_is_in_files_is_read_each_time() {
        let home = tempfile::tempdir().unwrap();
        let (address, token) = (home.path().join("address"), home.path().join("token"));
        let named = format!("file:{}", address.display());
        let missing = written(named.clone()).await.unwrap_err().to_string();
        assert!(missing.contains("cannot read its address in"), "{missing}");
        assert!(
            account(&token)
                .await
                .unwrap_err()
                .to_string()
                .contains("cannot read the token of the service account")
        );
        for round in ["1", "2"] {
            fs::write(&address, format!("10.0.0.{round}:15010\n")).unwrap();
            fs::write(&token, format!("jwt{round}\n")).unwrap();
            assert_eq!(written(named.clone()).await.unwrap(), format!("10.0.0.{round}:15010"));
            assert_eq!(account(&token).await.unwrap(), format!("Bearer jwt{round}"));
        }
        assert_eq!(written("controller:15010".into()).await.unwrap(), "controller:15010");
    }
}

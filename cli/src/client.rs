// SPDX-License-Identifier: Apache-2.0
//! Asking an admin endpoint.

use std::{fmt, io, str::FromStr, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use weft_runtime::supervise::PeerTasks;

/// Drives a connection until its answer is dropped.
const CONNECTION: PeerTasks = PeerTasks::new("connection");

/// How long a daemon may take to accept, and then to begin its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read as a whole, and the longest line of a stream.
const MAX_BYTES: usize = 4 << 20;

/// An admin endpoint: `unix:PATH` or `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// A Unix socket.
    Unix(String),
    /// A host name or address, and a port.
    Tcp(String),
}

/// A text that names no admin endpoint.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no server: write unix:/path/to/socket or host:port")]
pub(crate) struct ServerError(String);

/// Why a daemon did not answer as hoped.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// Nobody listens there, or we may not ask.
    #[error("cannot reach {server}: {}", hint(.server, .source))]
    Connect {
        /// Who was asked.
        server: Server,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("{0} did not answer within {limit} seconds: is its daemon stuck?", limit = PATIENCE.as_secs())]
    Timeout(Server),
    /// The connection failed on the way.
    #[error("the connection to {server} failed")]
    Http {
        /// Who was asked.
        server: Server,
        /// Why it failed.
        #[source]
        source: hyper::Error,
    },
    /// The question could not be put.
    #[error("{path} is no path of a request to {server}")]
    Request {
        /// Who was asked.
        server: Server,
        /// What was asked.
        path: String,
        /// What is wrong with it.
        #[source]
        source: hyper::http::Error,
    },
    /// It refused.
    #[error("{server} refused: {status}: {message}")]
    Refused {
        /// Who was asked.
        server: Server,
        /// The status code.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// It said something that this version does not understand.
    #[error("{server} answered what this version of weft does not understand: is it the same version?")]
    Decode {
        /// Who was asked.
        server: Server,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It sent more than any daemon would.
    #[error("{0} sent a line or an answer of more than {MAX_BYTES} bytes")]
    TooLong(Server),
}

fn hint(server: &Server, source: &io::Error) -> String {
    match (server, source.kind()) {
        (Server::Unix(_), io::ErrorKind::NotFound) => {
            "no such socket: is weft-node running? Name its socket with --server or WEFT_ADMIN".to_owned()
        }
        (_, io::ErrorKind::PermissionDenied) => {
            "permission denied: run as the daemon's user (root)".to_owned()
        }
        (_, io::ErrorKind::ConnectionRefused) => "connection refused: is the daemon running?".to_owned(),
        _ => source.to_string(),
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Server, ServerError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(ServerError(text.into()))
            } else {
                Ok(Server::Unix(path.into()))
            };
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Server::Tcp(text.into()))
            }
            _ => Err(ServerError(text.into())),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Unix(path) => write!(f, "unix:{path}"),
            Server::Tcp(address) => f.write_str(address),
        }
    }
}

/// An answer that is read piece by piece.
pub(crate) struct Answer {
    server: Server,
    /// The status code.
    pub(crate) status: StatusCode,
    body: Incoming,
    text: Vec<u8>,
}

impl Server {
    /// Asks for a path and waits for the head of the answer.
    ///
    /// # Errors
    /// When the daemon cannot be reached or does not answer in time.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        let late = |_| ClientError::Timeout(self.clone());
        timeout(PATIENCE, self.ask(path)).await.map_err(late)?
    }

    /// Asks for a path and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// As [`Server::get`], and when the answer is too long.
    pub(crate) async fn fetch_text(&self, path: &str) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let late = |_| ClientError::Timeout(self.clone());
        let read = async {
            let mut answer = self.ask(path).await?;
            while answer.more().await? {}
            Ok((answer.status, answer.text))
        };
        timeout(PATIENCE, read).await.map_err(late)?
    }

    async fn ask(&self, path: &str) -> Result<Answer, ClientError> {
        let failed = |source| ClientError::Connect { server: self.clone(), source };
        match self {
            Server::Unix(path_of_socket) => {
                self.ask_on(UnixStream::connect(path_of_socket).await.map_err(failed)?, path).await
            }
            Server::Tcp(address) => {
                self.ask_on(TcpStream::connect(address).await.map_err(failed)?, path).await
            }
        }
    }

    async fn ask_on<S>(&self, stream: S, path: &str) -> Result<Answer, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |source| ClientError::Http { server: self.clone(), source };
        let (mut sender, connection): (SendRequest<Empty<Bytes>>, _) =
            http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Its error is also the error of the request or of the body, where it is reported.
        CONNECTION.start(async move { drop(connection.await) });
        let request = Request::get(path)
            .header("host", "weft")
            .body(Empty::new())
            .map_err(|source| ClientError::Request { server: self.clone(), path: path.to_owned(), source })?;
        let response = sender.send_request(request).await.map_err(failed)?;
        Ok(Answer {
            server: self.clone(),
            status: response.status(),
            body: response.into_body(),
            text: Vec::new(),
        })
    }
}

impl Answer {
    /// The answer, when it is a success; else the error that it tells of.
    ///
    /// # Errors
    /// When the status is not a success, or its message cannot be read.
    pub(crate) async fn success(mut self) -> Result<Answer, ClientError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let server = self.server.clone();
        let read = async {
            while self.more().await? {}
            Ok::<(), ClientError>(())
        };
        timeout(PATIENCE, read).await.map_err(|_elapsed| ClientError::Timeout(server))??;
        let message = String::from_utf8_lossy(&self.text).trim().to_owned();
        Err(ClientError::Refused { server: self.server, status: self.status, message })
    }

    /// The next line, without its end; nothing when the answer is over. Nothing is lost when the future is
    /// dropped.
    ///
    /// # Errors
    /// When the connection fails, or the line is too long.
    pub(crate) async fn line(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.text.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Reads another piece; false at the end.
    async fn more(&mut self) -> Result<bool, ClientError> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        let frame = frame.map_err(|source| ClientError::Http { server: self.server.clone(), source })?;
        if let Some(piece) = frame.data_ref() {
            if self.text.len() + piece.len() > MAX_BYTES {
                return Err(ClientError::TooLong(self.server.clone()));
            }
            self.text.extend_from_slice(piece);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_written() {
        for text in ["unix:/run/weft/node.sock", "localhost:9901", "[::1]:9901"] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), text);
        }
        assert_eq!("unix:///run/a".parse(), Ok(Server::Unix("/run/a".into())));
        for text in ["", "unix:", "localhost", ":1", "a:b"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_missing_socket_is_named_with_the_fix() {
        let server: Server = "unix:/nowhere/admin.sock".parse().unwrap();
        let error = server.fetch_text("/status").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot reach unix:/nowhere/admin.sock: no such socket: is weft-node running? Name its socket \
             with --server or WEFT_ADMIN"
        );
    }
}

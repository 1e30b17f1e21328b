// SPDX-License-Identifier: Apache-2.0
//! The server of the admin endpoint.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use http::{Request, Response, header::CONTENT_TYPE};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tracing::{debug, warn};

use super::{AdminAddress, AdminRequest, AdminRoutes, body::ContentBody};
use crate::{drain::DrainWatch, supervise::PeerTasks};

/// Connections at a time; more wait in the socket's backlog. Enough for many followers of flows.
const CONNECTIONS: usize = 64;
const CONNECTION: PeerTasks = PeerTasks::new("admin connection");
/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed accept (out of file descriptors), so that the thread does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the admin endpoint does not listen.
#[derive(Debug, Error)]
pub enum AdminServeError {
    /// The socket could not be opened.
    #[error("the admin endpoint cannot listen at {address}: change the address or free it")]
    Listen {
        /// Where.
        address: AdminAddress,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process answers there.
    #[error("another process serves the admin socket {address}: stop it or change the address")]
    InUse {
        /// Where.
        address: AdminAddress,
    },
}

/// A listening admin endpoint.
#[derive(Debug)]
pub struct AdminServer {
    listener: Listener,
    address: AdminAddress,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl AdminServer {
    /// Listens. A Unix socket gets mode 0600; one that a dead process left behind is replaced.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub async fn bind(address: &AdminAddress) -> Result<AdminServer, AdminServeError> {
        let listen = |source| AdminServeError::Listen { address: address.clone(), source };
        let (listener, address) = match address {
            AdminAddress::Unix(path) => {
                if tokio::net::UnixStream::connect(path).await.is_ok() {
                    return Err(AdminServeError::InUse { address: address.clone() });
                }
                (Listener::Unix(bind_unix(path).map_err(listen)?), address.clone())
            }
            AdminAddress::Tcp(wanted) => {
                let listener = TcpListener::bind(wanted).await.map_err(listen)?;
                let bound = listener.local_addr().map_err(listen)?;
                (Listener::Tcp(listener), AdminAddress::Tcp(bound))
            }
        };
        Ok(AdminServer { listener, address })
    }

    /// Where it listens; with the port that the system chose, where 0 was asked for.
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Answers until the drain begins; open streams end then.
    ///
    /// # Errors
    /// None: a client that fails is logged, and the others go on.
    pub async fn serve(self, routes: AdminRoutes, mut drain: DrainWatch) -> Result<(), Infallible> {
        let routes = Arc::new(routes);
        let limit = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &limit) => accepted,
                () = drain.signalled() => break,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let (routes, mut ending) = (routes.clone(), drain.clone());
                    CONNECTION.start(async move {
                        tokio::select! {
                            () = connection(stream, routes) => {}
                            () = ending.signalled() => {}
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "admin connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        if let AdminAddress::Unix(path) = &self.address {
            // Another process may have replaced it; then there is nothing to remove.
            drop(fs::remove_file(path));
        }
        Ok(())
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn accept(
    listener: &Listener,
    limit: &Arc<Semaphore>,
) -> io::Result<(Box<dyn Stream>, OwnedSemaphorePermit)> {
    let permit = limit.clone().acquire_owned().await.map_err(io::Error::other)?;
    let stream: Box<dyn Stream> = match listener {
        Listener::Unix(listener) => Box::new(listener.accept().await?.0),
        Listener::Tcp(listener) => Box::new(listener.accept().await?.0),
    };
    Ok((stream, permit))
}

async fn connection(stream: Box<dyn Stream>, routes: Arc<AdminRoutes>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let routes = routes.clone();
        async move { Ok::<_, Infallible>(respond(&routes, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "admin connection ended");
    }
}

async fn respond(routes: &AdminRoutes, request: Request<Incoming>) -> Response<ContentBody> {
    let (head, _body) = request.into_parts();
    let request = AdminRequest {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
    };
    let answer = routes.answer(request).await;
    let mut response = Response::new(ContentBody(answer.content));
    *response.status_mut() = answer.status;
    let content_type = http::HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Binds in a directory of its own (0700) and moves the socket to its name when its mode is 0600: nobody
/// else can connect in between, and a socket left by a dead process is replaced in one step.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut private = path.as_os_str().to_owned();
    private.push(format!(".{}", std::process::id()));
    let private = Path::new(&private);
    let hidden = private.join("socket");
    fs::DirBuilder::new().mode(0o700).create(private)?;
    let listener = UnixListener::bind(&hidden).and_then(|listener| {
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
        fs::rename(&hidden, path)?;
        Ok(listener)
    });
    // After a failure the half-made socket goes with its directory.
    fs::remove_dir_all(private)?;
    listener
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: Apache-2.0
//! Accepts connections: handshakes with a deadline, and as many connections as there can be nodes.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;
use weft_ir::publish::MAX_NODES;

/// The time for a TLS handshake, and again for the first authorized request.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Connections at once: one per node, and one more while a node replaces a broken one.
const MAX_CONNECTIONS: usize = 2 * MAX_NODES;

/// The pause after a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether a connection has shown the join token. Until then it has a deadline.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission(Arc<AtomicBool>);

impl Admission {
    /// The token was right: the connection stays.
    pub(super) fn admit(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection whose handshake is done.
pub(super) struct Connection {
    tls: TlsStream<TcpStream>,
    admission: Admission,
    deadline: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

/// Connections, until the server stops. A slow handshake keeps none of the others waiting.
pub(super) fn incoming(
    listener: TcpListener,
    tls: TlsAcceptor,
    stopped: watch::Receiver<bool>,
) -> impl Stream<Item = io::Result<Connection>> + use<> {
    let (ready, connections) = mpsc::channel(16);
    tokio::spawn(accept(listener, tls, stopped, ready));
    stream::unfold(connections, async |mut connections| {
        connections.recv().await.map(|connection| (Ok(connection), connections))
    })
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    mut stopped: watch::Receiver<bool>,
    ready: mpsc::Sender<Connection>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, &places) => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((tcp, permit)) => {
                tokio::spawn(handshake(tcp, tls.clone(), permit, ready.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (tcp, _) = listener.accept().await?;
    tcp.set_nodelay(true)?;
    Ok((tcp, permit))
}

async fn handshake(
    tcp: TcpStream,
    tls: TlsAcceptor,
    permit: OwnedSemaphorePermit,
    ready: mpsc::Sender<Connection>,
) {
    let peer = tcp.peer_addr();
    let error = match timeout(HANDSHAKE, tls.accept(tcp)).await {
        Ok(Ok(tls)) => {
            let deadline = Some(Box::pin(sleep(HANDSHAKE)));
            let connection = Connection { tls, admission: Admission::default(), deadline, _permit: permit };
            // The server has stopped when nobody takes it.
            drop(ready.send(connection).await);
            return;
        }
        Ok(Err(error)) => error,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    tracing::debug!(?peer, %error, "TLS handshake failed");
}

impl Connected for Connection {
    type ConnectInfo = Admission;

    fn connect_info(&self) -> Admission {
        self.admission.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.admission.0.load(Ordering::Relaxed) {
            self.deadline = None;
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

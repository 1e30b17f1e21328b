// SPDX-License-Identifier: Apache-2.0
//! Accepts connections: handshakes with a deadline, and as many connections as there can be nodes.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
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
use weft_identity::Peer;
use weft_runtime::supervise::PeerTasks;

use super::{
    IrLimits, StreamCounters,
    pending::{PendingPlace, PendingPlaces},
};

/// The pause after a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const HANDSHAKE: PeerTasks = PeerTasks::new("handshake");

/// Who is at the other end, and whether it has opened a stream as a node. Until then the connection has a
/// deadline, and takes one of few places.
#[derive(Clone, Debug)]
pub(super) struct Admission(Arc<Guest>);

#[derive(Debug)]
struct Guest {
    address: IpAddr,
    /// What the certificate says that the handshake has verified.
    peer: Option<Peer>,
    admitted: AtomicBool,
    place: Mutex<Option<PendingPlace>>,
}

impl Admission {
    fn new(tls: &TlsStream<TcpStream>, place: PendingPlace) -> Admission {
        let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = certificate.and_then(|certificate| Peer::read(certificate).ok());
        let (address, place) = (place.address(), Mutex::new(Some(place)));
        Admission(Arc::new(Guest { address, peer, admitted: AtomicBool::new(false), place }))
    }

    /// Where the connection comes from.
    pub(super) fn address(&self) -> IpAddr {
        self.0.address
    }

    /// The node that it is; nothing where no certificate was shown.
    pub(super) fn peer(&self) -> Option<&Peer> {
        self.0.peer.as_ref()
    }

    /// It is a node: the connection stays.
    pub(super) fn admit(&self) {
        self.0.admitted.store(true, Ordering::Relaxed);
        drop(self.0.place.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn is_admitted(&self) -> bool {
        self.0.admitted.load(Ordering::Relaxed)
    }
}

/// A connection whose handshake is done.
pub(super) struct Connection {
    tls: TlsStream<TcpStream>,
    admission: Admission,
    deadline: Option<Pin<Box<Sleep>>>,
    counters: Arc<StreamCounters>,
    _permit: OwnedSemaphorePermit,
}

/// Where connections come in.
#[derive(Clone)]
pub(super) struct Entrance {
    tls: TlsAcceptor,
    places: Arc<Semaphore>,
    pending: PendingPlaces,
    greeting: Duration,
    counters: Arc<StreamCounters>,
}

/// A connection before its handshake.
struct Arrival {
    tcp: TcpStream,
    permit: OwnedSemaphorePermit,
    place: PendingPlace,
}

/// Connections as they become ready.
pub(super) fn incoming(
    connections: mpsc::Receiver<Connection>,
) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold(connections, async |mut connections| {
        connections.recv().await.map(|connection| (Ok(connection), connections))
    })
}

impl Entrance {
    pub(super) fn new(tls: TlsAcceptor, limits: IrLimits, counters: Arc<StreamCounters>) -> Entrance {
        Entrance {
            tls,
            places: Arc::new(Semaphore::new(limits.connections)),
            pending: PendingPlaces::new(limits.pending, limits.pending_per_address),
            greeting: limits.greeting,
            counters,
        }
    }

    /// Hands out connections whose handshake is done, until the server stops. A slow handshake keeps none of
    /// the others waiting.
    pub(super) async fn accept(
        self,
        listener: TcpListener,
        mut stopped: watch::Receiver<bool>,
        ready: mpsc::Sender<Connection>,
    ) -> Result<(), Infallible> {
        loop {
            let accepted = tokio::select! {
                accepted = self.next(&listener) => accepted,
                _ = stopped.changed() => return Ok(()),
            };
            match accepted {
                Ok(Some(arrival)) => HANDSHAKE.start(self.clone().handshake(arrival, ready.clone())),
                // Its address has too many already.
                Ok(None) => self.counters.crowded.add(),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn next(&self, listener: &TcpListener) -> io::Result<Option<Arrival>> {
        let permit = self.places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let pending = self.pending.wait().await.map_err(io::Error::other)?;
        let (tcp, peer) = listener.accept().await?;
        self.counters.accepted.add();
        tcp.set_nodelay(true)?;
        Ok(self.pending.take(pending, peer.ip()).map(|place| Arrival { tcp, permit, place }))
    }

    async fn handshake(self, arrival: Arrival, ready: mpsc::Sender<Connection>) {
        let Arrival { tcp, permit, place } = arrival;
        let peer = tcp.peer_addr();
        let error = match timeout(self.greeting, self.tls.accept(tcp)).await {
            Ok(Ok(tls)) => {
                let connection = Connection {
                    admission: Admission::new(&tls, place),
                    tls,
                    deadline: Some(Box::pin(sleep(self.greeting))),
                    counters: self.counters,
                    _permit: permit,
                };
                // The server has stopped when nobody takes it.
                drop(ready.send(connection).await);
                return;
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        self.counters.handshakes_failed.add();
        tracing::debug!(?peer, %error, "TLS handshake failed");
    }
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
        if self.admission.is_admitted() {
            self.deadline = None;
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.counters.greetings_late.add();
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

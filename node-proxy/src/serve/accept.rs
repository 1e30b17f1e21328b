// SPDX-License-Identifier: Apache-2.0
//! Accepts connections on one worker and serves each in a task of its own.

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};
use weft_codec::serve::serve_connection;
use weft_runtime::supervise::PeerTasks;

use crate::{
    request::{
        Connection,
        tcp::{self, Plan},
    },
    upstream::sockets,
    worker::{
        Open, Worker,
        target::{Ends, Entrance},
    },
};

const CONNECTION: PeerTasks = PeerTasks::new("connection");

/// The pause after an accept that failed for want of descriptors or memory.
const STARVED: Duration = Duration::from_millis(50);

/// What is accepted on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepting {
    /// Connections that the kernel redirected; their local address is the original destination.
    Redirected,
    /// Connections to a Gateway's listener bound to this address.
    Gateway(SocketAddr),
}

/// Accepts connections until told to stop. More than `limit` open connections wait in the backlog.
pub(crate) async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    accepting: Accepting,
    limit: usize,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            // An error means that nobody can say stop any more, which is one.
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = accept_below(&worker, &listener, limit) => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                let open = worker.open();
                CONNECTION.start_local(serve(Rc::clone(&worker), stream, client, accepting, open));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting connections failed");
                sleep(STARVED).await;
            }
        }
    }
}

async fn accept_below(
    worker: &Worker,
    listener: &TcpListener,
    limit: usize,
) -> io::Result<(TcpStream, SocketAddr)> {
    while worker.connections() >= limit {
        sleep(STARVED).await;
    }
    listener.accept().await
}

async fn serve(worker: Rc<Worker>, stream: TcpStream, client: SocketAddr, accepting: Accepting, open: Open) {
    let Ok(ends) = ends(&stream, client, accepting) else { return };
    let connection = Rc::new(Connection::new(Rc::clone(&worker), ends));
    let resolved = connection.resolve();
    match tcp::plan(&connection, &resolved) {
        Plan::Http => {
            drop(resolved);
            serve_connection(stream, worker.server(), connection, worker.drain().drain()).await;
        }
        Plan::Bytes(choice, permit) => tcp::serve(&connection, &resolved, stream, choice, permit).await,
        Plan::Refused(reason, denial) => tcp::refuse(&connection, &resolved, reason, denial),
    }
    drop(open);
}

fn ends(stream: &TcpStream, client: SocketAddr, accepting: Accepting) -> io::Result<Ends> {
    sockets::tune(&SockRef::from(stream))?;
    let entrance = match accepting {
        Accepting::Redirected => Entrance::Redirected,
        Accepting::Gateway(point) => Entrance::Gateway(point),
    };
    Ok(Ends { client, destination: stream.local_addr()?, entrance })
}

/// Errors of accept that say something about the connection that would have been, not about the socket
/// (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

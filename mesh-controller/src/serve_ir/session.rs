// SPDX-License-Identifier: Apache-2.0
//! A node's stream, as the publisher's task has it.

use std::net::IpAddr;

use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use weft_ir::stream::{Batch, ToNode};

/// Notices on their way to a node: a ping, and why nothing is sent.
pub(super) const NOTICES: usize = 2;

/// An open stream.
#[derive(Debug)]
pub(super) struct Session {
    /// Tells it from other streams of the same node.
    pub(super) number: u64,
    /// Where it comes from.
    pub(super) from: IpAddr,
    /// Batches for the node: room for one is enough, since only one is ever in flight.
    pub(super) batches: mpsc::Sender<Result<Vec<Batch>, Status>>,
    /// Everything else that it is sent, with room for [`NOTICES`].
    pub(super) notices: mpsc::Sender<ToNode>,
    /// Ends the stream.
    pub(super) end: oneshot::Sender<Status>,
    /// The node was told on this stream why it is sent nothing.
    pub(super) is_told: bool,
}

impl Session {
    /// False where the stream takes nothing more.
    pub(super) fn send(&mut self, frames: Vec<Batch>) -> bool {
        self.is_told = false;
        self.batches.try_send(Ok(frames)).is_ok()
    }
}

/// Ends a stream.
pub(super) fn end(session: Session, status: Status) {
    // The stream's task may have ended by itself.
    drop(session.end.send(status));
}

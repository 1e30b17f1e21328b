// SPDX-License-Identifier: Apache-2.0
//! Where flows come from that nobody has asked for yet.

use std::{fmt, sync::Arc};

use crate::Flow;

/// Flows of which most are never looked at: each is made when somebody does.
pub trait FlowBatch: Send + Sync + fmt::Debug {
    /// The flow at a position, which is less than what [`Taken::ended`] counts.
    fn flow(&self, at: usize) -> Arc<Flow>;
}

/// Where the flows of one data worker wait until they are wanted.
pub trait FlowSource: Send + fmt::Debug {
    /// Takes what waits there; nothing where nothing does, and nothing was lost.
    fn take(&mut self) -> Option<Taken>;
}

/// What waited at a source.
#[derive(Debug)]
pub struct Taken {
    /// When each of the flows ended, in nanoseconds of one clock for all sources; oldest first.
    pub ended: Vec<u64>,
    /// The flows.
    pub batch: Arc<dyn FlowBatch>,
    /// Flows for which there was no room since the source was last asked.
    pub lost: u64,
}

/// Flows that are made already.
#[derive(Debug)]
pub(super) struct Made(pub(super) Vec<Arc<Flow>>);

impl FlowBatch for Made {
    fn flow(&self, at: usize) -> Arc<Flow> {
        Arc::clone(&self.0[at])
    }
}

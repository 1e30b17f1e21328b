// SPDX-License-Identifier: Apache-2.0
//! A worker's handle on a state.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::state::MeshState;

/// A state in use by a worker. Counted without atomics; when the last request of a replaced state has
/// ended, the state goes back to the control thread to be freed there.
pub(crate) struct Held {
    state: Option<Arc<MeshState>>,
    retired: mpsc::Sender<Arc<MeshState>>,
}

impl Held {
    /// A handle on a state; who drops the last one gives the state to `retired`.
    pub(crate) fn new(state: Arc<MeshState>, retired: mpsc::Sender<Arc<MeshState>>) -> Held {
        Held { state: Some(state), retired }
    }

    /// The state.
    pub(crate) fn state(&self) -> &MeshState {
        self.state.as_ref().expect("invariant: only drop takes the state")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            // A full queue means that control is busy: the state is then freed here.
            drop(self.retired.try_send(state));
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("position", &self.state().position).finish_non_exhaustive()
    }
}

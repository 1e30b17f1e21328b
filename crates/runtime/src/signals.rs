// SPDX-License-Identifier: Apache-2.0
//! The signals that end a daemon, and the one that does not.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Which signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGTERM: end in order.
    Terminate,
    /// SIGINT, from the keyboard: end in order, sooner.
    Interrupt,
}

/// The signals, caught from the moment this exists: before it, they end the process as usual.
#[derive(Debug)]
pub struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
    /// A closed terminal ends no daemon: caught so that the process does not end as usual.
    _hangup: Signal,
}

impl ShutdownSignals {
    /// Begins to catch.
    ///
    /// # Errors
    /// When the process may not install handlers.
    pub fn install() -> io::Result<ShutdownSignals> {
        Ok(ShutdownSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Safe to cancel.
    pub async fn next(&mut self) -> Shutdown {
        tokio::select! {
            _ = self.terminate.recv() => Shutdown::Terminate,
            _ = self.interrupt.recv() => Shutdown::Interrupt,
        }
    }
}

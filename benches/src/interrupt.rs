// SPDX-License-Identifier: Apache-2.0
//! Ctrl-C: the programs that were started end before the harness does.
//!
//! A first SIGINT or SIGTERM ends every child that something waits for; the wait fails, and what was started
//! is taken down on the way out as after any other error. A second one ends the harness at once.

use std::os::fd::OwnedFd;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::signal::unix::{SignalKind, signal};

/// The exit status of a program that a SIGINT ended, as shells have it.
pub(crate) const EXIT_STATUS: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);
static CHILDREN: Mutex<Vec<(u32, OwnedFd)>> = Mutex::new(Vec::new());

/// Starts to listen for the two signals, on a thread of its own.
pub(crate) fn listen() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if ASKED.swap(true, Ordering::SeqCst) {
                    process::exit(i32::from(EXIT_STATUS));
                }
                eprintln!("interrupted: ending what was started (once more to leave it)");
                end_children();
            }
        });
    });
    Ok(())
}

/// Whether the harness was asked to end.
pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Fails when the harness was asked to end.
pub(crate) fn check() -> anyhow::Result<()> {
    if is_asked() {
        bail!("interrupted");
    }
    Ok(())
}

/// A child that a signal to the harness ends, until this is dropped.
#[derive(Debug)]
pub(crate) struct Watched(u32);

impl Watched {
    /// Watches over a child that was not waited for yet.
    pub(crate) fn new(child: u32) -> anyhow::Result<Self> {
        let pid = i32::try_from(child).ok().and_then(Pid::from_raw).context("odd process id")?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
        children().push((child, handle));
        if is_asked() {
            end_children();
        }
        Ok(Self(child))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        children().retain(|(child, _)| *child != self.0);
    }
}

fn children() -> std::sync::MutexGuard<'static, Vec<(u32, OwnedFd)>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end_children() {
    for (_, handle) in children().iter() {
        // It may have ended by itself.
        pidfd_send_signal(handle, Signal::KILL).unwrap_or(());
    }
}

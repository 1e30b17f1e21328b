// SPDX-License-Identifier: Apache-2.0
//! Applies commits, one after the other: workers first, then the kernel, then the acknowledgement.
//!
//! In this order nothing opens in between. What the workers decide by the new state the kernel still
//! redirects or decides by the old one, and both have to allow; a flow that the kernel begins to redirect
//! meets workers that know why.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use weft_ebpf_redirect::Datapath;
use weft_flow_export::FlowRing;
use weft_ir::{stream::Rejection, subscribe::Commit};
use weft_policy::Guess;
use weft_runtime::{readiness::ReadinessHandle, supervise::chain};

use crate::{
    control::{
        handover::Predecessor,
        kernel::{self, CounterQuestions},
        networks,
        owners::{self, Unowned},
        plane::{Plane, WorkerGone},
    },
    ir_client::AckHandle,
    state::{MeshState, compile::Rejected},
};

/// How often idle flows are looked for in the kernel's table, and a failed application is tried again.
const TICK: Duration = Duration::from_secs(5);

/// How often a process that was to be relieved looks whether another one serves.
const LOOK: Duration = Duration::from_millis(200);

/// Applies commits.
pub(crate) struct Applier {
    /// The workers.
    pub(crate) plane: Plane,
    /// Where states are acknowledged.
    pub(crate) acks: AckHandle,
    /// Holds once a state was applied.
    pub(crate) ready: ReadinessHandle,
    /// The kernel; nothing where nothing is redirected.
    pub(crate) kernel: Option<Kernel>,
    /// Where it is told which pods have no network that somebody named.
    pub(crate) guess: watch::Sender<Option<Guess>>,
    /// The process that serves until this one does.
    pub(crate) predecessor: Option<Predecessor>,
}

/// The kernel's part of an [`Applier`].
pub(crate) struct Kernel {
    /// The datapath.
    pub(crate) datapath: Datapath,
    /// Holds as long as the kernel has the workers' state.
    pub(crate) ready: ReadinessHandle,
    /// Questions for counters.
    pub(crate) questions: CounterQuestions,
    /// Tells the reader of events what names mean.
    pub(crate) states: watch::Sender<Arc<MeshState>>,
    /// Where flows go.
    pub(crate) ring: FlowRing,
    /// The commit that the kernel does not have yet, because applying it failed.
    pub(crate) pending: Option<Arc<Commit>>,
    /// The kernel knows the workers' sockets.
    pub(crate) listening: bool,
    /// Does not hold while pods get packets past the hooks.
    pub(crate) in_the_way: ReadinessHandle,
    /// Where it is told which pods and devices do not belong to each other yet.
    pub(crate) unowned: watch::Sender<Unowned>,
}

impl Applier {
    /// Runs until a worker ends.
    ///
    /// # Errors
    /// When a worker has ended.
    pub(crate) async fn run(
        &mut self,
        mut states: watch::Receiver<Option<Arc<Commit>>>,
    ) -> Result<(), WorkerGone> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        states.mark_changed();
        loop {
            tokio::select! {
                changed = states.changed() => match changed {
                    Ok(()) => {
                        let commit = states.borrow_and_update().clone();
                        if let Some(commit) = commit {
                            self.apply(commit).await?;
                        }
                    }
                    // Without its client the node goes on with the last state.
                    Err(_ended) => std::future::pending::<()>().await,
                },
                gone = self.plane.gone() => return Err(gone),
                event = next_event(self.kernel.as_mut()) => self.on_kernel(event).await?,
                _ = ticks.tick() => self.on_tick().await,
            }
        }
    }

    /// Serves redirected connections again that another process was to have, until the kernel leads them to yet
    /// another one.
    pub(crate) async fn serve_until_another_does(&mut self) {
        let Some(kernel) = &mut self.kernel else { return std::future::pending().await };
        if let Err(error) = kernel.datapath.restore_listeners() {
            tracing::error!(error = chain(&error), "the kernel does not redirect to this process again");
        }
        while kernel.datapath.has_listeners().unwrap_or(true) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells the kernel that nobody serves redirected connections any more: their SYNs are dropped, so
    /// that clients try again, until the next process takes over. Those of one that has taken over are its own.
    pub(crate) fn stop_redirects(&mut self) {
        if let Some(kernel) = &mut self.kernel
            && let Err(error) = kernel.datapath.clear_listeners()
        {
            tracing::error!(error = chain(&error), "the kernel still redirects to this process");
        }
    }

    async fn apply(&mut self, commit: Arc<Commit>) -> Result<(), WorkerGone> {
        let begun = Instant::now();
        let undecoded: Vec<_> = commit.rejected.keys().cloned().collect();
        self.learn_device_addresses().await?;
        let rejected = self.plane.apply(&commit.snapshot, &undecoded).await?;
        networks::note(&self.guess, self.plane.state().directory().guess());
        for rejected in &rejected {
            tracing::warn!(resource = %rejected.key, error = rejected.error, "a resource cannot be used");
        }
        let state = Arc::clone(self.plane.state());
        if let Some(kernel) = &mut self.kernel
            && !kernel.apply(&commit, state, self.plane.captured()).await
        {
            return Ok(());
        }
        self.acknowledge(&commit, rejected).await;
        tracing::info!(
            revision = commit.snapshot.revision,
            duration_ms = begun.elapsed().as_millis() as u64,
            "applied a state"
        );
        Ok(())
    }

    /// Workers and kernel must agree on what is the node itself.
    async fn learn_device_addresses(&mut self) -> Result<(), WorkerGone> {
        let Some(kernel) = &self.kernel else { return Ok(()) };
        match kernel.datapath.device_addresses().await {
            Ok(devices) => self.plane.set_device_addresses(&devices).await,
            Err(error) => {
                tracing::error!(error = chain(&error), "the addresses of the node's devices cannot be read");
                Ok(())
            }
        }
    }

    async fn acknowledge(&mut self, commit: &Commit, rejected: Vec<Rejected>) {
        if let Some(predecessor) = self.predecessor.take() {
            predecessor.relieve().await;
        }
        let refused = rejected
            .into_iter()
            .map(|rejected| Rejection { key: rejected.key, message: rejected.error.into() })
            .collect();
        self.acks.applied(commit.position, refused).await;
        self.ready.ready();
    }

    async fn on_kernel(&mut self, event: KernelChange) -> Result<(), WorkerGone> {
        if matches!(event, KernelChange::Devices) {
            self.learn_device_addresses().await?;
        }
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        match event {
            KernelChange::Devices => match kernel.datapath.refresh().await {
                Ok(applied) => owners::note(&kernel.unowned, Unowned::of(&applied)),
                Err(error) => kernel.note_failure(&error),
            },
            KernelChange::Question(reply) => match kernel.datapath.counters() {
                // Who asked may have given up.
                Ok(counters) => drop(reply.send(counters)),
                Err(error) => tracing::error!(error = chain(&error), "the kernel's counters cannot be read"),
            },
        }
        Ok(())
    }

    async fn on_tick(&mut self) {
        let state = Arc::clone(self.plane.state());
        let Some(kernel) = &mut self.kernel else { return };
        kernel::report_expired(&mut kernel.datapath, &state, &kernel.ring);
        if let Err(error) = kernel.datapath.keep_up().await {
            tracing::error!(error = chain(&error), "what others changed on the node cannot be put back");
        }
        if let Err(error) = kernel.datapath.look_around().await {
            tracing::error!(error = chain(&error), "what others have at the node's devices cannot be read");
        }
        kernel.look_for_bypass().await;
        let Some(commit) = kernel.pending.clone() else { return kernel.look_again().await };
        if kernel.apply(&commit, state, self.plane.captured()).await {
            let rejected = self.plane.rejected().to_vec();
            self.acknowledge(&commit, rejected).await;
        }
    }
}

/// What the control loop hears from the kernel's side.
enum KernelChange {
    /// Devices, addresses, routes or neighbours are not what they were.
    Devices,
    /// Somebody wants counters.
    Question(tokio::sync::oneshot::Sender<weft_ebpf_redirect::Counters>),
}

/// Cancel safe: both of what it waits for are.
async fn next_event(kernel: Option<&mut Kernel>) -> KernelChange {
    let Some(kernel) = kernel else { return std::future::pending().await };
    tokio::select! {
        () = kernel.datapath.changed() => KernelChange::Devices,
        Some(reply) = kernel.questions.recv() => KernelChange::Question(reply),
    }
}

impl Kernel {
    /// Brings the kernel to the workers' state; false when that failed and is to be tried again.
    async fn apply(&mut self, commit: &Arc<Commit>, state: Arc<MeshState>, ports: &[u16]) -> bool {
        self.states.send_replace(Arc::clone(&state));
        let done = self.datapath.apply(&commit.snapshot, state.services(), state.policies()).await;
        // After the tables, so that a new kernel redirects nothing before it is whole; tables of an
        // earlier process have redirected all the time.
        let done = match done {
            Ok(applied) if !self.listening => {
                self.datapath.set_listeners(ports).map(|()| applied).inspect(|_| self.listening = true)
            }
            done => done,
        };
        match done {
            Ok(applied) => {
                self.pending = None;
                self.ready.ready();
                owners::note(&self.unowned, Unowned::of(&applied));
                true
            }
            Err(error) => {
                self.pending = Some(Arc::clone(commit));
                self.note_failure(&error);
                false
            }
        }
    }

    /// Programs of others may deliver to pods past ours, and no policy for what comes in holds there.
    async fn look_for_bypass(&mut self) {
        match self.datapath.passed_by().await {
            Ok(pods) => match owners::passed_by(&pods) {
                Some(reason) => self.in_the_way.not_ready(&reason),
                None => self.in_the_way.ready(),
            },
            Err(error) => {
                tracing::error!(error = chain(&error), "packets that pass us by cannot be looked for")
            }
        }
    }

    /// What happens inside of pods' namespaces, and the results of CNI plug-ins, give no notice.
    async fn look_again(&mut self) {
        if !self.unowned.borrow().is_open() {
            return;
        }
        match self.datapath.refresh().await {
            Ok(applied) => owners::note(&self.unowned, Unowned::of(&applied)),
            Err(error) => self.note_failure(&error),
        }
    }

    fn note_failure(&self, error: &weft_ebpf_redirect::DatapathError) {
        let error = chain(error);
        tracing::error!(error, "the kernel could not be brought to the state, trying again");
        self.ready.not_ready(&error);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The node's part of the kernel, as control uses it: tables after each state, flows of its events,
//! counters when somebody asks.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc, oneshot, watch};
use weft_ebpf_redirect::{
    Counters, Datapath, DatapathConfig, DatapathError, Events, KernelEvent, KernelEventKind, cgroup2_mount,
};
use weft_flow_export::{
    Event, Flow, FlowRing, IpProtocol, TcpFlags, Verdict,
    enrich::{self, UnnamedEnd},
};
use weft_time::Timestamp;

use crate::{control::config::KernelConfig, state::MeshState};

/// How long somebody who asks for counters waits for them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks the control loop for fresh counters of the kernel, and keeps the last ones.
#[derive(Clone, Debug)]
pub(crate) struct KernelCounters {
    ask: mpsc::Sender<oneshot::Sender<Counters>>,
    last: Arc<Mutex<Counters>>,
}

/// The end of [`KernelCounters`] that answers.
pub(crate) type CounterQuestions = mpsc::Receiver<oneshot::Sender<Counters>>;

impl KernelCounters {
    /// A pair: who asks, and who answers.
    pub(crate) fn channel() -> (KernelCounters, CounterQuestions) {
        let (ask, questions) = mpsc::channel(4);
        (KernelCounters { ask, last: Arc::default() }, questions)
    }

    /// Gets fresh counters; keeps the old ones when control is busy for too long.
    pub(crate) async fn refresh(&self) {
        let (reply, answer) = oneshot::channel();
        let asking = async {
            self.ask.send(reply).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Some(counters)) => *self.last.lock().unwrap_or_else(PoisonError::into_inner) = counters,
            Ok(None) => {}
            Err(_elapsed) => tracing::warn!("the counters of the kernel are those of an earlier moment"),
        }
    }

    /// The counters as they were at the last refresh.
    pub(crate) fn last(&self) -> Counters {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The settings of the datapath.
///
/// # Errors
/// When the cgroup2 mount has to be found and there is none.
pub(crate) fn datapath_config(
    node: &str,
    kernel: &KernelConfig,
    state_dir: &std::path::Path,
) -> io::Result<DatapathConfig> {
    let cgroup = match &kernel.cgroup {
        Some(cgroup) => cgroup.clone(),
        None => cgroup2_mount()?,
    };
    let config = DatapathConfig::new(node, cgroup, kernel.bpffs.clone(), state_dir.to_owned());
    Ok(DatapathConfig {
        attachment: kernel.attachment,
        short_path: kernel.short_path,
        cni_results: kernel.cni_results.clone(),
        pod_devices: kernel.pod_devices.clone(),
        ..config
    })
}

/// Makes flows of the kernel's events until reading fails.
///
/// # Errors
/// When the ring buffer cannot be read any more.
pub(crate) async fn report(
    events: &mut Events,
    states: watch::Receiver<Arc<MeshState>>,
    ring: FlowRing,
) -> Result<(), DatapathError> {
    loop {
        let event = events.next().await?;
        let state = Arc::clone(&states.borrow());
        ring.push_all([flow(&state, event)]);
    }
}

/// Reports flows that the datapath forgot because they were idle for too long.
pub(crate) fn report_expired(datapath: &mut Datapath, state: &MeshState, ring: &FlowRing) {
    match datapath.expire() {
        Ok(expired) => ring.push_all(expired.into_iter().map(|event| flow(state, event))),
        Err(error) => tracing::error!(%error, "idle flows cannot be removed from the kernel's table"),
    }
}

fn flow(state: &MeshState, event: KernelEvent) -> Flow {
    let (verdict, reason, service) = match event.kind {
        KernelEventKind::Open => (Verdict::Forwarded, None, None),
        KernelEventKind::Close { reason: None } => (Verdict::Forwarded, None, None),
        KernelEventKind::Close { reason } => (Verdict::Dropped, reason, None),
        KernelEventKind::Drop { reason, .. } => (Verdict::Dropped, Some(reason), None),
        KernelEventKind::Redirect => (Verdict::Redirected, None, None),
        KernelEventKind::Translate { service, .. } => {
            (Verdict::Translated, None, Some((service.ip(), service.port())))
        }
    };
    let event = enrich::UnnamedFlow {
        time: Timestamp::from(SystemTime::now()),
        event: what(&event),
        verdict,
        reason,
        direction: event.direction,
        source: end(state, event.source, event.source_identity),
        destination: end(state, event.destination, event.destination_identity),
        service,
        protocol: IpProtocol(event.protocol),
        flags: TcpFlags(event.tcp_flags),
        is_reply: Some(false),
        policies: state.policies().rule(event.verdict.rule).map(|rule| rule.policy).into_iter().collect(),
    };
    enrich::flow(state.directory(), event)
}

fn what(event: &KernelEvent) -> Event {
    match event.kind {
        KernelEventKind::Open | KernelEventKind::Redirect => Event::Open,
        KernelEventKind::Drop { .. } => Event::Drop,
        KernelEventKind::Translate { .. } => Event::ServiceTranslation,
        KernelEventKind::Close { .. } => Event::Close {
            bytes_sent: event.bytes,
            bytes_received: event.reply_bytes,
            packets: event.packets + event.reply_packets,
            duration_ns: match event.opened_ns {
                0 => 0,
                opened => event.time_ns.saturating_sub(opened),
            },
            retransmits: 0,
        },
    }
}

/// The end with the identity that the kernel decided with, or the one that its address has.
fn end(state: &MeshState, address: SocketAddr, identity: u32) -> UnnamedEnd {
    let identity = match identity {
        0 => state.peer(address.ip()).identity.0,
        known => known,
    };
    UnnamedEnd { ip: address.ip(), port: address.port(), identity }
}

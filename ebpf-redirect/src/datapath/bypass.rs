// SPDX-License-Identifier: Apache-2.0
//! Finds out whether somebody else's programs deliver packets to pods past the node's end of their pair, where we
//! decide (`bpf_redirect_peer`: Cilium without `bpf.hostLegacyRouting`, Calico's eBPF with `bpfRedirectToPeer`).
//!
//! A pod's end of a pair counts as received what the node's end has sent and, since Linux 6.7, what came this way.
//! Our own short path does the same, and counts what it does.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use weft_ebpf_common::layout::{INGRESS, METRIC_SHORT, metric_index};
use weft_ir::ObjectName;

use super::{Datapath, DatapathError};
use crate::{hook::DeviceHook, network::Passed};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(20);
/// How long what was found is told: several looks, so that a pod that has little traffic stays named.
const TOLD: Duration = Duration::from_secs(120);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Bypass {
    looked: Option<Instant>,
    /// By device, how many more its other end has received than it has sent, at most; and how many of them were
    /// ours, at least.
    before: BTreeMap<u32, Passed>,
    ours: u64,
    /// Pods' devices that were passed by, and when that was seen last.
    found: BTreeMap<u32, Instant>,
}

impl Datapath {
    /// The pods of this node that get packets past our hooks, so that their ingress policy does not hold: seen in
    /// the last two minutes. To be called every few seconds; looks now and then.
    ///
    /// # Errors
    /// Where the counters cannot be read.
    pub async fn passed_by(&mut self) -> Result<BTreeSet<ObjectName>, DatapathError> {
        if self.bypass.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.look_for_bypass().await?;
        }
        self.bypass.found.retain(|_, seen| seen.elapsed() < TOLD);
        let Some(brought) = &self.brought else { return Ok(BTreeSet::new()) };
        Ok(brought.pods_behind(self.bypass.found.keys().copied().collect()))
    }

    /// Looks at once.
    ///
    /// # Errors
    /// As [`Datapath::passed_by`].
    pub async fn look_for_bypass(&mut self) -> Result<(), DatapathError> {
        let Some(brought) = &self.brought else { return Ok(()) };
        let pods = self.attached.iter().filter(|(hook, _)| *hook == DeviceHook::FromPod);
        let pods: Vec<(u32, _)> =
            pods.filter_map(|(_, index)| Some((*index, brought.links().get(index)?.other_end()?))).collect();
        // The order makes what has come in between to ours: first the least of what pods have received, then
        // the most of what we have sent; for the next look it is the other way around.
        let least = self.network.passed(&pods, true).await;
        let ours = self.short_packets()?;
        let most = self.network.passed(&pods, false).await;
        let before = std::mem::replace(&mut self.bypass.before, most);
        let ours_before = std::mem::replace(&mut self.bypass.ours, ours);
        let first = self.bypass.looked.replace(Instant::now()).is_none();
        let more: BTreeMap<u32, u64> = least
            .iter()
            .filter_map(|(device, now)| Some((*device, now.since(before.get(device)?))))
            .filter(|(_, more)| *more > 0)
            .collect();
        // A table that was made anew counts from nothing.
        if first || ours < ours_before || more.values().sum::<u64>() <= ours - ours_before {
            return Ok(());
        }
        // Devices that are not of the short path get nothing from us this way.
        let short: BTreeSet<u32> = self.maps.short_devices.keys()?.into_iter().collect();
        let sure: Vec<u32> = more.keys().copied().filter(|device| !short.contains(device)).collect();
        let found = if sure.is_empty() { more.into_keys().collect() } else { sure };
        let now = Instant::now();
        self.bypass.found.extend(found.into_iter().map(|device| (device, now)));
        Ok(())
    }

    fn short_packets(&self) -> Result<u64, DatapathError> {
        let values = self.maps.metrics.lookup(&metric_index(0, METRIC_SHORT, INGRESS))?.unwrap_or_default();
        Ok(values.iter().map(|value| value.packets).sum())
    }
}

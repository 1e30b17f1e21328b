// SPDX-License-Identifier: Apache-2.0
//! The datapath of one node as the daemon sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use weft_ebpf_common::{
    Reason,
    connection::CLOSING,
    layout::{
        Config, INGRESS, MAX_LISTENERS, METRIC_AGAIN, METRIC_DROP, METRIC_FROM_PROXY, METRIC_PASS,
        METRIC_PROXIED, METRIC_REDIRECT, METRIC_SHORT, METRICS, Metric, ServiceCounters, metric_of,
    },
};
use weft_ir::{Direction, ObjectName, Snapshot};
use weft_policy::{PolicySet, capture::Services};

use crate::{
    config::{ConfigError, DatapathConfig},
    desired::{Desired, ServiceName},
    error::LoadError,
    events::{self, Events, EventsError, KernelEvent},
    firewall::{self, FirewallError},
    hook::DeviceHook,
    load::{Programs, detach_all, maps_directory},
    machine::{self, Lacks},
    maps::{Maps, possible_cpus},
    network::{Network, NetworkError},
    owner,
    pod_connections::PodConnections,
    probe::{self, Report},
    sync::{Changes, ServiceNumbers, SyncError},
};

mod bring;
mod bypass;
mod foreign;
mod listeners;
mod roles;
mod short;

use bring::Brought;
use bypass::Bypass;

/// Shortest time between two equal drop events.
const DROP_INTERVAL_MS: u32 = 1_000;
/// Idle time of UDP and ICMP, as Cilium has it.
const DATAGRAM_IDLE_S: u32 = 60;
/// Idle time of established TCP flows, as Cilium has it (6 hours).
const STREAM_IDLE_S: u32 = 21_600;
/// Idle time of what was not answered, as conntrack has it for UDP; SYNs are repeated sooner.
const HALF_OPEN_IDLE_S: u32 = 30;
/// How long a closed TCP connection is remembered.
const CLOSED_S: u32 = 10;
/// How many half-open connections a workload may have on the node: those of a tenth of a second at ten thousand
/// in a second.
const HALF_OPEN_PLACES: u32 = 1_024;
/// At least so many on each CPU.
const LEAST_PLACES: u32 = 16;
/// How many events a workload may cause in a second on the node; the ring holds 6,500.
const EVENTS_PER_SECOND: u32 = 4_000;
/// How many connections one call of [`Datapath::expire`] looks at, and at a time.
const EXPIRE_MOST: usize = 16_384;
const EXPIRE_BATCH: usize = 2_048;

/// The datapath could not be brought to where it should be.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The process may not do what it has to, or does not see the node.
    #[error(transparent)]
    Machine(#[from] Lacks),
    /// Programs could not be loaded or attached.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The network could not be read or changed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The firewall table could not be written.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// A table could not be written.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The events cannot be read.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// A map could not be read or written.
    #[error("kernel maps: {0}")]
    Maps(#[from] io::Error),
    /// More listeners than the kernel's table has room for.
    #[error("{0} listeners, but at most {MAX_LISTENERS} are possible")]
    Listeners(usize),
}

/// What [`Datapath::apply`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The revision that the kernel now has.
    pub revision: u64,
    /// How much was written.
    pub changes: Changes,
    /// Addresses of workloads of this node to which neither a device nor a bridge leads: nothing of
    /// theirs is redirected or held to policy yet. [`Datapath::changed`] tells when it is worth another
    /// look.
    pub unattached: Vec<IpAddr>,
    /// Workloads behind a bridge of which it is not known behind which port: these are closed.
    pub ownerless: Vec<Ownerless>,
    /// Names of pods' devices of which it is not known whose they are, which are closed, and for how long.
    pub unowned: BTreeMap<String, Duration>,
}

/// An address behind a bridge of which it is not known behind which port it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ownerless {
    /// Whose it should be.
    pub pod: ObjectName,
    /// The address.
    pub address: IpAddr,
    /// The names of the ports behind which somebody has it: none, or several that claim it.
    pub claimed_by: Vec<String>,
}

/// Counters, summed over the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets by what became of them.
    pub packets: Vec<PacketCounter>,
    /// Connections by service.
    pub services: BTreeMap<ServiceName, ServiceCounters>,
    /// Packets at which an established connection was decided again.
    pub decided_again: u64,
    /// Events that found the ring buffer full.
    pub lost_events: u64,
}

impl Counters {
    /// Two ways of one outcome are counted apart in the kernel.
    fn add(&mut self, counter: PacketCounter) {
        let key = |of: &PacketCounter| (of.outcome, of.reason, of.direction);
        match self.packets.iter_mut().find(|known| key(known) == key(&counter)) {
            Some(known) => {
                known.packets += counter.packets;
                known.bytes += counter.bytes;
            }
            None => self.packets.push(counter),
        }
    }
}

/// What became of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Passed in the kernel.
    Pass,
    /// Handed to a listener of the proxy.
    Redirect,
    /// Dropped.
    Drop,
    /// Handed to a connection of the proxy.
    Proxied,
    /// Sent by the proxy.
    FromProxy,
}

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketCounter {
    /// What became of them.
    pub outcome: Outcome,
    /// Why, if they were dropped.
    pub reason: Option<Reason>,
    /// Seen from the local workload.
    pub direction: Direction,
    /// Packets.
    pub packets: u64,
    /// Bytes, as the devices counted them.
    pub bytes: u64,
}

/// The datapath of one node: programs attached, tables written. Dropping it leaves everything as it
/// is, so that the daemon can be restarted; [`Datapath::cleanup`] removes it.
#[derive(Debug)]
pub struct Datapath {
    config: DatapathConfig,
    programs: Programs,
    maps: Maps,
    network: Network,
    desired: Desired,
    /// What the kernel has; nothing before the first state and after a failure, where it is to be read.
    brought: Option<Brought>,
    /// The hooks that have this process's programs.
    attached: BTreeSet<(DeviceHook, u32)>,
    /// Since when it is not known whose a pod's device is.
    unowned: BTreeMap<u32, Instant>,
    /// Devices that have been pods' and are still there.
    were_pods: BTreeSet<u32>,
    /// What is known of packets that pods get past us.
    bypass: Bypass,
    numbers: ServiceNumbers,
    /// The listeners that this process has set last.
    listeners: Vec<u16>,
    /// How many connections to services others translate, and when they were read.
    foreign: usize,
    foreign_read: Instant,
    rules: short::Rules,
    /// Where the last look for idle connections stopped.
    expired_to: Option<u32>,
}

impl Datapath {
    /// What this kernel and machine have of what the datapath wants. Loads small test programs; needs root.
    pub fn check() -> Report {
        probe::probe()
    }

    /// Loads and attaches what does not depend on the state. What an earlier process left pinned is
    /// taken over: its links get the new programs at once, its maps are used on.
    ///
    /// # Errors
    /// Names what could not be made. What was made stays for the next try or for cleanup.
    pub async fn attach(config: DatapathConfig) -> Result<Datapath, DatapathError> {
        config.check()?;
        machine::check(&config.cgroup)?;
        let network = Network::open()?;
        let programs = Programs::load(&config.bpffs)?.attaching(config.attachment);
        let maps = Maps::open(&maps_directory(&config.bpffs))?;
        let device = network.set_up(&config).await?;
        write_config(&maps, &config, device)?;
        programs.attach_device(DeviceHook::Bounced, device)?;
        programs.attach_cgroup(&config.cgroup)?;
        owner::claim(&maps, config.mark)?;
        Ok(Datapath {
            desired: Desired::empty(&config.node),
            config,
            programs,
            maps,
            network,
            brought: None,
            attached: BTreeSet::new(),
            unowned: BTreeMap::new(),
            were_pods: BTreeSet::new(),
            bypass: Bypass::default(),
            numbers: ServiceNumbers::new(),
            listeners: Vec::new(),
            foreign: 0,
            foreign_read: Instant::now(),
            rules: short::Rules::default(),
            expired_to: None,
        })
    }

    /// Brings the kernel to a state, of whose revision the services and policies are too. The cost is that of
    /// what differs from the last one.
    ///
    /// # Errors
    /// Names the part; the kernel then has some of the old and some of the new, each of them whole, and
    /// the next call goes on from there.
    pub async fn apply(
        &mut self,
        snapshot: &Snapshot,
        services: &Services,
        policy: &PolicySet,
    ) -> Result<Applied, DatapathError> {
        let mut desired = self.desired.next(snapshot, services, policy);
        let done = self.bring(&mut desired, false).await;
        self.desired = desired;
        done
    }

    /// Waits until devices, addresses, routes or neighbours changed; then [`Datapath::refresh`] is due.
    /// Cancel safe.
    pub async fn changed(&mut self) {
        while let Some((index, link)) = self.network.changed().await {
            self.close(index, &link);
        }
    }

    /// Applies the last state again to devices as they are now.
    ///
    /// # Errors
    /// As [`Datapath::apply`].
    pub async fn refresh(&mut self) -> Result<Applied, DatapathError> {
        let mut desired = self.desired.clone();
        if desired.revision() == 0 {
            return Ok(Applied {
                revision: 0,
                changes: Changes::default(),
                unattached: Vec::new(),
                ownerless: Vec::new(),
                unowned: BTreeMap::new(),
            });
        }
        let done = self.bring(&mut desired, true).await;
        self.desired = desired;
        done
    }

    /// Puts back what others have changed of the node's settings, rules and tables. To be called every few seconds.
    ///
    /// # Errors
    /// Names what could not be put back; the next call tries again.
    pub async fn keep_up(&mut self) -> Result<(), DatapathError> {
        self.renew_foreign()?;
        if !self.listeners.is_empty() {
            self.restore_listeners()?;
        }
        Ok(self.network.keep_up(&self.config).await?)
    }

    /// The addresses of the node's own devices, which the tables call the node's where nothing else is
    /// known of them.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn device_addresses(&self) -> Result<Vec<IpAddr>, DatapathError> {
        let devices = self.network.addresses().await?;
        let addresses: BTreeSet<IpAddr> = devices.into_values().flatten().collect();
        Ok(addresses.into_iter().collect())
    }

    /// What pods have open themselves, so that the proxy opens nothing of the same addresses and ports.
    ///
    /// # Errors
    /// Where the map cannot be opened.
    pub fn pod_connections(&self) -> Result<PodConnections, DatapathError> {
        Ok(PodConnections::open(&maps_directory(&self.config.bpffs))?)
    }

    /// The reader of the kernel's events. There can be one at a time.
    ///
    /// # Errors
    /// Where the ring buffer cannot be opened.
    pub fn events(&self) -> Result<Events, DatapathError> {
        Ok(Events::open(&maps_directory(&self.config.bpffs))?)
    }

    /// The counters as they are now.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn counters(&self) -> Result<Counters, DatapathError> {
        let mut counters = Counters::default();
        for index in 0..METRICS {
            let values = self.maps.metrics.lookup(&index)?.unwrap_or_default();
            let (reason, number, direction) = metric_of(index);
            if number == METRIC_AGAIN {
                counters.decided_again += values.iter().map(|value| value.packets).sum::<u64>();
            }
            let Some(outcome) = outcome(number) else { continue };
            let direction = if direction == INGRESS { Direction::Ingress } else { Direction::Egress };
            let sum = values.iter().fold(Metric::default(), |sum, value| Metric {
                packets: sum.packets + value.packets,
                bytes: sum.bytes + value.bytes,
            });
            if sum.packets == 0 {
                continue;
            }
            let reason = Reason::from_number(reason);
            counters.add(PacketCounter {
                outcome,
                reason,
                direction,
                packets: sum.packets,
                bytes: sum.bytes,
            });
        }
        for (id, name) in &self.numbers {
            let values = self.maps.service_counters.lookup(id)?.unwrap_or_default();
            let sum = values.iter().fold(ServiceCounters::default(), |sum, value| ServiceCounters {
                translated: sum.translated + value.translated,
                redirected: sum.redirected + value.redirected,
                refused: sum.refused + value.refused,
            });
            counters.services.insert(name.clone(), sum);
        }
        counters.lost_events = self.maps.lost.lookup(&0)?.unwrap_or_default().iter().sum();
        Ok(counters)
    }

    /// Forgets connections that ended or were idle for too long, and tells of those that ended this way.
    /// To be called every few seconds; each call looks at a part of the table, from where the last one
    /// stopped, so that a full one costs a call no more.
    ///
    /// # Errors
    /// Where the maps cannot be read or written.
    pub fn expire(&mut self) -> Result<Vec<KernelEvent>, DatapathError> {
        let now = monotonic_ns();
        let mut events = Vec::new();
        for _ in 0..EXPIRE_MOST / EXPIRE_BATCH {
            let (some, next) = self.maps.connections.some(self.expired_to, EXPIRE_BATCH)?;
            self.expired_to = next;
            for (key, connection) in some {
                if now.saturating_sub(connection.seen_ns) <= u64::from(connection.idle_s) * 1_000_000_000 {
                    continue;
                }
                self.maps.connections.remove(&key)?;
                if connection.state < CLOSING {
                    events.push(events::expired(&key, &connection));
                }
            }
            if next.is_none() {
                break;
            }
        }
        Ok(events)
    }

    /// The maps, for tests and tools that look at the kernel's tables.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The loaded programs, for tests that run them on packets.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Removes everything that a node has on this kernel: links, maps, rule, routes, device, firewall
    /// table; sysctls get the values that they had. Connections go on as if Weft had never been there.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    pub async fn cleanup(config: &DatapathConfig) -> Result<(), DatapathError> {
        let network = Network::open()?;
        let detached = detach_all(&config.bpffs);
        let torn_down = network.tear_down(config).await;
        let removed = firewall::remove().await;
        detached?;
        torn_down?;
        removed?;
        Ok(())
    }
}

fn write_config(maps: &Maps, config: &DatapathConfig, device: u32) -> io::Result<()> {
    // Listeners and epoch of an earlier process hold until they are set anew.
    let old = maps.config.lookup(&0)?.unwrap_or_default();
    let cpus = u32::try_from(possible_cpus()?).unwrap_or(u32::MAX);
    let new = Config {
        mark_mask: config.mark.mask,
        to_proxy: config.mark.to_proxy,
        from_proxy: config.mark.from_proxy,
        device,
        listeners: old.listeners,
        epoch: old.epoch,
        first_port: config.ports.0,
        last_port: config.ports.1,
        drop_interval_ms: DROP_INTERVAL_MS,
        datagram_idle_s: DATAGRAM_IDLE_S,
        stream_idle_s: STREAM_IDLE_S,
        half_open_s: HALF_OPEN_IDLE_S,
        closed_s: CLOSED_S,
        half_open_places: (HALF_OPEN_PLACES / cpus).max(LEAST_PLACES),
        events_per_second: (EVENTS_PER_SECOND / cpus).max(1),
    };
    maps.config.update(&0, &new)
}

fn outcome(number: u8) -> Option<Outcome> {
    match number {
        METRIC_PASS | METRIC_SHORT => Some(Outcome::Pass),
        METRIC_REDIRECT => Some(Outcome::Redirect),
        METRIC_DROP => Some(Outcome::Drop),
        METRIC_PROXIED => Some(Outcome::Proxied),
        METRIC_FROM_PROXY => Some(Outcome::FromProxy),
        _ => None,
    }
}

/// `CLOCK_MONOTONIC`, which the kernel programs use, in nanoseconds.
fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[allow(unsafe_code, reason = "the standard library hides the clock's value")]
    // SAFETY: the buffer has the right type and outlives the call.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time)
    };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

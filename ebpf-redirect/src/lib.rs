// SPDX-License-Identifier: Apache-2.0
//! The kernel datapath of a node: loads the programs of `programs/`, finds devices, and keeps the
//! kernel's tables in step with the state.
//!
//! It never decides about a request, and never waits for the proxy or the controller. What it owns on
//! the kernel outlives the process: [`Datapath::attach`] takes over what an earlier one left, and
//! [`Datapath::cleanup`] removes it.
//!
//! Read `datapath` first, then [`desired`] (what the tables should hold), [`sync`] (how the real ones
//! get there), [`load`], `network`, `firewall` and `events`.

#[doc(hidden)]
pub mod bpf;
mod bpffs;
mod cgroup;
mod clsact;
mod config;
mod conntrack;
mod datapath;
pub mod desired;
mod error;
mod events;
mod firewall;
pub mod hook;
pub mod load;
mod machine;
pub mod maps;
mod network;
mod others;
mod owner;
mod pod_connections;
pub mod probe;
pub mod sync;

pub use cgroup::cgroup2_mount;
pub use config::{
    Attachment, CNI_RESULTS, ConfigError, DEFAULT_MARK, DEFAULT_PORTS, DatapathConfig, Mark, POD_DEVICES,
    ShortPath,
};
pub use datapath::{Applied, Counters, Datapath, DatapathError, Outcome, Ownerless, PacketCounter};
pub use error::LoadError;
pub use events::{Events, EventsError, KernelEvent, KernelEventKind};
pub use firewall::FirewallError;
pub use machine::{Lack, Lacks};
pub use network::NetworkError;
pub use pod_connections::PodConnections;

// SPDX-License-Identifier: Apache-2.0
//! The pinned maps, by their types.

use std::{io, os::fd::OwnedFd, path::Path};

use aya::maps::MapType;
use weft_ebpf_common::{
    Verdict,
    connection::{CONNECTION_VERSION, Connection, ConnectionKey, PlaceKey, Share},
    layout::{
        Address, BackendKey, CHANGES, Change, Config, DropKey, DropState, Endpoint, Fragmented,
        FragmentedKey, MAX_LISTENERS, METRICS, Metric, PolicyKey, ReverseKey, Service, ServiceCounters,
        ServiceKey, Workload,
    },
};

use crate::bpf::{self, CpuTable, Prefix, Table};

/// Every map, opened.
#[derive(Debug)]
pub struct Maps {
    /// Settings.
    pub config: Table<u32, Config>,
    /// Ports of the proxy's listeners.
    pub listeners: Table<u32, u32>,
    /// Processes of the proxy.
    pub owners: Table<u32, u32>,
    /// Services.
    pub services: Table<ServiceKey, Service>,
    /// Backends.
    pub backends: Table<BackendKey, Endpoint>,
    /// Counters of services.
    pub service_counters: CpuTable<u32, ServiceCounters>,
    /// What sockets asked for.
    pub reverse: Table<ReverseKey, Endpoint>,
    /// Where others lead connections to services.
    pub foreign: Table<ConnectionKey, Endpoint>,
    /// Local workloads.
    pub workloads: Table<Address, Workload>,
    /// Identities.
    pub identities: Table<Prefix<Address>, u32>,
    /// Policy entries.
    pub policy: Table<Prefix<PolicyKey>, Verdict>,
    /// The last changes of what connections were decided by.
    pub changes: Table<u32, Change>,
    /// Connections.
    pub connections: Table<ConnectionKey, Connection>,
    /// Devices of the short way.
    pub short_devices: Table<u32, u32>,
    /// Places for half-open connections.
    pub half_open: Table<PlaceKey, ConnectionKey>,
    /// Shares of workloads.
    pub shares: CpuTable<u32, Share>,
    /// Datagrams in fragments.
    pub fragmented: Table<FragmentedKey, Fragmented>,
    /// Rate limit of drop events.
    pub drops: Table<DropKey, DropState>,
    /// Counters.
    pub metrics: CpuTable<u32, Metric>,
    /// Lost events.
    pub lost: CpuTable<u32, u64>,
}

/// The table of connections.
pub(crate) const CONNECTIONS: &str = "weft_connections_v1";

/// What a pinned map must be to be used on.
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    pub(crate) kind: MapType,
    pub(crate) key: usize,
    pub(crate) value: usize,
    pub(crate) entries: u32,
}

const fn layout<K, V>(name: &'static str, kind: MapType, entries: u32) -> Layout {
    Layout { name, kind, key: size_of::<K>(), value: size_of::<V>(), entries }
}

/// Every map, as `programs/src/maps.rs` makes it.
pub(crate) const LAYOUT: [Layout; 21] = [
    layout::<u32, Config>("weft_config_v1", MapType::Array, 1),
    layout::<u32, u32>("weft_listeners_v1", MapType::Array, MAX_LISTENERS),
    layout::<u32, u32>("weft_owners_v1", MapType::Hash, 16),
    layout::<ServiceKey, Service>("weft_services_v1", MapType::Hash, 131_072),
    layout::<BackendKey, Endpoint>("weft_backends_v1", MapType::Hash, 262_144),
    layout::<u32, ServiceCounters>("weft_service_counters_v1", MapType::PerCpuHash, 65_536),
    layout::<ReverseKey, Endpoint>("weft_reverse_v1", MapType::LruHash, 65_536),
    layout::<ConnectionKey, Endpoint>("weft_foreign_v1", MapType::LruHash, 32_768),
    layout::<Address, Workload>("weft_workloads_v1", MapType::Hash, 4_096),
    layout::<Prefix<Address>, u32>("weft_identities_v1", MapType::LpmTrie, 512_000),
    layout::<Prefix<PolicyKey>, Verdict>("weft_policy_v1", MapType::LpmTrie, 262_144),
    layout::<u32, Change>("weft_changes_v1", MapType::Array, CHANGES),
    layout::<ConnectionKey, Connection>(CONNECTIONS, MapType::LruHash, 131_072),
    layout::<u32, u32>("weft_short_devices_v1", MapType::Hash, 4_096),
    layout::<PlaceKey, ConnectionKey>("weft_half_open_v1", MapType::Hash, 262_144),
    layout::<u32, Share>("weft_shares_v1", MapType::LruPerCpuHash, 4_096),
    layout::<FragmentedKey, Fragmented>("weft_fragmented_v1", MapType::LruHash, 8_192),
    layout::<DropKey, DropState>("weft_drops_v1", MapType::LruHash, 4_096),
    layout::<u32, Metric>("weft_metrics_v1", MapType::PerCpuArray, METRICS),
    layout::<(), ()>("weft_events_v1", MapType::RingBuf, 1 << 20),
    layout::<u32, u64>("weft_lost_v1", MapType::PerCpuArray, 1),
];

/// Whether a pinned table holds connections of another version than ours.
pub(crate) fn has_other_version(connections: OwnedFd) -> io::Result<bool> {
    let table = Table::<ConnectionKey, Connection>::new(connections);
    let (some, _) = table.some(None, 64)?;
    Ok(some.first().is_some_and(|(_, connection)| connection.version != CONNECTION_VERSION))
}

impl Maps {
    /// Opens the maps that are pinned in a directory. Their sizes were checked when they were loaded.
    ///
    /// # Errors
    /// Those of the first map that cannot be opened.
    pub fn open(directory: &Path) -> io::Result<Maps> {
        let cpus = possible_cpus()?;
        let open = |name: &str| -> io::Result<OwnedFd> {
            bpf::open(&directory.join(name))
                .map_err(|error| io::Error::new(error.kind(), format!("pinned map {name}: {error}")))
        };
        Ok(Maps {
            config: Table::new(open("weft_config_v1")?),
            listeners: Table::new(open("weft_listeners_v1")?),
            owners: Table::new(open("weft_owners_v1")?),
            services: Table::new(open("weft_services_v1")?),
            backends: Table::new(open("weft_backends_v1")?),
            service_counters: CpuTable::new(open("weft_service_counters_v1")?, cpus),
            reverse: Table::new(open("weft_reverse_v1")?),
            foreign: Table::new(open("weft_foreign_v1")?),
            workloads: Table::new(open("weft_workloads_v1")?),
            identities: Table::new(open("weft_identities_v1")?),
            policy: Table::new(open("weft_policy_v1")?),
            changes: Table::new(open("weft_changes_v1")?),
            connections: Table::new(open(CONNECTIONS)?),
            short_devices: Table::new(open("weft_short_devices_v1")?),
            half_open: Table::new(open("weft_half_open_v1")?),
            shares: CpuTable::new(open("weft_shares_v1")?, cpus),
            fragmented: Table::new(open("weft_fragmented_v1")?),
            drops: Table::new(open("weft_drops_v1")?),
            metrics: CpuTable::new(open("weft_metrics_v1")?, cpus),
            lost: CpuTable::new(open("weft_lost_v1")?, cpus),
        })
    }
}

/// The number of CPUs that the kernel keeps values for.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(_, error)| error)
}

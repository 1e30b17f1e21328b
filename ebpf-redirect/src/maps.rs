// SPDX-License-Identifier: Apache-2.0
//! The pinned maps, by their types.

use std::{io, os::fd::OwnedFd, path::Path};

use weft_ebpf_common::{
    Verdict,
    layout::{
        Address, BackendKey, Config, DropKey, DropState, Endpoint, Flow, FlowKey, Fragmented, FragmentedKey,
        Metric, MetricKey, PolicyKey, ReverseKey, Service, ServiceCounters, ServiceKey, Workload,
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
    /// Local workloads.
    pub workloads: Table<Address, Workload>,
    /// Identities.
    pub identities: Table<Prefix<Address>, u32>,
    /// Policy entries.
    pub policy: Table<Prefix<PolicyKey>, Verdict>,
    /// Flows in the kernel.
    pub flows: Table<FlowKey, Flow>,
    /// Datagrams in fragments.
    pub fragmented: Table<FragmentedKey, Fragmented>,
    /// Rate limit of drop events.
    pub drops: Table<DropKey, DropState>,
    /// Counters.
    pub metrics: CpuTable<MetricKey, Metric>,
    /// Lost events.
    pub lost: CpuTable<u32, u64>,
}

/// Name, size of a key and size of a value of every map (0 and 0: the ring buffer).
pub(crate) const LAYOUT: [(&str, usize, usize); 16] = [
    ("weft_config_v1", 4, size_of::<Config>()),
    ("weft_listeners_v1", 4, 4),
    ("weft_owners_v1", 4, 4),
    ("weft_services_v1", size_of::<ServiceKey>(), size_of::<Service>()),
    ("weft_backends_v1", size_of::<BackendKey>(), size_of::<Endpoint>()),
    ("weft_service_counters_v1", 4, size_of::<ServiceCounters>()),
    ("weft_reverse_v1", size_of::<ReverseKey>(), size_of::<Endpoint>()),
    ("weft_workloads_v1", size_of::<Address>(), size_of::<Workload>()),
    ("weft_identities_v1", size_of::<Prefix<Address>>(), 4),
    ("weft_policy_v1", size_of::<Prefix<PolicyKey>>(), size_of::<Verdict>()),
    ("weft_flows_v1", size_of::<FlowKey>(), size_of::<Flow>()),
    ("weft_fragmented_v1", size_of::<FragmentedKey>(), size_of::<Fragmented>()),
    ("weft_drops_v1", size_of::<DropKey>(), size_of::<DropState>()),
    ("weft_metrics_v1", size_of::<MetricKey>(), size_of::<Metric>()),
    ("weft_events_v1", 0, 0),
    ("weft_lost_v1", 4, 8),
];

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
            workloads: Table::new(open("weft_workloads_v1")?),
            identities: Table::new(open("weft_identities_v1")?),
            policy: Table::new(open("weft_policy_v1")?),
            flows: Table::new(open("weft_flows_v1")?),
            fragmented: Table::new(open("weft_fragmented_v1")?),
            drops: Table::new(open("weft_drops_v1")?),
            metrics: CpuTable::new(open("weft_metrics_v1")?, cpus),
            lost: CpuTable::new(open("weft_lost_v1")?, cpus),
        })
    }
}

/// The number of CPUs that the kernel keeps values for.
fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(_, error)| error)
}

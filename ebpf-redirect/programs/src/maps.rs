// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Every map but that of the packet in hand (`packet.rs`). User space writes what is not said to be written
//! here.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, LruPerCpuHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use weft_ebpf_common::{
    Verdict,
    connection::{Connection, ConnectionKey, PlaceKey, Share},
    layout::{
        self, Address, BackendKey, Change, Config, DropKey, DropState, Endpoint, Fragmented, FragmentedKey,
        MAX_LISTENERS, Metric, PolicyKey, ReverseKey, Service, ServiceCounters, ServiceKey, Workload,
    },
};

/// Settings, one entry.
#[map(name = "weft_config_v1")]
pub(crate) static CONFIG: Array<Config> = Array::pinned(1, 0);

/// Ports of the proxy's listeners on 127.0.0.1 and [::1] (host order), one per worker.
#[map(name = "weft_listeners_v1")]
pub(crate) static LISTENERS: Array<u32> = Array::pinned(MAX_LISTENERS, 0);

/// Processes of the proxy (thread group numbers). A handful: one, or two while one hands over.
#[map(name = "weft_owners_v1")]
pub(crate) static OWNERS: HashMap<u32, u32> = HashMap::pinned(16, 0);

/// Services. 65,536 as in Cilium, times two for the addresses themselves; not preallocated.
#[map(name = "weft_services_v1")]
pub(crate) static SERVICES: HashMap<ServiceKey, Service> = HashMap::pinned(131_072, BPF_F_NO_PREALLOC);

/// Backends of services: 4 per service at the largest number of services.
#[map(name = "weft_backends_v1")]
pub(crate) static BACKENDS: HashMap<BackendKey, Endpoint> = HashMap::pinned(262_144, BPF_F_NO_PREALLOC);

/// Counters of services, made by user space with the service, written here.
#[map(name = "weft_service_counters_v1")]
pub(crate) static SERVICE_COUNTERS: PerCpuHashMap<u32, ServiceCounters> =
    PerCpuHashMap::pinned(65_536, BPF_F_NO_PREALLOC);

/// What a socket asked for, by what it was given; written here, the oldest is evicted.
#[map(name = "weft_reverse_v1")]
pub(crate) static REVERSE: LruHashMap<ReverseKey, Endpoint> = LruHashMap::pinned(65_536, 0);

/// Where others lead connections to services that are not kept, by what the client's end sees. A node's pods have
/// some thousand of them when Weft first starts, and fewer from then on; the oldest is evicted.
#[map(name = "weft_foreign_v1")]
pub(crate) static FOREIGN: LruHashMap<ConnectionKey, Endpoint> = LruHashMap::pinned(32_768, 0);

/// Workloads of this node by address. 4,096 addresses: a node has at most some hundred pods.
#[map(name = "weft_workloads_v1")]
pub(crate) static WORKLOADS: HashMap<Address, Workload> = HashMap::pinned(4_096, BPF_F_NO_PREALLOC);

/// Identities of addresses and prefixes, the longest wins. 512,000 as in Cilium.
#[map(name = "weft_identities_v1")]
pub(crate) static IDENTITIES: LpmTrie<Address, u32> = LpmTrie::pinned(512_000, 0);

/// Policy entries, the longest port prefix wins within (set, identity, direction, protocol).
#[map(name = "weft_policy_v1")]
pub(crate) static POLICY: LpmTrie<PolicyKey, Verdict> = LpmTrie::pinned(262_144, 0);

/// The last changes of what connections were decided by, each at its epoch modulo the size.
#[map(name = "weft_changes_v1")]
pub(crate) static CHANGES: Array<Change> = Array::pinned(layout::CHANGES, 0);

/// Connections; written here, the oldest is evicted, user space removes idle ones. 131,072 of 184 bytes: what
/// is half-open takes at most its places, the rest is for a thousand connections of each of a hundred pods.
#[map(name = "weft_connections_v1")]
pub(crate) static CONNECTIONS: LruHashMap<ConnectionKey, Connection> = LruHashMap::pinned(131_072, 0);

/// Devices between which packets of established connections may skip the node's stack. As many as devices of
/// workloads.
#[map(name = "weft_short_devices_v1")]
pub(crate) static SHORT_DEVICES: HashMap<u32, u32> = HashMap::pinned(4_096, BPF_F_NO_PREALLOC);

/// Places of workloads for half-open connections; written here. 1,024 for each of 256 workloads, made as they
/// are used.
#[map(name = "weft_half_open_v1")]
pub(crate) static HALF_OPENS: HashMap<PlaceKey, ConnectionKey> = HashMap::pinned(262_144, BPF_F_NO_PREALLOC);

/// What each workload has used of its share; written here. As many as there are workloads.
#[map(name = "weft_shares_v1")]
pub(crate) static SHARES: LruPerCpuHashMap<u32, Share> = LruPerCpuHashMap::pinned(4_096, 0);

/// Datagrams of which the first fragment was seen; written here, the oldest is evicted. 8,192 as in Cilium.
#[map(name = "weft_fragmented_v1")]
pub(crate) static FRAGMENTED: LruHashMap<FragmentedKey, Fragmented> = LruHashMap::pinned(8_192, 0);

/// Rate limit of drop events; written here, the oldest is evicted.
#[map(name = "weft_drops_v1")]
pub(crate) static DROPS: LruHashMap<DropKey, DropState> = LruHashMap::pinned(4_096, 0);

/// Counters of packets by what became of them, see `metric_index`; written here.
#[map(name = "weft_metrics_v1")]
pub(crate) static METRICS: PerCpuArray<Metric> = PerCpuArray::pinned(layout::METRICS, 0);

/// Events for user space. 1 MiB holds 6,500 of them: a burst of the time that the reader may sleep.
#[map(name = "weft_events_v1")]
pub(crate) static EVENTS: RingBuf = RingBuf::pinned(1 << 20, 0);

/// Events that found the ring full; written here.
#[map(name = "weft_lost_v1")]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::pinned(1, 0);

/// The connection that is being entered, see `connection::scratch`.
#[map(name = "weft_entry_v1")]
pub(crate) static ENTRY: PerCpuArray<Connection> = PerCpuArray::with_max_entries(1, 0);

/// The value of a key. Plain numbers which user space may replace at any time: read a field once.
#[inline(always)]
pub(crate) fn get<K, V>(map: &'static HashMap<K, V>, key: &K) -> Option<&'static V> {
    // SAFETY: the kernel frees or reuses the value after the program has run (RCU), and any bytes are one.
    unsafe { map.get(key) }
}

/// A workload of this node.
#[inline(always)]
pub(crate) fn workload(address: &Address) -> Option<&'static Workload> {
    get(&WORKLOADS, address)
}

/// The settings. Without them nothing can be decided.
#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

// SPDX-License-Identifier: Apache-2.0
//! A node: a namespace on the underlay, with a cgroup, a BPF directory, a state directory, and pods.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

use super::{Lab, Pod, Shared, WORLD_V4, WORLD_V6};
use crate::netns::Netns;
use crate::process::Place;
use crate::{cgroup, reaper};

/// How the CNI plugin joins pods to their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A host route for each pod, whose only neighbour is the node: what `ptp` and Calico build.
    Routed,
    /// A bridge on which the pods are neighbours: what `bridge` and flannel build.
    Bridged,
}

/// A node of the lab. Clones are the same node.
#[derive(Clone, Debug)]
pub struct Node {
    parts: Shared<Parts>,
}

#[derive(Debug)]
struct Parts {
    name: String,
    index: u8,
    shape: Shape,
    netns: Netns,
    cgroup: PathBuf,
    bpf: PathBuf,
    state: PathBuf,
    logs: PathBuf,
    pod_prefix: String,
    pods: Mutex<Vec<Pod>>,
}

impl Node {
    pub(super) fn create(lab: &Lab, name: &str, index: u8, shape: Shape) -> anyhow::Result<Self> {
        let prefix = reaper::namespace_prefix(lab.id());
        let parts = Parts {
            name: name.to_owned(),
            index,
            shape,
            netns: Netns::create(&format!("{prefix}{name}"))?,
            cgroup: lab.cgroup().join(name),
            bpf: lab.directory().join("bpf").join(name),
            state: lab.directory().join(name),
            logs: lab.directory().join("logs"),
            pod_prefix: prefix,
            pods: Mutex::default(),
        };
        cgroup::create(&parts.cgroup.join("host"))?;
        fs::create_dir(&parts.bpf).context("cannot make the BPF directory")?;
        fs::create_dir(&parts.state).context("cannot make the state directory")?;
        let node = Self { parts: Shared::new(parts) };
        node.join_underlay(lab.world())?;
        node.prepare_for_pods()?;
        Ok(node)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// How its pods are joined.
    pub fn shape(&self) -> Shape {
        self.parts.shape
    }

    /// Its address on the underlay.
    pub fn ip4(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, 0, 10 + self.parts.index)
    }

    /// Its IPv6 address on the underlay.
    pub fn ip6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x10 + u16::from(self.parts.index))
    }

    /// The network of its pods.
    pub(crate) fn pods_v4(&self) -> String {
        format!("10.244.{}.0/24", self.parts.index)
    }

    /// The IPv6 network of its pods.
    pub(crate) fn pods_v6(&self) -> String {
        format!("fd00:244:{:x}::/64", self.parts.index)
    }

    /// Its address for what entered through a Gateway, routed to it by the other nodes.
    pub(crate) fn ingress_v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 245, 0, self.parts.index)
    }

    /// Its IPv6 address for what entered through a Gateway.
    pub(crate) fn ingress_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x245, 0, 0, 0, 0, 0, u16::from(self.parts.index))
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.parts.netns
    }

    /// The cgroup under which its pods and its own processes are.
    pub fn cgroup(&self) -> &Path {
        &self.parts.cgroup
    }

    /// A directory of a BPF file system, for pinned maps and links.
    pub fn bpf(&self) -> &Path {
        &self.parts.bpf
    }

    /// A directory for what a daemon keeps.
    pub fn state(&self) -> &Path {
        &self.parts.state
    }

    /// Where processes of the node itself run: hostNetwork, in a cgroup of the node.
    pub fn place(&self) -> Place {
        Place {
            netns: Some(self.parts.netns.path()),
            cgroup: Some(self.parts.cgroup.join("host")),
            logs: self.parts.logs.clone(),
        }
    }

    /// Adds a pod.
    pub fn add_pod(&self, namespace: &str, name: &str) -> anyhow::Result<Pod> {
        self.add_labelled_pod(namespace, name, &[])
    }

    /// Adds a pod with labels.
    pub(crate) fn add_labelled_pod(
        &self,
        namespace: &str,
        name: &str,
        labels: &[(&str, &str)],
    ) -> anyhow::Result<Pod> {
        let mut pods = self.parts.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let number = u8::try_from(pods.len() + 10).context("too many pods on a node")?;
        let pod = Pod::create(self, number, namespace, name, labels)?;
        pods.push(pod.clone());
        Ok(pod)
    }

    /// Its pods.
    pub fn pods(&self) -> Vec<Pod> {
        self.parts.pods.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn index(&self) -> u8 {
        self.parts.index
    }

    pub(super) fn namespace_name(&self, pod: &str) -> String {
        format!("{}{}-{pod}", self.parts.pod_prefix, self.parts.name)
    }

    pub(super) fn logs(&self) -> &Path {
        &self.parts.logs
    }

    /// The gateway of its pods on a bridge.
    pub(super) fn bridge_v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.parts.index, 1)
    }

    pub(super) fn bridge_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x244, u16::from(self.parts.index), 0, 0, 0, 0, 1)
    }

    pub(super) fn add_route_to(&self, other: &Node) -> anyhow::Result<()> {
        let (via_v4, via_v6) = (other.ip4(), other.ip6());
        let v4 = [other.pods_v4(), other.ingress_v4().to_string()];
        let v6 = [other.pods_v6(), other.ingress_v6().to_string()];
        let v4 = v4.iter().map(|network| format!("route add {network} via {via_v4}\n"));
        let v6 = v6.iter().map(|network| format!("route add {network} via {via_v6}\n"));
        self.netns().ip(&v4.chain(v6).collect::<String>())
    }

    fn join_underlay(&self, world: &Netns) -> anyhow::Result<()> {
        let port = format!("node{}", self.parts.index);
        let (own, v4, v6) = (self.netns(), self.ip4(), self.ip6());
        // Never the source of what the node sends by itself: hence the scope, and no preference.
        let (ingress_v4, ingress_v6) = (self.ingress_v4(), self.ingress_v6());
        world.ip(&format!(
            "link add {port} type veth peer name eth0 netns {}\n\
             link set {port} master underlay up",
            own.name()
        ))?;
        own.ip(&format!(
            "link set eth0 up\n\
             addr add {v4}/24 dev eth0\n\
             addr add {v6}/64 dev eth0 nodad\n\
             addr add {ingress_v4}/32 dev lo scope host\n\
             addr add {ingress_v6}/128 dev lo nodad preferred_lft 0\n\
             route add default via {WORLD_V4}\n\
             route add default via {WORLD_V6}"
        ))?;
        own.sysctl("net/ipv4/ip_forward", "1")?;
        own.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    fn prepare_for_pods(&self) -> anyhow::Result<()> {
        if self.parts.shape == Shape::Routed {
            return Ok(());
        }
        let (v4, v6) = (self.bridge_v4(), self.bridge_v6());
        self.netns().ip(&format!(
            "link add cni0 type bridge\n\
             addr add {v4}/24 dev cni0\n\
             addr add {v6}/64 dev cni0 nodad\n\
             link set cni0 up"
        ))
    }
}

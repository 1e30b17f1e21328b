// SPDX-License-Identifier: Apache-2.0
//! The lab itself: an underlay in a namespace of its own, and the nodes on it.
//!
//! Addresses (the same in every lab, since no lab is joined to anything else): the underlay is
//! 172.30.0.0/24 and fd30::/64, with the outside world at .1; node `i` is .10+i and has the pods of
//! 10.244.i.0/24 and fd00:244:i::/64; services are in 10.96.0.0/16 and fd00:96::/112.

use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};

use crate::netns::Netns;
use crate::process::Place;
use crate::{cgroup, netns, reaper};

mod node;
mod pod;

pub use node::{Node, Shape};
pub use pod::{GATEWAY_V4, GATEWAY_V6, Label, Pod};

/// Where the outside world and the controller are on the underlay.
pub(crate) const WORLD_V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// The same in IPv6.
pub(crate) const WORLD_V6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 1);

/// Nodes and pods on one machine. Dropping it removes all that it made.
#[derive(Debug)]
pub struct Lab {
    id: String,
    directory: PathBuf,
    cgroup: PathBuf,
    world: Netns,
    nodes: Mutex<Vec<Node>>,
    services: AtomicU16,
    reaper: Child,
    _lock: File,
}

impl Lab {
    /// Makes a lab with an underlay and no nodes, after removing labs whose process is gone.
    pub fn new() -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !netns::is_root() {
            bail!("the lab needs root: it makes network namespaces, cgroups and mounts");
        }
        reaper::remove_dead()?;
        let id = format!("{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = Path::new(reaper::LABS).join(&id);
        let lock = make_directory(&directory)?;
        let reaper = reaper::start(&id)?;
        let cgroup = cgroup::v2_mount()?.join(format!("{}{id}", cgroup::PREFIX));
        cgroup::create(&cgroup.join("world"))?;
        let bpf = directory.join("bpf");
        netns::run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpf))?;
        let world = Netns::create(&format!("{}world", reaper::namespace_prefix(&id)))?;
        world.ip(&format!(
            "link add underlay type bridge\n\
             addr add {WORLD_V4}/24 dev underlay\n\
             addr add {WORLD_V6}/64 dev underlay nodad\n\
             link set underlay up"
        ))?;
        Ok(Self {
            id,
            directory,
            cgroup,
            world,
            nodes: Mutex::default(),
            services: AtomicU16::new(0),
            reaper,
            _lock: lock,
        })
    }

    /// Adds a node whose pods are joined as `shape` says, with routes between it and the others.
    pub fn add_node(&self, name: &str, shape: Shape) -> anyhow::Result<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let index = u8::try_from(nodes.len() + 1).context("too many nodes")?;
        let node = Node::create(self, name, index, shape)?;
        for other in nodes.iter() {
            other.add_route_to(&node)?;
            node.add_route_to(other)?;
        }
        nodes.push(node.clone());
        Ok(node)
    }

    /// What its names contain: namespaces are `wl-<id>-…`, the cgroup is `weft-lab-<id>`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A directory of its own, on a memory file system.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The namespace of the underlay: the world outside of the cluster.
    pub fn world(&self) -> &Netns {
        &self.world
    }

    /// Where processes outside of the cluster run.
    pub fn world_place(&self) -> Place {
        Place {
            netns: Some(self.world.path()),
            cgroup: Some(self.cgroup.join("world")),
            logs: self.directory.join("logs"),
        }
    }

    /// The nodes, in the order in which they were added.
    pub fn nodes(&self) -> Vec<Node> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A pair of addresses for a service, not given out before.
    pub(crate) fn allocate_service(&self) -> (Ipv4Addr, Ipv6Addr) {
        let number = self.services.fetch_add(1, Ordering::Relaxed) + 10;
        let [high, low] = number.to_be_bytes();
        (Ipv4Addr::new(10, 96, high, low), Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, number))
    }

    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let removed = reaper::remove(&self.id);
        if removed.is_ok() {
            // Nothing is left for it to do; when it has ended already, neither.
            self.reaper.kill().ok();
        }
        drop(self.reaper.stdin.take());
        self.reaper.wait().ok();
        if let Err(error) = removed {
            eprintln!("the lab {} is not wholly removed: {error:#}", self.id);
        }
    }
}

/// The lab's directory, made before all else, so that whatever follows can be found and removed.
fn make_directory(directory: &Path) -> anyhow::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(reaper::LABS)?;
    for path in [directory, &directory.join("bpf"), &directory.join("logs")] {
        fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    // A lock file that is there and free means a dead lab, so it gets its name once it is locked.
    let new = directory.join("lock.new");
    let lock = File::create(&new)?;
    lock.lock()?;
    fs::rename(&new, directory.join(reaper::LOCK))?;
    Ok(lock)
}

/// Shared by the nodes and pods of a lab: they outlive no lab, but need no reference to it.
pub(crate) type Shared<T> = Arc<T>;

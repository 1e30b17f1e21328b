// SPDX-License-Identifier: Apache-2.0
//! A laboratory on one machine: nodes and pods as network namespaces, with real processes in them.
//!
//! A [`Lab`](lab::Lab) is a set of namespaces that is joined to nothing else, not even to the host's, so
//! that labs run beside each other with the same addresses. A node is a namespace with a cgroup, a
//! BPF file system, a state directory and the pods below it; a pod is a namespace with a veth pair into
//! its node. Everything runs in processes of the program `weft-lab`, or is one of the daemons.
//!
//! What a lab made is removed when it is dropped, and by a process of its own ([`reaper`]) when the lab's
//! process ends in any other way. The lab needs root, and says so.
//!
//! Reading order: [`lab`], [`process`], [`manifests`], [`daemon`], then the peers in [`peer`].

pub mod cgroup;
pub mod daemon;
pub mod demo;
pub mod foreign;
pub mod lab;
pub mod loopback;
pub mod manifests;
pub mod mesh;
pub mod netns;
pub mod peer;
pub mod process;
pub mod reaper;
pub mod scene;
pub mod wait;

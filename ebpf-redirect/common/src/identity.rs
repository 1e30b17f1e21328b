// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Numbers of security identities. The reserved ones are Cilium's, since Hubble's clients know them.

/// Nothing is known about the address. Never `world`: an address of a pod that is not known yet is this.
pub const UNKNOWN: u32 = 0;
/// The node itself and its host-network pods.
pub const HOST: u32 = 1;
/// Any address outside of the cluster.
pub const WORLD: u32 = 2;
/// Another node of the cluster.
pub const REMOTE_NODE: u32 = 6;
/// The API server.
pub const KUBE_APISERVER: u32 = 7;
/// Traffic that entered through a Gateway or an Ingress.
pub const INGRESS: u32 = 8;
/// The first number that the controller gives to a set of labels.
pub const FIRST_ALLOCATED: u32 = 256;
/// Set in the numbers that a node gives to CIDR prefixes; they mean nothing on other nodes.
pub const LOCAL_SCOPE: u32 = 1 << 24;

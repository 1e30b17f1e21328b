// SPDX-License-Identifier: Apache-2.0
//! The control thread: starts everything, brings states to the workers and to the kernel, and says how it
//! goes. It never stands between a client and its endpoint.

pub(crate) mod admin;
pub(crate) mod apply;
pub(crate) mod config;
pub(crate) mod export;
pub(crate) mod flow;
pub(crate) mod handover;
pub(crate) mod kernel;
pub(crate) mod link;
pub(crate) mod networks;
pub(crate) mod node;
pub(crate) mod owners;
pub(crate) mod plane;

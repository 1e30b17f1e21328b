// SPDX-License-Identifier: Apache-2.0
//! `weft-node`: the daemon that serves all L7 traffic of one node, and owns its kernel datapath.
//!
//! One runtime on the main thread controls; one current-thread runtime per worker carries data, with
//! its own sockets, pools and measurements, and no lock shared between workers on the request path.
//! The data path never waits for control, export, logging or metrics.
//!
//! Reading order: [`state`] (what a node knows at one revision), [`route`] and [`rule`] (which rule
//! serves a request), then the request pipeline.

pub mod balance;
pub mod clock;
pub mod cluster;
pub mod filter;
pub mod ir_client;
pub mod ratelimit;
pub mod retry_budget;
pub mod route;
pub mod rule;
pub mod slots;
pub mod state;

// SPDX-License-Identifier: Apache-2.0
//! `weft-node`: the daemon that serves all L7 traffic of one node, and owns its kernel datapath.
//!
//! One runtime on the main thread controls; one current-thread runtime per worker carries data, with
//! its own sockets, pools and measurements, and no lock shared between workers on the request path.
//! The data path never waits for control, export, logging or metrics.
//!
//! Reading order: [`state`] (what a node knows at one revision), [`route`] and [`rule`] (which rule
//! serves a request), [`target`] (what a connection is for), [`request`] and `exchange` (the pipeline),
//! [`permit`] (policy), then [`pool`], [`worker`], [`plane`] and [`apply`] (how states get here).

pub mod access;
pub mod apply;
pub mod balance;
pub mod capture;
pub mod clock;
pub mod cluster;
pub mod config;
mod deadline;
pub mod dial;
pub mod exchange;
pub mod export;
pub mod filter;
pub mod flow;
pub mod ir_client;
pub mod kernel;
pub mod metrics;
pub mod node;
pub mod permit;
pub mod plane;
pub mod pool;
pub mod ratelimit;
pub mod replay;
pub mod reply;
pub mod request;
pub mod retry_budget;
pub mod route;
pub mod rule;
pub mod serve;
pub mod slots;
pub mod state;
pub mod target;
pub mod tcp;
pub mod thread;
mod upgrade;
pub mod worker;

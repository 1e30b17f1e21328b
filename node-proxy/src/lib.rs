// SPDX-License-Identifier: Apache-2.0
//! `weft-node`: the daemon that serves all L7 traffic of one node, and owns its kernel datapath.
//!
//! One runtime on the main thread controls; worker threads carry data, turn by turn and without a runtime, each
//! with its own sockets, pools and measurements, and no lock shared between them on the request path. The data
//! path never waits for control, export, logging or metrics.
//!
//! Each module imports only from those to its right: `control` (starts everything, brings states here) ->
//! `serve` (threads, turns, connections, bytes) -> `request` (what is to be done with a request, in its order)
//! -> `worker` (what one worker owns, its records) -> `upstream` (endpoints: choice, connections, budgets) -> `state`
//! (what a node knows at one revision) -> `route` (which rule serves a request). `ir_client`, the node's end
//! of the stream from the controller, imports none of them.

mod control;
mod ir_client;
mod request;
mod route;
mod serve;
mod state;
mod upstream;
mod worker;

// For the daemon's binary.
pub use control::{
    config::{Args, Config, ConfigError, RawConfig},
    node::{NodeError, clean_up, run},
};
pub use ir_client::IrClientError;
// For the tests of parts over real sockets.
pub use control::plane::{Plane, PlaneConfig, Redirect, WorkerGone};
pub use serve::thread::Turns;
pub use state::{
    MeshState,
    compile::{Compiler, Rejected},
};
pub use upstream::dial::{DialConfig, Dialer};
pub use worker::{
    Worker, WorkerParts,
    limits::Limits,
    metrics::WorkerMetrics,
    records::{Ended, Named, Recorder, Records, ring},
    target::{Ends, Entrance},
};

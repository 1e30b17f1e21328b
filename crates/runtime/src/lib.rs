// SPDX-License-Identifier: Apache-2.0
//! Lifecycle of the daemons: how they start, say that they are ready, answer questions, and end.
//!
//! Nothing here knows what a daemon does. Read `supervise` (who runs), `drain` (how it ends), `readiness`
//! (who is waited for), `admin` (who may ask), `state_dir` (what is kept, and by whom), `telemetry` and `signals`.

pub mod admin;
pub mod drain;
pub mod readiness;
pub mod signals;
pub mod state_dir;
pub mod supervise;
pub mod telemetry;

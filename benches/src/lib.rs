// SPDX-License-Identifier: Apache-2.0
//! What the harness and the programs that it starts have in common: the traffic, and the open-loop load.

pub mod open_loop;
pub mod traffic;

// SPDX-License-Identifier: Apache-2.0
//! `weft-controller`: reads objects, translates them, and serves the state to every node.

pub mod serve_ir;

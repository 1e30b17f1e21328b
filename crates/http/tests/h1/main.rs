// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 byte for byte: both machines as their callers drive them.

mod client;
mod corpus;
mod downgrade;
mod drive;
mod oracles;
mod pieces;
mod proxy;
mod same;
mod server;
mod smuggling;
mod support;

// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 byte for byte: both machines as their callers drive them.

mod client;
mod corpus;
mod oracles;
mod pieces;
mod server;
mod smuggling;
mod support;

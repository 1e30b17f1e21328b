// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 byte for byte: both machines as their callers drive them.

mod client;
mod server;
mod support;

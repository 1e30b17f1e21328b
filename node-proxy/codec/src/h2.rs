// SPDX-License-Identifier: Apache-2.0
//! HTTP/2 (RFC 9113), on the `h2` crate and without another layer above it.

mod body;
mod client;
mod convert;
mod server;

pub use client::H2Upstream;
pub(crate) use server::serve;

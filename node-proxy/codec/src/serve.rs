// SPDX-License-Identifier: Apache-2.0
//! What a listener calls for each accepted connection.

use std::rc::Rc;

use crate::{
    config::ServerConfig,
    drain::Drain,
    handler::{Handler, Served},
    io::Io,
    sniff,
};

/// Serves one connection until it ends.
///
/// Runs the handler inside this future: dropping it drops every request of the connection.
pub async fn serve_connection<H: Handler>(
    io: impl Io,
    config: Rc<ServerConfig>,
    handler: Rc<H>,
    drain: Drain,
) -> Served {
    sniff::serve(Box::new(io), config, handler, drain).await
}

// SPDX-License-Identifier: Apache-2.0
//! Which connections pods have of their own, as the proxy asks before it opens one in a pod's name.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use weft_ebpf_common::connection::{CLOSING, Connection, ConnectionKey};

use crate::{
    bpf::{self, Table},
    maps::CONNECTIONS,
};

/// Number of TCP.
const TCP: u8 = 6;

/// A view of the node's connections. Clones are the same.
#[derive(Clone, Debug)]
pub struct PodConnections(Arc<Table<ConnectionKey, Connection>>);

impl PodConnections {
    pub(crate) fn open(maps: &Path) -> io::Result<PodConnections> {
        Ok(PodConnections(Arc::new(Table::new(bpf::open(&maps.join(CONNECTIONS))?))))
    }

    /// Whether a pod has a TCP connection of its own from one address to the other. Where the kernel does not say,
    /// it has none: what is sent on two of the same would be answered by a reset.
    pub fn has(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let end = |at: SocketAddr| (at.ip().into(), at.port().to_be());
        let (key, _) = ConnectionKey::of(end(from), end(to), TCP);
        let found = self.0.lookup(&key).ok().flatten();
        found.is_some_and(|connection| connection.state < CLOSING && connection.proxied == 0)
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The netlink socket, and notice of changes.

use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::{MulticastGroup, new_connection_with_strict_check, new_multicast_connection};

use super::{Network, NetworkError};

/// Changes that come within this time are looked at together.
const SETTLE: Duration = Duration::from_millis(50);

/// The pause before a socket that has ended is opened again.
const REOPEN: Duration = Duration::from_secs(1);

impl Network {
    /// Opens a netlink socket in the network namespace of the calling thread. Needs a tokio runtime.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn open() -> Result<Network, NetworkError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, handle, messages) =
            new_multicast_connection(&groups).map_err(NetworkError::Socket)?;
        tokio::spawn(connection);
        let (connection, strict, _none) = new_connection_with_strict_check().map_err(NetworkError::Socket)?;
        tokio::spawn(connection);
        Ok(Network { handle, strict, changes: messages.map(|_| ()).boxed() })
    }

    /// Waits until something changed, and then until it is quiet. Cancel safe: nothing is lost but
    /// notice that is given again by the next change. A socket that has ended is opened again, which counts
    /// as a change, since nobody knows what it has missed.
    pub(crate) async fn changed(&mut self) {
        if self.changes.next().await.is_none() {
            tokio::time::sleep(REOPEN).await;
            match Network::open() {
                Ok(opened) => *self = opened,
                Err(error) => tracing::error!(%error, "changes of the network are not seen"),
            }
            return;
        }
        let quiet = tokio::time::sleep(SETTLE);
        tokio::pin!(quiet);
        loop {
            tokio::select! {
                () = &mut quiet => return,
                next = self.changes.next() => if next.is_none() { return },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn a_netlink_socket_that_ended_is_opened_again() {
        let mut network = Network::open().expect("a netlink socket");
        network.changes = stream::empty().boxed();
        network.changed().await;
        assert!(!network.links().await.expect("the devices").is_empty());
        let quiet = tokio::time::timeout(Duration::from_millis(10), network.changes.next()).await;
        assert!(!matches!(quiet, Ok(None)), "the new socket is open");
    }
}

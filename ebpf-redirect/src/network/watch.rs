// SPDX-License-Identifier: Apache-2.0
//! The netlink socket, and notice of changes.

use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{
    MulticastGroup, new_connection_with_strict_check, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
};

use super::{Kind, Link, Network, NetworkError};

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
        let changes = messages.map(|(message, _)| device(message)).boxed();
        Ok(Network { handle, strict, changes, unsettled: false })
    }

    /// Waits until something changed, and then until it is quiet; before that, a device that is the end of a
    /// pair is told at once. Cancel safe. A socket that has ended is opened again, which counts as a change,
    /// since nobody knows what it has missed.
    pub(crate) async fn changed(&mut self) -> Option<(u32, Link)> {
        loop {
            let next = match self.unsettled {
                true => match tokio::time::timeout(SETTLE, self.changes.next()).await {
                    Ok(next) => next,
                    Err(_quiet) => {
                        self.unsettled = false;
                        return None;
                    }
                },
                false => self.changes.next().await,
            };
            let Some(change) = next else {
                self.reopen().await;
                return None;
            };
            self.unsettled = true;
            if let Some((index, link)) = change
                && link.kind == Kind::Veth
            {
                return Some((index, link));
            }
        }
    }

    async fn reopen(&mut self) {
        tokio::time::sleep(REOPEN).await;
        match Network::open() {
            Ok(opened) => *self = opened,
            Err(error) => tracing::error!(%error, "changes of the network are not seen"),
        }
    }
}

/// The device that a message is about, if it is new or has changed.
fn device(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<(u32, Link)> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Some(Link::read(link)),
        _ => None,
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

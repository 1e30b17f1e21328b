// SPDX-License-Identifier: Apache-2.0
//! What is in the network namespaces behind the ports of a bridge, asked from outside.

use std::{collections::BTreeSet, net::IpAddr};

use futures_util::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;

use super::{Network, NetworkError, netlink};

impl Network {
    /// The addresses in a namespace, by the number that this one has for it (Linux 4.20). One that went away
    /// since has none.
    ///
    /// # Errors
    /// Those of the netlink request.
    pub(super) async fn addresses_in(&self, namespace: i32) -> Result<BTreeSet<IpAddr>, NetworkError> {
        let mut request = self.strict.address().get();
        request.message_mut().attributes.push(AddressAttribute::TargetNetNsId(namespace));
        let mut found = request.execute();
        let mut addresses = BTreeSet::new();
        loop {
            let message = match found.try_next().await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(addresses),
                Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EINVAL => {
                    return Ok(BTreeSet::new());
                }
                Err(error) => return Err(netlink("addresses of a pod")(error)),
            };
            for attribute in message.attributes {
                if let AddressAttribute::Address(address) | AddressAttribute::Local(address) = attribute {
                    addresses.insert(address.to_canonical());
                }
            }
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What the two ends of pods' pairs have counted.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use netlink_packet_route::link::LinkAttribute;
use rtnetlink::Handle;

use super::{Network, links::OtherEnd};

/// Packets that the pod's end of a pair has received, and that the node's end has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    received: u64,
    sent: u64,
}

impl Passed {
    /// How many more packets the pod has got since then than were sent to it.
    pub(crate) fn since(&self, before: &Passed) -> u64 {
        let received = self.received.saturating_sub(before.received);
        received.saturating_sub(self.sent.saturating_sub(before.sent))
    }
}

impl Network {
    /// The counters of devices and of their other ends, of which these are read first or last. A device of which
    /// one of both cannot be read, since it went away, is left out.
    pub(crate) async fn passed(
        &self,
        devices: &[(u32, OtherEnd)],
        others_first: bool,
    ) -> BTreeMap<u32, Passed> {
        let (mut received, mut sent) = (BTreeMap::new(), BTreeMap::new());
        for others in [others_first, !others_first] {
            for (index, other) in devices {
                if others {
                    let counted = counted(&self.strict, other.index, Some(other.netns)).await;
                    received.extend(counted.map(|(received, _)| (*index, received)));
                } else {
                    sent.extend(counted(&self.handle, *index, None).await.map(|(_, sent)| (*index, sent)));
                }
            }
        }
        let both = |(index, received)| Some((index, Passed { received, sent: *sent.get(&index)? }));
        received.into_iter().filter_map(both).collect()
    }
}

/// Packets that a device has received and sent; nothing where it is gone.
async fn counted(handle: &Handle, index: u32, netns: Option<i32>) -> Option<(u64, u64)> {
    let mut request = handle.link().get().match_index(index);
    request.message_mut().attributes.extend(netns.map(LinkAttribute::IfNetnsId));
    let message = request.execute().try_next().await.ok().flatten()?;
    message.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(counted) => Some((counted.rx_packets, counted.tx_packets)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_what_was_passed_by() {
        let at = |received, sent| Passed { received, sent };
        assert_eq!(at(150, 130).since(&at(100, 100)), 20);
        assert_eq!(at(150, 150).since(&at(100, 100)), 0);
        // What is read later counts more.
        assert_eq!(at(150, 160).since(&at(100, 100)), 0);
        assert_eq!(at(10, 0).since(&at(100, 0)), 0);
    }
}

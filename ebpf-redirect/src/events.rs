// SPDX-License-Identifier: Apache-2.0
//! Reads the ring buffer: records of the kernel as typed events.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use aya::maps::{Map, MapData, MapError, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};
use weft_ebpf_common::{
    Reason, Verdict,
    connection::{Connection, ConnectionKey},
    layout::{EGRESS, EVENT_CLOSE, EVENT_DROP, EVENT_OPEN, EVENT_REDIRECT, EVENT_TRANSLATE, Event, INGRESS},
};
use weft_ir::Direction;

/// The pause after the last event was read. Without it the kernel would wake us for every connection that
/// a pod opens, which cost the pod a third of the time of its `connect(2)` on two cores.
const PAUSE: Duration = Duration::from_millis(5);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelEventKind {
    /// A connection or flow was allowed and stays in the kernel.
    Open,
    /// One ended.
    Close {
        /// Why it was ended, if not by its ends.
        reason: Option<Reason>,
    },
    /// A packet was dropped.
    Drop {
        /// Why.
        reason: Reason,
        /// Equal drops since the last event, which had none of their own.
        suppressed: u32,
    },
    /// A connection was handed to the proxy.
    Redirect,
    /// A socket that asked for `service` was given `destination`.
    Translate {
        /// The service's address.
        service: SocketAddr,
        /// The process that asked.
        process: u32,
    },
}

/// One event. Addresses are as the opener of the connection has them; of a dropped packet, as it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelEvent {
    /// What happened.
    pub kind: KernelEventKind,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// When the flow was opened, on the same clock; 0 where that is not known.
    pub opened_ns: u64,
    /// The opener; unspecified for translations.
    pub source: SocketAddr,
    /// The other side.
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags of the packet.
    pub tcp_flags: u8,
    /// Seen from the local workload.
    pub direction: Direction,
    /// Identity of the source; 0 where it is not known.
    pub source_identity: u32,
    /// Identity of the destination; 0 where it is not known.
    pub destination_identity: u32,
    /// Number of the local workload; 0 for none.
    pub workload: u32,
    /// Number of the service; 0 for none.
    pub service: u32,
    /// What the policy said; none where it was not asked.
    pub verdict: Verdict,
    /// Packets of the opener.
    pub packets: u64,
    /// Bytes of the opener, as the devices counted them.
    pub bytes: u64,
    /// Packets of the other side.
    pub reply_packets: u64,
    /// Bytes of the other side.
    pub reply_bytes: u64,
}

/// The ring buffer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The pinned map cannot be used.
    #[error("pinned map weft_events_v1: {0}")]
    Map(#[from] MapError),
    /// Waiting failed.
    #[error("waiting for kernel events: {0}")]
    Wait(#[from] io::Error),
}

/// The reader of a node's ring buffer. There can be one at a time.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    /// Records that were of no known kind or length.
    unreadable: u64,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("unreadable", &self.unreadable).finish_non_exhaustive()
    }
}

impl Events {
    /// Opens the pinned ring buffer. Needs a tokio runtime.
    ///
    /// # Errors
    /// Where it is not there.
    pub(crate) fn open(maps: &Path) -> Result<Events, EventsError> {
        let map = Map::from_map_data(MapData::from_pin(maps.join("weft_events_v1"))?)?;
        let ring = RingBuf::try_from(map)?;
        #[allow(unsafe_code, reason = "the type keeps its descriptor, but cannot say so")]
        // SAFETY: the ring buffer owns its descriptor and keeps the same one until it is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(io::Error::from)?;
        Ok(Events { ring, unreadable: 0 })
    }

    /// The next event. Cancel safe.
    ///
    /// # Errors
    /// Where waiting fails.
    pub async fn next(&mut self) -> Result<KernelEvent, EventsError> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            while let Some(record) = ready.get_inner_mut().next() {
                match decode(&record) {
                    Some(event) => return Ok(event),
                    None => self.unreadable += 1,
                }
            }
            ready.clear_ready();
            // While we are behind, the kernel wakes nobody for a new event.
            sleep(PAUSE).await;
        }
    }

    /// How many records could not be read.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// A record of the ring buffer as an event.
pub(crate) fn decode(record: &[u8]) -> Option<KernelEvent> {
    if record.len() < size_of::<Event>() {
        return None;
    }
    #[allow(unsafe_code, reason = "a view of a kernel record")]
    // SAFETY: the record is long enough, and any bytes are an `Event`, which is plain numbers.
    let event = unsafe { record.as_ptr().cast::<Event>().read_unaligned() };
    typed(&event)
}

fn typed(event: &Event) -> Option<KernelEvent> {
    let reason = Reason::from_number(event.reason);
    let kind = match event.kind {
        EVENT_OPEN => KernelEventKind::Open,
        EVENT_CLOSE => KernelEventKind::Close { reason },
        EVENT_DROP => KernelEventKind::Drop { reason: reason?, suppressed: event.suppressed },
        EVENT_REDIRECT => KernelEventKind::Redirect,
        EVENT_TRANSLATE => KernelEventKind::Translate {
            service: socket(event.service.address.ip(), event.service.port_be),
            process: event.process,
        },
        _ => return None,
    };
    Some(KernelEvent {
        kind,
        time_ns: event.time_ns,
        opened_ns: event.opened_ns,
        source: socket(event.source.ip(), event.source_port_be),
        destination: socket(event.destination.ip(), event.destination_port_be),
        protocol: event.protocol,
        tcp_flags: event.tcp_flags,
        direction: direction(event.direction)?,
        source_identity: event.source_identity,
        destination_identity: event.destination_identity,
        workload: event.workload,
        service: event.service_id,
        verdict: event.verdict,
        packets: event.packets,
        bytes: event.bytes,
        reply_packets: event.reply_packets,
        reply_bytes: event.reply_bytes,
    })
}

/// The event of a connection that was idle for too long, as its opener sees it or, where only the other end
/// is here, as that one.
pub(crate) fn expired(key: &ConnectionKey, connection: &Connection) -> KernelEvent {
    let end = |at: usize| (socket(key.addresses[at].ip(), key.ports_be[at]), &connection.ends[at]);
    let first = usize::from(connection.opener & 1);
    let (opener, other) = (end(first), end(first ^ 1));
    let here = opener.1.workload != 0;
    let end = if here { opener.1 } else { other.1 };
    KernelEvent {
        kind: KernelEventKind::Close { reason: None },
        time_ns: connection.seen_ns,
        opened_ns: connection.opened_ns,
        source: opener.0,
        destination: other.0,
        protocol: key.protocol,
        tcp_flags: 0,
        direction: if here { Direction::Egress } else { Direction::Ingress },
        source_identity: opener.1.identity,
        destination_identity: other.1.identity,
        workload: end.workload,
        service: 0,
        verdict: end.verdict,
        packets: opener.1.packets,
        bytes: opener.1.bytes,
        reply_packets: other.1.packets,
        reply_bytes: other.1.bytes,
    }
}

fn direction(number: u8) -> Option<Direction> {
    match number {
        EGRESS => Some(Direction::Egress),
        INGRESS => Some(Direction::Ingress),
        _ => None,
    }
}

fn socket(address: IpAddr, port_be: u16) -> SocketAddr {
    SocketAddr::new(address, u16::from_be(port_be))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_records_and_unknown_kinds_are_no_events() {
        assert_eq!(decode(&[0; 8]), None);
        assert_eq!(typed(&Event { kind: 99, ..Event::default() }), None);
    }

    #[test]
    fn a_drop_tells_its_reason() {
        let event = Event { kind: EVENT_DROP, reason: 133, suppressed: 4, ..Event::default() };
        let kind = typed(&event).map(|event| event.kind);
        assert_eq!(kind, Some(KernelEventKind::Drop { reason: Reason::PolicyDenied, suppressed: 4 }));
    }
}

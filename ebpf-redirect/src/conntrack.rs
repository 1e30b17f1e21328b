// SPDX-License-Identifier: Apache-2.0
//! Which connections of pods the node's connection tracking translates: read once in a while, never changed.
//!
//! Message and attribute numbers: `linux/netfilter/nfnetlink.h` and `nfnetlink_conntrack.h`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use weft_ebpf_common::{connection::ConnectionKey, layout::Endpoint};

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_GET`.
const GET: u16 = 1 << 8 | 1;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// `struct nfgenmsg`.
const FAMILY: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE: u16 = 0x3fff;

/// A connection whose destination is translated: what its opener sees, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translated {
    /// What the opener sees.
    pub(crate) key: ConnectionKey,
    /// The destination that it asked for.
    pub(crate) asked: IpAddr,
    /// Where it goes.
    pub(crate) backend: Endpoint,
}

/// One direction as connection tracking has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    source_port_be: u16,
    destination_port_be: u16,
    protocol: u8,
}

/// Every connection of the network namespace whose destination is translated.
///
/// # Errors
/// Those of the netlink socket; a kernel without connection tracking has none.
pub(crate) fn translated() -> io::Result<Vec<Translated>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(), 0)?;
    let mut found = Vec::new();
    loop {
        let (bytes, _kernel) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while let Some((kind, payload, next)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return error(payload).map(|()| found),
                _ => found.extend(payload.get(FAMILY..).and_then(entry)),
            }
            rest = next;
        }
    }
}

fn request() -> [u8; HEADER + FAMILY] {
    let mut bytes = [0; HEADER + FAMILY];
    bytes[0] = (HEADER + FAMILY) as u8;
    bytes[4..6].copy_from_slice(&GET.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes
}

/// The first message: its type, what it carries, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(HEADER..length)?;
    Some((kind, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// A kernel that does not track connections says so in one of several ways.
fn error(payload: &[u8]) -> io::Result<()> {
    let code = payload.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
    match -code {
        0 | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// The attributes of a level; what is cut off ends it.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn entry(bytes: &[u8]) -> Option<Translated> {
    let side =
        |wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| tuple(value));
    let (asked, reply) = (side(CTA_TUPLE_ORIG)?, side(CTA_TUPLE_REPLY)?);
    let same = (asked.destination, asked.destination_port_be) == (reply.source, reply.source_port_be);
    if same {
        return None;
    }
    let source = (asked.source.into(), asked.source_port_be);
    let destination = (asked.destination.into(), asked.destination_port_be);
    let (key, _) = ConnectionKey::of(source, destination, asked.protocol);
    let backend = Endpoint { address: reply.source.into(), port_be: reply.source_port_be, pad: 0 };
    Some(Translated { key, asked: asked.destination, backend })
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (mut addresses, mut ports, mut protocol) = ([None; 2], [None; 2], None);
    for (kind, value) in attributes(bytes) {
        for (inner, value) in attributes(value) {
            match (kind, inner) {
                // Source and destination, of IPv4 (1, 2) and of IPv6 (3, 4).
                (CTA_TUPLE_IP, 1..=4) => addresses[usize::from(inner - 1) % 2] = address(value),
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => protocol = value.first().copied(),
                (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT | CTA_PROTO_DST_PORT) => {
                    ports[usize::from(inner - CTA_PROTO_SRC_PORT)] =
                        value.get(..2)?.try_into().ok().map(u16::from_ne_bytes);
                }
                _ => {}
            }
        }
    }
    Some(Tuple {
        source: addresses[0]?,
        destination: addresses[1]?,
        source_port_be: ports[0]?,
        destination_port_be: ports[1]?,
        protocol: protocol?,
    })
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend((kind | 0x8000).to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn side(kind: u16, from: [u8; 4], to: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
        let ip = [attribute(1, &from), attribute(2, &to)].concat();
        let ports = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
        let protocol = [attribute(1, &[6]), attribute(2, &ports.0), attribute(3, &ports.1)].concat();
        attribute(kind, &[attribute(1, &ip), attribute(2, &protocol)].concat())
    }

    #[test]
    fn what_is_translated_is_read_and_what_is_not_or_cut_off_is_left_out() {
        let (pod, vip, backend) = ([10, 0, 0, 2], [10, 96, 0, 1], [10, 0, 0, 9]);
        let bytes =
            [side(1, pod, vip, (4000, 80)), side(2, backend, pod, (8080, 4000)), attribute(3, &[0; 4])]
                .concat();
        let found = entry(&bytes).expect("a translation");
        assert_eq!(found.asked, IpAddr::from(vip));
        assert_eq!((found.backend.address.ip(), found.backend.port_be), (backend.into(), 8080_u16.to_be()));
        let plain = [side(1, pod, vip, (4000, 80)), side(2, vip, pod, (80, 4000))].concat();
        assert_eq!(entry(&plain), None);
        for length in 0..bytes.len() - 8 {
            assert_eq!(entry(&bytes[..length]), None, "{length}");
        }
    }
}

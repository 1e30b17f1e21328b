// SPDX-License-Identifier: Apache-2.0
//! Netlink requests about traffic control that wait for the kernel's answer, which comes at once.

use std::io;

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHeader, TcMessage},
};
use rtnetlink::{
    packet_core::{
        DoneBuffer, ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
        NetlinkBuffer, NetlinkMessage, Parseable,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// Length of a netlink header (`struct nlmsghdr`).
const HEADER: usize = 16;

/// A netlink socket in the network namespace of the thread that opened it.
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
}

impl Requests {
    pub(super) fn open() -> io::Result<Requests> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Requests { socket, sequence: 0 })
    }

    /// Asks for a change, and waits until it is done.
    pub(super) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        self.answers().map(|_| ())
    }

    /// Asks for all objects. What has options that cannot be read has no attributes: it is not ours.
    pub(super) fn list(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<TcMessage>> {
        self.send(message, NLM_F_DUMP)?;
        self.answers()
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    fn answers(&self) -> io::Result<Vec<TcMessage>> {
        let mut found = Vec::new();
        loop {
            let (bytes, _kernel) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while rest.len() >= HEADER {
                let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
                // An answer to a request that failed half-way may still come.
                if message.sequence_number() == self.sequence && read(&message, &mut found)? {
                    return Ok(found);
                }
                let length = (message.length() as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }
}

/// Reads one answer; says whether it is the last.
fn read(message: &NetlinkBuffer<&[u8]>, found: &mut Vec<TcMessage>) -> io::Result<bool> {
    let payload = message.payload();
    let code = match message.message_type() {
        NLMSG_NOOP => return Ok(false),
        NLMSG_ERROR => ErrorBuffer::new_checked(payload).map_err(io::Error::other)?.code(),
        // Old kernels end a list without a code.
        NLMSG_DONE if payload.is_empty() => None,
        NLMSG_DONE => {
            std::num::NonZeroI32::new(DoneBuffer::new_checked(payload).map_err(io::Error::other)?.code())
        }
        _ => {
            let whole = TcMessage::parse(payload).ok();
            found.extend(whole.or_else(|| Some(TcMessage::from_parts(header(payload)?, Vec::new()))));
            return Ok(false);
        }
    };
    match code {
        None => Ok(true),
        Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
    }
}

/// The fixed part of a message (`struct tcmsg`).
fn header(payload: &[u8]) -> Option<TcHeader> {
    let word = |at: usize| Some(u32::from_ne_bytes(payload.get(at..at + 4)?.try_into().ok()?));
    Some(TcHeader {
        index: word(4)?.cast_signed(),
        handle: word(8)?.into(),
        parent: word(12)?.into(),
        info: word(16)?,
        ..TcHeader::default()
    })
}

// SPDX-License-Identifier: Apache-2.0
//! The slots of the ring.

use std::net::SocketAddr;

use weft_ebpf_common::reason::Reason;
use weft_ir::{Direction, IdentityNumber, stream::Position};

/// Bytes of text in the slot of a record: a short path and a host, in most cases.
pub(super) const RECORD_TEXT: usize = 64;
/// Bytes of text in the slot of a name.
pub(super) const NAME_TEXT: usize = 240;
/// Bytes of text in a slot that only goes on with the one before.
pub(super) const MORE_TEXT: usize = 248;
/// Numbers that names of one kind can have.
pub(super) const NAMES: usize = 256;
/// Kinds of names: policy, route, upstream. Each has numbers of its own, so that the names of one record
/// never take each other's.
pub(super) const KINDS: usize = 3;
/// The most text of a record or a name; more is cut off.
pub(super) const MAX_TEXT: usize = 1024;
/// The most slots that one record can take, with the three names that it refers to.
pub(super) const MOST_SLOTS: usize = 4 * (1 + MAX_TEXT.div_ceil(MORE_TEXT));

/// One slot.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    /// Something has ended.
    Record(Record),
    /// From here on, this number means this name.
    Name { number: u16, text: Text<NAME_TEXT> },
    /// The text of the slot before goes on.
    More([u8; MORE_TEXT]),
}

/// The beginning of a text, and how long all of it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<const ROOM: usize> {
    pub(super) len: u16,
    pub(super) begin: [u8; ROOM],
}

/// Numbers of names; nothing where there is no name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) policy: Option<u16>,
    pub(super) route: Option<u16>,
    pub(super) upstream: Option<u16>,
}

/// A request or a connection that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) ended: Ended,
    pub(super) names: Names,
    /// What was asked for: nothing for a connection that was relayed as bytes, or refused.
    pub(super) request: Option<RequestLine>,
    /// Method, authority and target, one after the other.
    pub(super) text: Text<RECORD_TEXT>,
}

/// The numbers of a request or connection that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When it began, in nanoseconds since the start of the process.
    pub(crate) began: u64,
    /// When it ended.
    pub(crate) ended: u64,
    /// Bytes of content from the client.
    pub(crate) received: u64,
    /// Bytes of content to the client.
    pub(crate) sent: u64,
    /// The state that decided.
    pub(crate) position: Position,
    /// The client.
    pub(crate) client: SocketAddr,
    /// The destination that the client asked for.
    pub(crate) destination: SocketAddr,
    /// The endpoint that was chosen last.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Who the client is.
    pub(crate) client_identity: IdentityNumber,
    /// Who the endpoint is; where none was chosen, who has the destination.
    pub(crate) endpoint_identity: IdentityNumber,
    /// Seen from this node.
    pub(crate) direction: Direction,
    /// Why it failed or was refused.
    pub reason: Option<Reason>,
}

/// What was asked for, and the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestLine {
    /// From the head of the request to that of the response, in nanoseconds; 0 without one.
    pub(crate) latency: u64,
    /// The status that the client got; 0 for none.
    pub(crate) status: u16,
    /// The version that the client spoke.
    pub(crate) version: Spoken,
    pub(super) method_len: u8,
    pub(super) authority_len: u8,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http10,
    Http11,
    Http2,
}

/// Slots that a text takes beyond the one in which it begins.
pub(super) const fn further(len: usize, room: usize) -> usize {
    len.saturating_sub(room).div_ceil(MORE_TEXT)
}

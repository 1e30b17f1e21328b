// SPDX-License-Identifier: Apache-2.0
//! HTTP/2 (RFC 9113), both sides, as a state machine without I/O.
//!
//! A [`Connection`] is given what was read, with the head to fill and the buffer that is written to the peer, and
//! says what came, one [`Event`] at a time; content is a slice of what was read. What is sent is appended to the
//! same buffer, which its owner writes once per turn. See [`Connection`] for the contract.
//!
//! What is not here: an upgrade from HTTP/1.1 (RFC 9113, section 3.1, no longer has it), server push, which is
//! refused, and priorities, which are ignored.

mod block;
mod budget;
mod config;
mod connection;
mod error;
mod frame;
mod memo;
mod message;
mod streams;

pub use budget::{CONTROL, RESETS};
pub use config::{Config, Role};
pub use connection::{
    Connection, Event, OUTPUT_FOR_CONTENT, OUTPUT_LIMIT, OpenError, Pending, Received, SendError,
};
pub use error::{ErrorCode, Failure};
pub use frame::{MAX_PAYLOAD, PREFACE};
pub use streams::StreamId;

/// The least room for what is read: one frame other than DATA has to fit, in octets.
pub const READ_BUFFER: usize = frame::HEADER_LEN + MAX_PAYLOAD;

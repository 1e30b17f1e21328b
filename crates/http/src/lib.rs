// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 and HTTP/2 as state machines: bytes in, events and bytes out.
//!
//! No socket, no clock, no runtime. Whoever has a connection reads into a buffer, hands the bytes to
//! the connection's machine, acts on the events, and writes what the machine appended to an output
//! buffer. Nothing is allocated for a request once the buffers have grown to what requests need.
//!
//! Both versions give and take one model of a message: a [`head`] whose text lies in one buffer, and
//! content in chunks that are slices of what was read. A message that two readers could understand
//! differently is refused (RFC 9112, section 11.2; RFC 9113, section 8.1.1).

pub mod error;
pub mod h1;
pub mod h2;
pub mod head;
pub mod hpack;
pub(crate) mod octets;
pub mod websocket;

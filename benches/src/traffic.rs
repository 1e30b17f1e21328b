// SPDX-License-Identifier: Apache-2.0
//! The requests of all loads, as origin, generators and proxies have to agree on them.

/// Body of the small HTTP/1.1 answer, in bytes.
pub const SMALL_ANSWER: usize = 1024;

/// The date of every answer. As origins do, ours sends one: Envoy would add it, and the others not.
pub const DATE: &str = "Sat, 21 Nov 2026 12:00:00 GMT";

/// A gRPC message: the 5-byte prefix and 105 bytes.
pub const MESSAGE: usize = 110;

/// HTTP/1.1: a GET that is answered with [`SMALL_ANSWER`] bytes.
pub const SMALL: &str = "/api/items";
/// HTTP/1.1: a POST that is answered with as many bytes as it brought.
pub const ECHO: &str = "/api/echo";
/// HTTP/1.1: the answer's body is the head of the request, as it came to the origin.
pub const SEEN: &str = "/api/seen";

/// HTTP/2: a gRPC-like POST that is answered with one [`MESSAGE`] and trailers.
pub const GRPC_SMALL: &str = "/api.Items/Get";
/// HTTP/2: a POST that is answered with as many bytes as it brought.
pub const GRPC_ECHO: &str = "/api.Items/Echo";
/// HTTP/2: each message is sent back as it comes, until the client ends its side.
pub const GRPC_STREAM: &str = "/api.Items/Stream";
/// HTTP/2: the answer's body is the head of the request, as it came to the origin.
pub const GRPC_SEEN: &str = "/api.Items/Seen";

/// One gRPC message, as it stands in a body: not compressed, 105 bytes.
pub fn message() -> [u8; MESSAGE] {
    let mut message = [b'm'; MESSAGE];
    message[..5].copy_from_slice(&[0, 0, 0, 0, (MESSAGE - 5) as u8]);
    message
}

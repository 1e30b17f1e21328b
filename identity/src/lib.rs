// SPDX-License-Identifier: Apache-2.0
//! Identity: who is at the other end of a connection.
//!
//! Every TLS configuration of Weft is built in [`tls`] and nowhere else. Today that is the control
//! stream: the controller is its own certificate authority ([`authority`]), and a node knows it by the
//! fingerprint in its join token ([`token`]). Nothing here ever logs a key or a secret.

pub mod authority;
pub mod tls;
pub mod token;

pub use authority::Authority;
pub use token::JoinToken;

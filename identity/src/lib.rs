// SPDX-License-Identifier: Apache-2.0
//! Identity: who is at the other end of a connection.
//!
//! Every TLS configuration of Weft is built in [`tls`] and nowhere else. Today that is the control
//! stream. The controller is its own certificate authority, and a node knows it by the fingerprint in its
//! join token ([`JoinToken`]). The token is exchanged once for a certificate that
//! binds the node's name to its key ([`Registrar`] in the controller, [`Credential`] in the node); from
//! then on the key speaks for the name ([`Peer`]). Nothing here ever logs a key or a secret.

mod authority;
mod bindings;
mod credential;
mod name;
mod peer;
mod registrar;
mod secret;
pub mod tls;
mod token;

pub use authority::AuthorityError;
pub use credential::{Credential, CredentialError};
pub use name::{NodeName, NodeNameError};
pub use peer::{KeyHash, NotANode, Peer};
pub use registrar::{MAX_REQUEST_BYTES, NODE_LIFETIME, Refusal, Registrar, RegistrarError, network};
pub use secret::{Exposed, FileError, exposed};
pub use token::{JoinToken, TokenError};

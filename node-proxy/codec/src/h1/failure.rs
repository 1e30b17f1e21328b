// SPDX-License-Identifier: Apache-2.0
//! How a request to a server fails.

use crate::body::BodyError;

/// Why there is no response head.
pub(super) enum Failure {
    /// The connection ended before the head was complete.
    Closed(&'static str),
    /// What the server sent is not a response.
    Malformed(&'static str),
    /// The server does not read the request.
    Stalled,
    /// The request's own body failed.
    Body(BodyError),
}

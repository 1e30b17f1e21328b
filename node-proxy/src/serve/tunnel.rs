// SPDX-License-Identifier: Apache-2.0
//! A connection that is relayed as bytes.

use std::rc::Rc;

use crate::{
    upstream::timeout::Timeout,
    worker::{account::Account, target::Resolved},
};

/// A relayed connection.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) client: u32,
    pub(super) upstream: Option<u32>,
    pub(super) resolved: Rc<Resolved>,
    pub(super) account: Account,
    pub(super) timeout: Timeout,
    /// Which side has sent its end.
    pub(super) client_ended: bool,
    pub(super) endpoint_ended: bool,
}

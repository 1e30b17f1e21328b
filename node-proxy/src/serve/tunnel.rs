// SPDX-License-Identifier: Apache-2.0
//! A connection that is relayed as bytes.

use std::rc::Rc;

use weft_http::head::Head;

use crate::{
    state::permit::{Denial, Permit, Verdicts},
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
    /// The request that opened it, as received and as sent; nothing for a connection of its own.
    pub(super) request: Option<Box<(Head, Option<Head>)>>,
    pub(super) timeout: Timeout,
    /// Which side has sent its end.
    pub(super) client_ended: bool,
    pub(super) endpoint_ended: bool,
}

impl Tunnel {
    /// Whether the policies of both ends still allow it.
    pub(super) fn decide(&self, verdicts: &Verdicts) -> Result<Permit, Denial> {
        match self.request.as_deref() {
            None => verdicts.permit_bytes(),
            Some((received, sent)) => verdicts
                .permit_egress(received)
                .and_then(|egress| verdicts.permit_ingress(egress, sent.as_ref().unwrap_or(received))),
        }
    }
}

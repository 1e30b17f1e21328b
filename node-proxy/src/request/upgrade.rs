// SPDX-License-Identifier: Apache-2.0
//! Streams behind a 101: bytes from then on, and only as long as the request that opened them is allowed.

use std::rc::Rc;

use weft_codec::{
    io::RawStream,
    message::{OnUpgrade, RequestHead},
};

use crate::{
    request::{Connection, tcp},
    state::permit::{Denial, Permit, Verdicts},
    worker::{access::ConnectionRecord, target::Choice},
};

/// A request that was answered by switching protocols.
pub(crate) struct Upgraded {
    /// The client's connection.
    pub(crate) connection: Connection,
    /// The endpoint that switched.
    pub(crate) choice: Rc<Choice>,
    /// The request as it came.
    pub(crate) received: RequestHead,
    /// The request as it was sent, where filters changed it.
    pub(crate) sent: Option<Box<RequestHead>>,
}

impl Upgraded {
    /// What the codec calls with the client's stream; `endpoint` is the other one.
    pub(crate) fn into_hook(self, endpoint: RawStream) -> OnUpgrade {
        Box::new(|client| Box::pin(self.serve(client, endpoint)))
    }

    async fn serve(self, client: RawStream, endpoint: RawStream) {
        let mut record = ConnectionRecord::start(self.connection.ends, &self.connection.resolve());
        record.choice = Some(Rc::clone(&self.choice));
        let decide = |verdicts: &Verdicts| self.decide(verdicts);
        tcp::relay_while_permitted(&self.connection, client, endpoint, decide, &mut record).await;
        tcp::report(&self.connection.worker, record);
    }

    fn decide(&self, verdicts: &Verdicts) -> Result<Permit, Denial> {
        let sent = self.sent.as_deref().unwrap_or(&self.received);
        verdicts.permit_egress(&self.received).and_then(|egress| verdicts.permit_ingress(egress, sent))
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Certificates for nodes: a join token, or the token of a pod's service account, is exchanged for the first, the
//! present one for the next.

use std::{future::Future, pin::Pin, sync::Arc, time::SystemTime};

use tokio::task::spawn_blocking;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::{Code, Request, Response, Status, server::UnaryService};
use weft_identity::{NodeName, Peer, Refusal, Registrar};
use weft_ir::stream::{Certificates, JoinRequest};
use weft_runtime::supervise::chain;

use super::{StreamCounters, accept::Admission, attempts::Attempts};
use crate::node_accounts::{NodeAccounts, Unproved};

/// The largest message of a node that joins: its request for a certificate, its name, and what encodes them.
pub(super) const MAX_JOIN_BYTES: usize = weft_identity::MAX_REQUEST_BYTES + 1024;

/// Who issues certificates, and to whom.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) registrar: Arc<Registrar>,
    /// Asked about tokens that are none of ours.
    pub(super) accounts: Option<NodeAccounts>,
    pub(super) attempts: Attempts,
    pub(super) counters: Arc<StreamCounters>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Certificates>, Status>> + Send>>;
type Chain = Vec<CertificateDer<'static>>;

/// The method `Join`.
#[derive(Clone, Debug)]
pub(super) struct Join(pub(super) Registration);

/// The method `Renew`.
#[derive(Clone, Debug)]
pub(super) struct Renew(pub(super) Registration);

impl UnaryService<JoinRequest> for Join {
    type Response = Certificates;
    type Future = Answer;

    fn call(&mut self, request: Request<JoinRequest>) -> Answer {
        let registration = self.0.clone();
        Box::pin(async move { registration.join(request).await })
    }
}

impl UnaryService<()> for Renew {
    type Response = Certificates;
    type Future = Answer;

    fn call(&mut self, request: Request<()>) -> Answer {
        let registration = self.0.clone();
        Box::pin(async move { registration.renew(&request).await })
    }
}

impl Registration {
    async fn join(self, request: Request<JoinRequest>) -> Result<Response<Certificates>, Status> {
        let admission = admission(&request)?;
        let from = admission.address();
        if !self.attempts.take(from) {
            self.counters.joins_throttled.add();
            return Err(Status::resource_exhausted("too many nodes join from this address: wait a minute"));
        }
        let authorization = request.metadata().get("authorization").cloned();
        let JoinRequest { node, request } = request.into_inner();
        let invalid = |error: weft_identity::NodeNameError| Status::invalid_argument(error.to_string());
        let name: NodeName = node.parse().map_err(invalid)?;
        let shown = authorization.as_ref().map_or(&[][..], |value| value.as_bytes());
        let proven = self.is_proven(shown, &name).await?;
        let registrar = self.registrar.clone();
        let joining = move || match proven {
            true => registrar.join_proven(&name, &request, from, SystemTime::now()),
            false => registrar.join(&name, &request, from, SystemTime::now()),
        };
        self.answer("joined", &node, spawn_blocking(joining).await)
    }

    /// Whether more than the join token speaks for who asks. An error where nothing does.
    async fn is_proven(&self, shown: &[u8], node: &NodeName) -> Result<bool, Status> {
        if self.registrar.token().authorizes(shown) {
            return Ok(false);
        }
        let bearer = std::str::from_utf8(shown).ok().and_then(|text| text.strip_prefix("Bearer "));
        let unproved = match (&self.accounts, bearer.filter(|token| !token.starts_with("weft1."))) {
            (Some(accounts), Some(token)) => match accounts.prove(token, node).await {
                Ok(()) => return Ok(true),
                Err(unproved) => unproved,
            },
            _ => {
                self.counters.unauthorized.add();
                return Err(Status::unauthenticated(
                    "the join token is not this controller's: give the node the file that this controller writes, \
                     `token` in its --state-dir",
                ));
            }
        };
        tracing::warn!(node = %node.shared(), "a node is given no certificate: {unproved}");
        if let Unproved::Away(_) = unproved {
            return Err(Status::unavailable(unproved.to_string()));
        }
        self.counters.unauthorized.add();
        Err(Status::unauthenticated(unproved.to_string()))
    }

    async fn renew(self, request: &Request<()>) -> Result<Response<Certificates>, Status> {
        let peer = certified(request)?;
        let (registrar, node) = (self.registrar.clone(), peer.node.clone());
        let renewing = move || registrar.renew(&peer, SystemTime::now());
        self.answer("renewed its certificate", node.shared(), spawn_blocking(renewing).await)
    }

    fn answer(
        &self,
        what: &str,
        node: &str,
        result: Result<Result<Chain, Refusal>, tokio::task::JoinError>,
    ) -> Result<Response<Certificates>, Status> {
        match result.map_err(|error| Status::internal(error.to_string()))? {
            Ok(chain) => {
                tracing::info!(node, "node {what}");
                self.counters.certificates.add();
                let chain = chain.iter().map(|one| one.to_vec().into()).collect();
                Ok(Response::new(Certificates { chain }))
            }
            Err(refusal) => {
                tracing::warn!(node, error = chain(&refusal), "a node is given no certificate");
                self.counters.refused.add();
                Err(status(&refusal))
            }
        }
    }
}

/// What a node is told that may not speak, or is given no certificate.
pub(super) fn status(refusal: &Refusal) -> Status {
    let code = match refusal {
        // The node joins again.
        Refusal::Unknown(_) => Code::Unauthenticated,
        Refusal::Bound { .. } | Refusal::Unreadable(_) => Code::PermissionDenied,
        Refusal::Full | Refusal::FullForAddress => Code::ResourceExhausted,
        Refusal::Request => Code::InvalidArgument,
        Refusal::File(_) | Refusal::Certificate(_) => Code::Internal,
    };
    Status::new(code, refusal.to_string())
}

/// The node whose certificate the connection has shown.
pub(super) fn certified<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = admission(request)?.peer().cloned();
    peer.ok_or_else(|| Status::unauthenticated("no certificate of a node: join first"))
}

pub(super) fn admission<T>(request: &Request<T>) -> Result<&Admission, Status> {
    request.extensions().get::<Admission>().ok_or_else(|| Status::internal("the connection is not known"))
}

// SPDX-License-Identifier: Apache-2.0
//! The policies of both ends of a connection, decided once.
//!
//! To have been redirected is no permission: nothing is sent to an endpoint without a [`Permit`], and
//! only this module makes one. The client's egress is decided on the request as received, for the
//! endpoint that was chosen; the ingress of a local endpoint on the request as it will be sent. The
//! ingress of an endpoint on another node is decided there.

use std::{borrow::Cow, cell::RefCell, net::SocketAddr, sync::Arc};

use weft_ebpf_common::{
    Action, Verdict,
    reason::Reason,
    verdict::{Level, NO_RULE},
};
use weft_http::head::{FieldName, Head};
use weft_ir::{Direction, Protocol};
use weft_policy::{
    Decision, EndpointPolicy, HttpDecision, HttpRequest, L7Policy, Party, Place, capture::Capture,
};

use crate::{
    route::seen::{Asked, Last, Looked},
    state::MeshState,
};

/// Both ends allow what was asked. Needed to connect and to relay; holds the policies that allowed it.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    egress: Decided,
    ingress: Decided,
}

/// What was decided about what is said, and by which policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    /// The verdict: never a redirect, since nobody else decides here.
    pub(crate) verdict: Verdict,
    /// The policy that allowed or denied, or the first that closes the direction.
    pub(crate) policy: Option<Arc<str>>,
}

/// The client's side allows the request; the endpoint's side is still to be asked.
#[derive(Debug)]
#[must_use]
pub(crate) struct EgressPass(Decided);

/// A policy does not allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// Why.
    pub(crate) reason: Reason,
    /// Whose policy.
    pub(crate) direction: Direction,
    /// What was decided.
    pub(crate) decided: Decided,
}

/// What the policies of both ends say about connections of one client to one endpoint. Remembers for each end
/// what was decided last.
#[derive(Clone, Debug)]
pub(crate) struct Verdicts {
    egress: End,
    ingress: End,
}

/// What the policy of one end says.
#[derive(Clone, Debug)]
struct End {
    direction: Direction,
    decision: Decision,
    /// Nothing before rules about requests were asked: most ends have none.
    last: RefCell<Option<Box<LastDecision>>>,
}

type LastDecision = Last<Result<Decided, Denial>>;

/// The policy under which a client sends: its own where it is a pod of this node, none where its node
/// has decided already or where it is no pod.
pub(crate) fn client_policy(state: &MeshState, client: &Party) -> Option<Arc<EndpointPolicy>> {
    match client.place {
        Place::LocalPod => Some(workload_policy(state, client)),
        Place::RemotePod | Place::Host | Place::OtherNode | Place::Outside | Place::Unknown => None,
    }
}

fn workload_policy(state: &MeshState, peer: &Party) -> Arc<EndpointPolicy> {
    let ports = peer.workload.as_ref().map(|workload| workload.ports.as_slice()).unwrap_or_default();
    state.policies().endpoint(peer.identity, ports)
}

impl Verdicts {
    /// Looks up what both ends say. Compiles policies that were not needed before: keep the result.
    pub(crate) fn find(
        state: &MeshState,
        client: &Party,
        client_policy: Option<&EndpointPolicy>,
        endpoint: &Party,
        address: SocketAddr,
    ) -> Verdicts {
        let tcp = Protocol::Tcp.number();
        let egress = match client_policy {
            Some(policy) => policy.egress.l4(endpoint.identity, tcp, address.port()),
            None => not_asked(),
        };
        let ingress = match endpoint.place {
            Place::LocalPod => {
                workload_policy(state, endpoint).ingress.l4(client.identity, tcp, address.port())
            }
            Place::RemotePod | Place::Host | Place::OtherNode | Place::Outside | Place::Unknown => {
                not_asked()
            }
        };
        Verdicts::new(egress, ingress)
    }

    fn new(egress: Decision, ingress: Decision) -> Verdicts {
        let end = |direction, decision| End { direction, decision, last: RefCell::default() };
        Verdicts { egress: end(Direction::Egress, egress), ingress: end(Direction::Ingress, ingress) }
    }

    /// What has to be read of the connection to decide about it.
    pub(crate) fn capture(&self) -> Capture {
        Capture::of_endpoint_port(&self.egress.decision, &self.ingress.decision)
    }

    /// Decides about a connection that is relayed as bytes. Rules about requests allow none.
    pub(crate) fn permit_bytes(&self) -> Result<Permit, Denial> {
        let bytes = |end: &End| {
            decide(&end.decision, end.direction, |l7| match l7 {
                L7Policy::Http(_) => HttpDecision::Deny(Reason::HttpPolicyDenied, None),
            })
        };
        let egress = bytes(&self.egress)?;
        Ok(Permit { egress, ingress: bytes(&self.ingress)? })
    }

    /// Decides the client's side, on the request as it was received: the head before any change of a field.
    pub(crate) fn permit_egress(&self, received: &Head) -> Result<EgressPass, Denial> {
        self.egress.request(Asked::received(received)).map(EgressPass)
    }

    /// Decides the endpoint's side, on the request as it will be sent.
    pub(crate) fn permit_ingress(&self, egress: EgressPass, sent: &Head) -> Result<Permit, Denial> {
        Ok(Permit { egress: egress.0, ingress: self.ingress.request(Asked::effective(sent))? })
    }
}

impl End {
    /// Decides about a request, unless the last one was the same in all that rules look at.
    fn request(&self, asked: Asked<'_>) -> Result<Decided, Denial> {
        let Some(L7Policy::Http(rules)) = &self.decision.l7 else { return self.decide(asked) };
        let mut last = self.last.borrow_mut();
        let last = last.get_or_insert_default();
        if let Some(known) = last.get(asked) {
            return known.clone();
        }
        let decided = self.decide(asked);
        let mut looked = Looked::default();
        rules.headers().for_each(|headers| looked.add(true, true, headers));
        looked.add(true, true, &[]);
        last.set(asked, &looked, decided.clone());
        decided
    }

    fn decide(&self, asked: Asked<'_>) -> Result<Decided, Denial> {
        decide(&self.decision, self.direction, |l7| match l7 {
            L7Policy::Http(rules) => {
                let header = |name: &str| combined(asked.head, name.as_bytes());
                rules.decide(&HttpRequest {
                    method: asked.head.method_text(),
                    authority: asked.authority,
                    target: asked.target,
                    header: &header,
                })
            }
        })
    }
}

/// The policy of this end is decided elsewhere, or it has none.
fn not_asked() -> Decision {
    Decision { verdict: Verdict::allow(Level::NONE, NO_RULE), policy: None, l7: None }
}

impl Permit {
    /// The policy that allowed it, the endpoint's first; none where nothing had to be allowed.
    pub(crate) fn policy(&self) -> Option<&Arc<str>> {
        self.ingress.policy.as_ref().or(self.egress.policy.as_ref())
    }
}

impl Denial {
    fn new(direction: Direction, verdict: Verdict, policy: Option<Arc<str>>) -> Denial {
        // A number that is not known was made by nobody; what was not decided is denied all the same.
        let reason = Reason::from_number(verdict.reason).unwrap_or(Reason::NoPolicyConfig);
        Denial { reason, direction, decided: Decided { verdict, policy } }
    }
}

/// Makes an end's answer final. A peer is known by its address alone, so one that has to prove who it is
/// is denied.
fn decide(
    decision: &Decision,
    direction: Direction,
    said: impl FnOnce(&L7Policy) -> HttpDecision,
) -> Result<Decided, Denial> {
    let Decision { verdict, policy, l7 } = decision;
    let level = verdict.level();
    match verdict.action() {
        Action::Allow => Ok(Decided { verdict: *verdict, policy: policy.clone() }),
        Action::Deny => Err(Denial::new(direction, *verdict, policy.clone())),
        Action::Redirect if verdict.authenticate() => {
            let denied = Verdict::deny(level, verdict.rule, Reason::AuthenticationRequired as u16);
            Err(Denial::new(direction, denied, policy.clone()))
        }
        Action::Redirect => match l7.as_ref().map(said) {
            Some(HttpDecision::Allow(rule)) => {
                Ok(Decided { verdict: Verdict::allow(level, rule.number), policy: Some(rule.policy) })
            }
            Some(HttpDecision::Deny(reason, rule)) => {
                let number = rule.as_ref().map_or(verdict.rule, |rule| rule.number);
                let policy = rule.map(|rule| rule.policy).or_else(|| policy.clone());
                Err(Denial::new(direction, Verdict::deny(level, number, reason as u16), policy))
            }
            // Without rules about what is said, a redirect could only ask who the peer is.
            None => {
                let denied = Verdict::deny(level, verdict.rule, Reason::NoPolicyConfig as u16);
                Err(Denial::new(direction, denied, policy.clone()))
            }
        },
    }
}

/// The value of a header for a rule; several are joined as Envoy does: crumbs of a cookie by `; `, all others
/// by `,`.
fn combined<'a>(head: &'a Head, name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let mut values = head.values_named(name);
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
    let is_cookie = FieldName::of(name) == FieldName::Cookie;
    let between: &[u8] = if is_cookie { b"; " } else { b"," };
    let mut all = [first, second].join(between);
    for value in values {
        all.extend_from_slice(between);
        all.extend_from_slice(value);
    }
    Some(Cow::Owned(all))
}

#[cfg(test)]
mod tests;

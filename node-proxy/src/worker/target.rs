// SPDX-License-Identifier: Apache-2.0
//! What a connection is for, at one state: who the client is, and where its requests may go.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use weft_ebpf_common::reason::Reason;
use weft_http::head::Head;
use weft_policy::{EndpointPolicy, Party, Place};

use crate::{
    route::{
        MAX_HOST, RouteTable, lower_case_host,
        ratelimit::RateLimiter,
        rule::Rule,
        seen::{Asked, Last, Looked},
    },
    state::{
        Held, ListenPoint, MeshState, ServiceTarget,
        permit::{Verdicts, client_policy},
    },
    upstream::pool::PoolId,
};

/// Endpoints whose verdicts one connection keeps; more are looked up each time.
const KEPT_VERDICTS: usize = 32;

/// How a connection came to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// The kernel redirected it.
    Redirected,
    /// It was made to a listener of a Gateway, bound to this address.
    Gateway(SocketAddr),
}

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The client, as the original destination would have seen it.
    pub client: SocketAddr,
    /// The destination that the client asked for.
    pub destination: SocketAddr,
    /// How it came here.
    pub entrance: Entrance,
}

/// What a connection is for, at one state.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The state.
    pub(crate) held: Rc<Held>,
    /// Who the client is.
    pub client: Party,
    /// Where requests may go.
    pub(crate) target: Target,
    policy: Option<Arc<EndpointPolicy>>,
    choices: RefCell<Vec<Rc<Choice>>>,
    routed: RefCell<Last<Option<Rc<Served>>>>,
}

/// The rule that serves a request.
#[derive(Debug)]
pub(crate) struct Served {
    /// The rule.
    pub(crate) rule: Arc<Rule>,
    /// How much of the path a PathPrefix match covered, its trailing slash left out.
    pub(crate) prefix: Option<usize>,
}

/// Where requests may go.
#[derive(Debug)]
pub(crate) enum Target {
    /// To a port of a Service.
    Service(Arc<ServiceTarget>),
    /// To this address and no other.
    Address(SocketAddr),
    /// To whatever the routes of a listener say.
    Listener(Arc<ListenPoint>),
    /// Nowhere.
    Refused(Reason),
}

/// An endpoint, and what the policies say about it.
pub(crate) struct Choice {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Who it is.
    pub(crate) peer: Party,
    /// What the policies of both ends say.
    pub(crate) verdicts: Verdicts,
    /// The address to connect from; nothing for the node's own.
    pub(crate) from: Option<IpAddr>,
    /// The pool of its connections, by whether they speak HTTP/2, as far as it was looked up.
    pools: [Cell<Option<PoolId>>; 2],
}

impl Resolved {
    /// Looks up both ends.
    pub(crate) fn new(held: Rc<Held>, ends: Ends) -> Resolved {
        let state = held.state();
        let (client, target) = match ends.entrance {
            Entrance::Redirected => {
                let client = state.peer(ends.client.ip()).clone();
                let target = redirected(state, &client, ends.destination);
                (client, target)
            }
            Entrance::Gateway(point) => (
                Party::ingress(),
                match state.listen_points().get(&point) {
                    Some(point) => Target::Listener(Arc::clone(point)),
                    // The listener is gone, the connection is about to be.
                    None => Target::Refused(Reason::NoRoute),
                },
            ),
        };
        let policy = client_policy(state, &client);
        let (choices, routed) = Default::default();
        Resolved { client, target, policy, choices, routed, held }
    }

    /// What the policies say about an endpoint for this client.
    pub(crate) fn choice(&self, address: SocketAddr, ends: Ends, transparent: bool) -> Rc<Choice> {
        let mut choices = self.choices.borrow_mut();
        if let Some(known) = choices.iter().find(|choice| choice.address == address) {
            return Rc::clone(known);
        }
        let state = self.held.state();
        let peer = state.peer(address.ip()).clone();
        let verdicts = Verdicts::find(state, &self.client, self.policy.as_deref(), &peer, address);
        let from = if transparent { source(state, ends, address) } else { None };
        let choice = Rc::new(Choice { address, peer, verdicts, from, pools: Default::default() });
        if choices.len() < KEPT_VERDICTS {
            choices.push(Rc::clone(&choice));
        }
        choice
    }

    /// The rule for a request, where routes decide: the same as for the last one, if that was the same in all
    /// that conditions look at.
    pub(crate) fn route(&self, head: &Head) -> Option<Rc<Served>> {
        let asked = Asked::effective(head);
        let mut last = self.routed.borrow_mut();
        if let Some(known) = last.get(asked) {
            return known.clone();
        }
        let mut buffer = [0; MAX_HOST];
        let host = lower_case_host(head, &mut buffer);
        let mut looked = Looked::default();
        let matched = self.target.routes(host).and_then(|routes| routes.find(host, head, &mut looked));
        let served =
            matched.map(|matched| Rc::new(Served { rule: Arc::clone(matched.rule), prefix: matched.prefix }));
        last.set(asked, &looked, served.clone());
        served
    }

    /// Rate limits on the Service that was asked for.
    pub(crate) fn limits(&self) -> &[Arc<RateLimiter>] {
        match &self.target {
            Target::Service(service) => &service.limits,
            Target::Address(_) | Target::Listener(_) | Target::Refused(_) => &[],
        }
    }
}

impl Target {
    /// The routes for requests to a host, where routes decide.
    fn routes(&self, host: &[u8]) -> Option<&RouteTable> {
        match self {
            Target::Service(service) => service.routes.as_deref(),
            Target::Listener(point) => point.find(host).map(AsRef::as_ref),
            Target::Address(_) | Target::Refused(_) => None,
        }
    }
}

impl Choice {
    /// The pool of its connections.
    pub(crate) fn pool(&self, http2: bool) -> &Cell<Option<PoolId>> {
        &self.pools[usize::from(http2)]
    }
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut all = f.debug_struct("Choice");
        all.field("address", &self.address).field("peer", &self.peer).field("verdicts", &self.verdicts);
        all.field("from", &self.from).finish_non_exhaustive()
    }
}

/// What a redirected connection is for. One of its ends is on this node, or it should not be here.
fn redirected(state: &MeshState, client: &Party, destination: SocketAddr) -> Target {
    if state.position.revision == 0 {
        return Target::Refused(Reason::NoState);
    }
    // The proxy's own listener is on the loopback address: who connects to it directly was not redirected.
    if destination.ip().is_loopback() || destination.ip().is_unspecified() {
        return Target::Refused(Reason::UnknownDestination);
    }
    let endpoint = state.peer(destination.ip());
    if endpoint.place == Place::LocalPod {
        return Target::Address(destination);
    }
    match client.place {
        Place::LocalPod | Place::Host => {}
        // Its own policy is not known, and nobody else has decided about it.
        Place::Unknown => return Target::Refused(Reason::UnknownSource),
        Place::RemotePod | Place::OtherNode | Place::Outside => {
            return Target::Refused(Reason::UnknownDestination);
        }
    }
    match state.service(destination) {
        Some(service) => Target::Service(Arc::clone(service)),
        None => Target::Address(destination),
    }
}

/// The address to connect from, so that the endpoint sees the true client.
fn source(state: &MeshState, ends: Ends, endpoint: SocketAddr) -> Option<IpAddr> {
    let ipv6 = endpoint.is_ipv6();
    let place = |address| state.directory().find(address).place;
    let client_is_here = matches!(place(ends.client.ip()), Place::LocalPod | Place::Host);
    match ends.entrance {
        // What an endpoint elsewhere answers to a client elsewhere would come past this node.
        Entrance::Redirected if !client_is_here && place(endpoint.ip()) != Place::LocalPod => {
            state.directory().ingress_address(ipv6)
        }
        Entrance::Gateway(_) => state.directory().ingress_address(ipv6),
        // A connection of an address to itself would never leave the pod: it comes from the node instead.
        Entrance::Redirected if ends.client.ip() == endpoint.ip() => state.directory().node_address(ipv6),
        Entrance::Redirected if ends.client.is_ipv6() == ipv6 => Some(ends.client.ip()),
        Entrance::Redirected => state.directory().node_address(ipv6),
    }
}

#[cfg(test)]
mod tests;

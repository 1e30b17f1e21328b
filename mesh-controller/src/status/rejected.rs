// SPDX-License-Identifier: Apache-2.0
//! What nodes said that they cannot use, told at the object that it came from.

use std::collections::BTreeMap;

use tokio::time::Instant;
use weft_api::{
    object::{Kind, ObjectKey},
    status::{
        Condition, Status, Truth,
        reason::{
            GatewayProgrammed, ListenerProgrammed, PolicyValid, RateLimitAccepted, Reason, RouteAccepted,
        },
    },
};
use weft_ir::{ListenerParent, ListenerParentKind, PolicyKind, ResourceKey, RouteKind};

use super::{MAX_NAMED, Voters};

/// What connected nodes cannot use, by the object that it came from.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    by_object: BTreeMap<ObjectKey, Vec<Rejected>>,
    /// When what a node has said that is gone is no longer held.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Rejected {
    /// The listener, where only one part of the object is concerned.
    listener: Option<String>,
    text: String,
}

impl Rejections {
    /// Collects what the nodes have answered, those included that are gone and may come back: a stream that
    /// is opened again changes nothing.
    pub(super) fn new(voters: &Voters<'_>) -> Rejections {
        let mut rejections = Rejections::default();
        let nodes = voters.report.nodes.iter();
        for (node, report) in
            nodes.filter(|(node, report)| !report.rejected.is_empty() && voters.counts(node))
        {
            if !report.connected {
                let gone = voters.report.gone.get(node).map(|gone| *gone + voters.patience);
                let Some(due) = gone.filter(|due| *due > Instant::now()) else { continue };
                rejections.due = Some(rejections.due.map_or(due, |other| other.min(due)));
            }
            for one in &report.rejected {
                let Some((object, listener)) = origin(&one.key) else { continue };
                let listener = listener.map(str::to_owned);
                let text = format!("node {node} cannot use {}: {}", one.key, one.message);
                rejections.by_object.entry(object).or_default().push(Rejected { listener, text });
            }
        }
        rejections
    }

    /// When to look again although no node has said anything.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The objects of which something is rejected.
    pub(super) fn objects(&self) -> impl Iterator<Item = &ObjectKey> {
        self.by_object.keys()
    }

    /// Makes the conditions false that say that an object works everywhere.
    pub(super) fn write(&self, object: &ObjectKey, status: &mut Status) {
        let Some(rejected) = self.by_object.get(object) else { return };
        let message = message(rejected.iter());
        match status {
            Status::Gateway(gateway) => {
                // A node refuses a listener only where it cannot listen.
                deny(&mut gateway.programmed, GatewayProgrammed::AddressNotUsable, &message);
                for listener in &mut gateway.listeners {
                    let of_listener =
                        || rejected.iter().filter(|one| one.listener.as_deref() == Some(&*listener.name));
                    if of_listener().next().is_some() {
                        let message = self::message(of_listener());
                        deny(&mut listener.programmed, ListenerProgrammed::Invalid, &message);
                    }
                }
            }
            Status::Route(route) => {
                for parent in &mut route.parents {
                    // The reason is the API's own for a route that a data plane cannot carry out.
                    deny(&mut parent.accepted, RouteAccepted::UnsupportedValue, &message);
                }
            }
            Status::Policy(status) => deny(&mut status.valid, PolicyValid::RejectedByNode, &message),
            Status::RateLimit(status) => {
                deny(&mut status.accepted, RateLimitAccepted::RejectedByNode, &message);
            }
            // No resource comes of a class alone.
            Status::Class(_) => {}
        }
    }
}

/// The first few of what was said, and how much more there is.
fn message<'a>(rejected: impl Iterator<Item = &'a Rejected>) -> String {
    let texts: Vec<&str> = rejected.map(|one| &*one.text).collect();
    let (named, more) = texts.split_at(texts.len().min(MAX_NAMED));
    match more.len() {
        0 => named.join("; "),
        more => format!("{}; and {more} more", named.join("; ")),
    }
}

/// A condition that is false already keeps its own reason.
fn deny<R: Reason>(condition: &mut Condition<R>, reason: R, message: &str) {
    if condition.status != Truth::False {
        *condition = Condition::new(false, condition.observed_generation, reason, message);
    }
}

/// The object of which a status is written that a resource came from, and its listener.
fn origin(key: &ResourceKey) -> Option<(ObjectKey, Option<&str>)> {
    let (kind, name, listener) = match key {
        ResourceKey::Listener {
            parent: ListenerParent { kind: ListenerParentKind::Gateway, name },
            listener,
        } => (Kind::Gateway, name, Some(&**listener)),
        ResourceKey::Route { kind: RouteKind::HttpRoute, origin, .. } => (Kind::HttpRoute, origin, None),
        ResourceKey::RateLimit(name) => (Kind::RateLimitPolicy, name, None),
        ResourceKey::Policy { kind, name, .. } => {
            let kind = match kind {
                PolicyKind::NetworkPolicy => Kind::NetworkPolicy,
                PolicyKind::CiliumNetworkPolicy => Kind::CiliumNetworkPolicy,
                PolicyKind::CiliumClusterwideNetworkPolicy => Kind::CiliumClusterwideNetworkPolicy,
            };
            (kind, name, None)
        }
        _ => return None,
    };
    Some((ObjectKey { kind, namespace: name.namespace.clone(), name: name.name.clone() }, listener))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use weft_api::status::PolicyStatus;
    use weft_ir::{publish::NodeReport, stream::Rejection};

    use super::{super::tests::gateway_status, *};
    use crate::serve_ir::IrReport;

    fn nodes(connected: bool, rejected: &[(&str, &str)]) -> IrReport {
        let rejection = |(key, message): &(&str, &str)| Rejection {
            key: ResourceKey::parse(key),
            message: (*message).into(),
        };
        let rejected = rejected.iter().map(rejection).collect();
        let report = NodeReport { connected, applied: Some(7), rejected, ..NodeReport::default() };
        IrReport { revision: 7, nodes: [("n1".into(), report)].into(), ..IrReport::default() }
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    fn collect(report: &IrReport) -> Rejections {
        Rejections::new(&Voters { report, known: &BTreeSet::new(), patience: PATIENCE })
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_opened_again_changes_nothing_and_one_that_stays_away_does() {
        let mut report = nodes(false, &[("gateway.gateway.networking.k8s.io/shop/x/b", "no")]);
        report.gone.insert("n1".into(), Instant::now());
        let due = collect(&report).due().expect("to look again");
        assert_eq!(collect(&report).objects().count(), 1);
        tokio::time::sleep_until(due).await;
        assert_eq!(collect(&report).objects().count(), 0);
        let known = BTreeSet::from(["n2".into()]);
        let report = nodes(true, &[("gateway.gateway.networking.k8s.io/shop/x/b", "no")]);
        let voters = Voters { report: &report, known: &known, patience: PATIENCE };
        assert_eq!(Rejections::new(&voters).objects().count(), 0, "no node of the source");
    }

    fn key(kind: Kind) -> ObjectKey {
        ObjectKey { kind, namespace: "shop".into(), name: "x".into() }
    }

    fn gateway() -> Status {
        Status::Gateway(gateway_status(Truth::True, &["a", "b"]))
    }

    #[test]
    fn a_rejected_listener_is_not_programmed_and_neither_is_its_gateway() {
        let report = nodes(true, &[("gateway.gateway.networking.k8s.io/shop/x/b", "the port is taken")]);
        let mut status = gateway();
        collect(&report).write(&key(Kind::Gateway), &mut status);
        let Status::Gateway(status) = status else { panic!("still a Gateway") };
        let (whole, a, b) =
            (&status.programmed, &status.listeners[0].programmed, &status.listeners[1].programmed);
        assert_eq!((whole.status, a.status, b.status), (Truth::False, Truth::True, Truth::False));
        assert_eq!(
            &*b.message,
            "node n1 cannot use gateway.gateway.networking.k8s.io/shop/x/b: the port is taken"
        );
        assert_eq!(whole.message, b.message);
        assert_eq!(whole.reason, GatewayProgrammed::AddressNotUsable);
    }

    #[test]
    fn a_node_that_is_gone_and_an_object_of_another_name_change_nothing() {
        for report in [
            nodes(false, &[("gateway.gateway.networking.k8s.io/shop/x/b", "no")]),
            nodes(
                true,
                &[
                    ("gateway.gateway.networking.k8s.io/shop/y/b", "no"),
                    ("listener", "no"),
                    ("", "no"),
                    ("policy.z/a/b/0", "no"),
                ],
            ),
        ] {
            let mut status = gateway();
            collect(&report).write(&key(Kind::Gateway), &mut status);
            assert_eq!(status, gateway());
        }
    }

    #[test]
    fn a_rejected_policy_is_not_valid() {
        let valid = Condition::new(true, 1, PolicyValid::Valid, "the policy is enforced");
        for (kind, name) in [
            (Kind::CiliumNetworkPolicy, "ciliumnetworkpolicy.cilium.io/shop/x/0"),
            (Kind::NetworkPolicy, "networkpolicy.networking.k8s.io/shop/x/0"),
        ] {
            let mut status = Status::Policy(PolicyStatus { valid: valid.clone() });
            collect(&nodes(true, &[(name, "too many rules")])).write(&key(kind), &mut status);
            let Status::Policy(status) = status else { panic!("still a policy") };
            assert_eq!(
                (status.valid.status, status.valid.reason),
                (Truth::False, PolicyValid::RejectedByNode)
            );
        }
    }

    #[test]
    fn a_message_names_a_few_and_counts_the_rest() {
        let many: Vec<(String, String)> = (0..100)
            .map(|rule| (format!("httproute.gateway.networking.k8s.io/shop/x/{rule}"), "no".to_owned()))
            .collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(key, why)| (&**key, &**why)).collect();
        let rejections = collect(&nodes(true, &many));
        let text = message(rejections.by_object[&key(Kind::HttpRoute)].iter());
        assert!(text.ends_with("; and 97 more"), "{text}");
    }
}

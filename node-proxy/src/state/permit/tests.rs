// SPDX-License-Identifier: Apache-2.0
use proptest::{collection::vec, option, prelude::*, sample::select};
use weft_http::head::{Name, Value};
use weft_ir::{HttpRule, Snapshot};

use super::*;
use crate::{
    route::samples,
    state::{
        compile::Compiler,
        world::{self, NODE},
    },
};

const LEVEL: Level = Level::new(200, 0);

fn decision(verdict: Verdict) -> Decision {
    Decision { verdict, policy: Some("shop/checkout".into()), l7: None }
}

/// What holds between two pods of this node under policies with these rules about requests; no rule at all
/// is no policy.
fn verdicts(egress: Vec<HttpRule>, ingress: Vec<HttpRule>) -> Verdicts {
    let mut snapshot: Snapshot = world::ground();
    let resources = world::two_pods(egress, ingress);
    resources.into_iter().for_each(|resource| snapshot.insert(resource));
    let (state, _) = Compiler::new(NODE.into(), vec![]).compile(&snapshot, &[]);
    let [client, server] = [1, 2].map(|number| state.peer(world::pod_address(number)).clone());
    let policy = client_policy(&state, &client);
    let address = SocketAddr::new(world::pod_address(2), 8080);
    Verdicts::find(&state, &client, policy.as_deref(), &server, address)
}

fn path(path: &str) -> HttpRule {
    HttpRule { path: Some(path.into()), ..HttpRule::default() }
}

fn request_to(target: &str) -> Head {
    let mut head = Head::new();
    head.start_request(b"GET", target.as_bytes(), b"web.shop").expect("a request");
    head
}

/// Which end denies the request, if any does.
fn denied_by(verdicts: &Verdicts, head: &Head) -> Option<Direction> {
    let permit = verdicts.permit_egress(head).and_then(|egress| verdicts.permit_ingress(egress, head));
    permit.err().map(|denial| denial.direction)
}

#[test]
fn a_peer_that_has_to_prove_who_it_is_is_denied() {
    let verdicts = Verdicts::new(not_asked(), decision(Verdict::authenticated(LEVEL, 7)));
    let denial = verdicts.permit_bytes().unwrap_err();
    assert_eq!((denial.reason, denial.direction), (Reason::AuthenticationRequired, Direction::Ingress));
    assert_eq!(denial.decided.policy.as_deref(), Some("shop/checkout"));
    assert_eq!((denial.decided.verdict.action(), denial.decided.verdict.rule), (Action::Deny, 7));
}

#[test]
fn what_nobody_decided_is_denied() {
    for verdict in [Verdict::NONE, Verdict::redirect(LEVEL, 7)] {
        let verdicts = Verdicts::new(decision(verdict), not_asked());
        assert_eq!(verdicts.permit_bytes().unwrap_err().reason, Reason::NoPolicyConfig);
    }
}

#[test]
fn egress_is_decided_on_what_was_received_and_ingress_on_what_takes_effect() {
    let host = HttpRule { host: Some("inner.shop".into()), ..path("/in") };
    let verdicts = verdicts(vec![path("/out")], vec![host]);
    let mut head = request_to("/out");
    assert_eq!(denied_by(&verdicts, &head), Some(Direction::Ingress));
    head.set_target(b"/in").expect("a target");
    assert_eq!(denied_by(&verdicts, &head), Some(Direction::Ingress));
    head.set_authority(b"inner.shop").expect("an authority");
    assert_eq!(denied_by(&verdicts, &head), None);
    let mut head = request_to("/in");
    assert_eq!(denied_by(&verdicts, &head), Some(Direction::Egress));
    head.set_target(b"/out").expect("a target");
    assert_eq!(denied_by(&verdicts, &head), Some(Direction::Egress));
}

#[test]
fn several_fields_of_a_name_are_one_list_for_a_rule_and_crumbs_one_cookie() {
    let rule = |name: &str, value: Option<&str>| HttpRule {
        headers: vec![(name.into(), value.map(Arc::from))],
        ..HttpRule::default()
    };
    for (rule, fields, allowed) in [
        (rule("x-team", Some("a")), &[("X-Team", "a")][..], true),
        (rule("x-team", Some("a,b")), &[("x-team", "a"), ("X-TEAM", "b")], true),
        (rule("x-team", Some("a")), &[("x-team", "a"), ("x-team", "b")], false),
        (rule("cookie", Some("a=1; b=2; c")), &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c")], true),
        (rule("accept", None), &[("accept", "")], true),
        (rule("accept", None), &[("x-accept", "")], false),
        (rule("x-none", None), &[], false),
    ] {
        let mut head = request_to("/");
        for (name, value) in fields {
            let name = Name::new(name.as_bytes()).expect("a name");
            head.append(&name, Value::new(value.as_bytes()).expect("a value")).expect("room");
        }
        let denied = (!allowed).then_some(Direction::Ingress);
        assert_eq!(denied_by(&verdicts(vec![], vec![rule.clone()]), &head), denied, "{rule:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What was decided last never changes what is decided next.
    #[test]
    fn a_request_that_was_seen_gets_the_verdict_that_rules_give(
        egress in vec(world::http_rule(), 0..3),
        ingress in vec(world::http_rule(), 0..3),
        requests in vec((samples::request(), option::of(select(vec!["/a", "/b?q=1"]))), 2..24),
    ) {
        let verdicts = verdicts(egress, ingress);
        let decide = |verdicts: &Verdicts, received: &Head, sent: &Head| {
            let egress = verdicts.permit_egress(received)?;
            verdicts.permit_ingress(egress, sent).map(|permit| (permit.egress, permit.ingress))
        };
        for (received, rewritten) in requests {
            let mut sent = received.clone();
            if let Some(target) = rewritten {
                sent.set_target(target.as_bytes()).expect("a target");
            }
            let fresh = Verdicts::new(verdicts.egress.decision.clone(), verdicts.ingress.decision.clone());
            prop_assert_eq!(decide(&verdicts, &received, &sent), decide(&fresh, &received, &sent));
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Cilium's meaning of a policy, case by case, as the translator writes it into the IR.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use weft_ebpf_common::{Action, identity, reason::Reason};
use weft_ir::{
    Changes, Direction, Entity, HttpRule, Identity, IdentityNumber, L7Rules, NamedPort, ObjectName, Operator,
    Peer, Policy, PolicyDirection, PolicyKind, PolicyPort, PolicyRule, PortRule, Protocol, Requirement,
    Resource, ResourceKey, Selector, Snapshot, Tier, Workload,
};
use weft_policy::{
    EndpointPolicy, HttpDecision, HttpRequest, KernelEntry, L7Policy, PolicySet, Ports, Warning,
};

/// The answer where a workload's policies are not known.
const UNKNOWN: (Action, u16, Option<Arc<str>>) = (Action::Deny, Reason::NoPolicyConfig as u16, None);

const CLIENT: u32 = 256;
const SERVER: u32 = 257;
const OTHER: u32 = 258;

fn app(name: &str) -> Selector {
    let labels = [("any:app", name), ("k8s:io.kubernetes.pod.namespace", "shop")];
    let requirement = |(key, value): (&str, &str)| Requirement {
        key: key.into(),
        operator: Operator::In(vec![value.into()]),
    };
    Selector { requirements: labels.map(requirement).into() }
}

fn port(port: u16) -> PortRule {
    PortRule { port: PolicyPort::Range(port, port), protocol: Some(Protocol::Tcp), l7: None }
}

fn http(number: u16, rules: Vec<HttpRule>) -> PortRule {
    PortRule { l7: Some(L7Rules::Http(rules)), ..port(number) }
}

fn get(path: &str) -> HttpRule {
    HttpRule { method: Some("GET".into()), path: Some(path.into()), ..HttpRule::default() }
}

fn rule(peers: Vec<Peer>, ports: Vec<PortRule>) -> PolicyRule {
    PolicyRule { peers, ports, authenticate: false }
}

fn closed(allow: Vec<PolicyRule>, deny: Vec<PolicyRule>) -> PolicyDirection {
    PolicyDirection { default_deny: true, allow, deny }
}

/// A policy on the server's ingress.
fn ingress(name: &str, ingress: PolicyDirection) -> Policy {
    Policy {
        kind: PolicyKind::CiliumNetworkPolicy,
        name: ObjectName::new("shop", name),
        index: 0,
        tier: Tier::Normal,
        priority: 0,
        subject: app("server"),
        ingress,
        egress: PolicyDirection::default(),
    }
}

fn web() -> NamedPort {
    NamedPort { name: "web".into(), port: 8080, protocol: Protocol::Tcp }
}

fn snapshot(policies: Vec<Policy>) -> Snapshot {
    let mut snapshot = Snapshot { revision: 1, ..Snapshot::default() };
    for (number, name) in [(CLIENT, "client"), (SERVER, "server"), (OTHER, "other")] {
        let labels = [("k8s:app", name), ("k8s:io.kubernetes.pod.namespace", "shop")];
        let labels = labels.into_iter().map(|(k, v)| (Arc::from(k), Arc::from(v))).collect();
        snapshot.insert(Resource::Identity(Identity { number: IdentityNumber(number), labels }));
        snapshot.insert(Resource::Workload(Workload {
            name: ObjectName::new("shop", name),
            node: "n1".into(),
            addresses: Vec::new(),
            identity: IdentityNumber(number),
            service_account: "default".into(),
            host_network: false,
            owner: "".into(),
            ports: if number == SERVER { vec![web()] } else { Vec::new() },
        }));
    }
    policies.into_iter().for_each(|policy| snapshot.insert(Resource::Policy(policy)));
    snapshot
}

fn server(policies: Vec<Policy>) -> Arc<EndpointPolicy> {
    PolicySet::compile(&snapshot(policies), "n1").endpoint(IdentityNumber(SERVER), &[web()])
}

/// What the server's ingress says about TCP, in one word.
fn says(policy: &EndpointPolicy, peer: u32, port: u16) -> String {
    let decision = policy.ingress.l4(IdentityNumber(peer), 6, port);
    let verdict = decision.verdict;
    let by = decision.policy.map(|name| format!(" by {name}")).unwrap_or_default();
    match (verdict.action(), decision.l7) {
        (Action::Allow, _) => format!("allow{by}"),
        (Action::Deny, _) => format!("{}{by}", Reason::from_number(verdict.reason).unwrap()),
        (Action::Redirect, None) => format!("ask who it is{by}"),
        (Action::Redirect, Some(L7Policy::Http(rules))) => {
            let header = |_: &str| None;
            let decide = |method: &'static [u8]| {
                rules.decide(&HttpRequest { method, authority: b"server", target: b"/a", header: &header })
            };
            let text = match (decide(b"GET"), decide(b"POST")) {
                (HttpDecision::Allow(_), HttpDecision::Allow(_)) => "any request",
                (HttpDecision::Allow(_), HttpDecision::Deny(..)) => "GET /a",
                (HttpDecision::Deny(..), HttpDecision::Deny(..)) => "no such request",
                (HttpDecision::Deny(..), HttpDecision::Allow(_)) => "POST /a",
            };
            if verdict.authenticate() { format!("{text}, and ask who it is") } else { text.to_owned() }
        }
    }
}

fn select(name: &str) -> Vec<Peer> {
    vec![Peer::Selector(app(name))]
}

#[test]
fn without_a_policy_everything_passes_and_the_kernel_has_nothing_to_do() {
    let policy = server(Vec::new());
    assert_eq!(says(&policy, CLIENT, 80), "allow");
    assert!(policy.ingress.is_open() && policy.ingress.kernel_entries().is_empty());
}

#[test]
fn one_empty_rule_closes_the_direction_and_allows_nothing() {
    // `ingress: [{}]`, and `fromEndpoints: []`.
    for allow in [Vec::new(), vec![rule(Vec::new(), Vec::new())], vec![rule(Vec::new(), vec![port(80)])]] {
        let policy = server(vec![ingress("p", closed(allow, Vec::new()))]);
        assert_eq!(says(&policy, CLIENT, 80), "policy_denied by shop/p");
        assert!(policy.egress.is_open(), "the other direction stays open");
    }
}

#[test]
fn a_rule_that_does_not_close_its_direction_denies_what_it_names_and_no_more() {
    let deny = vec![rule(select("other"), vec![port(80)])];
    let open = PolicyDirection { default_deny: false, allow: Vec::new(), deny };
    let policy = server(vec![ingress("p", open)]);
    assert_eq!(says(&policy, OTHER, 80), "denied_by_rule by shop/p");
    assert_eq!(says(&policy, OTHER, 81), "allow");
    assert_eq!(says(&policy, CLIENT, 80), "allow");
}

#[test]
fn deny_wins_over_allow_however_exact_the_allow_is() {
    let allow = ingress("allow", closed(vec![rule(select("client"), vec![port(80)])], Vec::new()));
    let deny = ingress("deny", closed(Vec::new(), vec![rule(vec![Peer::Any], Vec::new())]));
    let policy = server(vec![allow, deny]);
    assert_eq!(says(&policy, CLIENT, 80), "denied_by_rule by shop/deny");
}

#[test]
fn deny_wins_over_http_rules() {
    let allow =
        ingress("allow", closed(vec![rule(select("client"), vec![http(80, vec![get("/a")])])], Vec::new()));
    let deny = ingress("deny", closed(Vec::new(), vec![rule(select("client"), vec![port(80)])]));
    assert_eq!(says(&server(vec![allow, deny]), CLIENT, 80), "denied_by_rule by shop/deny");
}

#[test]
fn rules_of_several_policies_add_up() {
    let one = ingress("one", closed(vec![rule(select("client"), vec![port(80)])], Vec::new()));
    let two = ingress("two", closed(vec![rule(select("other"), vec![port(81)])], Vec::new()));
    let policy = server(vec![one, two]);
    assert_eq!(says(&policy, CLIENT, 80), "allow by shop/one");
    assert_eq!(says(&policy, OTHER, 81), "allow by shop/two");
    assert_eq!(says(&policy, CLIENT, 81), "policy_denied by shop/one");
}

#[test]
fn http_rules_of_several_policies_add_up() {
    let only = |name, path: &str| {
        ingress(name, closed(vec![rule(select("client"), vec![http(80, vec![get(path)])])], Vec::new()))
    };
    let policy = server(vec![only("one", "/b"), only("two", "/a")]);
    assert_eq!(says(&policy, CLIENT, 80), "GET /a");
    assert_eq!(says(&server(vec![only("one", "/b")]), CLIENT, 80), "no such request");
}

#[test]
fn http_rules_for_a_peer_and_for_anybody_add_up() {
    let own = rule(select("client"), vec![http(80, vec![get("/b")])]);
    let any = rule(vec![Peer::Any], vec![http(80, vec![get("/a")])]);
    assert_eq!(says(&server(vec![ingress("p", closed(vec![own, any], Vec::new()))]), CLIENT, 80), "GET /a");
}

#[test]
fn http_rules_beside_a_plain_rule_for_the_same_peers_and_port_have_no_effect_and_that_is_reported() {
    let l7 = ingress("l7", closed(vec![rule(select("client"), vec![http(80, vec![get("/a")])])], Vec::new()));
    let l4 = ingress("l4", closed(vec![rule(select("client"), vec![port(80)])], Vec::new()));
    let policy = server(vec![l7.clone(), l4]);
    assert_eq!(says(&policy, CLIENT, 80), "allow by shop/l4");
    let expected = Warning::L7RulesIgnored {
        l7: "shop/l7".into(),
        allowed_by: "shop/l4".into(),
        direction: Direction::Ingress,
    };
    assert_eq!(policy.warnings, [expected]);
    // Another peer's plain rule, or another port's, changes nothing and needs no warning.
    let other = ingress("other", closed(vec![rule(select("other"), vec![port(80)])], Vec::new()));
    let elsewhere = ingress("elsewhere", closed(vec![rule(select("client"), vec![port(81)])], Vec::new()));
    let policy = server(vec![l7, other, elsewhere]);
    assert_eq!(says(&policy, CLIENT, 80), "GET /a");
    assert!(policy.warnings.is_empty());
}

#[test]
fn an_empty_http_rule_allows_any_request_but_through_the_proxy() {
    let allow = vec![rule(select("client"), vec![http(80, vec![HttpRule::default()])])];
    let policy = server(vec![ingress("p", closed(allow, Vec::new()))]);
    assert_eq!(says(&policy, CLIENT, 80), "any request");
    assert!(policy.ingress.kernel_entries().iter().any(|entry| entry.verdict.action() == Action::Redirect));
}

#[test]
fn http_rules_that_do_not_close_their_direction_make_requests_visible_only() {
    let allow = vec![rule(vec![Peer::Any], vec![http(80, vec![get("/nothing")])])];
    let visible = PolicyDirection { default_deny: false, allow, deny: Vec::new() };
    let policy = server(vec![ingress("p", visible)]);
    assert_eq!(says(&policy, CLIENT, 80), "any request");
    assert_eq!(says(&policy, CLIENT, 81), "allow");
}

#[test]
fn http_rules_hold_for_tcp_only() {
    let udp = PortRule { protocol: Some(Protocol::Udp), ..http(80, vec![get("/a")]) };
    let policy = server(vec![ingress("p", closed(vec![rule(select("client"), vec![udp])], Vec::new()))]);
    assert_eq!(policy.ingress.l4(IdentityNumber(CLIENT), 17, 80).verdict.action(), Action::Deny);
    assert_eq!(
        policy.warnings,
        [Warning::L7RulesNeedTransport { policy: "shop/p".into(), transport: Protocol::Tcp }]
    );
    let any = PortRule { protocol: None, ..http(80, vec![get("/a")]) };
    let policy = server(vec![ingress("p", closed(vec![rule(select("client"), vec![any])], Vec::new()))]);
    assert_eq!(says(&policy, CLIENT, 80), "GET /a");
    assert_eq!(policy.ingress.l4(IdentityNumber(CLIENT), 17, 80).verdict.action(), Action::Deny);
}

#[test]
fn without_ports_every_protocol_is_meant_and_a_port_means_the_three_transports() {
    let reaches = |ports: Vec<PortRule>, protocol: u8| {
        let policy = server(vec![ingress("p", closed(vec![rule(select("client"), ports)], Vec::new()))]);
        policy.ingress.l4(IdentityNumber(CLIENT), protocol, 0).verdict.action() == Action::Allow
    };
    let any_port = || vec![PortRule { port: PolicyPort::Any, protocol: None, l7: None }];
    assert!(reaches(Vec::new(), 1));
    assert!(!reaches(any_port(), 1), "ICMP has no ports");
    assert!([6, 17, 132].into_iter().all(|protocol| reaches(any_port(), protocol)));
}

#[test]
fn the_local_host_reaches_local_workloads_unless_a_deny_rule_names_it() {
    let policy = server(vec![ingress("p", closed(Vec::new(), Vec::new()))]);
    assert_eq!(says(&policy, identity::HOST, 80), "allow by allow-localhost");
    assert_eq!(says(&policy, identity::REMOTE_NODE, 80), "policy_denied by shop/p");
    let l7 = ingress("l7", closed(vec![rule(vec![Peer::Any], vec![http(80, vec![get("/b")])])], Vec::new()));
    assert_eq!(says(&server(vec![l7]), identity::HOST, 80), "allow by allow-localhost");
    let deny = vec![rule(vec![Peer::Entity(Entity::Host)], vec![port(80)])];
    let policy = server(vec![ingress("p", closed(Vec::new(), deny))]);
    assert_eq!(says(&policy, identity::HOST, 80), "denied_by_rule by shop/p");
    assert_eq!(says(&policy, identity::HOST, 81), "allow by allow-localhost");
}

#[test]
fn an_unknown_address_is_let_in_by_rules_for_everybody_only() {
    let allow = |peer| server(vec![ingress("p", closed(vec![rule(vec![peer], Vec::new())], Vec::new()))]);
    assert_eq!(says(&allow(Peer::Any), identity::UNKNOWN, 80), "allow by shop/p");
    for entity in [Entity::World, Entity::Cluster, Entity::RemoteNode, Entity::None] {
        assert_eq!(says(&allow(Peer::Entity(entity)), identity::UNKNOWN, 80), "policy_denied by shop/p");
    }
    let everything = Peer::Selector(Selector::default());
    assert_eq!(says(&allow(everything), identity::UNKNOWN, 80), "policy_denied by shop/p");
}

#[test]
fn named_ports_are_those_of_the_workload_that_receives() {
    let named = PortRule { port: PolicyPort::Named("web".into()), protocol: Some(Protocol::Tcp), l7: None };
    let policy =
        server(vec![ingress("p", closed(vec![rule(select("client"), vec![named.clone()])], Vec::new()))]);
    assert_eq!(says(&policy, CLIENT, 8080), "allow by shop/p");
    assert_eq!(says(&policy, CLIENT, 80), "policy_denied by shop/p");
    let egress = Policy {
        subject: app("client"),
        egress: closed(vec![rule(vec![Peer::Any], vec![named])], Vec::new()),
        ..ingress("p", PolicyDirection::default())
    };
    let policy = PolicySet::compile(&snapshot(vec![egress]), "n1").endpoint(IdentityNumber(CLIENT), &[]);
    let out = |peer| policy.egress.l4(IdentityNumber(peer), 6, 8080).verdict;
    assert_eq!(out(SERVER).action(), Action::Allow);
    assert_eq!(out(OTHER).reason, Reason::PolicyDenied as u16, "it has no port of that name");
}

#[test]
fn a_rejected_policy_closes_its_namespace_until_it_can_be_read() {
    let open = ingress("open", closed(vec![rule(vec![Peer::Any], Vec::new())], Vec::new()));
    let state = snapshot(vec![open]);
    let key = ResourceKey::parse("ciliumnetworkpolicy.cilium.io/shop/broken/0");
    let set = PolicySet::compile_with_rejected(&state, "n1", std::slice::from_ref(&key));
    let policy = set.endpoint(IdentityNumber(SERVER), &[]);
    assert_eq!(says(&policy, CLIENT, 80), "no_policy_config");
    assert_eq!(says(&policy, identity::HOST, 80), "allow by allow-localhost");
    let out = policy.egress.l4(IdentityNumber(CLIENT), 6, 80);
    assert_eq!((out.verdict.action(), out.verdict.reason, out.policy), UNKNOWN);
    let next = set.next(&state, &Changes::default(), &[]).endpoint(IdentityNumber(SERVER), &[]);
    assert_eq!(says(&next, CLIENT, 80), "allow by shop/open");
    // The last good version of a policy stays in force, and closes nothing else.
    let known = [ResourceKey::parse("ciliumnetworkpolicy.cilium.io/shop/open/0")];
    let set = PolicySet::compile_with_rejected(&state, "n1", &known);
    assert_eq!(says(&set.endpoint(IdentityNumber(SERVER), &[]), CLIENT, 80), "allow by shop/open");
}

#[test]
fn an_identity_without_labels_is_closed() {
    let set = PolicySet::compile(&snapshot(Vec::new()), "n1");
    for number in [identity::UNKNOWN, 999] {
        let policy = set.endpoint(IdentityNumber(number), &[]);
        let out = policy.egress.l4(IdentityNumber(SERVER), 6, 80);
        assert_eq!((out.verdict.action(), out.verdict.reason, out.policy), UNKNOWN);
    }
    assert!(set.endpoint(IdentityNumber(identity::WORLD), &[]).egress.is_open());
}

#[test]
fn the_kernel_gets_few_entries_and_none_that_overlap() {
    let ports = vec![
        PortRule { port: PolicyPort::Range(80, 90), ..port(80) },
        PortRule { port: PolicyPort::Range(85, 100), ..port(80) },
        http(95, vec![get("/a")]),
        http(200, vec![get("/a")]),
    ];
    let deny = vec![rule(select("client"), vec![port(82)])];
    let policy = server(vec![ingress("p", closed(vec![rule(select("client"), ports)], deny))]);
    let client = weft_policy::Peer::Identity(IdentityNumber(CLIENT));
    let entries: Vec<(Ports, Action)> = policy
        .ingress
        .kernel_entries()
        .into_iter()
        .filter(|entry: &KernelEntry| entry.peer == client)
        .map(|entry| (entry.ports, entry.verdict.action()))
        .collect();
    assert_eq!(
        entries,
        [
            (Ports::Range(80, 81), Action::Allow),
            (Ports::Range(82, 82), Action::Deny),
            (Ports::Range(83, 100), Action::Allow),
            (Ports::Range(200, 200), Action::Redirect),
        ]
    );
}

#[test]
fn ranges_split_into_prefixes() {
    assert_eq!(Ports::Any.prefixes(), [(0, 0)]);
    assert_eq!(Ports::Range(80, 80).prefixes(), [(80, 16)]);
    assert_eq!(Ports::Range(0, 1023).prefixes(), [(0, 6)]);
    assert_eq!(Ports::Range(0, 65535).prefixes(), [(0, 0)]);
    assert_eq!(Ports::Range(1, 65534).prefixes().len(), 30);
    assert_eq!(Ports::Range(65535, 65535).prefixes(), [(65535, 16)]);
    assert_eq!(Ports::Range(81, 84).prefixes(), [(81, 16), (82, 15), (84, 16)]);
}

/// Follows one change; whether the server's policy is still the same object.
fn follow(set: &PolicySet, state: &mut Snapshot, change: impl FnOnce(&mut Snapshot)) -> (PolicySet, bool) {
    let server = |set: &PolicySet| set.endpoint(IdentityNumber(SERVER), &[web()]);
    let (policy, before) = (server(set), state.clone());
    change(state);
    state.revision += 1;
    let next = set.next(state, &Changes::between(&before, state), &[]);
    assert_eq!(next.directory().position(), state.position());
    let same = Arc::ptr_eq(&policy, &server(&next));
    (next, same)
}

fn labelled(number: u32, app: &str, namespace: &str) -> Resource {
    let labels = [("k8s:app", app), ("k8s:io.kubernetes.pod.namespace", namespace)];
    let labels = labels.into_iter().map(|(k, v)| (Arc::from(k), Arc::from(v))).collect();
    Resource::Identity(Identity { number: IdentityNumber(number), labels })
}

#[test]
fn a_policy_is_compiled_again_only_where_a_change_touches_it() {
    let allow = rule(select("client"), vec![port(80)]);
    let mut state = snapshot(vec![ingress("p", closed(vec![allow], Vec::new()))]);
    let set = PolicySet::compile(&state, "n1");
    let says = |set: &PolicySet, peer| says(&set.endpoint(IdentityNumber(SERVER), &[web()]), peer, 80);
    let (set, same) = follow(&set, &mut state, |state| {
        let client = state.workloads().find(|workload| &*workload.name.name == "client").unwrap().clone();
        state.insert(Resource::Workload(Workload { name: ObjectName::new("shop", "another"), ..client }));
    });
    assert!(same, "a pod of a known identity");
    let (set, same) = follow(&set, &mut state, |state| state.insert(labelled(300, "client", "bank")));
    assert!(same, "an identity that no rule means");
    let (set, same) = follow(&set, &mut state, |state| state.insert(labelled(301, "client", "shop")));
    assert!(!same, "an identity that the rule means");
    assert_eq!((&*says(&set, 300), &*says(&set, 301)), ("policy_denied by shop/p", "allow by shop/p"));
    let others = Policy { subject: app("client"), ..ingress("others", closed(Vec::new(), Vec::new())) };
    let (set, same) = follow(&set, &mut state, |state| state.insert(Resource::Policy(others)));
    assert!(same, "a policy for others");
    let denies = ingress("q", closed(Vec::new(), vec![rule(select("client"), Vec::new())]));
    let key = denies.key();
    let (set, same) = follow(&set, &mut state, |state| state.insert(Resource::Policy(denies)));
    assert!(!same, "a policy for the server");
    assert_eq!(says(&set, CLIENT), "denied_by_rule by shop/q");
    let (set, same) = follow(&set, &mut state, |state| drop(state.resources.remove(&key)));
    assert!(!same, "a policy that is gone");
    let gone = ResourceKey::Identity(IdentityNumber(301));
    let (set, same) = follow(&set, &mut state, |state| drop(state.resources.remove(&gone)));
    assert!(!same, "an identity that is gone");
    assert_eq!((&*says(&set, CLIENT), &*says(&set, 301)), ("allow by shop/p", "policy_denied by shop/p"));
}

fn at(tier: Tier, priority: u16, policy: Policy) -> Policy {
    Policy { tier, priority, ..policy }
}

fn allows(name: &str, ports: Vec<PortRule>) -> Policy {
    ingress(
        name,
        PolicyDirection { allow: vec![rule(select("client"), ports)], ..PolicyDirection::default() },
    )
}

fn denies(name: &str, ports: Vec<PortRule>) -> Policy {
    ingress(name, PolicyDirection { deny: vec![rule(select("client"), ports)], ..PolicyDirection::default() })
}

#[test]
fn a_higher_tier_decides_whatever_a_lower_one_says() {
    let policy = server(vec![
        at(Tier::Admin, 7, allows("admin", vec![port(80)])),
        denies("normal", vec![port(80), port(81)]),
        ingress("l7", closed(vec![rule(select("client"), vec![http(80, vec![get("/a")])])], Vec::new())),
        at(Tier::Baseline, 0, allows("baseline", vec![port(81), port(82)])),
    ]);
    assert_eq!(says(&policy, CLIENT, 80), "allow by shop/admin");
    assert_eq!(says(&policy, CLIENT, 81), "denied_by_rule by shop/normal");
    assert_eq!(says(&policy, CLIENT, 82), "policy_denied by shop/l7", "the tier before has closed");
    let open = server(vec![at(Tier::Baseline, 0, denies("baseline", vec![port(82)]))]);
    assert_eq!(says(&open, CLIENT, 82), "denied_by_rule by shop/baseline");
    assert_eq!(says(&open, CLIENT, 83), "allow");
}

#[test]
fn within_a_tier_the_lower_priority_decides_and_its_l7_rules_are_all_there_is() {
    let policy = server(vec![
        at(Tier::Admin, 2, denies("second", vec![PortRule { port: PolicyPort::Range(80, 90), ..port(80) }])),
        at(Tier::Admin, 1, allows("first", vec![port(85)])),
        at(
            Tier::Admin,
            0,
            ingress("l7", closed(vec![rule(select("client"), vec![http(88, vec![get("/a")])])], Vec::new())),
        ),
    ]);
    assert_eq!(says(&policy, CLIENT, 85), "allow by shop/first");
    assert_eq!(says(&policy, CLIENT, 86), "denied_by_rule by shop/second");
    assert_eq!(says(&policy, CLIENT, 88), "GET /a");
}

#[test]
fn the_local_host_is_let_in_behind_administrators_and_in_front_of_the_baseline() {
    let host = |tier, name| {
        let deny = vec![rule(vec![Peer::Entity(Entity::Host)], Vec::new())];
        at(tier, 0, ingress(name, PolicyDirection { deny, ..PolicyDirection::default() }))
    };
    let says = |policy| says(&server(vec![policy]), identity::HOST, 80);
    assert_eq!(says(host(Tier::Admin, "admin")), "denied_by_rule by shop/admin");
    assert_eq!(says(host(Tier::Normal, "normal")), "denied_by_rule by shop/normal");
    assert_eq!(says(host(Tier::Baseline, "baseline")), "allow by allow-localhost");
}

#[test]
fn one_rule_that_asks_who_the_peer_is_asks_for_all_of_its_level() {
    let asked = |ports| PolicyRule { authenticate: true, ..rule(select("client"), ports) };
    let plain = rule(vec![Peer::Any], vec![port(80)]);
    let policy = server(vec![ingress("p", closed(vec![plain.clone(), asked(vec![port(80)])], Vec::new()))]);
    assert_eq!(says(&policy, CLIENT, 80), "ask who it is by shop/p");
    assert_eq!(says(&policy, OTHER, 80), "allow by shop/p");
    let l7 = asked(vec![http(80, vec![get("/a")])]);
    let policy = server(vec![ingress("p", closed(vec![l7], Vec::new()))]);
    assert_eq!(says(&policy, CLIENT, 80), "GET /a, and ask who it is");
    let entries = policy.ingress.kernel_entries();
    let client = weft_policy::Peer::Identity(IdentityNumber(CLIENT));
    assert!(entries.iter().any(|entry| entry.peer == client && entry.verdict.authenticate()));
}

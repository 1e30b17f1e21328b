// SPDX-License-Identifier: Apache-2.0
//! The rules, read one by one for one question. Slow, plain, and without any code of the crate.

use std::{collections::BTreeSet, net::IpAddr};

use weft_ebpf_common::Action;
use weft_ir::{
    Direction, Entity, HttpRule, L7Rules, Operator, Peer, Policy, PolicyDirection, PolicyPort, PolicyRule,
    PortRule, Requirement, Selector, Tier, Workload,
};

use crate::world::{POD_CIDR, REQUESTS, Request, World};

pub(crate) struct Question<'a> {
    pub(crate) world: &'a World,
    pub(crate) workload: &'a Workload,
    pub(crate) direction: Direction,
    pub(crate) address: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// What the rules say, and which policies say it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) action: Action,
    pub(crate) authenticate: bool,
    /// Tier and priority, as verdicts number them.
    pub(crate) level: (u8, u16),
    /// Any of these may be named; nobody is empty.
    pub(crate) policies: BTreeSet<String>,
    /// Which of the requests are allowed, where that is asked.
    pub(crate) requests: Option<Vec<bool>>,
}

/// One thing that is said about the packet.
struct Statement {
    level: (u8, u16),
    policy: String,
    said: Said,
}

enum Said {
    Deny,
    Allow { authenticate: bool, requests: Option<Vec<bool>> },
}

/// Who is behind an address.
#[derive(Clone, Copy, PartialEq)]
enum Who<'a> {
    Workload(&'a Workload),
    Host,
    RemoteNode,
    ApiserverNode,
    Ingress,
    Unknown,
    Outside,
}

impl Question<'_> {
    pub(crate) fn answer(&self) -> Answer {
        let mut said = self.statements();
        let turn = said.iter().map(|statement| statement.level).min().unwrap();
        said.retain(|statement| statement.level == turn);
        let named = |wanted: &dyn Fn(&Said) -> bool| {
            let found = said.iter().filter(|statement| wanted(&statement.said));
            found.map(|statement| statement.policy.clone()).collect::<BTreeSet<_>>()
        };
        let denied = named(&|said| matches!(said, Said::Deny));
        let asked = named(&|said| matches!(said, Said::Allow { authenticate: true, .. }));
        let anything = named(&|said| matches!(said, Said::Allow { requests: None, .. }));
        let (action, policies) = match () {
            () if !denied.is_empty() => (Action::Deny, denied),
            () if !asked.is_empty() => (Action::Redirect, asked.clone()),
            () if !anything.is_empty() => (Action::Allow, anything.clone()),
            () => (Action::Redirect, named(&|_| true)),
        };
        let requests = (action == Action::Redirect && anything.is_empty()).then(|| {
            let mut all = vec![false; REQUESTS.len()];
            for statement in &said {
                if let Said::Allow { requests: Some(requests), .. } = &statement.said {
                    all.iter_mut().zip(requests).for_each(|(all, one)| *all |= one);
                }
            }
            all
        });
        let authenticate = action == Action::Redirect && !asked.is_empty();
        Answer { action, authenticate, level: turn, policies, requests }
    }

    /// Everything that is said, down to what holds where nobody says anything.
    fn statements(&self) -> Vec<Statement> {
        let allow = Said::Allow { authenticate: false, requests: None };
        let mut said = vec![Statement { level: (255, u16::MAX), policy: String::new(), said: allow }];
        let selecting: Vec<&Policy> =
            self.world.policies.iter().filter(|policy| self.selects(policy)).collect();
        for policy in &selecting {
            let section = self.section(policy);
            let tier = match policy.tier {
                Tier::Admin => 100,
                Tier::Normal => 200,
                Tier::Baseline => 250,
            };
            let name = policy.name.to_string();
            let mut say = |priority, statement| {
                said.push(Statement { level: (tier, priority), policy: name.clone(), said: statement });
            };
            if section.default_deny {
                say(u16::MAX, Said::Deny);
            }
            for _ in section.deny.iter().filter(|rule| self.names(rule).is_some()) {
                say(policy.priority, Said::Deny);
            }
            for rule in &section.allow {
                for port in self.names(rule).into_iter().flatten() {
                    let requests = port.and_then(|port| port.l7.as_ref());
                    let requests = requests.map(|L7Rules::Http(rules)| allowed(rules, section.default_deny));
                    say(policy.priority, Said::Allow { authenticate: rule.authenticate, requests });
                }
            }
        }
        let closed_or_named =
            selecting.iter().any(|policy| *self.section(policy) != PolicyDirection::default());
        if self.direction == Direction::Ingress && self.who() == Who::Host && closed_or_named {
            let allow = Said::Allow { authenticate: false, requests: None };
            said.push(Statement { level: (200, 0), policy: "allow-localhost".to_owned(), said: allow });
        }
        said
    }

    fn selects(&self, policy: &Policy) -> bool {
        let labels = &self.world.labels[&self.workload.identity];
        selected(&policy.subject, &labels.iter().map(|(k, v)| (&**k, &**v)).collect::<Vec<_>>())
    }

    fn section<'p>(&self, policy: &'p Policy) -> &'p PolicyDirection {
        match self.direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        }
    }

    /// The port rules that name the packet (nothing inside where the rule has none), if its peer does.
    fn names<'r>(&self, rule: &'r PolicyRule) -> Option<Vec<Option<&'r PortRule>>> {
        if !rule.peers.iter().any(|peer| self.is_peer(peer)) {
            return None;
        }
        if rule.ports.is_empty() {
            return Some(vec![None]);
        }
        let ports: Vec<_> = rule.ports.iter().filter(|port| self.is_port(port)).map(Some).collect();
        if ports.is_empty() { None } else { Some(ports) }
    }

    fn is_port(&self, rule: &PortRule) -> bool {
        let protocols: &[u8] = match rule.protocol {
            None => &[6, 17, 132],
            Some(weft_ir::Protocol::Tcp) => &[6],
            Some(weft_ir::Protocol::Udp) => &[17],
            Some(weft_ir::Protocol::Sctp) => &[132],
        };
        let http_over_tcp = rule.l7.is_none() || self.protocol == 6;
        let port = match &rule.port {
            PolicyPort::Any => true,
            PolicyPort::Range(first, last) => *first <= self.port && self.port <= *last,
            PolicyPort::Named(name) => self.receivers().iter().any(|workload| {
                let known = |port: &weft_ir::NamedPort| {
                    port.name == *name && port.port == self.port && port.protocol.number() == self.protocol
                };
                workload.ports.iter().any(known)
            }),
        };
        protocols.contains(&self.protocol) && http_over_tcp && port
    }

    /// The workloads whose named ports count: the subject, or all with the identity of the peer.
    fn receivers(&self) -> Vec<Workload> {
        match (self.direction, self.who()) {
            (Direction::Ingress, _) => vec![self.workload.clone()],
            (Direction::Egress, Who::Workload(peer)) => {
                let all = self.world.snapshot.resources.values();
                let workloads = all.filter_map(|resource| match &**resource {
                    weft_ir::Resource::Workload(found) => Some(found.clone()),
                    _ => None,
                });
                workloads.filter(|found| found.identity == peer.identity && !found.host_network).collect()
            }
            (Direction::Egress, _) => Vec::new(),
        }
    }

    fn who(&self) -> Who<'_> {
        if let Some(found) = self.world.workloads.iter().find(|w| w.addresses.contains(&self.address)) {
            return Who::Workload(found);
        }
        let pods: ipnet::IpNet = POD_CIDR.parse().unwrap();
        match self.address.to_string().as_str() {
            "192.168.0.1" | "127.0.0.1" => Who::Host,
            "192.168.0.2" => Who::RemoteNode,
            "192.168.0.3" => Who::ApiserverNode,
            "192.168.0.8" => Who::Ingress,
            _ if pods.contains(&self.address) => Who::Unknown,
            _ => Who::Outside,
        }
    }

    fn is_peer(&self, peer: &Peer) -> bool {
        let who = self.who();
        match peer {
            Peer::Any => true,
            Peer::Selector(selector) => self.is_selected(selector),
            Peer::Entity(entity) => match entity {
                Entity::All => true,
                Entity::None => false,
                Entity::World => who == Who::Outside,
                Entity::Cluster => who != Who::Outside && who != Who::Unknown,
                Entity::Host => who == Who::Host,
                Entity::RemoteNode => [Who::RemoteNode, Who::ApiserverNode].contains(&who),
                Entity::KubeApiserver => {
                    who == Who::ApiserverNode || self.address.to_string() == "203.0.113.7"
                }
                Entity::Ingress => who == Who::Ingress,
            },
            Peer::Cidr { cidr, except } => {
                who == Who::Outside
                    && cidr.contains(&self.address)
                    && !except.iter().any(|except| except.contains(&self.address))
            }
        }
    }

    fn is_selected(&self, selector: &Selector) -> bool {
        let reserved = |name| vec![(name, "")];
        let labels = match self.who() {
            Who::Unknown => return false,
            Who::Workload(peer) => {
                self.world.labels[&peer.identity].iter().map(|(key, value)| (&**key, &**value)).collect()
            }
            Who::Host => reserved("reserved:host"),
            Who::RemoteNode => reserved("reserved:remote-node"),
            Who::ApiserverNode => reserved("reserved:kube-apiserver"),
            Who::Ingress => reserved("reserved:ingress"),
            Who::Outside => reserved("reserved:world"),
        };
        selected(selector, &labels)
    }
}

fn selected(selector: &Selector, labels: &[(&str, &str)]) -> bool {
    selector.requirements.iter().all(|requirement| required(requirement, labels))
}

fn required(requirement: &Requirement, labels: &[(&str, &str)]) -> bool {
    let same = |key: &str| match requirement.key.strip_prefix("any:") {
        Some(name) => key.split_once(':').unwrap().1 == name,
        None => key == &*requirement.key,
    };
    let value = labels.iter().find(|(key, _)| same(key)).map(|(_, value)| *value);
    let listed =
        |values: &[std::sync::Arc<str>]| value.is_some_and(|value| values.iter().any(|v| **v == *value));
    match &requirement.operator {
        Operator::In(values) => listed(values),
        Operator::NotIn(values) => !listed(values),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
    }
}

/// Which requests a rule's list allows; all sane ones where its policy only watches.
fn allowed(rules: &[HttpRule], default_deny: bool) -> Vec<bool> {
    let allowed = |request: &Request| {
        let sane = !request.method.contains('\n');
        sane && (!default_deny || rules.iter().any(|rule| holds(rule, request)))
    };
    REQUESTS.iter().map(allowed).collect()
}

fn holds(rule: &HttpRule, request: &Request) -> bool {
    // A rule with an expression that is not valid allows nothing, whatever its other parts say.
    let expressions =
        [(&rule.path, request.target), (&rule.method, request.method), (&rule.host, request.authority)];
    let part = |(expression, text): &(&Option<std::sync::Arc<str>>, &str)| match expression {
        None => true,
        Some(expression) => {
            let whole = format!("^(?:{expression})$");
            regex::Regex::new(&whole).is_ok_and(|regex| regex.is_match(text))
        }
    };
    let header = |(name, wanted): &(std::sync::Arc<str>, Option<std::sync::Arc<str>>)| {
        let found = request.headers.iter().find(|(known, _)| **known == **name);
        found.is_some_and(|(_, value)| wanted.as_ref().is_none_or(|wanted| **wanted == **value))
    };
    expressions.iter().all(part) && rule.headers.iter().all(header)
}

// SPDX-License-Identifier: Apache-2.0
//! What the rules of one direction say, one peer set, protocol and port range at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_ebpf_common::identity;
use weft_ir::{IdentityNumber, L7Rules, PolicyPort, PortRule, Protocol as IrProtocol};

use crate::{
    Direction, Protocol, Warning, l7,
    rules::{CompiledPolicy, CompiledRule, PeerSet, PortName, RuleSet},
};

/// One thing that a rule says.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub(crate) peers: PeerSet,
    pub(crate) protocol: Protocol,
    /// First and last port.
    pub(crate) ports: (u16, u16),
    pub(crate) action: Action,
    pub(crate) policy: Arc<str>,
}

/// What it says about them.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Deny,
    Allow,
    /// What these rules allow to be said.
    L7(Arc<L7Rules>),
}

const EVERY_PORT: (u16, u16) = (0, u16::MAX);
const TRANSPORTS: [IrProtocol; 3] = [IrProtocol::Tcp, IrProtocol::Udp, IrProtocol::Sctp];

/// The name that flows show where the local host was let in by no user's policy.
pub(crate) const ALLOW_LOCALHOST: &str = "allow-localhost";

/// Collects the effects of every policy that selects an identity, in one direction.
pub(crate) struct Effects<'a> {
    pub(crate) rules: &'a RuleSet,
    pub(crate) direction: Direction,
    /// The named ports of the subject.
    pub(crate) ports: &'a BTreeSet<PortName>,
    pub(crate) found: Vec<Effect>,
    pub(crate) warnings: BTreeSet<Warning>,
}

impl Effects<'_> {
    /// Adds the rules of one policy.
    pub(crate) fn add(&mut self, policy: &CompiledPolicy) {
        let section = match self.direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        for rule in &section.deny {
            self.add_rule(policy, rule, |_| Action::Deny);
        }
        for rule in &section.allow {
            self.add_rule(policy, rule, |port| allow_action(port, section.default_deny));
        }
    }

    /// The local host may always reach local workloads (kubelet's probes; Cilium's `--allow-localhost`),
    /// unless a deny rule names it.
    pub(crate) fn add_allow_localhost(&mut self) {
        self.found.push(Effect {
            peers: PeerSet::Identities([IdentityNumber(identity::HOST)].into()),
            protocol: Protocol::Any,
            ports: EVERY_PORT,
            action: Action::Allow,
            policy: ALLOW_LOCALHOST.into(),
        });
    }

    fn add_rule(
        &mut self,
        policy: &CompiledPolicy,
        rule: &CompiledRule,
        action: impl Fn(Option<&PortRule>) -> Action,
    ) {
        let peers = self.rules.peers(rule);
        if rule.rule.ports.is_empty() {
            self.push(policy, peers.clone(), Protocol::Any, EVERY_PORT, action(None));
        }
        for port in &rule.rule.ports {
            let said = action(Some(port));
            for protocol in self.protocols(policy, port) {
                match &port.port {
                    PolicyPort::Any => self.push(policy, peers.clone(), protocol, EVERY_PORT, said.clone()),
                    PolicyPort::Range(first, last) => {
                        self.push(policy, peers.clone(), protocol, (*first, *last), said.clone());
                    }
                    PolicyPort::Named(name) => self.add_named(policy, peers, protocol, name, &said),
                }
            }
        }
    }

    /// The protocols of a port; L7 rules speak about their own transport only.
    fn protocols(&mut self, policy: &CompiledPolicy, port: &PortRule) -> Vec<Protocol> {
        let number = |protocol: IrProtocol| Protocol::Number(protocol.number());
        let carried = port.l7.as_ref().map(l7::transport);
        match (port.protocol, carried) {
            (Some(protocol), Some(transport)) if protocol != transport => {
                self.warnings
                    .insert(Warning::L7RulesNeedTransport { policy: policy.name.clone(), transport });
                Vec::new()
            }
            (_, Some(transport)) => vec![number(transport)],
            (Some(protocol), None) => vec![number(protocol)],
            (None, None) => TRANSPORTS.into_iter().map(number).collect(),
        }
    }

    /// A named port is looked up at the workload that receives: the subject itself on the way in, each
    /// peer on the way out.
    fn add_named(
        &mut self,
        policy: &CompiledPolicy,
        peers: &PeerSet,
        protocol: Protocol,
        name: &Arc<str>,
        action: &Action,
    ) {
        let named = |(found, number, port): &PortName| {
            (found == name && protocol == Protocol::Number(*number)).then_some(*port)
        };
        if self.direction == Direction::Ingress {
            for port in self.ports.iter().filter_map(named) {
                self.push(policy, peers.clone(), protocol, (port, port), action.clone());
            }
            return;
        }
        let mut by_port: BTreeMap<u16, BTreeSet<IdentityNumber>> = BTreeMap::new();
        for (number, ports) in &self.rules.named_ports {
            let chosen = match peers {
                PeerSet::Any => true,
                PeerSet::Identities(numbers) => numbers.binary_search(number).is_ok(),
            };
            for port in ports.iter().filter_map(named).filter(|_| chosen) {
                by_port.entry(port).or_default().insert(*number);
            }
        }
        for (port, numbers) in by_port {
            let peers = PeerSet::Identities(numbers.into_iter().collect());
            self.push(policy, peers, protocol, (port, port), action.clone());
        }
    }

    fn push(
        &mut self,
        policy: &CompiledPolicy,
        peers: PeerSet,
        protocol: Protocol,
        ports: (u16, u16),
        action: Action,
    ) {
        if ports.0 <= ports.1 {
            self.found.push(Effect { peers, protocol, ports, action, policy: policy.name.clone() });
        }
    }
}

/// What an allow rule says about a port. L7 rules of a policy that does not close its direction get a
/// rule that every request matches, as Cilium does: that is how requests are made visible but not held back.
fn allow_action(port: Option<&PortRule>, default_deny: bool) -> Action {
    match port.and_then(|port| port.l7.as_ref()) {
        None => Action::Allow,
        Some(rules) if default_deny => Action::L7(Arc::new(rules.clone())),
        Some(rules) => Action::L7(Arc::new(l7::with_wildcard(rules))),
    }
}

/// L7 rules that decide nothing, because an L4-only rule allows all of their peers on their ports.
pub(crate) fn ignored_l7_rules(effects: &[Effect], direction: Direction) -> BTreeSet<Warning> {
    let mut warnings = BTreeSet::new();
    let allows: Vec<&Effect> = effects
        .iter()
        .filter(|e| matches!(e.action, Action::Allow) && &*e.policy != ALLOW_LOCALHOST)
        .collect();
    for l7 in effects.iter().filter(|effect| matches!(effect.action, Action::L7(_))) {
        let wins = |allow: &&&Effect| {
            (allow.protocol == Protocol::Any || allow.protocol == l7.protocol)
                && allow.ports.0 <= l7.ports.0
                && allow.ports.1 >= l7.ports.1
                && allow.peers.covers(&l7.peers)
        };
        if let Some(allow) = allows.iter().find(wins) {
            warnings.insert(Warning::L7RulesIgnored {
                l7: l7.policy.clone(),
                allowed_by: allow.policy.clone(),
                direction,
            });
        }
    }
    warnings
}

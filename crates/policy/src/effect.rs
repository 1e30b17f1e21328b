// SPDX-License-Identifier: Apache-2.0
//! What the rules of one direction say, one peer set, protocol and port range at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_ebpf_common::{
    Action, Verdict, identity,
    reason::Reason,
    verdict::{Level, TIER_NORMAL},
};
use weft_ir::{Direction, IdentityNumber, L7Rules, PolicyPort, PortRule, Protocol};

use crate::{
    Warning,
    groups::PeerSet,
    l7,
    numbers::{ALLOW_LOCALHOST, ALLOW_LOCALHOST_NAME},
    rules::{CompiledPolicy, CompiledRule, PortName, RuleSet},
};

/// One thing that a rule says.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub(crate) peers: PeerSet,
    pub(crate) protocol: Option<Protocol>,
    /// First and last port.
    pub(crate) ports: (u16, u16),
    pub(crate) said: Said,
}

/// What it says about them.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) verdict: Verdict,
    /// What may be said, where it is not denied; anything when absent.
    pub(crate) l7: Option<Arc<L7Rules>>,
    pub(crate) policy: Arc<str>,
}

const EVERY_PORT: (u16, u16) = (0, u16::MAX);
const TRANSPORTS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

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
        let section = policy.section(self.direction);
        let level = Level::new(policy.tier, policy.priority);
        for rule in &section.deny {
            let verdict = Verdict::deny(level, rule.number, Reason::DeniedByRule as u16);
            self.add_rule(policy, rule, |_| Said { verdict, l7: None, policy: policy.name.clone() });
        }
        for rule in &section.allow {
            self.add_rule(policy, rule, |port| {
                let l7 = port.and_then(|port| port.l7.as_ref());
                let l7 = l7.map(|rules| Arc::new(l7_rules(rules, section.default_deny)));
                let verdict = allowed(level, rule, l7.is_some());
                Said { verdict, l7, policy: policy.name.clone() }
            });
        }
    }

    /// The local host may always reach local workloads (kubelet's probes; Cilium's `--allow-localhost`),
    /// unless a deny rule of the same tier or a higher one names it.
    pub(crate) fn add_allow_localhost(&mut self) {
        self.found.push(Effect {
            peers: PeerSet::Identities([IdentityNumber(identity::HOST)].into()),
            protocol: None,
            ports: EVERY_PORT,
            said: Said {
                verdict: Verdict::allow(Level::new(TIER_NORMAL, 0), ALLOW_LOCALHOST),
                l7: None,
                policy: ALLOW_LOCALHOST_NAME.into(),
            },
        });
    }

    fn add_rule(
        &mut self,
        policy: &CompiledPolicy,
        rule: &CompiledRule,
        say: impl Fn(Option<&PortRule>) -> Said,
    ) {
        let peers = self.rules.peers(rule);
        if rule.rule.ports.is_empty() {
            self.push(peers.clone(), None, EVERY_PORT, say(None));
        }
        for port in &rule.rule.ports {
            let said = say(Some(port));
            for protocol in self.protocols(policy, port) {
                match &port.port {
                    PolicyPort::Any => self.push(peers.clone(), Some(protocol), EVERY_PORT, said.clone()),
                    PolicyPort::Range(first, last) => {
                        self.push(peers.clone(), Some(protocol), (*first, *last), said.clone());
                    }
                    PolicyPort::Named(name) => self.add_named(&peers, protocol, name, &said),
                }
            }
        }
    }

    /// The protocols of a port; L7 rules speak about their own transport only.
    fn protocols(&mut self, policy: &CompiledPolicy, port: &PortRule) -> Vec<Protocol> {
        let carried = port.l7.as_ref().map(l7::transport);
        match (port.protocol, carried) {
            (Some(protocol), Some(transport)) if protocol != transport => {
                self.warnings
                    .insert(Warning::L7RulesNeedTransport { policy: policy.name.clone(), transport });
                Vec::new()
            }
            (_, Some(transport)) => vec![transport],
            (Some(protocol), None) => vec![protocol],
            (None, None) => TRANSPORTS.to_vec(),
        }
    }

    /// A named port is looked up at the workload that receives: the subject itself on the way in, each
    /// peer on the way out.
    fn add_named(&mut self, peers: &PeerSet, protocol: Protocol, name: &Arc<str>, said: &Said) {
        let named = |(found, of, port): &PortName| (found == name && protocol == *of).then_some(*port);
        if self.direction == Direction::Ingress {
            for port in self.ports.iter().filter_map(named) {
                self.push(peers.clone(), Some(protocol), (port, port), said.clone());
            }
            return;
        }
        let mut by_port: BTreeMap<u16, BTreeSet<IdentityNumber>> = BTreeMap::new();
        for (number, ports) in self.rules.named_ports.iter() {
            let chosen = match peers {
                PeerSet::Any => true,
                PeerSet::Identities(numbers) => numbers.binary_search(&number).is_ok(),
            };
            for port in ports.iter().filter_map(named).filter(|_| chosen) {
                by_port.entry(port).or_default().insert(number);
            }
        }
        for (port, numbers) in by_port {
            let peers = PeerSet::Identities(numbers.into_iter().collect());
            self.push(peers, Some(protocol), (port, port), said.clone());
        }
    }

    fn push(&mut self, peers: PeerSet, protocol: Option<Protocol>, ports: (u16, u16), said: Said) {
        if ports.0 <= ports.1 {
            self.found.push(Effect { peers, protocol, ports, said });
        }
    }
}

/// What an allow rule gives.
fn allowed(level: Level, rule: &CompiledRule, l7: bool) -> Verdict {
    match (rule.rule.authenticate, l7) {
        (true, _) => Verdict::authenticated(level, rule.number),
        (false, true) => Verdict::redirect(level, rule.number),
        (false, false) => Verdict::allow(level, rule.number),
    }
}

/// L7 rules of a policy that does not close its direction get one that everything matches, as Cilium does:
/// that is how requests are made visible but not held back.
fn l7_rules(rules: &L7Rules, default_deny: bool) -> L7Rules {
    if default_deny { rules.clone() } else { l7::with_wildcard(rules) }
}

/// L7 rules that decide nothing, because a rule without any allows all of their peers on their ports.
pub(crate) fn ignored_l7_rules(effects: &[Effect], direction: Direction) -> BTreeSet<Warning> {
    let mut warnings = BTreeSet::new();
    let allows = |effect: &&Effect| {
        effect.said.verdict.action() == Action::Allow && effect.said.verdict.rule != ALLOW_LOCALHOST
    };
    let allows: Vec<&Effect> = effects.iter().filter(allows).collect();
    for limited in effects.iter().filter(|effect| effect.said.l7.is_some()) {
        let wins = |allow: &&&Effect| {
            allow.said.verdict.precedence > limited.said.verdict.precedence
                && (allow.protocol.is_none() || allow.protocol == limited.protocol)
                && allow.ports.0 <= limited.ports.0
                && allow.ports.1 >= limited.ports.1
                && allow.peers.covers(&limited.peers)
        };
        if let Some(allow) = allows.iter().find(wins) {
            warnings.insert(Warning::L7RulesIgnored {
                l7: limited.said.policy.clone(),
                allowed_by: allow.said.policy.clone(),
                direction,
            });
        }
    }
    warnings
}

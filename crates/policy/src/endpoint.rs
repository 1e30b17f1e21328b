// SPDX-License-Identifier: Apache-2.0
//! The policy of one kind of workload: same identity, same named ports.

use std::{collections::BTreeSet, sync::Arc};

use weft_ebpf_common::{
    Action, Verdict, identity,
    reason::Reason,
    verdict::{Level, NO_RULE},
};
use weft_ir::{Direction, IdentityNumber};

use crate::{
    Decision, KernelEntry, Warning,
    effect::{Effects, ignored_l7_rules},
    l7::RangeRules,
    rules::{CompiledPolicy, PortName, RuleSet},
    selector::is_allocated,
    table::{Tables, decide},
};

/// What a workload may receive and send.
#[derive(Debug)]
pub struct EndpointPolicy {
    /// What may come in; the peer is the client.
    pub ingress: DirectionPolicy,
    /// What may go out; the peer is the server.
    pub egress: DirectionPolicy,
    /// What users should be told about the policies that met here, in order and without repetition.
    pub warnings: Vec<Warning>,
}

/// One direction of an endpoint's policy.
#[derive(Debug)]
pub struct DirectionPolicy {
    rest: Rest,
    tables: Tables,
}

/// What holds for what no rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rest {
    verdict: Verdict,
    /// The policy that closes the direction.
    policy: Option<Arc<str>>,
}

impl Rest {
    /// It passes.
    const OPEN: Rest = Rest { verdict: Verdict::allow(Level::NONE, NO_RULE), policy: None };
    /// It is denied, since the workload's policies are not known.
    const UNKNOWN: Rest =
        Rest { verdict: Verdict::deny(Level::NONE, NO_RULE, Reason::NoPolicyConfig as u16), policy: None };
}

impl EndpointPolicy {
    pub(crate) fn compile(
        rules: &RuleSet,
        number: IdentityNumber,
        ports: &BTreeSet<PortName>,
    ) -> EndpointPolicy {
        let known = rules.identities.labels(number).is_some();
        if !is_allocated(number) && number.0 != identity::INGRESS {
            // Nodes and what is outside have no policy; an unknown address is nobody's workload.
            return if number.0 == identity::UNKNOWN {
                EndpointPolicy::closed()
            } else {
                EndpointPolicy::open()
            };
        }
        if !known || rules.rejected.closes(rules.identities.namespace(number).map(AsRef::as_ref)) {
            return EndpointPolicy::closed();
        }
        let selecting = rules.selecting(number);
        let mut warnings = BTreeSet::new();
        let ingress = direction(rules, &selecting, Direction::Ingress, ports, &mut warnings);
        let egress = direction(rules, &selecting, Direction::Egress, ports, &mut warnings);
        EndpointPolicy { ingress, egress, warnings: warnings.into_iter().collect() }
    }

    /// No policy: everything passes.
    pub fn open() -> EndpointPolicy {
        let open = || DirectionPolicy { rest: Rest::OPEN, tables: Tables::default() };
        EndpointPolicy { ingress: open(), egress: open(), warnings: Vec::new() }
    }

    /// The policy of a workload whose policies are not known: nothing passes (`no_policy_config`), except
    /// what the local host sends to it.
    pub fn closed() -> EndpointPolicy {
        let closed = |tables| DirectionPolicy { rest: Rest::UNKNOWN, tables };
        let host = Tables::allow_localhost();
        EndpointPolicy { ingress: closed(host), egress: closed(Tables::default()), warnings: Vec::new() }
    }

    /// The policy of the direction.
    pub fn direction(&self, direction: Direction) -> &DirectionPolicy {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

fn direction(
    rules: &RuleSet,
    selecting: &[&CompiledPolicy],
    direction: Direction,
    ports: &BTreeSet<PortName>,
    warnings: &mut BTreeSet<Warning>,
) -> DirectionPolicy {
    let mut effects =
        Effects { rules, direction, ports, found: Vec::new(), warnings: std::mem::take(warnings) };
    let mut rest = Rest::OPEN;
    for policy in selecting {
        effects.add(policy);
        let section = policy.section(direction);
        let closed = Verdict::deny(Level::last(policy.tier), section.rest, Reason::PolicyDenied as u16);
        if section.default_deny && closed.precedence > rest.verdict.precedence {
            rest = Rest { verdict: closed, policy: Some(policy.name.clone()) };
        }
    }
    let says = |policy: &&CompiledPolicy| policy.section(direction).says_anything();
    if direction == Direction::Ingress && selecting.iter().any(says) {
        effects.add_allow_localhost();
    }
    let Effects { found, warnings: mut said, .. } = effects;
    said.extend(ignored_l7_rules(&found, direction));
    let tables = Tables::build(&found, &mut |sources| RangeRules::compile(&rules.http, sources, &mut said));
    *warnings = said;
    DirectionPolicy { rest, tables }
}

impl DirectionPolicy {
    /// Whether what no entry names is denied.
    pub fn enforced(&self) -> bool {
        self.rest.verdict.action() == Action::Deny
    }

    /// Whether there is nothing to decide: not enforced, and no entry.
    pub fn is_open(&self) -> bool {
        !self.enforced() && self.tables.is_empty()
    }

    /// What holds for what no entry names.
    pub fn rest(&self) -> Verdict {
        self.rest.verdict
    }

    /// Decides about the other end, an IP protocol number, and the destination port (0 where the
    /// protocol has none).
    pub fn l4(&self, peer: IdentityNumber, protocol: u8, port: u16) -> Decision {
        let cells: Vec<_> = self.tables.find(peer, protocol, port).collect();
        match decide(&cells) {
            Some(found) if found.verdict.precedence >= self.rest.verdict.precedence => found,
            _ => Decision { verdict: self.rest.verdict, policy: self.rest.policy.clone(), l7: None },
        }
    }

    /// The direction for the kernel, in order: of all entries that match the peer, the protocol and the
    /// port, and of [`DirectionPolicy::rest`], the verdict with the greatest precedence holds.
    pub fn kernel_entries(&self) -> Vec<KernelEntry> {
        self.tables.entries()
    }
}

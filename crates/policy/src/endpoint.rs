// SPDX-License-Identifier: Apache-2.0
//! The policy of one kind of workload: same identity, same named ports.

use std::{collections::BTreeSet, fmt, sync::Arc};

use weft_ebpf_common::{identity, reason::Reason};
use weft_ir::IdentityNumber;

use crate::{
    KernelEntry, L4Verdict, L7Policy, Warning,
    effect::{Effects, ignored_l7_rules},
    l7::RangeRules,
    rules::{CompiledPolicy, PortName, RuleSet},
    selector::is_allocated,
    table::{Cell, Tables},
};

/// Which way a connection goes, seen from the workload whose policy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the workload.
    Ingress,
    /// From the workload.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

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
    enforced: Enforced,
    tables: Tables,
}

/// What happens to what no rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Enforced {
    /// It passes.
    No,
    /// It is denied, since this policy closes the direction.
    By(Arc<str>),
    /// It is denied, since the workload's policies are not known.
    NoPolicy,
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
        if !known || rules.rejected.closes(rules.identities.namespace(number)) {
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
        let open = || DirectionPolicy { enforced: Enforced::No, tables: Tables::default() };
        EndpointPolicy { ingress: open(), egress: open(), warnings: Vec::new() }
    }

    /// The policy of a workload whose policies are not known: nothing passes (`no_policy_config`), except
    /// what the local host sends to it.
    pub fn closed() -> EndpointPolicy {
        let closed = |tables| DirectionPolicy { enforced: Enforced::NoPolicy, tables };
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
    let mut enforced = Enforced::No;
    for policy in selecting {
        effects.add(policy);
        let section = match direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        if section.default_deny && enforced == Enforced::No {
            enforced = Enforced::By(policy.name.clone());
        }
    }
    if direction == Direction::Ingress && (enforced != Enforced::No || !effects.found.is_empty()) {
        effects.add_allow_localhost();
    }
    let Effects { found, warnings: mut said, .. } = effects;
    said.extend(ignored_l7_rules(&found, direction));
    let tables = Tables::build(&found, &mut |sources| RangeRules::compile(&rules.http, sources, &mut said));
    *warnings = said;
    DirectionPolicy { enforced, tables }
}

impl DirectionPolicy {
    /// Whether what no entry names is denied.
    pub fn enforced(&self) -> bool {
        self.enforced != Enforced::No
    }

    /// Whether there is nothing to decide: not enforced, and no entry.
    pub fn is_open(&self) -> bool {
        !self.enforced() && self.tables.is_empty()
    }

    /// Decides about the other end, an IP protocol number, and the destination port (0 where the
    /// protocol has none).
    pub fn l4(&self, peer: IdentityNumber, protocol: u8, port: u16) -> L4Verdict {
        let mut allowed_by = None;
        let mut l7: Option<L7Policy> = None;
        for cell in self.tables.find(peer, protocol, port) {
            match cell {
                Cell::Deny(policy) => return L4Verdict::Deny(Reason::DeniedByRule, Some(policy.clone())),
                Cell::Allow(policy) => allowed_by = Some(policy.clone()),
                Cell::L7(rules) => match &mut l7 {
                    Some(all) => all.add(rules),
                    None => l7 = Some(L7Policy::of(rules)),
                },
            }
        }
        match (allowed_by, l7, &self.enforced) {
            (Some(policy), ..) => L4Verdict::Allow(Some(policy)),
            (None, Some(l7), _) => L4Verdict::L7(l7),
            (None, None, Enforced::No) => L4Verdict::Allow(None),
            (None, None, Enforced::By(policy)) => L4Verdict::Deny(Reason::PolicyDenied, Some(policy.clone())),
            (None, None, Enforced::NoPolicy) => L4Verdict::Deny(Reason::NoPolicyConfig, None),
        }
    }

    /// The direction for the kernel, in order: of all entries that match the peer, the protocol and the
    /// port the greatest verdict wins, and [`DirectionPolicy::enforced`] says what happens without one.
    pub fn kernel_entries(&self) -> Vec<KernelEntry> {
        self.tables.entries()
    }

    /// Why the kernel drops what no entry names.
    pub fn default_reason(&self) -> Option<Reason> {
        match self.enforced {
            Enforced::No => None,
            Enforced::By(_) => Some(Reason::PolicyDenied),
            Enforced::NoPolicy => Some(Reason::NoPolicyConfig),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The tables of one direction: rules turned into disjoint port ranges per peer and protocol.
//!
//! A question is answered by at most four lookups: the peer's identity and anybody, each with the
//! protocol and with any protocol. In one such list the ranges do not overlap, so that a longest-prefix
//! lookup finds the only one. Between the lists, and within a range, the greatest precedence wins: the tier,
//! then the priority, then a deny over an allow, and an allow over L7 rules.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use weft_ebpf_common::{
    Action, Verdict,
    identity::HOST,
    verdict::{Level, TIER_NORMAL},
};
use weft_ir::{IdentityNumber, Protocol};

use crate::{
    L7Policy,
    effect::{Effect, Said},
    groups::PeerSet,
    l7::{L7Source, RangeRules},
    numbers::{ALLOW_LOCALHOST, ALLOW_LOCALHOST_NAME, RuleRef},
};

/// The answer about a connection or a packet.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What is done, by which rule, and at which level.
    pub verdict: Verdict,
    /// The policy of the rule, `namespace/name`: the one that allows or denies, or the first that closes
    /// the direction. None where there is none.
    pub policy: Option<Arc<str>>,
    /// What may be said, where the verdict is a redirect; anything when absent.
    pub l7: Option<L7Policy>,
}

/// Whom an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Anybody.
    Any,
    /// This identity.
    Identity(IdentityNumber),
}

/// Which destination ports an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Every port.
    Any,
    /// From the first to the last, both included.
    Range(u16, u16),
}

impl Ports {
    /// The port prefixes (first port, number of leading bits that count) that make up the ports, for a
    /// longest-prefix table. At most 30 for a range, by the usual split at powers of two.
    pub fn prefixes(self) -> Vec<(u16, u8)> {
        let (mut first, last) = match self {
            Ports::Any => (0, u32::from(u16::MAX)),
            Ports::Range(first, last) => (u32::from(first), u32::from(last)),
        };
        let mut prefixes = Vec::new();
        while first <= last {
            let aligned = if first == 0 { 16 } else { first.trailing_zeros().min(16) };
            let fits = (last - first + 1).ilog2();
            let bits = aligned.min(fits);
            // `first` is at most `last`, a port, and `bits` at most 16, so both casts keep the value.
            prefixes.push((first as u16, 16 - bits as u8));
            first += 1 << bits;
        }
        prefixes
    }
}

/// One entry of the kernel's policy table. Of all that match, and of what the direction has for the rest,
/// the verdict with the greatest precedence holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelEntry {
    /// The other end.
    pub peer: Peer,
    /// The protocol; every one where there is none, and then every port.
    pub protocol: Option<Protocol>,
    /// The destination ports; entries of the same peer and protocol never overlap.
    pub ports: Ports,
    /// What is done.
    pub verdict: Verdict,
}

/// What holds for one range of ports.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) verdict: Verdict,
    pub(crate) policy: Arc<str>,
    /// What may be said, where it is not denied; anything when absent.
    pub(crate) l7: Option<RangeRules>,
}

#[derive(Clone, Debug)]
struct Segment {
    first: u16,
    last: u16,
    cell: Cell,
}

/// Disjoint ranges in order, by protocol.
#[derive(Debug, Default)]
struct PeerTable {
    protocols: Vec<(Option<Protocol>, Vec<Segment>)>,
}

/// All tables of a direction. Identities about which the same is said share theirs.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    any: Arc<PeerTable>,
    identities: HashMap<IdentityNumber, Arc<PeerTable>>,
}

impl Tables {
    /// Builds the tables; `l7` compiles the L7 rules that meet on one range.
    pub(crate) fn build(effects: &[Effect], l7: Compile<'_>) -> Tables {
        let mut any = Vec::new();
        let mut by_identity: BTreeMap<IdentityNumber, Vec<usize>> = BTreeMap::new();
        for (index, effect) in effects.iter().enumerate() {
            match &effect.peers {
                PeerSet::Any => any.push(index),
                PeerSet::Identities(numbers) => {
                    for number in numbers.iter() {
                        by_identity.entry(*number).or_default().push(index);
                    }
                }
            }
        }
        let mut shared: HashMap<Vec<usize>, Arc<PeerTable>> = HashMap::new();
        let any = Arc::new(PeerTable::build(effects, &any, l7));
        let mut identities = HashMap::with_capacity(by_identity.len());
        for (number, indices) in by_identity {
            let table = match shared.get(&indices) {
                Some(table) => table.clone(),
                None => {
                    let table = Arc::new(PeerTable::build(effects, &indices, l7));
                    shared.insert(indices, table.clone());
                    table
                }
            };
            identities.insert(number, table);
        }
        Tables { any, identities }
    }

    /// Only the local host may pass.
    pub(crate) fn allow_localhost() -> Tables {
        let verdict = Verdict::allow(Level::new(TIER_NORMAL, 0), ALLOW_LOCALHOST);
        let cell = Cell { verdict, policy: ALLOW_LOCALHOST_NAME.into(), l7: None };
        let segments = vec![Segment { first: 0, last: u16::MAX, cell }];
        let table = PeerTable { protocols: vec![(None, segments)] };
        let identities = HashMap::from([(IdentityNumber(HOST), Arc::new(table))]);
        Tables { any: Arc::default(), identities }
    }

    /// The cells that are about a packet, in the order in which the kernel looks them up: the peer before
    /// anybody, its protocol before any.
    pub(crate) fn find(&self, peer: IdentityNumber, protocol: u8, port: u16) -> impl Iterator<Item = &Cell> {
        let tables = [self.identities.get(&peer), Some(&self.any)];
        tables.into_iter().flatten().flat_map(move |table| table.find(protocol, port))
    }

    /// The tables as entries for the kernel, in order.
    pub(crate) fn entries(&self) -> Vec<KernelEntry> {
        let identities = self.identities.iter().map(|(number, table)| (Peer::Identity(*number), table));
        let mut entries: Vec<KernelEntry> =
            [(Peer::Any, &self.any)].into_iter().chain(identities).flat_map(|(p, t)| t.entries(p)).collect();
        entries.sort_unstable();
        entries
    }

    /// Whether anything is said at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.any.protocols.is_empty() && self.identities.is_empty()
    }
}

impl PeerTable {
    fn build(effects: &[Effect], indices: &[usize], l7: Compile<'_>) -> PeerTable {
        let mut by_protocol: BTreeMap<Option<Protocol>, Vec<&Effect>> = BTreeMap::new();
        for effect in indices.iter().filter_map(|index| effects.get(*index)) {
            by_protocol.entry(effect.protocol).or_default().push(effect);
        }
        let segments =
            |(protocol, effects): (Option<Protocol>, Vec<&Effect>)| (protocol, sweep(&effects, l7));
        // Those that are named first: none is the least.
        PeerTable { protocols: by_protocol.into_iter().rev().map(segments).collect() }
    }

    fn find(&self, protocol: u8, port: u16) -> impl Iterator<Item = &Cell> {
        let asked = move |(found, _): &&(Option<Protocol>, Vec<Segment>)| {
            found.is_none_or(|found| found.number() == protocol)
        };
        self.protocols.iter().filter(asked).filter_map(move |(_, segments)| {
            let at = segments.partition_point(|segment| segment.last < port);
            segments.get(at).filter(|segment| segment.first <= port).map(|segment| &segment.cell)
        })
    }

    fn entries(&self, peer: Peer) -> impl Iterator<Item = KernelEntry> {
        self.protocols.iter().flat_map(move |(protocol, segments)| {
            merged(segments).into_iter().map(move |(first, last, verdict)| {
                let ports =
                    if (first, last) == (0, u16::MAX) { Ports::Any } else { Ports::Range(first, last) };
                KernelEntry { peer, protocol: *protocol, ports, verdict }
            })
        })
    }
}

/// Joins neighbouring ranges that are the same to the kernel.
fn merged(segments: &[Segment]) -> Vec<(u16, u16, Verdict)> {
    let mut ranges: Vec<(u16, u16, Verdict)> = Vec::new();
    for segment in segments {
        let verdict = segment.cell.verdict;
        match ranges.last_mut() {
            Some((_, last, same)) if *same == verdict && last.checked_add(1) == Some(segment.first) => {
                *last = segment.last;
            }
            _ => ranges.push((segment.first, segment.last, verdict)),
        }
    }
    ranges
}

/// Compiles the L7 rules that meet on one port range.
type Compile<'a> = &'a mut dyn FnMut(&[L7Source]) -> RangeRules;

/// Cuts overlapping ranges into disjoint ones, each with what wins there.
fn sweep(effects: &[&Effect], l7: Compile<'_>) -> Vec<Segment> {
    // Ports as u32, so that one past the last port can be said.
    let mut changes: BTreeMap<u32, Vec<(usize, bool)>> = BTreeMap::new();
    for (index, effect) in effects.iter().enumerate() {
        changes.entry(u32::from(effect.ports.0)).or_default().push((index, true));
        changes.entry(u32::from(effect.ports.1) + 1).or_default().push((index, false));
    }
    let mut active: BTreeSet<usize> = BTreeSet::new();
    let mut segments = Vec::new();
    let mut starts = changes.iter().peekable();
    while let Some((start, change)) = starts.next() {
        for (index, begins) in change {
            if *begins {
                active.insert(*index)
            } else {
                active.remove(index)
            };
        }
        let Some((end, _)) = starts.peek() else { break };
        if let Some(cell) = cell_of(effects, &active, l7) {
            // Both are ports: a start has an effect that begins there, an end is at most 65536.
            segments.push(Segment { first: *start as u16, last: (**end - 1) as u16, cell });
        }
    }
    segments
}

/// What wins on a range: the strongest verdict of the highest level, of equals the first. What may be said
/// adds up within the level, and is anything where one of its rules says so.
fn cell_of(effects: &[&Effect], active: &BTreeSet<usize>, l7: Compile<'_>) -> Option<Cell> {
    let said = || active.iter().filter_map(|index| effects.get(*index)).map(|effect| &effect.said);
    let winner = strongest(said(), |said| said.verdict)?;
    let mut sources = Vec::new();
    for said in said().filter(|said| said.verdict.level() == winner.verdict.level()) {
        match &said.l7 {
            Some(rules) => sources.push(L7Source { rule: said.rule(), rules: rules.clone() }),
            None => return Some(Cell { verdict: winner.verdict, policy: winner.policy.clone(), l7: None }),
        }
    }
    Some(Cell { verdict: winner.verdict, policy: winner.policy.clone(), l7: Some(l7(&sources)) })
}

impl Said {
    fn rule(&self) -> RuleRef {
        RuleRef { number: self.verdict.rule, policy: self.policy.clone() }
    }
}

/// The first of those with the greatest precedence.
pub(crate) fn strongest<T>(all: impl Iterator<Item = T>, verdict: impl Fn(&T) -> Verdict) -> Option<T> {
    all.reduce(|best, one| if verdict(&one).precedence > verdict(&best).precedence { one } else { best })
}

/// What cells that are about the same packet come to: nothing when there are none.
pub(crate) fn decide(cells: &[&Cell]) -> Option<Decision> {
    let winner = strongest(cells.iter(), |cell| cell.verdict)?;
    let (verdict, policy) = (winner.verdict, Some(winner.policy.clone()));
    let mut l7: Option<L7Policy> = None;
    if verdict.action() == Action::Redirect {
        for cell in cells.iter().filter(|cell| cell.verdict.level() == verdict.level()) {
            let Some(rules) = &cell.l7 else { return Some(Decision { verdict, policy, l7: None }) };
            match &mut l7 {
                Some(all) => all.add(rules),
                None => l7 = Some(L7Policy::of(rules)),
            }
        }
    }
    Some(Decision { verdict, policy, l7 })
}

// SPDX-License-Identifier: Apache-2.0
//! Numbers of rules, which the kernel's tables and events carry, and what they stand for.
//!
//! A policy has consecutive numbers: one for each direction that it may close, then one for each rule. It
//! keeps them as long as it has as many rules of each kind. A number is not given to another policy as long
//! as an event may still carry it: the last [`MAX_RETIRED`] policies that are gone keep theirs.

use std::{fmt, sync::Arc};

use imbl::{OrdMap, Vector};
use weft_ir::{Direction, Policy, ResourceKey};

/// The number of the rule that lets the local host in.
pub(crate) const ALLOW_LOCALHOST: u32 = 1;
/// The name that flows show where the local host was let in by no user's policy.
pub(crate) const ALLOW_LOCALHOST_NAME: &str = "allow-localhost";
/// The first number of a policy's rule; 0 is none.
const FIRST: u32 = 2;
/// Policies that are gone and still have names. An event is read within milliseconds; the end of a flow
/// that was idle for long may come without a name.
const MAX_RETIRED: usize = 1024;

/// A rule, as answers name it. A clone shares the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleRef {
    /// Its number in this process.
    pub number: u32,
    /// Namespace and name of its policy.
    pub policy: Arc<str>,
}

/// What a number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName {
    /// Namespace and name of the policy.
    pub policy: Arc<str>,
    /// Its place in the policy; none for what belongs to no user's policy.
    pub place: Option<(Direction, RulePlace)>,
}

/// The place of a rule in one direction of its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulePlace {
    /// What no rule names is denied.
    Rest,
    /// An allow rule, from 0.
    Allow(u32),
    /// A deny rule, from 0.
    Deny(u32),
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            None => f.write_str(&self.policy),
            Some((direction, RulePlace::Rest)) => write!(f, "{} {direction}", self.policy),
            Some((direction, RulePlace::Allow(at))) => write!(f, "{} {direction} allow[{at}]", self.policy),
            Some((direction, RulePlace::Deny(at))) => write!(f, "{} {direction} deny[{at}]", self.policy),
        }
    }
}

/// Every number in use. A clone shares everything with the original.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleNumbers {
    blocks: OrdMap<u32, Block>,
    by_key: OrdMap<ResourceKey, u32>,
    retired: Vector<u32>,
    last: u32,
}

/// The numbers of one policy.
#[derive(Clone, Debug, PartialEq)]
struct Block {
    policy: Arc<str>,
    /// Allow and deny rules of ingress, then of egress.
    rules: [u32; 4],
}

impl Block {
    fn of(policy: &Policy) -> Block {
        let (ingress, egress) = (&policy.ingress, &policy.egress);
        // A policy is at most as long as a message of the stream, so its rules can be counted in u32.
        let rules = [&ingress.allow, &ingress.deny, &egress.allow, &egress.deny].map(|all| all.len() as u32);
        Block { policy: policy.name.to_string().into(), rules }
    }

    fn length(&self) -> u32 {
        2 + self.rules.iter().sum::<u32>()
    }

    fn place(&self, offset: u32) -> Option<(Direction, RulePlace)> {
        let (ingress, egress) = (Direction::Ingress, Direction::Egress);
        let mut at = match offset {
            0 => return Some((ingress, RulePlace::Rest)),
            1 => return Some((egress, RulePlace::Rest)),
            _ => offset - 2,
        };
        for (direction, place, count) in [
            (ingress, RulePlace::Allow as fn(u32) -> RulePlace, self.rules[0]),
            (ingress, RulePlace::Deny, self.rules[1]),
            (egress, RulePlace::Allow, self.rules[2]),
            (egress, RulePlace::Deny, self.rules[3]),
        ] {
            if at < count {
                return Some((direction, place(at)));
            }
            at -= count;
        }
        None
    }
}

impl RuleNumbers {
    /// Gives a policy its numbers, or takes them from one that is gone; yields the first.
    pub(crate) fn set(&mut self, key: &ResourceKey, policy: Option<&Policy>) -> u32 {
        let old = self.by_key.get(key).copied();
        let Some(block) = policy.map(Block::of) else {
            self.by_key.remove(key);
            self.retire(old);
            return 0;
        };
        if let Some(first) = old.filter(|first| self.blocks.get(first) == Some(&block)) {
            return first;
        }
        self.retire(old);
        let first = self.free(block.length());
        self.last = first + (block.length() - 1);
        self.by_key.insert(key.clone(), first);
        self.blocks.insert(first, block);
        first
    }

    /// What a number stands for.
    pub(crate) fn name(&self, number: u32) -> Option<RuleName> {
        if number == ALLOW_LOCALHOST {
            return Some(RuleName { policy: ALLOW_LOCALHOST_NAME.into(), place: None });
        }
        let (first, block) = self.blocks.get_prev(&number)?;
        Some(RuleName { policy: block.policy.clone(), place: Some(block.place(number - first)?) })
    }

    fn retire(&mut self, first: Option<u32>) {
        self.retired.extend(first);
        if self.retired.len() > MAX_RETIRED
            && let Some(oldest) = self.retired.pop_front()
        {
            self.blocks.remove(&oldest);
        }
    }

    /// The next numbers, from the start again when there are no more, behind those in use.
    fn free(&self, length: u32) -> u32 {
        let mut first = self.last.max(FIRST - 1).saturating_add(1);
        loop {
            if first.checked_add(length).is_none() {
                first = FIRST;
            }
            let end = first + length;
            let in_the_way = self.blocks.get_prev(&(end - 1)).map(|(other, block)| other + block.length());
            match in_the_way.filter(|other_end| *other_end > first) {
                Some(other_end) => first = other_end,
                None => return first,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_ir::{ObjectName, PolicyDirection, PolicyKind, PolicyRule, Selector, Tier};

    use super::*;

    fn policy(name: &str, rules: [usize; 4]) -> Policy {
        let rule = PolicyRule { peers: Vec::new(), ports: Vec::new(), authenticate: false };
        let [ingress, ingress_deny, egress, egress_deny] = rules.map(|count| vec![rule.clone(); count]);
        Policy {
            kind: PolicyKind::CiliumNetworkPolicy,
            name: ObjectName::new("shop", name),
            index: 0,
            tier: Tier::Normal,
            priority: 0,
            subject: Selector::default(),
            ingress: PolicyDirection { default_deny: true, allow: ingress, deny: ingress_deny },
            egress: PolicyDirection { default_deny: true, allow: egress, deny: egress_deny },
        }
    }

    fn set(numbers: &mut RuleNumbers, policy: &Policy) -> u32 {
        numbers.set(&policy.key(), Some(policy))
    }

    #[test]
    fn a_number_names_the_policy_and_the_rule() {
        let mut numbers = RuleNumbers::default();
        let first = set(&mut numbers, &policy("a", [1, 0, 2, 1]));
        let second = set(&mut numbers, &policy("b", [0, 1, 0, 0]));
        let name = |number| numbers.name(number).map(|name| name.to_string());
        let names: Vec<_> = (first..second + 4).map(name).collect();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            names,
            [
                text("shop/a ingress"),
                text("shop/a egress"),
                text("shop/a ingress allow[0]"),
                text("shop/a egress allow[0]"),
                text("shop/a egress allow[1]"),
                text("shop/a egress deny[0]"),
                text("shop/b ingress"),
                text("shop/b egress"),
                text("shop/b ingress deny[0]"),
                None,
            ]
        );
        assert_eq!((name(0), name(ALLOW_LOCALHOST)), (None, text(ALLOW_LOCALHOST_NAME)));
    }

    #[test]
    fn numbers_stay_and_are_not_given_again_while_an_event_may_carry_them() {
        let mut numbers = RuleNumbers::default();
        let first = set(&mut numbers, &policy("a", [1, 0, 0, 0]));
        assert_eq!(set(&mut numbers, &policy("a", [1, 0, 0, 0])), first);
        let grown = set(&mut numbers, &policy("a", [2, 0, 0, 0]));
        assert_ne!(grown, first);
        numbers.set(&policy("a", [0; 4]).key(), None);
        assert!(numbers.by_key.is_empty());
        let name = |numbers: &RuleNumbers, number| numbers.name(number).map(|name| name.to_string());
        assert_eq!(name(&numbers, first + 2).as_deref(), Some("shop/a ingress allow[0]"));
        for at in 0..MAX_RETIRED {
            let gone = policy(&format!("p{at}"), [1, 0, 0, 0]);
            set(&mut numbers, &gone);
            numbers.set(&gone.key(), None);
        }
        assert_eq!((name(&numbers, first + 2), name(&numbers, grown + 3)), (None, None));
    }

    #[test]
    fn at_the_end_numbers_begin_again_behind_those_in_use() {
        let mut numbers = RuleNumbers::default();
        let first = set(&mut numbers, &policy("a", [1, 0, 0, 0]));
        numbers.last = u32::MAX - 3;
        assert_eq!(set(&mut numbers, &policy("b", [5, 0, 0, 0])), first + 3);
        assert_eq!(set(&mut numbers, &policy("c", [0; 4])), first + 10);
    }
}

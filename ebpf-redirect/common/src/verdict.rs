// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What a policy decides, in the one form that every layer has: the engine's answers, the entries of the
//! kernel's policy table, the kernel's events, permits and flows.

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It does not pass.
    Deny,
    /// It passes.
    Allow,
    /// The proxy decides about what is said on it.
    Redirect,
}

/// The tier of administrators' policies in front of all others. The numbers of tiers are Cilium's.
pub const TIER_ADMIN: u8 = 100;
/// The tier of NetworkPolicy and CiliumNetworkPolicy.
pub const TIER_NORMAL: u8 = 200;
/// The tier of administrators' policies behind all others.
pub const TIER_BASELINE: u8 = 250;
/// The tier of what holds where no policy says anything.
pub const TIER_NONE: u8 = 255;

/// Whose turn it is: all of a tier comes before the next one, and in it the lower priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u32);

impl Level {
    /// Where no policy says anything.
    pub const NONE: Level = Level::last(TIER_NONE);

    /// The level of a policy.
    pub const fn new(tier: u8, priority: u16) -> Level {
        Level((u8::MAX - tier) as u32 * (1 << 24) + (u16::MAX - priority) as u32 * (1 << 8))
    }

    /// The end of a tier, behind every priority.
    pub const fn last(tier: u8) -> Level {
        Level::new(tier, u16::MAX)
    }
}

/// No rule.
pub const NO_RULE: u32 = 0;

/// A decision, and what it rests on. The zeroed value is none: nothing was said.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict {
    /// From the highest bit: 255 less the tier (8 bits), 65535 less the priority (16), what is done (8).
    /// Of several verdicts the greatest number holds.
    pub precedence: u32,
    /// Number of the rule, or [`NO_RULE`]; user space knows its policy and place.
    pub rule: u32,
    /// Number of the `Reason` of a denial, else 0.
    pub reason: u16,
    /// Zero.
    pub pad: u16,
}

// What is done, by strength: an allow without L7 rules leaves the proxy nothing to decide, one that asks
// who the peer is adds to it, and a denial beats them all.
const REDIRECT: u32 = 1;
const ALLOW: u32 = 2;
const AUTHENTICATE: u32 = 3;
const DENY: u32 = 4;

impl Verdict {
    /// Nothing was said.
    pub const NONE: Verdict = Verdict { precedence: 0, rule: NO_RULE, reason: 0, pad: 0 };

    const fn new(level: Level, done: u32, rule: u32, reason: u16) -> Verdict {
        Verdict { precedence: level.0 + done, rule, reason, pad: 0 }
    }

    /// A denial for the reason of this number.
    pub const fn deny(level: Level, rule: u32, reason: u16) -> Verdict {
        Verdict::new(level, DENY, rule, reason)
    }

    /// It passes.
    pub const fn allow(level: Level, rule: u32) -> Verdict {
        Verdict::new(level, ALLOW, rule, 0)
    }

    /// The proxy decides about what is said.
    pub const fn redirect(level: Level, rule: u32) -> Verdict {
        Verdict::new(level, REDIRECT, rule, 0)
    }

    /// The peer has to prove who it is, which only the proxy can ask for.
    pub const fn authenticated(level: Level, rule: u32) -> Verdict {
        Verdict::new(level, AUTHENTICATE, rule, 0)
    }

    /// What is done. What nobody decided, or no version knows, does not pass.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match self.precedence & 0xff {
            ALLOW => Action::Allow,
            REDIRECT | AUTHENTICATE => Action::Redirect,
            _ => Action::Deny,
        }
    }

    /// Whether the peer has to prove who it is.
    #[inline(always)]
    pub const fn authenticate(self) -> bool {
        self.precedence & 0xff == AUTHENTICATE
    }

    /// Whose turn it was.
    #[inline(always)]
    pub const fn level(self) -> Level {
        Level(self.precedence & !0xff)
    }

    /// The tier, one of `TIER_*`.
    pub const fn tier(self) -> u8 {
        u8::MAX - (self.precedence >> 24) as u8
    }

    /// The place within the tier; the lower number decides first. 65535 is its end.
    pub const fn priority(self) -> u16 {
        u16::MAX - (self.precedence >> 8) as u16
    }

    /// The one of two that holds.
    #[inline(always)]
    #[must_use]
    pub const fn or(self, other: Verdict) -> Verdict {
        if other.precedence > self.precedence { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_what_it_was_made_of() {
        for (tier, priority) in [(TIER_ADMIN, 0), (TIER_NORMAL, 7), (TIER_BASELINE, 1000), (TIER_NONE, 65535)]
        {
            let level = Level::new(tier, priority);
            let all = [
                (Verdict::deny(level, 5, 133), Action::Deny, false),
                (Verdict::allow(level, 5), Action::Allow, false),
                (Verdict::redirect(level, 5), Action::Redirect, false),
                (Verdict::authenticated(level, 5), Action::Redirect, true),
            ];
            for (verdict, action, authenticate) in all {
                assert_eq!((verdict.action(), verdict.authenticate()), (action, authenticate));
                assert_eq!((verdict.tier(), verdict.priority()), (tier, priority));
                assert_eq!((verdict.level(), verdict.rule), (level, 5));
            }
        }
    }

    #[test]
    fn the_tier_decides_then_the_priority_then_what_is_done() {
        let level = |tier, priority| Level::new(tier, priority);
        let order = [
            Verdict::deny(level(TIER_ADMIN, 0), 1, 181),
            Verdict::redirect(level(TIER_ADMIN, 1000), 1),
            Verdict::deny(level(TIER_NORMAL, 0), 1, 181),
            Verdict::authenticated(level(TIER_NORMAL, 0), 1),
            Verdict::allow(level(TIER_NORMAL, 0), 1),
            Verdict::redirect(level(TIER_NORMAL, 0), 1),
            Verdict::deny(level(TIER_NORMAL, 1), 1, 181),
            Verdict::deny(Level::last(TIER_NORMAL), 1, 133),
            Verdict::allow(level(TIER_BASELINE, 0), 1),
            Verdict::deny(Level::NONE, 0, 165),
            Verdict::allow(Level::NONE, 0),
            Verdict::NONE,
        ];
        for (at, one) in order.iter().enumerate() {
            for other in &order[at..] {
                assert_eq!((one.or(*other), other.or(*one)), (*one, *one));
            }
        }
    }

    #[test]
    fn what_nobody_decided_does_not_pass() {
        assert_eq!(Verdict::NONE.action(), Action::Deny);
        assert_eq!(Verdict { precedence: 0x77, ..Verdict::NONE }.action(), Action::Deny);
    }
}

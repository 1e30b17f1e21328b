// SPDX-License-Identifier: Apache-2.0
//! Retry budgets: retries may add a fifth to the requests of an upstream, so that they can never turn
//! an overload into a collapse. One budget per upstream and worker.

use crate::route::slots::Slot;

/// What one request adds, in hundredths of a retry: 20 %, as in Gateway API's default retry budget
/// (`BackendTrafficPolicy.spec.retryConstraint.budget.percent`).
const DEPOSIT: u32 = 20;
/// What one retry takes.
const PRICE: u32 = 100;
/// The most that is saved up: 50 retries.
const MOST: u32 = 50 * PRICE;
/// Retries per second that are always allowed (`retryConstraint.minRetryRate`, default 10 per second),
/// for each worker.
const FLOOR_PER_SECOND: u64 = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    generation: u32,
    saved: u32,
    second: u64,
    floor_used: u64,
}

/// The budgets of one worker.
#[derive(Debug, Default)]
pub(crate) struct RetryBudgets {
    budgets: Vec<Budget>,
}

impl RetryBudgets {
    /// Counts a first try.
    pub(crate) fn deposit(&mut self, upstream: Slot) {
        if let Some(budget) = self.budget(upstream) {
            budget.saved = (budget.saved + DEPOSIT).min(MOST);
        }
    }

    /// Takes one retry; false when the budget is used up. `now` is in nanoseconds since the start of
    /// the process.
    pub(crate) fn withdraw(&mut self, upstream: Slot, now: u64) -> bool {
        let Some(budget) = self.budget(upstream) else { return false };
        let second = now / 1_000_000_000;
        if budget.second != second {
            budget.second = second;
            budget.floor_used = 0;
        }
        if budget.floor_used < FLOOR_PER_SECOND {
            budget.floor_used += 1;
            return true;
        }
        match budget.saved.checked_sub(PRICE) {
            Some(left) => budget.saved = left,
            None => return false,
        }
        true
    }

    /// `None` for a slot that has since been given to another upstream.
    fn budget(&mut self, upstream: Slot) -> Option<&mut Budget> {
        let index = upstream.index as usize;
        if index >= self.budgets.len() {
            self.budgets.resize(index + 1, Budget::default());
        }
        let budget = self.budgets.get_mut(index)?;
        if budget.generation < upstream.generation {
            *budget = Budget { generation: upstream.generation, ..Budget::default() };
        }
        (budget.generation == upstream.generation).then_some(budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot { index: 3, generation: 1 };

    fn granted(budgets: &mut RetryBudgets, slot: Slot, now: u64) -> usize {
        (0..1000).filter(|_| budgets.withdraw(slot, now)).count()
    }

    #[test]
    fn a_quiet_upstream_has_its_floor() {
        let mut budgets = RetryBudgets::default();
        assert_eq!(granted(&mut budgets, SLOT, 0), 10);
        assert_eq!(granted(&mut budgets, SLOT, 1_000_000_000), 10);
    }

    #[test]
    fn retries_are_a_fifth_of_the_requests_above_the_floor() {
        let mut budgets = RetryBudgets::default();
        (0..100).for_each(|_| budgets.deposit(SLOT));
        assert_eq!(granted(&mut budgets, SLOT, 0), 30);
        (0..100_000).for_each(|_| budgets.deposit(SLOT));
        assert_eq!(granted(&mut budgets, SLOT, 0), 50, "savings are bounded");
    }

    #[test]
    fn a_slot_that_was_given_away_starts_anew() {
        let mut budgets = RetryBudgets::default();
        (0..1000).for_each(|_| budgets.deposit(SLOT));
        let next = Slot { generation: 2, ..SLOT };
        assert_eq!(granted(&mut budgets, next, 0), 10);
        assert!(!budgets.withdraw(SLOT, 0), "the former owner has no budget any more");
    }
}

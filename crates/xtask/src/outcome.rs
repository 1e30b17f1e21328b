// SPDX-License-Identifier: Apache-2.0
//! What a stage of tests came to.

/// Tests that passed, and those that did not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Tests that passed.
    pub(crate) passed: usize,
    /// What failed, by name.
    pub(crate) failures: Vec<String>,
}

impl Outcome {
    /// How many tests failed.
    pub(crate) fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Adds another outcome.
    pub(crate) fn add(&mut self, other: Outcome) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }
}

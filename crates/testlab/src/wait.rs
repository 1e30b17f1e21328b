// SPDX-License-Identifier: Apache-2.0
//! Waiting for a condition, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

/// How often a condition is tried.
const STEP: Duration = Duration::from_millis(10);

/// Tries `attempt` until it succeeds; after `deadline` its last error is returned.
pub fn eventually<T>(
    deadline: Duration,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("not so within {deadline:?}"));
            }
            Err(_) => thread::sleep(STEP),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told_after_the_deadline() {
        let error = eventually(Duration::from_millis(20), || -> anyhow::Result<()> {
            anyhow::bail!("the door is shut")
        })
        .unwrap_err();
        assert!(format!("{error:#}").contains("the door is shut"));
    }

    #[test]
    fn a_condition_that_comes_true_is_returned() {
        let mut tries = 0;
        let value = eventually(Duration::from_secs(5), || {
            tries += 1;
            if tries == 3 { Ok(tries) } else { anyhow::bail!("not yet") }
        });
        assert_eq!(value.unwrap(), 3);
    }
}

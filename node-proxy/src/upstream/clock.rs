// SPDX-License-Identifier: Apache-2.0
//! The one clock of the request path: nanoseconds since the process first asked.

use std::{sync::OnceLock, time::Instant};

/// Nanoseconds since the start of the process; never 0.
pub(crate) fn nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).max(1)
}

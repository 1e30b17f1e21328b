// SPDX-License-Identifier: Apache-2.0
//! An open-loop load: requests are due at random times, whether or not earlier ones were answered, a
//! latency counts from when its request was due, and the generator says how late it was itself.
//!
//! A generator that is late adds its own delay to every latency that it reports: on two cores one was late
//! by 0.3 ms on some tenths of a percent of the requests, and made a p99 of 3.5 ms out of 0.8 ms. So a
//! window in which it was late too often is no measurement.

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A request that was taken up later than this after it was due is a late start: a third of the lateness that
/// spoilt a p99 (above).
pub const LATE: Duration = Duration::from_micros(100);

/// The largest share of late starts in a window that counts.
pub const MAX_LATE_SHARE: f64 = 0.001;

/// Time since the start of a window.
pub trait Clock {
    /// The time now.
    fn now(&self) -> Duration;
    /// Returns at `due`, or at once when that is over.
    fn sleep_until(&self, due: Duration);
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic(pub Instant);

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep_until(&self, due: Duration) {
        thread::sleep(due.saturating_sub(self.now()));
    }
}

/// The times at which requests are due, a Poisson process, up to the end of the window.
#[derive(Clone, Debug)]
pub struct Arrivals {
    random: u64,
    rate: f64,
    due: Duration,
    end: Duration,
}

impl Arrivals {
    /// `rate` requests a second for `span`; every proxy gets the same arrivals.
    pub fn new(rate: f64, span: Duration) -> Self {
        // Any odd number does as the seed.
        Self { random: 0x9e37_79b9_7f4a_7c15, rate, due: Duration::ZERO, end: span }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    /// Xorshift, and the exponential distribution of the time to the next arrival.
    fn next(&mut self) -> Option<Duration> {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let uniform = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        self.due += Duration::from_secs_f64(-(1.0 - uniform).ln() / self.rate);
        (self.due < self.end).then_some(self.due)
    }
}

/// How long after they were due requests were taken up.
#[derive(Debug, Default)]
pub struct Lateness(Vec<Duration>);

/// Takes up each request when it is due: `start` must not wait for an answer.
///
/// # Errors
/// The first error of `start`.
pub fn pace<E>(
    clock: &impl Clock,
    arrivals: impl Iterator<Item = Duration>,
    mut start: impl FnMut(Duration) -> Result<(), E>,
) -> Result<Lateness, E> {
    let mut lateness = Lateness::default();
    for due in arrivals {
        clock.sleep_until(due);
        lateness.0.push(clock.now().saturating_sub(due));
        start(due)?;
    }
    Ok(lateness)
}

/// What one window showed; times in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Answered requests.
    pub requests: u64,
    /// Median latency, from the time at which a request was due.
    pub p50_us: f64,
    /// 99th percentile of the latency.
    pub p99_us: f64,
    /// Requests that were taken up more than [`LATE`] after they were due: the generator's own fault.
    pub late_starts: u64,
    /// Median lateness.
    pub late_p50_us: f64,
    /// Largest lateness.
    pub late_max_us: f64,
    /// Requests that waited for a free connection, which is the proxy's fault and part of the latency.
    pub queued: u64,
}

impl Report {
    /// Sums up a window.
    pub fn new(mut latencies: Vec<Duration>, mut lateness: Lateness, queued: u64) -> Self {
        latencies.sort_unstable();
        lateness.0.sort_unstable();
        let late = lateness.0.iter().filter(|late| **late > LATE).count();
        Self {
            requests: latencies.len() as u64,
            p50_us: at(&latencies, 0.5),
            p99_us: at(&latencies, 0.99),
            late_starts: late as u64,
            late_p50_us: at(&lateness.0, 0.5),
            late_max_us: at(&lateness.0, 1.0),
            queued,
        }
    }

    /// The part of the requests that the generator took up too late, 0 to 1.
    pub fn late_share(&self) -> f64 {
        self.late_starts as f64 / self.requests.max(1) as f64
    }

    /// Whether the generator kept its schedule, so that the latencies are those of the proxy.
    pub fn is_on_time(&self) -> bool {
        self.requests > 0 && self.late_share() <= MAX_LATE_SHARE
    }
}

/// The value at this share of a sorted list, in microseconds; 0 of an empty one.
fn at(sorted: &[Duration], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(0.0, |value| value.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    const RATE: f64 = 3_000.0;
    const SPAN: Duration = Duration::from_secs(5);

    /// Time passes only while somebody sleeps; once, the generator is not run for `stall`.
    struct Planted {
        now: Cell<Duration>,
        stall: Cell<Option<Duration>>,
    }

    impl Clock for Planted {
        fn now(&self) -> Duration {
            self.now.get()
        }

        fn sleep_until(&self, due: Duration) {
            let mut woken = self.now.get().max(due);
            if woken > SPAN / 2
                && let Some(stall) = self.stall.take()
            {
                woken += stall;
            }
            self.now.set(woken);
        }
    }

    /// A window in front of a proxy that answers in 50 us.
    fn window(stall: Option<Duration>) -> Report {
        let clock = Planted { now: Cell::default(), stall: Cell::new(stall) };
        let mut latencies = Vec::new();
        let lateness = pace(&clock, Arrivals::new(RATE, SPAN), |due| {
            latencies.push(clock.now() + Duration::from_micros(50) - due);
            Ok::<(), Infallible>(())
        });
        Report::new(latencies, lateness.unwrap(), 0)
    }

    #[test]
    fn a_generator_that_keeps_its_schedule_is_believed() {
        let report = window(None);
        assert!((14_000..16_000).contains(&report.requests), "{report:?}");
        assert!(report.is_on_time(), "{report:?}");
        assert_eq!((report.late_starts, report.p99_us), (0, 50.0));
    }

    #[test]
    fn a_window_in_which_the_generator_stalled_is_dropped() {
        // 3.5 ms on 10 of 15,000 requests would pass; 60 ms delay 180 of them, and the p99 is wrong.
        let report = window(Some(Duration::from_millis(60)));
        assert!(report.late_starts > 100, "{report:?}");
        assert!(report.p99_us > 1_000.0, "the stall does not show: {report:?}");
        assert!(!report.is_on_time(), "{report:?}");
    }

    #[test]
    fn the_bound_is_one_late_start_of_a_thousand() {
        let lateness = |late: usize| {
            let on_time = std::iter::repeat_n(LATE, 1_000 - late);
            Lateness(on_time.chain(std::iter::repeat_n(LATE * 2, late)).collect())
        };
        let report = |late| Report::new(vec![LATE; 1_000], lateness(late), 0);
        assert!(report(0).is_on_time() && report(1).is_on_time());
        assert!(!report(2).is_on_time());
        assert!(!Report::new(Vec::new(), Lateness::default(), 0).is_on_time(), "nothing was measured");
    }

    #[test]
    fn a_latency_counts_from_when_its_request_was_due() {
        // Every request after the stall starts as soon as the generator runs again, all at one time.
        let report = window(Some(Duration::from_millis(200)));
        assert!(report.late_max_us > 199_000.0, "{report:?}");
        assert!(report.p99_us > 100_000.0, "counted from the start, it would be 50 us: {report:?}");
    }

    #[test]
    fn arrivals_have_the_asked_rate() {
        let span = Duration::from_secs(100);
        let count = Arrivals::new(1_000.0, span).count();
        assert!((97_000..103_000).contains(&count), "{count} arrivals in 100 s at 1,000 a second");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! How often the kernel runs Weft's programs and how long, as it counts itself while it is asked to.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use anyhow::Context;
use weft_ebpf_redirect::bpf;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Runs and nanoseconds by the name of the program.
pub(crate) type Runs = BTreeMap<String, (u64, u64)>;

/// As long as it lives, the kernel counts: two readings of the clock for each run.
pub(crate) struct Counting {
    before: String,
}

impl Counting {
    /// Has the kernel count.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let before = fs::read_to_string(SWITCH).context("the kernel counts no runs of programs")?;
        fs::write(SWITCH, "1")?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.before.trim()) {
            eprintln!("{SWITCH} stays on: {error}");
        }
    }
}

/// What the programs that these processes hold have run until now (proc(5), /proc/PID/fdinfo).
pub(crate) fn runs(processes: &[u32]) -> anyhow::Result<Runs> {
    let mut runs = Runs::new();
    for process in processes {
        for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))? {
            // A descriptor may be closed meanwhile.
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            let number = |name: &str| -> Option<u64> {
                text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
            };
            let (Some(id), Some(count), Some(time)) =
                (number("prog_id:"), number("run_cnt:"), number("run_time_ns:"))
            else {
                continue;
            };
            let sum = runs.entry(bpf::program_name(u32::try_from(id)?)?).or_default();
            *sum = (sum.0 + count, sum.1 + time);
        }
    }
    Ok(runs)
}

/// What ran between two readings, for one of `count`.
pub(crate) fn since(before: &Runs, after: &Runs, count: usize) -> String {
    let mut text = String::new();
    for (name, (count_after, time_after)) in after {
        let (count_before, time_before) = before.get(name).copied().unwrap_or_default();
        let (ran, took) = (count_after - count_before, time_after - time_before);
        // What runs once in a while belongs to something else.
        if ran * 10 >= count as u64 {
            let separator = if text.is_empty() { "" } else { ", " };
            let (times, each) = (ran as f64 / count as f64, took as f64 / ran as f64);
            let _infallible = write!(text, "{separator}{name} {times:.1} x {each:.0} ns");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_those_between_two_readings_and_only_of_what_the_load_runs() {
        let runs = |from_pod, bounced| {
            Runs::from([("from_pod".to_owned(), from_pod), ("bounced".to_owned(), bounced)])
        };
        let text = since(&runs((100, 1_000), (5, 50)), &runs((300, 41_000), (6, 70)), 100);
        assert_eq!(text, "from_pod 2.0 x 200 ns");
    }
}

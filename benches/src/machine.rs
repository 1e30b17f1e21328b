// SPDX-License-Identifier: Apache-2.0
//! What the numbers were measured on, and how much of it somebody else took.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// The machine and the versions of what is compared.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_mb: u64,
    kernel: String,
    commit: String,
    versions: Vec<String>,
}

impl Machine {
    /// Reads the description from `/proc` and from the programs, Envoy's among them; what cannot be read is
    /// `unknown`.
    pub(crate) fn describe(envoy: &Path) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes =
            field(&meminfo, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mb: kilobytes.unwrap_or(0) / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            commit: first_line(Command::new("git").args(["describe", "--always", "--dirty"])),
            versions: vec![
                envoy_version(envoy),
                first_line(Command::new("haproxy").arg("-v")),
                first_line(Command::new("h2load").arg("--version")),
            ],
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} cores of {}, {} MB, Linux {}", self.cores, self.cpu, self.memory_mb, self.kernel)?;
        write!(f, "weft {}; {}", self.commit, self.versions.join("; "))
    }
}

/// `Envoy 1.40.0`, out of `PATH  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`.
fn envoy_version(program: &Path) -> String {
    let line = first_line(Command::new(program).arg("--version"));
    format!("Envoy {}", line.split('/').rev().nth(3).unwrap_or(&line))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find(|line| line.starts_with(name))?.split_once(':').map(|(_, value)| value.trim())
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown").trim().to_owned()
}

/// The time that all cores together had, and the part that the hypervisor took away, in clock ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steal {
    total: u64,
    stolen: u64,
}

impl Steal {
    /// The counters of now (proc(5), /proc/stat: the eighth number is steal).
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let numbers: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|number| number.parse().ok())
            .collect();
        Self { total: numbers.iter().sum(), stolen: numbers.get(7).copied().unwrap_or(0) }
    }

    /// The part of the time since then that was stolen, 0 to 1.
    pub(crate) fn share_since(self) -> f64 {
        let now = Self::now();
        let total = now.total.saturating_sub(self.total).max(1);
        now.stolen.saturating_sub(self.stolen) as f64 / total as f64
    }
}

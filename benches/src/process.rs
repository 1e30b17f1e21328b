// SPDX-License-Identifier: Apache-2.0
//! A child process that is pinned to a core, measured from `/proc`, and ended with us.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Clock ticks in a second as /proc/PID/stat counts them: USER_HZ, which is 100 on every Linux
/// architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;
/// How long a proxy may take to listen; under valgrind that is long.
const START: Duration = Duration::from_secs(60);

/// The core of the proxy under test.
pub(crate) const PROXY_CORE: &str = "1";
/// The core of the generator and the origin.
pub(crate) const LOAD_CORE: &str = "0";

/// A running child; killed and waited for when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts a program on one core; what it prints goes to `log`.
    pub(crate) fn start(core: &str, command: &[&str], log: &Path) -> anyhow::Result<Self> {
        let name = command.first().copied().unwrap_or_default().to_owned();
        let output = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new("taskset")
            .args(["-c", core])
            .args(command)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child })
    }

    /// Waits until something accepts connections at `address`.
    pub(crate) fn wait_for(&mut self, address: SocketAddr, log: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, tail(log));
            }
            if Instant::now() > deadline {
                bail!("{} does not listen on {address}:\n{}", self.name, tail(log));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// CPU time of the process and all its threads so far, in seconds, to 10 ms.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.child.id())
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// CPU time of children that ended and were waited for, in seconds.
pub(crate) fn children_cpu_seconds() -> anyhow::Result<f64> {
    let fields = stat_fields("self")?;
    Ok((ticks(&fields, 13)? + ticks(&fields, 14)?) / TICKS_PER_SECOND)
}

/// Two addresses on loopback that were free just now.
pub(crate) fn free_addresses() -> io::Result<[SocketAddr; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?, listeners[1].local_addr()?])
}

fn cpu_seconds(id: u32) -> anyhow::Result<f64> {
    let fields = stat_fields(&id.to_string())?;
    Ok((ticks(&fields, 11)? + ticks(&fields, 12)?) / TICKS_PER_SECOND)
}

/// The fields of /proc/PID/stat behind the name, which may contain spaces: the first is the state.
fn stat_fields(process: &str) -> anyhow::Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("unexpected form of /proc/PID/stat")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

fn ticks(fields: &[String], index: usize) -> anyhow::Result<f64> {
    Ok(fields.get(index).context("short /proc/PID/stat")?.parse::<f64>()?)
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// A program of the workspace, built with us.
pub(crate) fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.with_file_name(name))
}

// SPDX-License-Identifier: Apache-2.0
//! Child processes that are pinned to a core, measured from `/proc`, and ended with us.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::interrupt::{self, Watched};

/// Clock ticks in a second as /proc/PID/stat counts them: USER_HZ, which is 100 on every Linux
/// architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;
/// How long a proxy may take to listen; under valgrind that is long.
const START: Duration = Duration::from_secs(60);

/// The core of the proxy under test.
pub(crate) const PROXY_CORE: &str = "1";
/// The core of the generator and the origin.
pub(crate) const LOAD_CORE: &str = "0";

/// CPU time, in seconds.
///
/// The sum is exact to a tick; how the kernel parts it into user and system rests on samples, one at each
/// tick, unless it was built to account each entry (CONFIG_VIRT_CPU_ACCOUNTING_GEN).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    /// User and system time together.
    pub(crate) fn sum(self) -> f64 {
        self.user + self.system
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// A running child; killed and waited for when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    _watched: Watched,
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
        let watched = Watched::new(child.id())?;
        Ok(Self { name, child, _watched: watched })
    }

    /// Waits until something accepts connections at `address`.
    pub(crate) fn wait_for(&mut self, address: SocketAddr, log: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            interrupt::check()?;
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

    /// CPU time of the process and all its threads so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        cpu_fields(&self.child.id().to_string(), 11)
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

/// Runs a program to its end, unless a signal ends the harness before.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<Output> {
    interrupt::check()?;
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let watched = Watched::new(child.id())?;
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {name}"))?;
    drop(watched);
    interrupt::check()?;
    Ok(output)
}

/// CPU time of children that ended and were waited for.
pub(crate) fn children_cpu() -> anyhow::Result<Cpu> {
    cpu_fields("self", 13)
}

/// Two addresses on loopback that were free just now.
pub(crate) fn free_addresses() -> anyhow::Result<[SocketAddr; 2]> {
    free_addresses_of(Ipv4Addr::LOCALHOST.into())
}

/// Two addresses of this host that were free just now.
pub(crate) fn free_addresses_of(host: IpAddr) -> anyhow::Result<[SocketAddr; 2]> {
    let bind = || TcpListener::bind((host, 0)).with_context(|| format!("cannot listen on {host}"));
    let listeners = [bind()?, bind()?];
    Ok([listeners[0].local_addr()?, listeners[1].local_addr()?])
}

/// An address of this machine that is not the loopback's: no pod can have that, so a policy for a pod says
/// nothing about it.
pub(crate) fn own_address() -> anyhow::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Nothing is sent: connecting only chooses the source. The address is one for documentation (RFC 5737).
    let own = socket.connect("203.0.113.1:9").and_then(|()| socket.local_addr());
    match own {
        Ok(own) if !own.ip().is_loopback() => Ok(own.ip()),
        _ => bail!("this machine has no route out; give it an address and a default route, on any interface"),
    }
}

/// Two fields of /proc/PID/stat, user and system time.
fn cpu_fields(process: &str, first: usize) -> anyhow::Result<Cpu> {
    let fields = stat_fields(process)?;
    let seconds = |index| Ok::<f64, anyhow::Error>(ticks(&fields, index)? / TICKS_PER_SECOND);
    Ok(Cpu { user: seconds(first)?, system: seconds(first + 1)? })
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

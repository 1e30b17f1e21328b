// SPDX-License-Identifier: Apache-2.0
//! Network namespaces: making, entering and configuring them.
#![allow(unsafe_code, reason = "std has no call that enters a namespace")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, bail};

/// Where `ip netns` keeps the names of namespaces.
pub const NAMES: &str = "/run/netns";

/// A named network namespace. Dropping it leaves it in place: the lab removes all of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with the loopback device up and without waiting for duplicate addresses.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self { name: name.to_owned() };
        namespace.ip("link set lo up")?;
        namespace.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it, for `nsenter --net=`.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }

    /// Runs `ip` commands, one a line, in the namespace; the first that fails ends them.
    pub fn ip(&self, commands: &str) -> anyhow::Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name, "-batch", "-"]);
        feed(&mut ip, commands).with_context(|| format!("ip in {}:\n{commands}", self.name))
    }

    /// Writes a setting below /proc/sys, for example `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let file = Path::new("/proc/sys").join(key);
        self.within(|| fs::write(&file, value))?.with_context(|| format!("cannot set {key} to {value}"))
    }

    /// Runs `work` on a thread of its own that is in the namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let path = self.path();
        let result = thread::scope(|scope| {
            let thread = scope.spawn(|| enter(&path).map(|()| work()));
            thread.join()
        });
        match result {
            Ok(value) => value.with_context(|| format!("cannot enter {}", path.display())),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a program in the namespace and returns what it printed; an error when it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program).args(arguments);
        run(&mut command)
    }

    /// Runs a program in the namespace with `input` as its standard input.
    pub fn feed(&self, program: &str, arguments: &[&str], input: &str) -> anyhow::Result<()> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program).args(arguments);
        feed(&mut command, input)
    }
}

/// Moves the calling thread into the network namespace of `path`.
pub fn enter(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    // SAFETY: the descriptor is open, and the call touches no memory of ours.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel send SIGTERM to this process when the thread that started it ends; an error when that
/// is gone already, `parent` being its process.
pub(crate) fn end_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: the option takes one number, and the call touches no memory of ours.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if std::os::unix::process::parent_id() != parent {
        return Err(io::Error::other("the parent has ended"));
    }
    Ok(())
}

/// Whether the process runs as root, which all of this needs.
pub fn is_root() -> bool {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Runs a command to its end and returns what it printed; an error with its complaint when it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn feed(command: &mut Command, input: &str) -> anyhow::Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

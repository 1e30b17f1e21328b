// SPDX-License-Identifier: Apache-2.0
//! Processes in the namespaces and cgroups of a lab.
//!
//! Each starts as `weft-lab enter`, which joins the cgroup, enters the namespace and then becomes the
//! program: nothing runs between fork and exec in a process with several threads. (`ip netns exec` would
//! hide cgroups and the BPF file system behind a fresh /sys.)

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

use crate::{cgroup, netns, wait};

/// The line that a server prints once it listens begins with this.
pub const READY: &str = "ready ";

/// How long a process may take to end by itself after it was asked.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Where processes run: a namespace and a cgroup, and a folder for what they print.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file of the network namespace; none for the namespace that we are in.
    pub netns: Option<PathBuf>,
    /// The cgroup, with which the lab's end reaches the process. Without one it ends with the thread
    /// that started it.
    pub cgroup: Option<PathBuf>,
    /// Where the files with what they print are made.
    pub logs: PathBuf,
}

impl Place {
    /// Starts `program` here. `name` names its log files.
    pub fn spawn(&self, name: &str, program: &Path, arguments: &[&str]) -> anyhow::Result<Running> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stem = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let stdout = self.logs.join(format!("{stem}.out"));
        let stderr = self.logs.join(format!("{stem}.err"));
        let child = self
            .command(program)?
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Running { name: name.to_owned(), child, stdout, stderr })
    }

    /// Starts one of the peers of [`peer`](crate::peer) here.
    pub fn peer(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Running> {
        let all: Vec<&str> = ["pod"].iter().chain(arguments).copied().collect();
        self.spawn(name, &program("weft-lab")?, &all)
    }

    /// Starts a peer that serves, and waits until it listens.
    pub fn serve(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Running> {
        let mut server = self.peer(name, arguments)?;
        wait::eventually(STOP_DEADLINE, || server.ready_line().map(drop))?;
        Ok(server)
    }

    /// Runs a peer to its end, and reads the JSON line that it printed.
    pub fn ask<T: DeserializeOwned>(
        &self,
        name: &str,
        arguments: &[&str],
        deadline: Duration,
    ) -> anyhow::Result<T> {
        let mut running = self.peer(name, arguments)?;
        // The end of standard input tells a peer to stop, so it stays open until the peer has ended.
        running.finish(deadline)?;
        running.answer()
    }

    fn command(&self, program_file: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(program("weft-lab")?);
        command.arg("enter");
        if let Some(netns) = &self.netns {
            command.arg("--netns").arg(netns);
        }
        match &self.cgroup {
            Some(cgroup) => command.arg("--cgroup").arg(cgroup),
            None => command.arg("--parent").arg(std::process::id().to_string()),
        };
        command.arg("--").arg(program_file);
        Ok(command)
    }
}

/// A process of the lab, ended when dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed until now.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it complained about until now.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What follows [`READY`] in its first line; an error while it is not there.
    pub fn ready_line(&mut self) -> anyhow::Result<String> {
        let stdout = self.stdout();
        if let Some(line) = stdout.lines().next().and_then(|line| line.strip_prefix(READY)) {
            return Ok(line.to_owned());
        }
        if !self.is_running() {
            bail!("{} ended before it was ready: {}", self.name, self.stderr());
        }
        bail!("{} is not ready", self.name)
    }

    /// The last line that it printed, read as JSON.
    pub fn answer<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let stdout = self.stdout();
        let line = stdout
            .lines()
            .last()
            .with_context(|| format!("{} printed nothing; it complained: {}", self.name, self.stderr()))?;
        serde_json::from_str(line).with_context(|| format!("{} printed {line:?}", self.name))
    }

    /// Waits until it has ended; it must have succeeded.
    pub fn finish(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let status = self.wait(deadline)?;
        if !status.success() {
            bail!("{}: {status}: {}{}", self.name, self.stdout(), self.stderr());
        }
        Ok(())
    }

    /// Closes its standard input, which tells a peer to stop, and waits for its end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        self.finish(STOP_DEADLINE)
    }

    /// Sends it a signal, for example `TERM`.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.pid().to_string();
        netns::run(Command::new("kill").args(["-s", signal, &pid])).map(drop)
    }

    /// Asks it by SIGTERM to end, and waits until it has.
    pub fn terminate(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        if self.is_running() {
            self.signal("TERM")?;
        }
        self.wait(deadline)
    }

    /// Ends it at once.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        wait::eventually(deadline, || {
            self.child.try_wait()?.with_context(|| {
                format!("{} still runs: {}", self.name, fs::read_to_string(&self.stderr).unwrap_or_default())
            })
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        self.kill().ok();
    }
}

/// What a process does before it becomes another program.
#[derive(Clone, Debug, clap::Args)]
pub struct Entry {
    /// The file of the network namespace to enter.
    #[arg(long)]
    netns: Option<PathBuf>,
    /// The cgroup to join.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// The process to end with.
    #[arg(long)]
    parent: Option<u32>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

/// Becomes the program of `entry`; returns only on failure.
pub fn enter(entry: &Entry) -> anyhow::Result<()> {
    if let Some(parent) = entry.parent {
        netns::end_with_parent(parent).context("cannot bind to the parent")?;
    }
    if let Some(cgroup) = &entry.cgroup {
        cgroup::join(cgroup).with_context(|| format!("cannot join {}", cgroup.display()))?;
    }
    if let Some(netns) = &entry.netns {
        netns::enter(netns).with_context(|| format!("cannot enter {}", netns.display()))?;
    }
    let [name, arguments @ ..] = &*entry.program else { bail!("no program to run") };
    Err(Command::new(name).args(arguments).exec()).with_context(|| format!("cannot run {name}"))
}

/// The program `name` of this workspace, built with the same profile as the one that runs.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running program")?;
    let folder = own.parent().context("the running program has no folder")?;
    let folder = match folder.file_name().and_then(|name| name.to_str()) {
        Some("deps" | "examples") => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    let program = folder.join(name);
    if !program.is_file() {
        bail!("{} is not there: run `cargo build --workspace --bins`", program.display());
    }
    Ok(program)
}

// SPDX-License-Identifier: Apache-2.0
//! One virtual machine: starts it, reads its console, ends it in time.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::cpus;
use super::package::{Kernel, tool};
use crate::outcome::Outcome;
use crate::suite::count;

/// Begins a line of the console with which a stage begins.
const BEGUN: &str = "weft-stage ";
/// Begins a line with which a stage ends; its exit status follows.
const ENDED: &str = "weft-ended ";
/// The last line.
const DONE: &str = "weft-done";

/// A command line that runs in the machine.
pub(super) struct Stage {
    pub(super) name: String,
    line: String,
}

impl Stage {
    pub(super) fn new(name: &str, line: String) -> Stage {
        Stage { name: name.to_owned(), line }
    }
}

/// The result of one stage.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) stage: String,
    pub(super) text: String,
    pub(super) passed: bool,
}

impl Row {
    pub(super) fn failed(stage: &str, text: String) -> Row {
        Row { stage: stage.to_owned(), text, passed: false }
    }

    fn of(stage: &str, status: &str, outcome: &Outcome) -> Row {
        let passed = status == "0" && outcome.failures.is_empty();
        let text = match (passed, outcome.passed + outcome.failed()) {
            (true, 0) => "ok".to_owned(),
            (true, count) => format!("{count} passed"),
            (false, 0) => format!("FAILED (exit status {status})"),
            (false, _) => {
                let names = outcome.failures.join(", ");
                format!("{} passed, {} FAILED: {names}", outcome.passed, outcome.failed())
            }
        };
        Row { stage: stage.to_owned(), text, passed }
    }
}

/// What the machine runs after its start.
pub(super) fn script(stages: &[&Stage]) -> String {
    let mut text = String::from(
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=0\n\
         modules=$(sed 's/.* modules=\\([^ ]*\\).*/\\1/' /proc/cmdline)\n\
         mkdir -p /lib/modules && mount --bind \"$modules\" /lib/modules\n\
         mount -t cgroup2 none /sys/fs/cgroup\n\
         ip link set lo up\n",
    );
    for Stage { name, line } in stages {
        let _infallible = write!(text, "echo '{BEGUN}{name}'\n({line}) 2>&1\necho \"{ENDED}$?\"\n");
    }
    text.push_str("echo ");
    text.push_str(DONE);
    // The console is a serial line: what is on its way needs a moment of its own.
    text.push_str("\nsync; busybox poweroff -f\n");
    text
}

/// A machine that is to be started.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) image: &'a Path,
    pub(super) script: &'a Path,
    pub(super) kvm: bool,
}

impl Machine<'_> {
    /// Runs the script, writes the console to `log`, and returns the results.
    pub(super) fn run(&self, limit: Duration, log: &Path) -> anyhow::Result<Vec<Row>> {
        let mut child = self.command()?.spawn().context("cannot start qemu-system-x86_64")?;
        let rows = watch(&mut child, limit, log);
        // It has ended by itself, or has to.
        let _ended = child.kill();
        let _status = child.wait();
        rows.with_context(|| format!("the console is in {}", log.display()))
    }

    fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(tool("qemu-system-x86_64")?);
        let modules = self.kernel.root.join("lib/modules");
        let words = [&modules, self.script].map(|path| path.display().to_string());
        if words.iter().any(|path| path.contains(' ')) {
            bail!(
                "the folder of the workspace has a space in its name, which a kernel's command line cannot carry"
            );
        }
        let line =
            format!("console=ttyS0 quiet panic=-1 mitigations=off modules={} script={}", words[0], words[1]);
        let accelerator = if self.kvm { ["-accel", "kvm"] } else { ["-accel", "tcg,thread=multi"] };
        command
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-nic", "none"])
            .args(accelerator)
            .args(["-cpu", "max", "-m", "4096", "-smp", &cpus().to_string()])
            .args(["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.image)
            .args(["-append", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Ok(command)
    }
}

/// Reads the console until the script is done.
fn watch(child: &mut Child, limit: Duration, log: &Path) -> anyhow::Result<Vec<Row>> {
    let console = child.stdout.take().context("no console")?;
    let mut log = File::create(log)?;
    let lines = lines(console);
    let deadline = Instant::now() + limit;
    let mut results = Results::default();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                writeln!(log, "{line}")?;
                if results.read(&line) {
                    return Ok(results.rows);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                let why = format!("FAILED: not done within {} minutes (--minutes)", limit.as_secs() / 60);
                return Ok(results.cut_short(why));
            }
            Err(RecvTimeoutError::Disconnected) if results.rows.is_empty() && results.stage.is_none() => {
                bail!("the machine ended before the first test");
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(results.cut_short("FAILED: the machine ended".to_owned()));
            }
        }
    }
}

/// The lines of the console, from a thread of their own, so that waiting for them can end.
fn lines(console: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::sync_channel(64);
    thread::spawn(move || {
        let mut reader = BufReader::new(console);
        let mut bytes = Vec::new();
        // The firmware speaks before the kernel, and not in UTF-8.
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

#[derive(Default)]
struct Results {
    rows: Vec<Row>,
    stage: Option<String>,
    outcome: Outcome,
}

impl Results {
    /// Reads a line; says whether it is the last.
    fn read(&mut self, line: &str) -> bool {
        // A message of the kernel can stand before it on the line.
        let after = |prefix: &str| line.find(prefix).map(|at| line[at + prefix.len()..].to_owned());
        if let Some(stage) = after(BEGUN) {
            self.stage = Some(stage);
            self.outcome = Outcome::default();
        } else if let Some(status) = after(ENDED) {
            let stage = self.stage.take().unwrap_or_default();
            self.rows.push(Row::of(&stage, &status, &self.outcome));
        } else {
            count(line, &mut self.outcome);
        }
        line == DONE
    }

    fn cut_short(mut self, why: String) -> Vec<Row> {
        let stage = self.stage.take().unwrap_or_else(|| "machine".to_owned());
        self.rows.push(Row::failed(&stage, why));
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> (Vec<Row>, bool) {
        let mut results = Results::default();
        let done = lines.iter().any(|line| results.read(line));
        (results.rows, done)
    }

    #[test]
    fn each_stage_becomes_a_row() {
        let (rows, done) = read(&[
            "weft-stage check",
            "[  1.0] a message weft-ended 0",
            "weft-stage redirect",
            "test one ... ok",
            "test two ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
            "weft-ended 101",
            "weft-stage broken",
            "weft-ended 139",
            "weft-done",
        ]);
        assert!(done);
        let row = |stage: &str, text: &str, passed| Row { stage: stage.into(), text: text.into(), passed };
        assert_eq!(
            rows,
            [
                row("check", "ok", true),
                row("redirect", "1 passed, 1 FAILED: two", false),
                row("broken", "FAILED (exit status 139)", false),
            ]
        );
    }

    #[test]
    fn a_machine_that_hangs_or_dies_is_a_failure() {
        let mut child = Command::new("sh")
            .args(["-c", "echo weft-stage slow; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = std::env::temp_dir().join(format!("weft-console-{}", std::process::id()));
        let rows = watch(&mut child, Duration::from_millis(200), &log).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((rows[0].stage.as_str(), rows[0].passed), ("slow", false));
        let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        assert!(watch(&mut child, Duration::from_secs(5), &log).is_err());
        child.wait().unwrap();
        std::fs::remove_file(&log).unwrap();
    }

    #[test]
    fn the_script_ends_with_its_last_line() {
        let text =
            script(&[&Stage::new("one", format!("cd {} && ./one", super::super::quoted(Path::new("/a b"))))]);
        assert!(text.contains("echo 'weft-stage one'\n(cd '/a b' && ./one) 2>&1\necho \"weft-ended $?\"\n"));
        assert!(text.contains(DONE));
    }
}

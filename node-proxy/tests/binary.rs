// SPDX-License-Identifier: Apache-2.0
//! `weft-node` as a program, without a controller and without the kernel's part: which signals end it, and who
//! may have its directory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use weft_identity::JoinToken;

const DEADLINE: Duration = Duration::from_secs(20);

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        let token = JoinToken::generate(b"a controller").unwrap();
        fs::write(home.path("token"), token.expose()).unwrap();
        fs::set_permissions(home.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A node whose admin socket has this name, beside a controller that is not there.
    fn node(&self, admin: &str) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weft-node"))
            .args(["--node", "a", "--controller", "127.0.0.1:1", "--no-redirect", "--workers", "1"])
            .arg("--state-dir")
            .arg(self.path("state"))
            .arg("--join-token-file")
            .arg(self.path("token"))
            .arg("--admin")
            .arg(format!("unix:{}", self.path(admin).display()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { child, log, admin: self.path(admin) }
    }
}

/// A running node, ended with the test.
struct Running {
    child: Child,
    log: mpsc::Receiver<String>,
    admin: PathBuf,
}

impl Running {
    /// Waits for a line of the log with this text, and returns it.
    fn logs(&self, text: &str) -> String {
        let (begin, mut seen) = (Instant::now(), Vec::new());
        while let Ok(line) = self.log.recv_timeout(DEADLINE.saturating_sub(begin.elapsed())) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("`{text}` is not logged, but {seen:#?}");
    }

    fn ask(&self, path: &str) -> String {
        let mut stream = UnixStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < DEADLINE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_hangup_ends_nothing_and_each_signal_to_end_ends_it_in_order() {
    for signal in ["TERM", "INT"] {
        let home = Home::new();
        let mut node = home.node("admin.sock");
        node.logs("started");
        node.signal("HUP");
        for _each in 0..5 {
            thread::sleep(Duration::from_millis(20));
            assert!(node.ask("/healthz").starts_with("HTTP/1.1 200 "), "a hangup ends nothing");
        }
        node.signal(signal);
        assert!(node.ended().success(), "{signal}");
        assert!(!node.admin.exists());
    }
}

#[test]
fn its_status_says_in_plain_words_how_it_stands_to_its_controller() {
    let home = Home::new();
    fs::set_permissions(home.path("token"), fs::Permissions::from_mode(0o644)).unwrap();
    let node = home.node("admin.sock");
    let warning = node.logs("has mode 0644");
    assert!(warning.contains("token") && warning.contains("chmod 600"), "{warning}");
    let refused = node.logs("no stream from the controller");
    assert!(refused.contains("127.0.0.1:1") && refused.contains("is the controller running"), "{refused}");
    let status = node.ask("/status");
    let disconnected = status.matches("disconnected since ").count();
    assert_eq!(disconnected, 2, "as a condition, and to be looked at: {status}");
    assert!(status.contains(" UTC (") && status.contains("nothing applied yet"), "{status}");
}

#[test]
fn a_second_process_is_refused_with_the_pid_of_the_first_and_takes_over_once_that_ends() {
    let home = Home::new();
    let mut first = home.node("first.sock");
    first.logs("started");
    let mut second = home.node("second.sock");
    let error = second.logs("weft-node: ");
    assert!(error.contains(&format!("pid {}", first.child.id())), "{error}");
    assert!(error.contains("--state-dir"), "{error}");
    assert_eq!(second.ended().code(), Some(1));
    assert!(first.ask("/healthz").starts_with("HTTP/1.1 200 "), "the first goes on");
    let mut next = home.node("next.sock");
    next.logs("waiting for the state directory");
    first.signal("TERM");
    assert!(first.ended().success());
    next.logs("started");
    // One that is killed leaves nothing behind.
    next.child.kill().unwrap();
    next.ended();
    home.node("last.sock").logs("started");
    // Whoever only waits can be ended too.
    let holder = home.node("holder.sock");
    holder.logs("started");
    let mut waiting = home.node("waiting.sock");
    waiting.logs("waiting for the state directory");
    waiting.signal("TERM");
    assert!(waiting.ended().success());
}

#[test]
fn nothing_is_cleaned_up_under_a_process_that_runs() {
    let home = Home::new();
    let holder = home.node("holder.sock");
    holder.logs("started");
    let output = Command::new(env!("CARGO_BIN_EXE_weft-node"))
        .args(["--cleanup", "--node", "a", "--state-dir"])
        .arg(home.path("state"))
        // Where there is nothing to remove, if it were tried.
        .arg("--bpffs")
        .arg(home.path("bpf"))
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("pid {}", holder.child.id())), "{error}");
    assert!(holder.ask("/healthz").starts_with("HTTP/1.1 200 "), "it goes on");
}

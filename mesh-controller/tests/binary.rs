// SPDX-License-Identifier: Apache-2.0
//! `weft-controller` as a program: what it prints, serves, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(20);

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: 80\n";

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        fs::create_dir(home.path("source")).unwrap();
        fs::write(home.path("source/a.yaml"), SERVICE).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn source(&self) -> String {
        format!("dir:{}", self.path("source").display())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-controller"));
        command.args(["--listen", "127.0.0.1:0", "--state-dir"]).arg(self.path("state")).args(arguments);
        command
    }

    /// The exit code, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

/// A running controller, ended with the test.
struct Running {
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Running {
    fn start(home: &Home, arguments: &[&str]) -> Running {
        let running = Running::begin(home, arguments);
        running.logs("serving nodes");
        running
    }

    fn begin(home: &Home, arguments: &[&str]) -> Running {
        let mut command = home.command(&["--source", &home.source()]);
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { child, log }
    }

    fn logs(&self, text: &str) {
        let begin = Instant::now();
        while let Ok(line) = self.log.recv_timeout(DEADLINE.saturating_sub(begin.elapsed())) {
            if line.contains(text) {
                return;
            }
        }
        panic!("`{text}` is not logged");
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

fn ask(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: controller\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn eventually(socket: &Path, path: &str, text: &str) {
    let begin = Instant::now();
    while !ask(socket, path).contains(text) {
        assert!(begin.elapsed() < DEADLINE, "`{text}` is not in {}", ask(socket, path));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_dry_run_says_what_would_be_served_and_touches_nothing() {
    let home = Home::new();
    let source = home.source();
    let (code, stdout, stderr) = home.run(&["--source", &source, "--dry-run"]);
    assert_eq!((code, &*stdout, &*stderr), (Some(0), "2 resources: 1 meshdefaults, 1 service\n", ""));
    let (code, stdout, _) = home.run(&["--source", &source, "--dry-run", "-o", "json", "--cluster", "x"]);
    assert_eq!(code, Some(0));
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(json["resources"].as_array().unwrap().len(), 2);

    fs::write(home.path("source/a.yaml"), SERVICE.replace("80", "eighty")).unwrap();
    fs::write(home.path("source/b.yaml"), [0xff]).unwrap();
    let (code, stdout, _) = home.run(&["--source", &source, "--dry-run"]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("/a.yaml:6: Service default/a: spec.ports[0].port: "), "{stdout}");
    assert!(stdout.contains("/b.yaml:1: is not UTF-8 here"), "{stdout}");
    assert!(!home.path("state").exists(), "no certificate authority was made");
}

#[test]
fn what_cannot_be_done_is_named_together_with_the_fix() {
    let home = Home::new();
    let (taken, source) = (TcpListener::bind("127.0.0.1:0").unwrap(), home.source());
    let taken = taken.local_addr().unwrap().to_string();
    fs::write(home.path("file"), "").unwrap();
    let below_file = home.path("file/state").display().to_string();
    let socket = format!("unix:{}", home.path("file/admin.sock").display());
    let cases: [(&[&str], i32, &[&str]); 7] = [
        (&["--source", "dir:/nowhere/at-all"], 1, &["/nowhere/at-all", "create it", "--source"]),
        (&["--source", "/etc"], 2, &["`dir:` and the path", "--source"]),
        (&[], 2, &["--source"]),
        (&["--source", &source, "--listen", &taken], 1, &[&taken, "in use", "--listen"]),
        (&["--source", &source, "--state-dir", &below_file], 1, &[&below_file, "--state-dir"]),
        (&["--source", &source, "--admin", &socket], 1, &[&socket, "change the address"]),
        (&["--source", &source, "--output", "json"], 2, &["--dry-run"]),
    ];
    for (arguments, code, parts) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-controller"));
        command.args(arguments);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !arguments.contains(&"--state-dir") {
            command.arg("--state-dir").arg(home.path("state"));
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{arguments:?}: `{part}` is not in {stderr}");
        }
    }
    fs::write(home.path("source/a.yaml"), "spec: [\n").unwrap();
    let (code, _, stderr) = home.run(&["--source", &source]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("/source/a.yaml:1: ") && stderr.contains("nothing was published"), "{stderr}");
}

#[test]
fn health_metrics_and_what_is_broken_are_served_until_a_signal_ends_it() {
    let home = Home::new();
    let socket = home.path("run/admin.sock");
    let mut running = Running::start(&home, &["--admin", &format!("unix:{}", socket.display())]);
    assert!(ask(&socket, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(ask(&socket, "/readyz").starts_with("HTTP/1.1 200 "));
    let metrics = ask(&socket, "/metrics");
    for line in [
        "weft_controller_revision 1",
        "weft_controller_files 1",
        "weft_controller_rejected_files 0",
        "weft_controller_objects{kind=\"Service\",result=\"accepted\"} 1",
        "weft_controller_nodes{state=\"connected\"} 0",
        "weft_controller_oldest_unacknowledged_age_seconds 0.0",
        "weft_controller_translation_duration_seconds_count 1",
        "weft_controller_stream_reconnects_total 0",
        "weft_controller_connections_refused_total{cause=\"token\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
    fs::write(home.path("source/b.yaml"), [b'\n', 0xff]).unwrap();
    eventually(&socket, "/status", "b.yaml:2: is not UTF-8 here");
    eventually(&socket, "/metrics", "weft_controller_rejected_files 1");
    assert!(ask(&socket, "/objects").contains("\"line\": 2"));
    fs::remove_file(home.path("source/b.yaml")).unwrap();
    eventually(&socket, "/metrics", "weft_controller_rejected_files 0");

    running.signal("HUP");
    running.logs("reading the source again on SIGHUP");
    assert!(ask(&socket, "/readyz").starts_with("HTTP/1.1 200 "), "a hangup ends nothing");
    running.signal("TERM");
    assert!(running.ended().success());
    assert!(!socket.exists());
}

#[test]
fn an_empty_source_is_named_wherever_somebody_looks() {
    let home = Home::new();
    let socket = home.path("run/admin.sock");
    let _running = Running::start(&home, &["--admin", &format!("unix:{}", socket.display())]);
    fs::rename(home.path("source/a.yaml"), home.path("a.yaml")).unwrap();
    let says = "source holds no object that is read";
    eventually(&socket, "/readyz", says);
    assert!(ask(&socket, "/readyz").starts_with("HTTP/1.1 200 "), "it serves what it had");
    eventually(&socket, "/status", "holds no object that is read");
    eventually(&socket, "/metrics", "weft_controller_source_empty 1");
    fs::rename(home.path("a.yaml"), home.path("source/a.yaml")).unwrap();
    eventually(&socket, "/metrics", "weft_controller_source_empty 0");
    assert!(!ask(&socket, "/readyz").contains(says));

    let empty = Home::new();
    fs::remove_file(empty.path("source/a.yaml")).unwrap();
    let mut refused = Running::begin(&empty, &[]);
    refused.logs("--allow-empty-source; nothing was published");
    assert_eq!(refused.ended().code(), Some(1));
    let source = empty.source();
    let (code, stdout, _) = empty.run(&["--source", &source, "--dry-run"]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("--allow-empty-source"), "{stdout}");
    let (code, _, _) = empty.run(&["--source", &source, "--dry-run", "--allow-empty-source"]);
    assert_eq!(code, Some(0));
}

#[test]
fn an_interrupt_ends_it_in_order() {
    let home = Home::new();
    let mut running = Running::start(&home, &[]);
    running.signal("INT");
    assert!(running.ended().success());
}

#[test]
fn a_name_that_nobody_has_cannot_be_forgotten() {
    let home = Home::new();
    let forget = |node: &str, state: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-controller"));
        let output =
            command.args(["forget-node", node, "--state-dir"]).arg(home.path(state)).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let _running = Running::start(&home, &[]);
    for state in ["state", "elsewhere"] {
        let (code, stdout, stderr) = forget("node-1", state);
        assert_eq!((code, &*stdout), (Some(1), ""), "{stderr}");
        let place = home.path(state).display().to_string();
        assert!(stderr.contains(&format!("node-1 is not bound in {place}")), "{stderr}");
        assert!(stderr.contains("--state-dir"), "{stderr}");
    }
    assert!(!home.path("elsewhere").exists(), "nothing was made");
    let (code, _, stderr) = forget("Not A Name", "state");
    assert!(code == Some(2) && stderr.contains("a node's name has"), "{stderr}");
    fs::write(home.path("state/nodes/node-1"), "nonsense").unwrap();
    assert_eq!(forget("node-1", "state"), (Some(0), "node-1: forgotten\n".to_owned(), String::new()));
    assert_eq!(forget("node-1", "state").0, Some(1), "once");
}

#[test]
fn a_file_that_is_no_binding_costs_one_name_and_is_named() {
    let home = Home::new();
    fs::create_dir_all(home.path("state/nodes")).unwrap();
    fs::write(home.path("state/nodes/node-1"), "nonsense").unwrap();
    let socket = home.path("run/admin.sock");
    let running = Running::start(&home, &["--admin", &format!("unix:{}", socket.display())]);
    assert!(ask(&socket, "/status").contains("nobody can be node node-1"));
    assert!(ask(&socket, "/metrics").contains("weft_controller_names_unreadable 1\n"));
    fs::write(home.path("state/nodes/node-2"), "foreign").unwrap();
    running.logs("nobody can be node node-2");
    fs::remove_dir_all(home.path("state/nodes")).unwrap();
    eventually(&socket, "/metrics", "weft_controller_names_unreadable 0\n");
    assert!(home.path("state/nodes").is_dir(), "it is made again");
}

#[test]
fn a_second_controller_is_refused_until_the_first_has_ended() {
    let home = Home::new();
    let mut first = Running::start(&home, &[]);
    let source = home.source();
    let (code, _, stderr) = home.run(&["--source", &source]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!("pid {}", first.child.id())) && stderr.contains("--state-dir"),
        "{stderr}"
    );
    first.signal("TERM");
    // It waits for the one that ends.
    let _next = Running::start(&home, &[]);
    assert!(first.ended().success());
}

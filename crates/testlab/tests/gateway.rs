// SPDX-License-Identifier: Apache-2.0
//! The real daemons as a gateway on loopback, without root: the demo's claims, and bad input.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::ensure;
use weft_testlab::loopback::{HOST, Loopback};
use weft_testlab::peer::{client, raw};
use weft_testlab::wait;

const SOON: Duration = Duration::from_secs(5);

fn loopback() -> &'static Loopback {
    static LOOPBACK: OnceLock<Result<Loopback, String>> = OnceLock::new();
    // The processes end with the thread that started them, so that thread must outlive the tests.
    match LOOPBACK
        .get_or_init(|| on_lasting_thread(|| Loopback::start().map_err(|error| format!("{error:#}"))))
    {
        Ok(loopback) => loopback,
        Err(error) => panic!("no gateway: {error}"),
    }
}

fn on_lasting_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        send.send(work()).ok();
        loop {
            std::thread::park();
        }
    });
    match receive.recv() {
        Ok(value) => value,
        Err(error) => panic!("the thread ended: {error}"),
    }
}

/// Sends `text` and demands that an ordinary request still succeeds beside it.
fn send(text: &str, more: &[&str]) -> raw::Answer {
    let address = loopback().address.to_string();
    let arguments = [&["raw", &address, "--text", text][..], more].concat();
    let answer = loopback().ask(&arguments);
    let beside = loopback().requests(&["--requests", "5"]);
    match (answer, beside) {
        (Ok(answer), Ok(beside)) if beside.ok() == 5 => answer,
        (answer, beside) => panic!("{answer:?}; beside it: {beside:?}"),
    }
}

fn status(answer: &raw::Answer) -> &str {
    answer.text.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn the_demo_holds_on_loopback() {
    let output = Command::new(env!("CARGO_BIN_EXE_weft-lab"))
        .args(["demo", "--no-redirect", "--no-color"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("as asked"), "{text}");
}

#[test]
fn requests_of_both_lengths_are_refused() {
    let text = format!(
        r"POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nX"
    );
    let answer = send(&text, &[]);
    assert_eq!(status(&answer), "400", "{answer:?}");
    assert!(answer.closed, "{answer:?}");
}

#[test]
fn lines_without_carriage_return_are_refused() {
    let answer = send(&format!(r"GET / HTTP/1.1\nhost: {HOST}\n\n"), &[]);
    assert_eq!(status(&answer), "400", "{answer:?}");
}

#[test]
fn folded_headers_are_refused() {
    let answer = send(&format!(r"GET / HTTP/1.1\r\nhost: {HOST}\r\nx-a: b\r\n c\r\n\r\n"), &[]);
    assert_eq!(status(&answer), "400", "{answer:?}");
}

#[test]
fn a_megabyte_of_headers_is_refused() {
    let text = format!(r"GET / HTTP/1.1\r\nhost: {HOST}\r\nx-long: ");
    let head = send(&text, &["--then", &"a".repeat(100_000)]);
    let address = loopback().address.to_string();
    let whole: raw::Answer = loopback()
        .ask(&[
            "raw",
            &address,
            "--text",
            r"GET / HTTP/1.1\r\nhost: a\r\nx-long: aaaaaaaaaaaaaaaa",
            "--times",
            "20000",
        ])
        .unwrap();
    for answer in [head, whole] {
        let refused = status(&answer) == "431" || (answer.text.is_empty() && answer.error.is_some());
        assert!(refused, "{} {:?}", answer.text, answer.error);
    }
}

#[test]
fn a_client_that_closes_its_direction_gets_its_answer() {
    let answer = send(&format!(r"GET /pay HTTP/1.1\r\nhost: {HOST}\r\n\r\n"), &["--half-close"]);
    assert_eq!(status(&answer), "200", "{answer:?}");
    assert!(answer.closed, "{answer:?}");
}

#[test]
fn a_slow_client_is_answered() {
    let text = format!(r"GET /pay HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    let answer = send(&text, &["--slow-ms", "3", "--read-ms", "3000"]);
    assert_eq!(status(&answer), "200", "{answer:?}");
}

#[test]
fn bytes_that_are_no_request_are_refused() {
    for text in
        [r"\x16\x03\x01\x02\x00\x01\x00", r"\0\0\0\0\r\n\r\n", r"GET\r\n\r\n", r"GET / HTTP/9.9\r\n\r\n"]
    {
        let answer = send(text, &["--half-close"]);
        let refused = answer.text.is_empty() || matches!(status(&answer), "400" | "505");
        assert!(refused && answer.closed, "{text}: {answer:?}");
    }
}

#[test]
fn http2_and_grpc_pass_the_gateway() {
    let requests = ["--mode", "h2", "--requests", "20", "--concurrency", "4"];
    let summary = loopback().requests(&requests).unwrap();
    assert_eq!(summary.ok(), 20, "{:?} {:?}", summary.status, summary.failures);
}

#[test]
fn broken_manifests_leave_what_served() {
    // A gateway of its own, whose manifests this test may break.
    let own = Loopback::start().unwrap();
    let mut load = own.load(&["--pause-ms", "2"]).unwrap();
    let gateway = own.manifests.read("gateway.yaml").unwrap();
    own.manifests.write("gateway.yaml", &gateway.replace("rules:", "rules: [ {")).unwrap();
    let told = wait::eventually(SOON, || {
        ensure!(own.controller.log().contains("gateway.yaml"), "{}", own.controller.log());
        Ok(())
    });
    assert!(told.is_ok(), "{told:?}");
    assert_eq!(own.requests(&["--requests", "20"]).unwrap().ok(), 20);
    own.manifests.write("gateway.yaml", &gateway).unwrap();
    load.stop().unwrap();
    let during: client::Summary = load.answer().unwrap();
    assert_eq!(during.ok(), during.sent, "{:?} {:?}", during.status, during.failures);
    own.stop().unwrap();
}

#[test]
fn routes_to_nothing_answer_500_and_weights_of_zero_503() {
    let own = Loopback::start().unwrap();
    for ((one, two), asked) in [((0, 0), 503), ((0, 1), 200)] {
        own.set_weights(one, two).unwrap();
        let so = wait::eventually(SOON, || {
            let summary = own.requests(&["--requests", "10"])?;
            ensure!(summary.status_count(asked) == 10, "{:?} {:?}", summary.status, summary.failures);
            Ok(summary)
        });
        assert!(so.is_ok(), "{so:?}");
    }
    let gateway = own.manifests.read("gateway.yaml").unwrap();
    own.manifests.write("gateway.yaml", &gateway.replace("name: checkout-v2", "name: nobody")).unwrap();
    let so = wait::eventually(SOON, || {
        let summary = own.requests(&["--requests", "10"])?;
        ensure!(summary.status_count(500) == 10, "{:?} {:?}", summary.status, summary.failures);
        Ok(())
    });
    assert!(so.is_ok(), "{so:?}");
    assert!(own.controller.statuses().contains("BackendNotFound"), "{}", own.controller.statuses());
    own.stop().unwrap();
}

#[test]
fn retries_rescue_requests_of_a_failing_backend() {
    let own = Loopback::start_with(&["--fail-every", "5"]).unwrap();
    own.set_weights(0, 1).unwrap();
    let failing = wait::eventually(SOON, || {
        let summary = own.requests(&["--requests", "100"])?;
        ensure!(summary.status_count(503) >= 15, "{:?}", summary.status);
        Ok(())
    });
    assert!(failing.is_ok(), "without retries failures are seen: {failing:?}");
    own.add_retries().unwrap();
    let rescued = wait::eventually(SOON, || {
        let summary = own.requests(&["--requests", "100"])?;
        ensure!(summary.ok() == 100, "{:?} {:?}", summary.status, summary.failures);
        Ok(())
    });
    assert!(rescued.is_ok(), "{rescued:?}");
    assert!(own.node.metrics().unwrap().sum("weft_node_retries_total", &[]).unwrap() >= 15.0);
    own.stop().unwrap();
}

#[test]
fn a_gateway_that_restarts_without_a_controller_serves_what_it_knew() {
    let own = Loopback::start().unwrap();
    let own = own.restart_without_controller().unwrap();
    let summary = own.requests(&["--requests", "20"]).unwrap();
    assert_eq!(summary.ok(), 20, "{:?} {:?}", summary.status, summary.failures);
}

/// Runs the command line against the daemon.
fn weft(arguments: &[&str]) -> anyhow::Result<std::process::Output> {
    let program = weft_testlab::process::program("weft")?;
    let server = format!("unix:{}", loopback().node.admin().display());
    Ok(Command::new(program).args(arguments).args(["--server", &server]).output()?)
}

#[test]
fn the_command_line_tells_status_and_flows_of_a_daemon() {
    assert_eq!(loopback().requests(&["--requests", "3"]).unwrap().ok(), 3);
    let status = weft(&["status"]).unwrap();
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success() && text.contains("weft-node"), "{text} {status:?}");

    let flows = wait::eventually(SOON, || {
        let observe = weft(&["observe", "--last", "100", "--http-status", "200", "-o", "json"])?;
        let text = String::from_utf8_lossy(&observe.stdout).into_owned();
        ensure!(observe.status.success() && text.lines().count() >= 3, "{text} {observe:?}");
        Ok(text)
    })
    .unwrap();
    for line in flows.lines() {
        let flow: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(flow["verdict"], "FORWARDED", "{line}");
    }
}

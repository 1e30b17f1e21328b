// SPDX-License-Identifier: Apache-2.0
//! `weft translate` as a program: what it prints, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: 80\n";

fn translate(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_weft")).arg("translate").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn good_manifests_end_with_success_and_a_rejected_object_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    fs::write(directory.path().join("a.yaml"), SERVICE).unwrap();
    let (code, stdout, stderr) = translate(&["-f", path, "-o", "text"]);
    assert_eq!((code, &*stdout, &*stderr), (Some(0), "2 resources: 1 meshdefaults, 1 service\n", ""));

    fs::write(directory.path().join("a.yaml"), SERVICE.replace("80", "eighty")).unwrap();
    fs::write(directory.path().join("b.yaml"), [0xff]).unwrap();
    let (code, stdout, stderr) = translate(&["-f", path, "-o", "text"]);
    assert_eq!((code, &*stderr), (Some(1), "weft: 2 rejected\n"));
    assert!(stdout.contains("a.yaml:6: Service default/a: "), "{stdout}");
    assert!(stdout.contains("b.yaml:1: is not UTF-8 here"), "{stdout}");

    let (code, stdout, stderr) = translate(&["-f", path, "-o", "json"]);
    assert_eq!(code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(json["problems"].as_array().unwrap().len(), 2);
    assert!(stderr.contains("a.yaml:6: "), "{stderr}");
}

#[test]
fn what_has_no_effect_is_told_and_what_is_not_enforced_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let affinity = SERVICE.replace("spec:", "spec:\n  sessionAffinity: ClientIP");
    fs::write(directory.path().join("a.yaml"), affinity).unwrap();
    let (code, _, stderr) = translate(&["-f", path]);
    assert_eq!(code, Some(0));
    assert!(
        stderr.ends_with("a.yaml:5: Service default/a: has no effect: spec.sessionAffinity (ClientIP)\n")
    );
    for (text, reason) in [
        ("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: w}\n", "Ingress w of networking"),
        ("apiVersion: networking.k8s.o/v1\nkind: NetworkPolicy\nmetadata: {name: w}\n", "did you mean"),
    ] {
        fs::write(directory.path().join("a.yaml"), text).unwrap();
        let (code, stdout, stderr) = translate(&["-f", path, "-o", "text"]);
        assert_eq!((code, &*stderr), (Some(1), "weft: 1 rejected\n"));
        assert!(stdout.contains(reason), "{stdout}");
    }
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let (code, stdout, _) = translate(&["-f", "/nowhere/at-all", "-o", "text"]);
    assert_eq!(code, Some(1));
    assert!(stdout.starts_with("/nowhere/at-all: cannot be read: No such file"), "{stdout}");
}

/// Texts that are small and stand for much.
fn hostile() -> Vec<(&'static str, String)> {
    let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..10 {
        let before = format!("*a{},", level - 1).repeat(10);
        laughs.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    let (anchors, values) = ((0..50).map(|n| format!("&a{n} [")).collect::<String>(), "1,".repeat(50_000));
    vec![
        ("aliases", format!("{SERVICE}a: &a {}\nb: [{}]\n", "x".repeat(1 << 19), "*a,".repeat(20_000))),
        ("laughs", format!("{SERVICE}{laughs}")),
        ("anchors", format!("{SERVICE}a: {anchors}{values}{}\n", "]".repeat(50))),
        ("name", SERVICE.replace("name: a", &format!("name: {}", "a".repeat(1 << 20)))),
        ("key", format!("{SERVICE}? {}\n: 1\n", "k".repeat(4 << 20))),
        ("kind", SERVICE.replace("Service", &"K".repeat(1 << 20))),
        ("depth", format!("{SERVICE}a: {}", "[".repeat(1 << 20))),
        ("documents", "a: b\n---\n".repeat(20_000)),
        ("items", format!("apiVersion: v1\nkind: List\nitems:\n{}", "- {a: b}\n".repeat(10_000))),
    ]
}

#[test]
fn small_texts_that_stand_for_much_are_refused_within_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    // A gigabyte of addresses: a text like the first took 19.5.
    let run = |text: &str| {
        fs::write(&file, text).unwrap();
        let script = "ulimit -v 1000000 && exec \"$0\" translate -o text -f \"$1\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_weft")]).arg(&file).output().unwrap()
    };
    for (name, text) in hostile() {
        let output = run(&text);
        let stderr = String::from_utf8_lossy(&output.stderr);
        // Of many problems the first hundred are named.
        let rejected = if name == "documents" { 101 } else { 1 };
        assert_eq!(
            (output.status.code(), &*stderr),
            (Some(1), &*format!("weft: {rejected} rejected\n")),
            "{name}"
        );
    }
    // What is none of Weft's business costs a look.
    let foreign =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: [{}]\n", "1,".repeat(1 << 17));
    assert!(run(&foreign).status.success());
}

#[test]
fn standard_input_and_pipes_are_read() {
    let mut weft = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["translate", "-o", "text", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    weft.stdin.take().unwrap().write_all(SERVICE.as_bytes()).unwrap();
    let output = weft.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "2 resources: 1 meshdefaults, 1 service\n");

    let (read, mut write) = std::io::pipe().unwrap();
    write.write_all(SERVICE.as_bytes()).unwrap();
    drop(write);
    let output = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["translate", "-o", "text", "-f", "/proc/self/fd/0"])
        .stdin(read)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "2 resources: 1 meshdefaults, 1 service\n");
}

#[test]
fn a_directory_without_manifests_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.txt"), SERVICE).unwrap();
    let (code, stdout, stderr) = translate(&["-f", directory.path().to_str().unwrap()]);
    assert_eq!((code, &*stdout), (Some(2), ""));
    assert!(stderr.contains("no .yaml or .yml file"), "{stderr}");
}

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: weft}\n\
    spec: {controllerName: weft.dev/gateway-controller}\n---\n\
    apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\n\
    spec: {gatewayClassName: weft, listeners: [{name: http, protocol: HTTP, port: 8080}]}\n---\n";

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n\
    spec:\n  parentRefs: [{name: g}]\n  rules:\n  - backendRefs: [{name: a, port: 80}]\n  \
    - matches: [{path: {value: /b}}]\n    backendRefs: [{name: a, port: 80}]\n";

#[test]
fn the_exit_code_is_zero_only_where_everything_is_served_as_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let good = format!("{GATEWAY}{ROUTE}---\n{SERVICE}");
    let bad_match = "matches: [{path: {value: b}}]";
    for (code, text, says) in [
        (0, good.clone(), ""),
        (1, good.replace("matches: [{path: {value: /b}}]", bad_match), "PartiallyInvalid=True"),
        (1, good.replace("rules:\n  -", "hostnames: [a.test, A_B]\n  rules:\n  -"), "PartiallyInvalid=True"),
        (1, good.replace("backendRefs: [{name: a,", "backendRefs: [{name: gone,"), "ResolvedRefs=False"),
        (
            1,
            good.replace("port: 8080}", "port: 8080}, {name: b, protocol: TCP, port: 1}"),
            "UnsupportedProtocol",
        ),
        (1, good.replace("parentRefs: [{name: g}]", "parentRefs: [{name: none}]"), "does not exist"),
        (1, good.replace("metadata: {name: r}", "metadata: {name: R}"), "is no name"),
    ] {
        fs::write(&file, text).unwrap();
        let (found, stdout, stderr) = translate(&["-f", file.to_str().unwrap(), "-o", "text"]);
        assert_eq!(found, Some(code), "{says}: {stdout}{stderr}");
        assert!(stdout.contains(says), "{says}: {stdout}");
    }
    assert_eq!(translate(&["-f", file.to_str().unwrap(), "-o", "xml"]).0, Some(2));
    let full = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["translate", "-o", "text", "-f"])
        .arg(&file)
        .stdout(fs::File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(2), "{}", String::from_utf8_lossy(&full.stderr));
    let (_, help, _) = translate(&["--help"]);
    for line in ["0  everything would be served", "1  something is refused", "2  nothing was translated"] {
        assert!(help.contains(line), "{help}");
    }
}

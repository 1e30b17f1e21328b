// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask cluster`: a real Kubernetes of two nodes on this machine.
//!
//! Each machine of it, the one with the API server and the two nodes, is a set of namespaces with a root, control
//! groups and a BPF file system of its own; the host's network, mounts and devices stay as they are. Read
//! `cluster/machine.sh` for what a machine is, `cluster/config.rs` for what runs on it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::cli::{ClusterCommand, UpArgs};
use crate::exec;

mod build;
mod config;
mod image;
mod layout;
mod machine;
mod pki;
mod smoke;

use config::Settings;
use image::Image;
use layout::{Layout, MACHINES, control, nodes};

/// How long each step of `up` may take: etcd, the API server and two kubelets start in ten seconds where two
/// cores are free, and this is often run beside a build.
const PATIENCE: Duration = Duration::from_secs(180);

/// The image that holds a pod's namespaces: it waits, and collects what loses its parent.
const PAUSE: &str = r"#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void stop(int signal) { _exit(0); }
static void reap(int signal) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) { signal(SIGINT, stop); signal(SIGTERM, stop); signal(SIGCHLD, reap); for (;;) pause(); }
";

/// Does what is asked of the cluster.
pub(crate) fn run(command: &ClusterCommand) -> anyhow::Result<ExitCode> {
    let layout = Layout::find()?;
    if !exec::is_root() {
        bail!("a cluster needs root: its machines are namespaces");
    }
    match command {
        ClusterCommand::Up(args) => up(&layout, args)?,
        ClusterCommand::Down => down(&layout)?,
        ClusterCommand::Test => return smoke::run(&layout),
        ClusterCommand::Status => return status(&layout),
        ClusterCommand::Load(args) => load(&layout, &args.archives)?,
        ClusterCommand::Kubectl(args) => return exec::replace_us(kubectl(&layout)?.args(&args.args)),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(layout: &Layout, args: &UpArgs) -> anyhow::Result<()> {
    let settings = Settings { cni: args.cni, families: args.families, kube_proxy: !args.no_kube_proxy };
    if is_complete(layout) {
        let running = fs::read_to_string(layout.settings()).unwrap_or_default();
        if running == settings.to_string() {
            println!("is up: {settings}");
            return Ok(());
        }
        bail!("another cluster is up ({running}): cargo xtask cluster down");
    }
    build::ensure(layout)?;
    images(layout)?;
    let started = Instant::now();
    // What an attempt that was broken off has left.
    down(layout)?;
    prepare(layout, settings)?;
    let result = start(layout, settings);
    if result.is_err() {
        eprintln!(
            "logs: {}/*/log; cargo xtask cluster down removes what has started",
            layout.state().display()
        );
    }
    result?;
    fs::write(layout.settings(), settings.to_string())?;
    println!("up in {:.0} s: {settings}", started.elapsed().as_secs_f64());
    println!("cargo xtask cluster kubectl -- get nodes");
    Ok(())
}

/// Whether every machine runs and was started to the end.
fn is_complete(layout: &Layout) -> bool {
    let runs = |machine| machine::first_process(layout, machine).is_some();
    layout.settings().exists() && MACHINES.into_iter().all(runs)
}

/// The images that every node has from the start.
fn images(layout: &Layout) -> anyhow::Result<()> {
    let folder = layout.images();
    fs::create_dir_all(&folder)?;
    let pause = layout.bin().join("pause");
    if !pause.exists() {
        let source = layout.sources().join("pause.c");
        fs::write(&source, PAUSE)?;
        exec::run(Command::new("cc").args(["-static", "-Os", "-o"]).arg(&pause).arg(&source))?;
    }
    for (file, name, program, place) in [
        ("pause.tar", "localhost/pause:1", "pause", "/usr/bin/pause"),
        ("coredns.tar", "localhost/coredns:1", "coredns", "/usr/bin/coredns"),
    ] {
        if !folder.join(file).exists() {
            let programs = vec![(layout.bin().join(program), place)];
            Image { name, programs, entrypoint: &[place] }.write(&folder.join(file))?;
        }
    }
    Ok(())
}

/// Writes everything that the machines read.
fn prepare(layout: &Layout, settings: Settings) -> anyhow::Result<()> {
    pki::make(layout).context("cannot make keys and certificates")?;
    let pki = layout.pki();
    let pki = layout::text(&pki)?;
    let groups = machine::described(&machine::hierarchies()?);
    for machine in MACHINES {
        let folder = layout.machine(machine);
        fs::create_dir_all(&folder)?;
        fs::write(layout.script(machine), config::script(layout, machine, settings, &groups)?)?;
        if machine.is_node {
            fs::write(folder.join("10-pods.conflist"), config::conflist(machine, settings))?;
            fs::write(folder.join("containerd.toml"), config::CONTAINERD)?;
            fs::write(folder.join("kubelet.yaml"), config::kubelet(machine, pki))?;
            fs::write(folder.join("kube-proxy.yaml"), config::kube_proxy(machine, pki))?;
        }
    }
    Ok(())
}

fn start(layout: &Layout, settings: Settings) -> anyhow::Result<()> {
    println!("starting the API server");
    machine::start(layout, control())?;
    let bridge = || exists(machine::within(layout)?.args(["ip", "link", "show", "nodes"]));
    machine::until(PATIENCE, bridge).context("the control machine has no bridge")?;
    for node in nodes() {
        machine::start(layout, node)?;
        machine::connect(layout, node)?;
    }
    await_machine(layout, "the API server", || Ok(layout.machine(control()).join("ready").exists()))?;
    if settings.kube_proxy {
        let bind =
            ["create", "clusterrolebinding", "weft-cluster-kube-proxy", "--clusterrole=system:node-proxier"];
        exec::quiet(kubectl(layout)?.args(bind).arg("--user=system:kube-proxy"))?;
    }
    println!("starting two nodes");
    await_machine(layout, "the nodes", || Ok(layout_ready(layout) && are_ready(layout)?))?;
    for node in nodes() {
        let pods = settings.pods(node);
        let patch = json!({"spec": {"podCIDR": pods[0], "podCIDRs": pods}}).to_string();
        exec::quiet(kubectl(layout)?.args(["patch", "node", node.name, "--patch", &patch]))?;
    }
    let dns = layout.state().join("dns.yaml");
    fs::write(&dns, config::dns())?;
    exec::quiet(kubectl(layout)?.args(["apply", "--server-side", "--filename"]).arg(&dns))?;
    println!("starting CoreDNS");
    let rollout = ["rollout", "status", "--namespace=kube-system", "deployment/coredns", "--timeout=180s"];
    exec::quiet(kubectl(layout)?.args(rollout)).map(drop)
}

fn layout_ready(layout: &Layout) -> bool {
    MACHINES.into_iter().all(|machine| layout.machine(machine).join("ready").exists())
}

/// Waits for something, and gives up as soon as a program of a machine has ended.
fn await_machine(
    layout: &Layout,
    what: &str,
    mut holds: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let waiting = machine::until(PATIENCE, || {
        for machine in MACHINES {
            let ended = fs::read_to_string(layout.machine(machine).join("ended")).unwrap_or_default();
            if let Some(first) = ended.lines().next() {
                bail!("on {}: {first}", machine.name);
            }
        }
        holds()
    });
    waiting.with_context(|| format!("{what} did not start"))
}

/// Whether both nodes are ready.
fn are_ready(layout: &Layout) -> anyhow::Result<bool> {
    let path = "jsonpath={range .items[*]}{.status.conditions[?(@.type=='Ready')].status} {end}";
    let output = kubectl(layout)?.args(["get", "nodes", "--output", path]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|status| *status == "True").count() == nodes().count())
}

/// Ends everything and removes it. Nothing to do is no error.
fn down(layout: &Layout) -> anyhow::Result<()> {
    // The nodes first: they hold devices of the control machine's network.
    for machine in MACHINES.into_iter().rev() {
        machine::stop(layout, machine)?;
    }
    match fs::remove_dir_all(layout.state()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", layout.state().display()))
        }
        _ => Ok(()),
    }
}

fn status(layout: &Layout) -> anyhow::Result<ExitCode> {
    if !layout.state().exists() {
        println!("no cluster: cargo xtask cluster up");
        return Ok(ExitCode::FAILURE);
    }
    let mut good = layout.settings().exists();
    println!("{}", fs::read_to_string(layout.settings()).unwrap_or_else(|_| "not complete".to_owned()));
    for machine in MACHINES {
        let ended = fs::read_to_string(layout.machine(machine).join("ended")).unwrap_or_default();
        let runs = machine::first_process(layout, machine).is_some();
        let word = if runs { "runs" } else { "does not run" };
        println!(
            "{}: {word}{}",
            machine.name,
            ended.lines().map(|line| format!("; {line}")).collect::<String>()
        );
        good &= runs && ended.is_empty();
    }
    if !good {
        return Ok(ExitCode::FAILURE);
    }
    exec::pass_through(kubectl(layout)?.args(["get", "nodes", "--output", "wide"]))
}

/// Brings images to every node.
fn load(layout: &Layout, archives: &[PathBuf]) -> anyhow::Result<()> {
    for archive in archives {
        for node in nodes() {
            let file =
                fs::File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
            let mut import = machine::inside(layout, node)?;
            exec::quiet(
                import.args(["ctr", "-n", "k8s.io", "images", "import", "-"]).stdin(Stdio::from(file)),
            )?;
        }
        println!("every node has {}", archive.display());
    }
    Ok(())
}

/// kubectl, for whoever may do everything.
fn kubectl(layout: &Layout) -> anyhow::Result<Command> {
    let mut command = machine::within(layout)?;
    command.arg(layout.bin().join("kubectl")).arg("--kubeconfig").arg(layout.admin());
    Ok(command)
}

fn exists(command: &mut Command) -> anyhow::Result<bool> {
    let output = command.output().context("cannot start nsenter")?;
    Ok(output.status.success())
}

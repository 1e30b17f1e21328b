// SPDX-License-Identifier: Apache-2.0
//! The command line of `cargo xtask`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::setup::Purpose;

/// Set-up, builds, demo, tests and benchmarks of Weft.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What `cargo xtask` can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install what is missing (Debian and Ubuntu, as root); elsewhere, name it.
    Setup(SetupArgs),
    /// Build every binary into target/debug (or target/dist).
    Build(BuildArgs),
    /// Show the main job: two nodes, a canary, a policy, a rate limit, on this machine.
    Demo(DemoArgs),
    /// Run everything that a change must pass: lints, build, all tests, examples, documented commands.
    Test(TestArgs),
    /// Run only the kernel and lab tests (root): packets through the hooks, pods as network namespaces.
    Lab(LabArgs),
    /// Check format and lints, without changing a file.
    Lint(LintArgs),
    /// Format the whole workspace.
    Fmt,
    /// Build the kernel programs from source and update the committed object.
    Bpf(BpfArgs),
    /// Run the kernel tests on the kernels of Debian's releases, in QEMU (half an hour or more).
    Kernels(KernelsArgs),
    /// A real Kubernetes with two nodes on this machine, in namespaces of its own (root).
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Compare Weft with Envoy and HAProxy on this machine; prints ratios with their spread.
    Bench(BenchArgs),
}

/// Arguments of `cargo xtask setup`.
#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Also install what `cargo xtask bench` needs: HAProxy, h2load, valgrind, Envoy.
    #[arg(long)]
    pub(crate) bench: bool,
    /// Also install what `cargo xtask bpf` needs: a compiler for the kernel programs.
    #[arg(long)]
    pub(crate) bpf: bool,
}

/// Arguments of `cargo xtask build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Build what is shipped and measured (fat LTO; takes minutes) into target/dist.
    #[arg(long)]
    dist: bool,
}

impl BuildArgs {
    /// The cargo profile to build with.
    pub(crate) fn profile(&self) -> &'static str {
        if self.dist { "dist" } else { "dev" }
    }
}

/// Arguments of `cargo xtask demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Arguments of the demo itself, for example --keep; see `cargo xtask demo -- --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// Arguments of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Without root: leave out the kernel and lab tests instead of failing, and say so.
    #[arg(long)]
    pub(crate) no_root_tests: bool,
    /// Leave out rustfmt and clippy.
    #[arg(long)]
    pub(crate) no_lint: bool,
}

/// Arguments of `cargo xtask lab`.
#[derive(Debug, Args)]
pub(crate) struct LabArgs {
    /// Run only the tests whose name contains this text.
    pub(crate) filter: Option<String>,
    /// Print the names of the tests instead of running them.
    #[arg(long)]
    pub(crate) list: bool,
}

/// Arguments of `cargo xtask lint`.
#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// Also check licences and sources with cargo-deny, which is installed when missing (minutes).
    #[arg(long)]
    pub(crate) deny: bool,
}

/// Arguments of `cargo xtask bpf`.
#[derive(Debug, Args)]
pub(crate) struct BpfArgs {
    /// Build and compare with the committed object, but do not replace it.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Arguments of `cargo xtask kernels`.
#[derive(Debug, Args)]
pub(crate) struct KernelsArgs {
    /// Only this kernel: 5.10, 6.1 or 6.12.
    #[arg(long, value_name = "KERNEL")]
    pub(crate) only: Option<String>,
    /// Only this test program, for example redirect.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) test: Option<String>,
    /// Also run the demo; emulated machines may be too slow for its deadlines.
    #[arg(long)]
    pub(crate) demo: bool,
    /// Use KVM; without it the machine is emulated.
    #[arg(long)]
    pub(crate) kvm: bool,
    /// Fetch the kernels anew, as they are in Debian's archive now.
    #[arg(long)]
    pub(crate) update: bool,
    /// How long one kernel may take, in minutes.
    #[arg(long, default_value_t = 60)]
    pub(crate) minutes: u64,
}

/// What can be done with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Build Kubernetes (minutes, once), and start a cluster unless the same one runs.
    Up(UpArgs),
    /// End the cluster, and leave nothing of it but what was built.
    Down,
    /// Say what of the cluster runs.
    Status,
    /// Bring images to every node.
    Load(LoadArgs),
    /// Install Weft on the cluster, run the canary, and remove it again.
    Test,
    /// Run kubectl, as somebody who may do everything.
    Kubectl(KubectlArgs),
}

/// Arguments of `cargo xtask cluster up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// How pods are connected.
    #[arg(long, value_enum, default_value_t = Cni::Ptp)]
    pub(crate) cni: Cni,
    /// Which addresses there are.
    #[arg(long, value_enum, default_value_t = Families::Dual)]
    pub(crate) families: Families,
    /// Leave kube-proxy out: no Service works until somebody else serves them.
    #[arg(long)]
    pub(crate) no_kube_proxy: bool,
}

/// How pods are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cni {
    /// A veth pair and a route for each pod, as of Calico, Cilium and the clouds' own.
    Ptp,
    /// Pods of a node on one bridge, as of flannel.
    Bridge,
}

/// Which addresses pods, nodes and services have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Families {
    /// IPv4 only.
    Ipv4,
    /// IPv4 and IPv6.
    Dual,
}

/// Arguments of `cargo xtask cluster load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// OCI archives.
    #[arg(required = true, value_name = "ARCHIVE")]
    pub(crate) archives: Vec<PathBuf>,
}

/// Arguments of `cargo xtask cluster kubectl`.
#[derive(Debug, Args)]
pub(crate) struct KubectlArgs {
    /// Arguments of kubectl.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// Arguments of `cargo xtask bench`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct BenchArgs {
    /// Scenarios and options of the harness, --help among them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

impl BenchArgs {
    /// Whether only the harness's own help is asked for: then nothing has to be measured with.
    pub(crate) fn asks_for_help(&self) -> bool {
        self.args.iter().any(|word| matches!(word.as_str(), "--help" | "-h"))
    }
}

impl Command {
    /// What has to be installed before this subcommand can run. What is only run as root is not needed
    /// by others, who could not install it either.
    pub(crate) fn needs(&self, is_root: bool) -> Vec<Purpose> {
        match self {
            Self::Setup(args) => {
                let mut needs = vec![Purpose::Build, Purpose::Run, Purpose::Test];
                needs.extend(args.bench.then_some(Purpose::Bench));
                needs.extend(args.bpf.then_some(Purpose::Bpf));
                needs
            }
            Self::Build(_) => vec![Purpose::Build],
            Self::Lint(args) => {
                let mut needs = vec![Purpose::Build, Purpose::Test];
                needs.extend(args.deny.then_some(Purpose::Deny));
                needs
            }
            Self::Fmt => vec![Purpose::Test],
            Self::Demo(_) if is_root => vec![Purpose::Build, Purpose::Run],
            Self::Demo(_) => vec![Purpose::Build],
            Self::Test(_) | Self::Lab(_) if is_root => vec![Purpose::Build, Purpose::Run, Purpose::Test],
            Self::Test(_) | Self::Lab(_) => vec![Purpose::Build, Purpose::Test],
            Self::Bpf(_) => vec![Purpose::Build, Purpose::Bpf],
            Self::Kernels(_) => vec![Purpose::Build, Purpose::Run, Purpose::Kernels],
            Self::Cluster(ClusterCommand::Up(_) | ClusterCommand::Test) => {
                vec![Purpose::Build, Purpose::Run, Purpose::Cluster]
            }
            Self::Cluster(_) => vec![],
            Self::Bench(args) if args.asks_for_help() => vec![Purpose::Build],
            Self::Bench(_) => vec![Purpose::Build, Purpose::Run, Purpose::Bench],
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_has_a_help_text() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no help text", command.get_name());
            for argument in command.get_arguments().filter(|a| a.get_id() != "help") {
                assert!(argument.get_help().is_some(), "{} of {}", argument.get_id(), command.get_name());
            }
        }
    }

    #[test]
    fn the_demo_without_root_needs_no_network_tools() {
        let needs = |is_root| Cli::try_parse_from(["xtask", "demo"]).unwrap().command.needs(is_root);
        assert_eq!(needs(false), [Purpose::Build]);
        assert_eq!(needs(true), [Purpose::Build, Purpose::Run]);
    }

    #[test]
    fn help_of_the_harness_needs_no_peers() {
        for help in ["--help", "-h"] {
            let command = Cli::try_parse_from(["xtask", "bench", "http1", help]).unwrap().command;
            assert_eq!(command.needs(true), [Purpose::Build]);
        }
        let command = Cli::try_parse_from(["xtask", "bench", "http1", "--quick"]).unwrap().command;
        assert!(command.needs(true).contains(&Purpose::Bench));
    }

    #[test]
    fn arguments_of_the_demo_are_passed_on() {
        let cli = Cli::try_parse_from(["xtask", "demo", "--keep", "--nodes", "2"]).unwrap();
        let Command::Demo(args) = cli.command else { panic!("not the demo") };
        assert_eq!(args.args, ["--keep", "--nodes", "2"]);
    }
}

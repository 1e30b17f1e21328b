// SPDX-License-Identifier: Apache-2.0
//! The command line of `weft-controller`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};
use weft_identity::NodeName;
use weft_runtime::{admin::AdminAddress, telemetry::LogFormat};
use weft_translate::PreviewFormat;

/// Where the controller keeps what it must not lose.
const STATE_DIR: &str = "/var/lib/weft/controller";

/// Reads Kubernetes objects, translates them, and serves the state to every node.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-controller", version, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true)]
pub struct CommandLine {
    /// What to do besides serving.
    #[command(subcommand)]
    pub task: Option<Task>,
    /// How to serve; nothing where there is another task.
    #[command(flatten)]
    pub args: Option<Args>,
}

/// What an operator may have done to a controller's state.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Free a node's name, so that the node can join again with a new key: after its state directory was lost, or
    /// stolen. Its certificate is worthless from then on. A running controller notices within seconds.
    ForgetNode {
        /// The node.
        node: NodeName,
        /// The state directory of the controller.
        #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
        state_dir: PathBuf,
    },
}

/// An object of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceArg {
    /// The manifests below a directory.
    Directory(PathBuf),
    /// The API server of a cluster.
    Kubernetes,
}

/// How to serve.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where objects come from: `dir:PATH` reads every .yaml and .yml file below a directory, `kubernetes` asks the
    /// API server of a cluster; both follow all changes.
    #[arg(long, value_name = "dir:PATH|kubernetes", value_parser = parse_source)]
    pub source: SourceArg,

    /// With which the API server is reached. Without it, a pod uses its service account, and others what KUBECONFIG
    /// names or ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Believe a source that has no object: remove everything from every node, and start on it. Without this, it is
    /// taken for a directory that is not mounted or not written yet.
    #[arg(long)]
    pub allow_empty_source: bool,

    /// The address and port that nodes connect to; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:15010")]
    pub listen: SocketAddr,

    /// Where the certificate authority, the join token, the names of nodes and the identity numbers are kept.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,

    /// Also write the join token, with which nodes get their certificate, to this file (readable by its owner only).
    #[arg(long, value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,

    /// Also let nodes join with the token of this service account that is bound to a pod on them.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_place)]
    pub node_account: Option<Place>,

    /// Write into this ConfigMap how nodes find and know this controller.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_place, requires = "advertise")]
    pub publish_join: Option<Place>,

    /// Where nodes reach this controller.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// The cluster's name, a label of every identity.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub cluster: String,

    /// Prefixes that pods have their addresses from; an address inside that no pod has is never `world`.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub pod_cidr: Vec<ipnet::IpNet>,

    /// Print a line on standard output for every status and every problem that changes.
    #[arg(long)]
    pub print_status: bool,

    /// Read and translate once, print what would be served and what is rejected, and exit: 1 when anything is.
    /// Opens no socket and writes nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// How --dry-run prints: text (statuses and problems only), yaml or json.
    #[arg(short, long, value_name = "FORMAT", default_value_t = PreviewFormat::Text, requires = "dry_run")]
    pub output: PreviewFormat,

    /// Serve /healthz, /readyz, /metrics, /status, /nodes and /objects there; nothing is served unless it is given.
    #[arg(long, value_name = "unix:PATH|ADDR:PORT")]
    pub admin: Option<AdminAddress>,

    /// A node that takes longer to acknowledge a revision, in seconds, is shown as overdue.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub ack_deadline: u64,

    /// `text` or `json`.
    #[arg(long, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// A level, or target=level pairs.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
}

fn parse_source(text: &str) -> Result<SourceArg, String> {
    match text.strip_prefix("dir:") {
        Some(path) if !path.is_empty() => Ok(SourceArg::Directory(path.into())),
        None if text == "kubernetes" => Ok(SourceArg::Kubernetes),
        Some(_) | None => Err("expected `dir:` and the path of a directory, or `kubernetes`".into()),
    }
}

fn parse_place(text: &str) -> Result<Place, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Place { namespace: namespace.into(), name: name.into() })
        }
        _ => Err("expected a namespace and a name, as in weft-system/weft-node".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
        let parse = |arguments: &[&str]| {
            let all = ["weft-controller"].iter().chain(arguments);
            CommandLine::try_parse_from(all)
        };
        let source = |line: CommandLine| line.args.unwrap().source;
        assert_eq!(
            source(parse(&["--source", "dir:examples/canary"]).unwrap()),
            SourceArg::Directory("examples/canary".into())
        );
        assert_eq!(source(parse(&["--source", "kubernetes"]).unwrap()), SourceArg::Kubernetes);
        assert!(parse(&[]).is_err() && parse(&["--source", "examples/canary"]).is_err());
        assert!(parse(&["--print-status"]).unwrap_err().to_string().contains("--source"));
        let json = ["--source", "dir:a", "-o", "json"];
        assert!(parse(&json).is_err(), "only a dry run prints");
        assert!(parse(&[&json[..], &["--dry-run"]].concat()).unwrap().args.unwrap().dry_run);
        let place = ["--source", "kubernetes", "--node-account"];
        assert!(parse(&[&place[..], &["weft"]].concat()).is_err());
        let account = parse(&[&place[..], &["weft/node"]].concat()).unwrap().args.unwrap().node_account;
        assert_eq!(account, Some(Place { namespace: "weft".into(), name: "node".into() }));
        let line = parse(&["forget-node", "a", "--state-dir", "/x"]).unwrap();
        assert!(matches!(line.task, Some(Task::ForgetNode { .. })) && line.args.is_none());
        assert!(parse(&["forget-node", "../a"]).unwrap_err().to_string().contains("a node's name has"));
    }
}

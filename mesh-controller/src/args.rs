// SPDX-License-Identifier: Apache-2.0
//! The command line of `weft-controller`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use weft_runtime::{admin::AdminAddress, telemetry::LogFormat};

/// Reads Kubernetes objects, translates them, and serves the state to every node.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-controller", version)]
pub struct Args {
    /// Where objects come from: `dir:PATH` reads every .yaml and .yml file below a directory and follows its changes.
    #[arg(long, value_name = "dir:PATH", value_parser = parse_source)]
    pub source: PathBuf,

    /// The address and port that nodes connect to; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:15010")]
    pub listen: SocketAddr,

    /// Where the certificate authority, the join token and the identity numbers are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft/controller")]
    pub state_dir: PathBuf,

    /// Also write the join token, which nodes must bring, to this file (readable by its owner only).
    #[arg(long, value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,

    /// The cluster's name, a label of every identity.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub cluster: String,

    /// Prefixes that pods have their addresses from; an address inside that no pod has is never `world`.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub pod_cidr: Vec<ipnet::IpNet>,

    /// Print a line on standard output for every object whose status changes.
    #[arg(long)]
    pub print_status: bool,

    /// Serve /healthz, /readyz and /status there; nothing is served unless it is given.
    #[arg(long, value_name = "unix:PATH|ADDR:PORT")]
    pub admin: Option<AdminAddress>,

    /// `text` or `json`.
    #[arg(long, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// A level, or target=level pairs.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
}

fn parse_source(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("dir:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        Some(_) | None => Err("expected `dir:` and the path of a directory".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
        let args = Args::try_parse_from(["weft-controller", "--source", "dir:examples/canary"]).unwrap();
        assert_eq!(args.source, PathBuf::from("examples/canary"));
        assert!(Args::try_parse_from(["weft-controller", "--source", "examples/canary"]).is_err());
    }
}

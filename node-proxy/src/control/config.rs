// SPDX-License-Identifier: Apache-2.0
//! The settings of `weft-node`: flags, a YAML file with the same names, and what they must agree on.

use std::{
    fs, io,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use weft_ebpf_redirect::{Attachment, CNI_RESULTS, POD_DEVICES, ShortPath};
use weft_flow_export::DEFAULT_CAPACITY;
use weft_runtime::{
    admin::{AdminAddress, AdminAddressError},
    telemetry::{LogFormat, TelemetryError},
};

const STATE_DIR: &str = "/var/lib/weft/node";
const ADMIN: &str = "unix:/run/weft/node.sock";
/// Where the controller listens if nobody says otherwise.
const CONTROLLER_PORT: u16 = 15010;
const BPFFS: &str = "/sys/fs/bpf/weft";

/// Serves the L7 traffic of one node, and owns its kernel datapath.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-node", version)]
pub struct Args {
    /// Read settings from this YAML file; flags win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print which kernel features are there, what replaces the others, and what is then missing; end.
    #[arg(long, conflicts_with = "cleanup")]
    pub check: bool,
    /// Remove everything that this node left in the kernel, and end.
    #[arg(long)]
    pub cleanup: bool,
    /// The settings.
    #[command(flatten)]
    pub raw: RawConfig,
}

/// Settings as they are written, in the file or as flags.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RawConfig {
    /// The node's name in the cluster.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node: Option<String>,
    /// The controller's `host:port`, or the file that holds it, read with each connection.
    #[arg(long, value_name = "HOST:PORT|file:PATH")]
    controller: Option<String>,
    /// The file with the join token that the controller wrote.
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// Join with the token of a pod's service account in this file, read at each use; of the join token only what
    /// says which controller it is.
    #[arg(long, value_name = "FILE")]
    account_token_file: Option<PathBuf>,
    /// Where the last good state is kept [default: /var/lib/weft/node].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Threads that carry traffic [default: one for each CPU].
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Client connections at a time, over all workers; more wait in the kernel [default: 16384].
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// The cgroup below which this node's pods are [default: the root of the cgroup2 mount].
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// Where programs and maps are pinned [default: /sys/fs/bpf/weft].
    #[arg(long, value_name = "DIR")]
    bpffs: Option<PathBuf>,
    /// How programs are attached to devices: tcx, clsact, or the better one that the kernel has [default:
    /// auto].
    #[arg(long, value_name = "auto|tcx|clsact")]
    attachment: Option<Attachment>,
    /// Where the container runtime keeps the results of CNI plug-ins [default: /var/lib/cni/results].
    #[arg(long, value_name = "DIR")]
    cni_results: Option<PathBuf>,
    /// Names of the devices of pods, with `*` and `?`: such a device, with its other end in another namespace, is
    /// closed until it is known whose it is; none leaves all open but ports of pods' bridges and what has been a
    /// pod's [default: cali*,eni*,azv*,veth????????].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pod_devices: Option<Vec<String>>,
    /// Whether packets of established connections go straight from device to pod, past the node's stack: auto
    /// where no forwarding rules of others look at them, on past any rules, or off [default: auto].
    #[arg(long, value_name = "auto|on|off")]
    short_path: Option<ShortPath>,
    /// Where the admin endpoint listens [default: unix:/run/weft/node.sock].
    #[arg(long, value_name = "unix:PATH|ADDR:PORT")]
    admin: Option<String>,
    /// Take over from the process that runs with this state directory, instead of waiting for its end.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    take_over: Option<bool>,
    /// Load no kernel programs: serve Gateway listeners only.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    no_redirect: Option<bool>,
    /// Where listeners without addresses of their own listen; repeat for several [default: every address].
    #[arg(long, value_name = "IP")]
    #[serde(default)]
    listen_address: Vec<IpAddr>,
    /// Time for an endpoint to accept a connection, in milliseconds [default: 5000].
    #[arg(long, value_name = "MS")]
    connect_timeout_ms: Option<u64>,
    /// Time for running requests to finish after SIGTERM, in milliseconds [default: 30000].
    #[arg(long, value_name = "MS")]
    drain_timeout_ms: Option<u64>,
    /// Flows that are kept for readers [default: 4095].
    #[arg(long, value_name = "N")]
    flows: Option<usize>,
    /// `text` or `json` [default: text].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// A level, or target=level pairs [default: info].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// Settings that agree with each other.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// The node's name.
    pub(crate) node: Arc<str>,
    /// The controller's `host:port`.
    pub(crate) controller: String,
    /// The file with the join token.
    pub(crate) join_token_file: PathBuf,
    /// The file with the token of a service account.
    pub(crate) account_token_file: Option<PathBuf>,
    /// Where the last good state is kept.
    pub(crate) state_dir: PathBuf,
    /// Another process that has the state directory is asked to hand over.
    pub(crate) take_over: bool,
    /// Threads that carry traffic.
    pub(crate) workers: usize,
    /// Client connections of one worker.
    pub(crate) connections_per_worker: usize,
    /// The node's part of the kernel; nothing where no programs are loaded.
    pub(crate) kernel: Option<KernelConfig>,
    /// Where the admin endpoint listens.
    #[serde(serialize_with = "as_text")]
    pub(crate) admin: AdminAddress,
    /// Where listeners without addresses of their own listen; every address of the node when empty.
    pub(crate) listen_addresses: Vec<IpAddr>,
    /// Time for an endpoint to accept a connection.
    pub(crate) connect_timeout: Duration,
    /// Time for running requests to finish.
    pub(crate) drain_timeout: Duration,
    /// Flows that are kept for readers.
    pub(crate) flows: usize,
}

/// Where the node's programs and maps are.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KernelConfig {
    /// The cgroup below which this node's pods are; the root of the cgroup2 mount where nothing is given.
    pub(crate) cgroup: Option<PathBuf>,
    /// Where programs and maps are pinned.
    pub(crate) bpffs: PathBuf,
    /// How programs are attached to devices.
    pub(crate) attachment: Attachment,
    /// Where the results of CNI plug-ins are.
    pub(crate) cni_results: PathBuf,
    /// Names of the devices of pods.
    pub(crate) pod_devices: Vec<String>,
    /// Whether packets of established connections skip the node's stack.
    pub(crate) short_path: ShortPath,
}

/// Why the settings cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} is no valid configuration", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// A setting without a default is missing.
    #[error("`{0}` is missing: give --{0}, or write it in the configuration file")]
    Missing(&'static str),
    /// A number that cannot be used.
    #[error("`{0}` must be between {1} and {2}")]
    Range(&'static str, usize, usize),
    /// The controller's address.
    #[error("`{given}` is no host:port of a controller: {fix}")]
    Controller {
        /// What was given.
        given: String,
        /// What to write instead.
        fix: String,
    },
    /// The admin address.
    #[error(transparent)]
    Admin(#[from] AdminAddressError),
    /// The log format.
    #[error(transparent)]
    Log(#[from] TelemetryError),
}

impl RawConfig {
    /// The settings of a file, with those that are given here in their place.
    ///
    /// # Errors
    /// When the file cannot be read, or holds a key that is not known.
    pub fn over_file(self, path: Option<&Path>) -> Result<RawConfig, ConfigError> {
        let Some(path) = path else { return Ok(self) };
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let file: RawConfig = serde_saphyr::from_str(&text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        Ok(self.over(file))
    }

    fn over(self, file: RawConfig) -> RawConfig {
        RawConfig {
            node: self.node.or(file.node),
            controller: self.controller.or(file.controller),
            join_token_file: self.join_token_file.or(file.join_token_file),
            account_token_file: self.account_token_file.or(file.account_token_file),
            state_dir: self.state_dir.or(file.state_dir),
            workers: self.workers.or(file.workers),
            connections: self.connections.or(file.connections),
            cgroup: self.cgroup.or(file.cgroup),
            bpffs: self.bpffs.or(file.bpffs),
            attachment: self.attachment.or(file.attachment),
            cni_results: self.cni_results.or(file.cni_results),
            pod_devices: self.pod_devices.or(file.pod_devices),
            short_path: self.short_path.or(file.short_path),
            admin: self.admin.or(file.admin),
            take_over: self.take_over.or(file.take_over),
            no_redirect: self.no_redirect.or(file.no_redirect),
            listen_address: match self.listen_address.is_empty() {
                true => file.listen_address,
                false => self.listen_address,
            },
            connect_timeout_ms: self.connect_timeout_ms.or(file.connect_timeout_ms),
            drain_timeout_ms: self.drain_timeout_ms.or(file.drain_timeout_ms),
            flows: self.flows.or(file.flows),
            log_format: self.log_format.or(file.log_format),
            log: self.log.or(file.log),
        }
    }

    /// How to log; asked before everything else, so that the rest can be logged.
    ///
    /// # Errors
    /// When the format is not known.
    pub fn logging(&self) -> Result<(LogFormat, &str), ConfigError> {
        let format = self.log_format.as_deref().unwrap_or("text").parse()?;
        Ok((format, self.log.as_deref().unwrap_or("info")))
    }

    /// The node's name; empty when none is given.
    pub(crate) fn node_name(&self) -> &str {
        self.node.as_deref().unwrap_or_default()
    }

    /// Where the last good state is kept.
    pub(crate) fn state_directory(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| STATE_DIR.into())
    }

    /// Where the node's part of the kernel is, whether it is used or not.
    pub(crate) fn kernel(&self) -> KernelConfig {
        KernelConfig {
            cgroup: self.cgroup.clone(),
            bpffs: self.bpffs.clone().unwrap_or_else(|| BPFFS.into()),
            attachment: self.attachment.unwrap_or_default(),
            cni_results: self.cni_results.clone().unwrap_or_else(|| CNI_RESULTS.into()),
            pod_devices: self.pod_devices.clone().unwrap_or_else(|| POD_DEVICES.map(str::to_owned).to_vec()),
            short_path: self.short_path.unwrap_or_default(),
        }
    }

    /// Checks the settings and fills in the defaults.
    ///
    /// # Errors
    /// When one is missing or cannot be used.
    pub fn check(self) -> Result<Config, ConfigError> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = within("workers", self.workers.unwrap_or(cpus.min(64)), 1, 64)?;
        let connections = within("connections", self.connections.unwrap_or(16_384), workers, 1 << 24)?;
        let connect = within("connect-timeout-ms", millis(self.connect_timeout_ms, 5000), 1, 600_000)?;
        let drain = within("drain-timeout-ms", millis(self.drain_timeout_ms, 30_000), 0, 3_600_000)?;
        let state_dir = self.state_directory();
        let kernel = (!self.no_redirect.unwrap_or(false)).then(|| self.kernel());
        Ok(Config {
            node: self.node.ok_or(ConfigError::Missing("node"))?.into(),
            controller: controller(self.controller.ok_or(ConfigError::Missing("controller"))?)?,
            join_token_file: self.join_token_file.ok_or(ConfigError::Missing("join-token-file"))?,
            account_token_file: self.account_token_file,
            state_dir,
            take_over: self.take_over.unwrap_or(false),
            workers,
            connections_per_worker: connections / workers,
            kernel,
            admin: self.admin.as_deref().unwrap_or(ADMIN).parse()?,
            listen_addresses: self.listen_address,
            connect_timeout: Duration::from_millis(connect as u64),
            drain_timeout: Duration::from_millis(drain as u64),
            flows: within("flows", self.flows.unwrap_or(DEFAULT_CAPACITY), 1, 1 << 24)?,
        })
    }
}

/// Checks that this is a host and a port; the name is looked up with each connection.
fn controller(given: String) -> Result<String, ConfigError> {
    if given.strip_prefix("file:").is_some_and(|path| !path.is_empty()) {
        return Ok(given);
    }
    let bare = given.split_once("://").map_or(&*given, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or_default();
    let has_port = bare.rsplit_once(':').is_some_and(|(host, port)| {
        let host_is_whole = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && host_is_whole && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let with_port = match (has_port, bare.parse::<Ipv6Addr>()) {
        (true, _) => bare.to_owned(),
        (false, Ok(address)) => format!("[{address}]:{CONTROLLER_PORT}"),
        (false, Err(_)) => format!("{}:{CONTROLLER_PORT}", bare.split(':').next().unwrap_or_default()),
    };
    let fix = match &*given {
        text if text.trim().is_empty() || with_port.starts_with(':') => {
            "give the name and the port".to_owned()
        }
        text if text.contains(char::is_whitespace) => "write it without spaces".to_owned(),
        text if text != bare => format!("write only `{with_port}`"),
        _ if !has_port => format!("write the port too, such as `{with_port}`"),
        _ => return Ok(given),
    };
    Err(ConfigError::Controller { given, fix })
}

fn millis(given: Option<u64>, default: u64) -> usize {
    usize::try_from(given.unwrap_or(default)).unwrap_or(usize::MAX)
}

fn within(name: &'static str, number: usize, least: usize, most: usize) -> Result<usize, ConfigError> {
    if (least..=most).contains(&number) { Ok(number) } else { Err(ConfigError::Range(name, least, most)) }
}

fn as_text<S: serde::Serializer>(address: &AdminAddress, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(address)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const NEEDED: [&str; 7] =
        ["weft-node", "--node", "a", "--controller", "127.0.0.1:1", "--join-token-file", "/token"];

    fn parse(more: &[&str]) -> RawConfig {
        Args::try_parse_from(NEEDED.iter().chain(more)).unwrap().raw
    }

    #[test]
    fn a_controller_may_be_named_by_a_file() {
        assert_eq!(controller("file:/run/join/address".into()).unwrap(), "file:/run/join/address");
        assert!(controller("file:".into()).is_err());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
        let config = parse(&["--workers", "2", "--no-redirect"]).check().unwrap();
        assert_eq!((&*config.node, config.workers, config.connections_per_worker), ("a", 2, 8192));
        assert!(config.kernel.is_none());
    }

    #[test]
    fn a_missing_setting_is_named() {
        let error = RawConfig::default().check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`node` is missing: give --node, or write it in the configuration file"
        );
        assert!(parse(&["--workers", "0"]).check().is_err());
        assert!(parse(&["--admin", "nowhere"]).check().is_err());
    }

    #[test]
    fn an_address_of_a_controller_that_is_none_is_refused_with_what_to_write() {
        for good in ["weft.example:15010", "10.0.0.1:1", "[::1]:15010", "localhost:65535"] {
            assert_eq!(controller(good.into()).unwrap(), good);
        }
        for (bad, fix) in [
            ("weft.example", "such as `weft.example:15010`"),
            ("weft.example:", "such as `weft.example:15010`"),
            ("weft.example:0", "such as `weft.example:15010`"),
            ("weft.example:http", "such as `weft.example:15010`"),
            ("https://weft.example", "only `weft.example:15010`"),
            ("https://weft.example:9000/", "only `weft.example:9000`"),
            ("weft.example:9000/path", "only `weft.example:9000`"),
            ("fd00::1", "such as `[fd00::1]:15010`"),
            ("weft.example :15010", "without spaces"),
            ("", "name and the port"),
            (":15010", "name and the port"),
        ] {
            let error = controller(bad.into()).unwrap_err().to_string();
            assert!(error.contains(fix) && error.contains(bad), "{error}");
        }
    }

    #[test]
    fn flags_win_over_the_file_and_unknown_keys_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.yaml");
        fs::write(&path, "node: b\nworkers: 3\nlistenAddress: [127.0.0.1]\n").unwrap();
        let config = parse(&[]).over_file(Some(&path)).unwrap().check().unwrap();
        assert_eq!((&*config.node, config.workers), ("a", 3));
        assert_eq!(config.listen_addresses, [IpAddr::from([127, 0, 0, 1])]);
        fs::write(&path, "worker: 3\n").unwrap();
        let error = parse(&[]).over_file(Some(&path)).unwrap_err();
        assert!(matches!(error, ConfigError::Syntax { .. }), "{error:?}");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The `weft-controller` binary.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use kube::Client;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use weft_identity::{NODE_LIFETIME, Registrar};
use weft_ir::MeshDefaults;
use weft_mesh_controller::{
    admin, api_client,
    args::{Args, CommandLine, SourceArg, Task},
    dry_run,
    node_accounts::NodeAccounts,
    observed::{Objects, Observed},
    open_files,
    publish_join::Publication,
    reconcile::{Reconciler, ReconcilerConfig},
    serve_ir::{IrLimits, IrServer, IrServerConfig},
    source::SourceConfig,
};
use weft_runtime::{
    drain, readiness::ReadinessHandle, signals::ShutdownSignals, state_dir::StateDirectory,
    supervise::Supervisor, telemetry,
};
use weft_translate::Translator;

/// How long answers of the admin endpoint may take to end.
const ADMIN_DRAIN: Duration = Duration::from_secs(2);

/// How long a controller that was told to end may take for it: the streams and the admin endpoint have two seconds
/// each.
const HANDOVER: Duration = Duration::from_secs(10);

/// Open files besides the connections of nodes: manifests, the admin endpoint, and the runtime's own.
const OTHER_FILES: usize = 256;

#[tokio::main]
async fn main() -> ExitCode {
    match run(CommandLine::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(line: CommandLine) -> anyhow::Result<ExitCode> {
    match (line.task, line.args) {
        (Some(Task::ForgetNode { node, state_dir }), _) => {
            if !Registrar::forget(&state_dir, &node)? {
                let place = state_dir.display();
                anyhow::bail!("{node} is not bound in {place}: is that the controller's --state-dir?");
            }
            println!("{node}: forgotten");
            Ok(ExitCode::SUCCESS)
        }
        (None, Some(args)) => run_controller(args).await,
        (None, None) => {
            anyhow::bail!("--source is missing: name the directory with the manifests, or kubernetes")
        }
    }
}

async fn run_controller(args: Args) -> anyhow::Result<ExitCode> {
    telemetry::init(args.log_format, &args.log)?;
    if args.dry_run {
        let SourceArg::Directory(path) = &args.source else {
            anyhow::bail!("--dry-run reads a directory: --source dir:PATH");
        };
        let preview = dry_run::preview(path, args.allow_empty_source, &translator(&args));
        io::stdout().lock().write_all(preview.print(args.output)?.as_bytes())?;
        return Ok(if preview.rejected() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    // Before anything is read of it: of two controllers, one would give away what the other has.
    let state = StateDirectory::take(&args.state_dir, HANDOVER).await?;
    let registrar = Registrar::open(&args.state_dir, NODE_LIFETIME)
        .context("cannot open the certificate authority in --state-dir")?;
    if let Some(path) = &args.join_token_file {
        write_token(path, &registrar.token().expose())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let listener = TcpListener::bind(args.listen).await.with_context(|| {
        format!("cannot listen on {}: free it, or choose another with --listen", args.listen)
    })?;
    let limits = limits(&args);
    let client = api_client(&args).await?;
    let publication = publication(&args, &registrar);
    let account = args.node_account.as_ref().zip(client.clone());
    let accounts =
        account.map(|(account, client)| NodeAccounts::new(client, &account.namespace, &account.name));
    let config = IrServerConfig { registrar: Arc::new(registrar), accounts, limits };
    let mut server = IrServer::start(listener, config)?;
    let mut tasks = Supervisor::new();
    if let Some((publication, client)) = publication.zip(client.clone()) {
        tasks.critical("how to join", publication.keep(client));
    }

    let result = serve(&args, client, tasks, &mut server).await;
    state.ending();
    server.shutdown().await;
    result.map(|()| ExitCode::SUCCESS)
}

/// Runs until a signal ends it.
async fn serve(
    args: &Args,
    client: Option<Client>,
    mut tasks: Supervisor,
    server: &mut IrServer,
) -> anyhow::Result<()> {
    let mut signals = ShutdownSignals::install().context("cannot catch signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot catch signals")?;
    let config = ReconcilerConfig {
        source: source(args, client)?,
        identities: args.state_dir.join("identities.log"),
        translator: translator(args),
        print_status: args.print_status,
        observed: Observed::default(),
        rescan: Arc::new(Notify::new()),
    };
    let (rescan, mut objects) = (config.rescan.clone(), config.observed.watch());
    let (admin_drain, admin_watch) = drain::channel();
    let ready =
        admin::start(args.admin.as_ref(), server.handle(), &config.observed, admin_watch, &mut tasks).await?;
    let mut serving = false;
    let handle = server.handle().clone();
    let run = async { Reconciler::start(config, handle).await?.run().await };
    tokio::pin!(run);
    loop {
        tokio::select! {
            ended = &mut run => break ended?,
            end = server.failed() => return Err(end.into()),
            end = tasks.failed() => return Err(end.into()),
            signal = signals.next() => break tracing::info!(?signal, "ending on a signal"),
            Ok(()) = objects.changed() => {
                let revision = objects.borrow().revision;
                if revision > 0 && !std::mem::replace(&mut serving, true) {
                    tracing::info!(address = %server.address(), revision, "serving nodes");
                }
                readiness(&objects.borrow_and_update(), &ready);
            }
            Some(()) = hangup.recv() => {
                tracing::info!("reading the source again on SIGHUP");
                rescan.notify_one();
            }
        }
    }
    ready.not_ready("the controller is ending");
    admin_drain.drain(ADMIN_DRAIN).await;
    Ok(())
}

/// The controller is ready once everything was read and published.
fn readiness(objects: &Objects, ready: &ReadinessHandle) {
    match (&objects.withheld, objects.revision) {
        (_, 0) => {
            let waits = objects.problems.first().map(ToString::to_string);
            ready.not_ready(waits.as_deref().unwrap_or("reads the source for the first time"));
        }
        (Some(reason), _) => ready.note(&format!("the source {reason}; what was read before stays")),
        (None, _) => ready.ready(),
    }
}

/// With what the API server is reached, where it is the source.
async fn api_client(args: &Args) -> anyhow::Result<Option<Client>> {
    if args.source != SourceArg::Kubernetes {
        if args.node_account.is_some() || args.publish_join.is_some() {
            anyhow::bail!("--node-account and --publish-join need --source kubernetes");
        }
        return Ok(None);
    }
    let client = api_client::connect(args.kubeconfig.as_deref()).await;
    client.context("cannot tell how to reach the API server").map(Some)
}

fn source(args: &Args, client: Option<Client>) -> anyhow::Result<SourceConfig> {
    match (&args.source, client) {
        (SourceArg::Directory(path), _) => {
            Ok(SourceConfig::Directory { path: path.clone(), allow_empty: args.allow_empty_source })
        }
        (SourceArg::Kubernetes, Some(client)) => Ok(SourceConfig::Kubernetes(client)),
        (SourceArg::Kubernetes, None) => anyhow::bail!("nothing says how to reach the API server"),
    }
}

/// What nodes are told about this controller.
fn publication(args: &Args, registrar: &Registrar) -> Option<Publication> {
    let place = args.publish_join.clone()?;
    let address = args.advertise.clone()?;
    Some(Publication {
        namespace: place.namespace,
        name: place.name,
        address,
        join: registrar.token().clone(),
    })
}

/// The usual bounds, and no more connections than there can be open files.
fn limits(args: &Args) -> IrLimits {
    let limits = IrLimits { acknowledgement: Duration::from_secs(args.ack_deadline), ..IrLimits::default() };
    let possible = open_files::raise().saturating_sub(OTHER_FILES).max(1);
    if possible < limits.connections {
        tracing::debug!(connections = possible, "the limit of open files bounds the connections of nodes");
    }
    IrLimits { connections: limits.connections.min(possible), ..limits }
}

fn translator(args: &Args) -> Translator {
    Translator {
        cluster: args.cluster.as_str().into(),
        defaults: MeshDefaults { pod_cidrs: args.pod_cidr.clone() },
    }
}

/// Writes the token so that only its owner can read it, whatever was there before.
fn write_token(path: &Path, token: &str) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{token}")
}

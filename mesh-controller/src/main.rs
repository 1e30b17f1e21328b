// SPDX-License-Identifier: Apache-2.0
//! The `weft-controller` binary.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use weft_identity::{Authority, tls};
use weft_ir::MeshDefaults;
use weft_mesh_controller::{
    admin,
    args::Args,
    reconcile::{Reconciler, ReconcilerConfig},
    serve_ir::{IrServer, IrServerConfig},
};
use weft_runtime::{drain, telemetry};
use weft_translate::Translator;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    telemetry::init(args.log_format, &args.log)?;
    let authority = Authority::open(&args.state_dir).context("cannot open the certificate authority")?;
    if let Some(path) = &args.join_token_file {
        write_token(path, &authority.token().expose())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let token = authority.token().clone();
    let tls = tls::controller_server(authority).context("cannot set up TLS")?;
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let server = IrServer::start(listener, IrServerConfig { tls, token })?;

    let result = serve(&args, &server).await;
    server.shutdown().await;
    result
}

/// Runs until a signal ends it.
async fn serve(args: &Args, server: &IrServer) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let config = ReconcilerConfig {
        source: args.source.clone(),
        identities: args.state_dir.join("identities.json"),
        translator: Translator {
            cluster: args.cluster.as_str().into(),
            defaults: MeshDefaults { pod_cidrs: args.pod_cidr.clone() },
        },
        print_status: args.print_status,
    };
    let (_admin_drain, admin_watch) = drain::channel();
    let ready = admin::start(args.admin.as_ref(), server.handle(), admin_watch).await?;
    let reconciler = Reconciler::start(config, server.handle().clone()).await?;
    ready.ready();
    tracing::info!(address = %server.address(), revision = reconciler.revision(), "serving nodes");
    tokio::select! {
        ended = reconciler.run() => ended?,
        _ = terminate.recv() => tracing::info!("ending on SIGTERM"),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            tracing::info!("ending on interrupt");
        }
    }
    Ok(())
}

/// Writes the token so that only its owner can read it, whatever was there before.
fn write_token(path: &Path, token: &str) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{token}")
}

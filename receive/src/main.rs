//! The program `weir`.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Context as _;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use weir::{
    admin::{self, AdminError, console::Terminal},
    cli::{self, Invocation, Values},
    config::Config,
    dev, logging,
    node::{Node, limits::raise_open_files},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a command line or configuration that cannot be used; 1 is for all else.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // An error means that a provider of TLS is there already, which is all that is asked.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let invocation =
        cli::parse(std::env::args_os().collect::<Vec<OsString>>()).unwrap_or_else(|error| error.exit());
    let result = match invocation {
        Invocation::Receive(values) => return receive(&values),
        Invocation::Dev(args) => {
            with_runtime(async { dev::run(args, stop_on_signals(Hangup::Stops)?).await })
        }
        Invocation::Admin(args) => with_runtime(async { Ok(admin::run(args, &mut Terminal).await?) }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {error:#}");
            error.downcast_ref().map_or(ExitCode::FAILURE, AdminError::exit_code)
        }
    }
}

fn receive(values: &Values) -> ExitCode {
    let config = match Config::judge(values) {
        Ok(config) => config,
        Err(error) => {
            error.problems.iter().for_each(|problem| eprintln!("weir: {problem}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if let Err(error) = logging::init(&config.log) {
        eprintln!("weir: cannot start logging: {error}");
        return ExitCode::FAILURE;
    }
    match with_runtime(run_node(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "weir ends with an error");
            ExitCode::FAILURE
        }
    }
}

async fn run_node(config: Config) -> anyhow::Result<()> {
    // Signals that come while the node starts must stop it too.
    let stop = stop_on_signals(Hangup::Ignored)?;
    if config.stop_on_stdin_eof {
        stop_on_stdin_eof(stop.clone())?;
    }
    config.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    raise_open_files();
    let node = Node::bind(config).await?;
    let addresses = node.addresses()?;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, http = %addresses.http, grpc = %addresses.grpc, write = %addresses.write, "node starts");
    node.run(stop).await?;
    Ok(())
}

/// Runs `main` to its end. What is left on blocking threads then is not waited for: it is as safe
/// as under kill -9, and a stop must not hang on it.
fn with_runtime(main: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let result = runtime.block_on(main);
    runtime.shutdown_background();
    result
}

/// What SIGHUP does.
#[derive(Clone, Copy, PartialEq)]
enum Hangup {
    /// Nothing, for a service: configuration is watched, not signalled.
    Ignored,
    /// It stops a program that belongs to its terminal.
    Stops,
}

/// A token that SIGTERM and SIGINT cancel. A second one ends the process at once.
fn stop_on_signals(on_hangup: Hangup) -> anyhow::Result<CancellationToken> {
    let listen = |kind: SignalKind| signal(kind).context("cannot listen to signals");
    let (mut terminate, mut interrupt, mut hangup) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = hangup.recv() => if on_hangup == Hangup::Ignored { continue },
                Some(()) = either(&mut terminate, &mut interrupt) => {}
            }
            if token.is_cancelled() {
                tracing::warn!("a second signal ends the process at once");
                std::process::exit(1);
            }
            token.cancel();
        }
    });
    Ok(stop)
}

async fn either(one: &mut Signal, other: &mut Signal) -> Option<()> {
    tokio::select! {
        received = one.recv() => received,
        received = other.recv() => received,
    }
}

/// Cancels `stop` when standard input ends. A thread of its own, because a read of standard input
/// cannot be broken off.
fn stop_on_stdin_eof(stop: CancellationToken) -> anyhow::Result<()> {
    let read = move || {
        // An error ends the input as well as its end does.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        stop.cancel();
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(read).context("cannot start a thread")?;
    Ok(())
}

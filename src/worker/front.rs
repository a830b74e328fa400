//! Where calls come from: connections to the worker's address, or events of AWS Lambda; and the
//! address for operators.

use super::SharedParts;
use super::lock_file::LockFile;
use crate::config::{Command, Config, HttpConfig, LambdaConfig};
use crate::error::StartError;
use crate::http::api::{Api, Surface};
use crate::http::server::listener::Listener;
use crate::lambda::Lambda;
use crate::limits::ADMIN_CONNECTIONS;
use crate::pool::Pool;
use crate::processors::allowed;
use crate::service_manager::InheritedSockets;
use crate::shutdown::{Shutdown, Stage};
use crate::threads::Threads;
use crate::version::version;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use tracing::{debug, info};

/// A front that is bound: connections or AWS Lambda, before there is a pool to give calls to.
pub(super) enum BoundFront {
    Http(Listener),
    Lambda(LambdaConfig),
}

impl BoundFront {
    /// The addresses that are listened on.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            BoundFront::Http(listener) => listener.addresses(),
            BoundFront::Lambda(_) => Vec::new(),
        }
    }
}

/// A source of calls for the pool.
pub(super) enum Front {
    /// Connections to the worker's address, and the file that is there meanwhile.
    Http(Listener, Option<PathBuf>),
    /// AWS Lambda.
    Lambda(Box<Lambda>),
}

impl Front {
    /// The listener, or AWS Lambda where that runs the worker.
    pub(super) fn of(
        bound: BoundFront,
        config: &Config,
        shared: &SharedParts,
        pool: &Arc<Pool>,
    ) -> Front {
        let lambda = match bound {
            BoundFront::Http(listener) => {
                let listener = listener.with_memory_budget(shared.budget.clone());
                return Front::Http(listener, config.lock_file.clone());
            }
            BoundFront::Lambda(lambda) => lambda,
        };
        let process = &config.process;
        Front::Lambda(Box::new(Lambda {
            config: lambda,
            http: config.http.clone(),
            ready_timeout: process.wait_ready.then_some(process.startup_timeout),
            pool: Arc::clone(pool),
            budget: shared.budget.clone(),
            metrics: Arc::clone(&shared.metrics),
            shutdown: shared.shutdown.clone(),
        }))
    }

    /// Serves calls until the worker is to end; gives the reason if AWS Lambda was told that the
    /// worker cannot start.
    pub(super) async fn serve(
        self,
        config: &HttpConfig,
        api: &Arc<Api>,
        shutdown: &Shutdown,
        threads: &Threads,
    ) -> Option<StartError> {
        match self {
            Front::Http(listener, lock_file) => {
                let lock_file = lock_file.as_deref().and_then(LockFile::create);
                let unlocked = async {
                    shutdown.reached(Stage::Draining).await;
                    drop(lock_file);
                };
                let served = serve_callers(listener, config, api, shutdown, threads);
                tokio::join!(served, unlocked);
                None
            }
            Front::Lambda(lambda) => lambda.serve().await.map(StartError::Lambda),
        }
    }
}

/// Listens for callers and operators, on the sockets of the service manager if there are some.
pub(super) fn open(
    config: &Config,
    inherited: InheritedSockets,
) -> Result<(BoundFront, Option<Listener>), StartError> {
    let (for_callers, for_operators) = inherited.split(config.http.admin);
    let bound = open_for_callers(config, for_callers)?;
    let admin = listen_for_operators(&config.http, for_operators)?;
    Ok((bound, admin))
}

/// Listens for callers, unless their calls come from AWS Lambda; logs where, and with how much
/// memory.
fn open_for_callers(
    config: &Config,
    inherited: Vec<TcpListener>,
) -> Result<BoundFront, StartError> {
    let (version, command) = (version(), config.command.as_ref().map(Command::shown));
    let (processes, threads) = (config.pool.processes.get(), config.threads.get());
    if let Some(lambda) = &config.lambda {
        let (address, events) = (lambda.runtime_api, lambda.events.get());
        info!(%address, events, processes, threads, version, command, "taking events from AWS Lambda");
        return Ok(BoundFront::Lambda(lambda.clone()));
    }
    let is_inherited = !inherited.is_empty();
    let listener = match is_inherited {
        true => Listener::take_over(inherited)?,
        false => Listener::bind(&config.http.listen)?,
    };
    for address in listener.addresses() {
        let socket = is_inherited.then_some("of the service manager");
        info!(%address, processes, threads, version, command, socket, "listening");
    }
    debug!(processors = allowed(), "processors found");
    let Some(memory_limit) = config.memory_limit else {
        return Ok(BoundFront::Http(listener));
    };
    info!(
        memory_limit,
        max_buffered = config.http.max_buffered_bytes,
        max_connections = config.http.max_connections.get(),
        "memory is limited by the control group"
    );
    Ok(BoundFront::Http(listener.with_small_receive_buffers()))
}

/// Listens at the address of `--admin`, if there is one.
fn listen_for_operators(
    config: &HttpConfig,
    inherited: Vec<TcpListener>,
) -> Result<Option<Listener>, StartError> {
    let admin = match &config.admin {
        Some(_) if !inherited.is_empty() => Some(Listener::take_over(inherited)?),
        Some(address) => Some(Listener::bind(std::slice::from_ref(address))?),
        None => None,
    };
    for address in admin.iter().flat_map(Listener::addresses) {
        info!(%address, "listening for operators");
    }
    Ok(admin)
}

/// Serves the address that callers know.
async fn serve_callers(
    listener: Listener,
    config: &HttpConfig,
    api: &Arc<Api>,
    shutdown: &Shutdown,
    threads: &Threads,
) {
    let api = Arc::clone(api);
    let answer = move |request| Arc::clone(&api).answer(request, Surface::Public);
    let close = shutdown.child_token(Stage::Closed);
    let abort = shutdown.child_token(Stage::Aborting);
    listener
        .serve(config, answer, close, abort, threads.clone())
        .await;
}

/// Serves the address of `--admin`, if there is one. It stays open until all else has ended, so
/// that `/ready` can say why.
pub(super) async fn serve_operators(
    listener: Option<Listener>,
    config: &HttpConfig,
    api: &Arc<Api>,
    shutdown: &Shutdown,
    threads: &Threads,
) {
    let Some(listener) = listener else { return };
    let config = HttpConfig {
        max_connections: ADMIN_CONNECTIONS,
        ..config.clone()
    };
    let api = Arc::clone(api);
    let answer = move |request| Arc::clone(&api).answer(request, Surface::Admin);
    let close = shutdown.child_token(Stage::Aborting);
    let abort = shutdown.child_token(Stage::Ended);
    listener
        .serve(&config, answer, close, abort, threads.clone())
        .await;
}

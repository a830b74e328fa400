//! A worker from its start to its end: what it sets up, where calls come from (`front`), and how it
//! ends (`ending`).

mod ending;
mod front;
mod lock_file;

use crate::allocator::{Trimming, map_large_blocks};
use crate::budget::MemoryBudget;
use crate::config::{Config, IsolationConfig};
use crate::error::StartError;
use crate::http::api::large_body::LargeBodies;
use crate::http::api::token::Tokens;
use crate::http::api::{Api, Figures};
use crate::http::server::CONNECTIONS_BEYOND_LIMIT;
use crate::limits::{hide_from_processes, raise_descriptor_limit, warn_of_group_kill};
use crate::logging::listed;
use crate::metrics::{Metrics, averages};
use crate::pool::Pool;
use crate::process::launch::{
    DEFAULT_PATH, Directory, check_platform, has_path, sandbox_supported,
};
use crate::process::reaping::{end_orphans, reap_in_time, take_in_orphans};
use crate::procfs::own_resident_bytes;
use crate::reload::Watch;
use crate::service_manager::{InheritedSockets, keep_told};
use crate::shutdown::{Shutdown, Stage};
use crate::threads::Threads;
use crate::traces::Traces;
use ending::Ending;
pub(crate) use ending::LAST_KILLS_TIMEOUT;
use front::{Front, open, serve_operators};
use rustix::process::Rlimit;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often to look whether freed memory is to be given back to the system.
const TRIMMING_PERIOD: Duration = Duration::from_secs(1);

/// Least memory of a connection, in bytes: its buffer and its task.
const CONNECTION_BYTES: u64 = 12 * 1024;

/// Tells a running worker what to do. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Notified to replace all processes by new ones of the same command.
    pub reload: Arc<Notify>,
    /// [`Stage::Draining`]: finish what has begun, then end. [`Stage::Killing`]: end now.
    pub shutdown: Shutdown,
}

/// Serves on these threads until it is asked to stop, then finishes what has begun within the
/// configured times. Nothing is started before the address is bound, or taken over from the service
/// manager.
pub async fn serve(
    config: Config,
    control: Control,
    threads: Threads,
    inherited: InheritedSockets,
) -> Result<(), StartError> {
    let handler_descriptor_limit = prepare_system(&config)?;
    let tokens = config.http.auth_token_file.as_deref();
    let tokens = tokens.map(Tokens::of_file).transpose()?;
    let (bound, admin) = open(&config, inherited)?;
    let watch = watch_files(&config).await?;
    let shared = SharedParts::start(&config, control.shutdown, threads)?;
    let limit = handler_descriptor_limit;
    let (pool, api) = start_api(&config, &shared, limit, &bound.addresses(), tokens)?;
    let front = Front::of(bound, &config, &shared, &pool);
    let (shutdown, threads) = (&shared.shutdown, &shared.threads);
    let (mut not_started, mut never_up) = (None, None);
    let [connections_gone, admin_gone] = [(); 2].map(|()| CancellationToken::new());
    let callers = async {
        not_started = front.serve(&config.http, &api, shutdown, threads).await;
        connections_gone.cancel();
    };
    let operators = async {
        serve_operators(admin, &config.http, &api, shutdown, threads).await;
        admin_gone.cancel();
    };
    let ending = Ending {
        shutdown,
        pool: &pool,
        connections_gone: &connections_gone,
        admin_gone: &admin_gone,
        traces: &shared.traces,
    };
    let end = async {
        never_up = wait_for_shutdown(shutdown, &pool, &config).await;
        info!("shutting down");
        ending.run(&config.shutdown, config.process.grace).await;
    };
    let reloading = reload_when_told(&pool, &api, &control.reload, watch);
    let served = async { tokio::join!(callers, operators, end) };
    // Cancel-safe: a reload that has begun belongs to the pool, and `end_orphans` makes up for a
    // lost search for orphans.
    tokio::select! {
        _ = served => {}
        never = reloading => match never {},
        never = sample_load(&api) => match never {},
        never = keep_told(pool.ready(), shutdown) => match never {},
        never = reap_in_time() => match never {},
        never = give_back_memory(&shared) => match never {},
    }
    end_orphans().await;
    info!("stopped");
    let failure = not_started.or(never_up);
    failure.map_or(Ok(()), Err)
}

/// What all parts of a worker share.
struct SharedParts {
    budget: MemoryBudget,
    large_bodies: LargeBodies,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    threads: Threads,
    traces: Traces,
}

impl SharedParts {
    fn start(
        config: &Config,
        shutdown: Shutdown,
        threads: Threads,
    ) -> Result<SharedParts, StartError> {
        Ok(SharedParts {
            budget: MemoryBudget::new(config.http.max_buffered_bytes),
            large_bodies: start_large_bodies()?,
            metrics: Arc::new(Metrics::new(config.threads)),
            shutdown,
            threads,
            traces: Traces::start(),
        })
    }
}

/// Starts the processes, and makes the API in front of them.
fn start_api(
    config: &Config,
    shared: &SharedParts,
    handler_descriptor_limit: Rlimit,
    addresses: &[SocketAddr],
    tokens: Option<Tokens>,
) -> Result<(Arc<Pool>, Arc<Api>), StartError> {
    let pool = Arc::new(Pool::start(
        config,
        Some(handler_descriptor_limit),
        shared.budget.clone(),
        shared.shutdown.clone(),
        &shared.threads,
        Arc::clone(&shared.metrics),
    )?);
    let figures = Figures::new(
        &config.http,
        Arc::clone(&pool),
        Arc::clone(&shared.metrics),
        shared.budget.clone(),
        shared.shutdown.clone(),
        shared.threads.clone(),
    );
    let api = Api::new(
        config.http.clone(),
        Arc::clone(&pool),
        &addresses.iter().map(SocketAddr::ip).collect::<Vec<_>>(),
        tokens,
        shared.budget.clone(),
        shared.large_bodies.clone(),
        figures,
    );
    let api = api.with_traces(shared.traces.clone());
    Ok((pool, Arc::new(api)))
}

/// Checks what the system can do, and sets this process up; returns the limit of open files that
/// handlers get.
pub(crate) fn prepare_system(config: &Config) -> Result<Rlimit, StartError> {
    check_platform().map_err(StartError::Platform)?;
    map_large_blocks();
    check_sandbox(&config.isolation)?;
    let handler_descriptor_limit = raise_descriptor_limit(
        &config.http,
        config.pool.max_processes,
        CONNECTIONS_BEYOND_LIMIT,
    );
    hide_from_processes();
    take_in_orphans();
    if !has_path() {
        warn!(
            path = DEFAULT_PATH,
            "PATH is not set: programs are looked for here, and handlers get it"
        );
    }
    warn_of_group_kill(&config.isolation);
    Ok(handler_descriptor_limit)
}

/// Starts the thread that searches large bodies.
fn start_large_bodies() -> Result<LargeBodies, StartError> {
    LargeBodies::start().map_err(|source| StartError::Runtime {
        what: "the thread for large bodies",
        source,
    })
}

/// Watches the files of `--reload`, if there is one.
async fn watch_files(config: &Config) -> Result<Option<Watch>, StartError> {
    let Some(root) = config.reload.as_deref() else {
        return Ok(None);
    };
    let directory = Directory::find(config.directory.as_deref());
    let watch = Watch::start(root, &directory, config.command.as_ref()).await?;
    Ok(Some(watch))
}

/// Waits until the worker is to end. With `--exit-on-failure` the worker also ends when no process
/// ever came up; returns the reason then.
async fn wait_for_shutdown(
    shutdown: &Shutdown,
    pool: &Pool,
    config: &Config,
) -> Option<StartError> {
    // AWS Lambda is told of it first.
    let exit_on_failure = config.exit_on_failure && config.lambda.is_none();
    // Cancel-safe: both are only asked whether they have happened.
    tokio::select! {
        () = shutdown.reached(Stage::Draining) => None,
        why = pool.never_up(), if exit_on_failure => {
            shutdown.advance(Stage::Killing);
            Some(StartError::NeverUp(why.to_owned()))
        }
    }
}

/// Reloads the pool on a notification or when files have changed; never ends.
async fn reload_when_told(
    pool: &Pool,
    api: &Api,
    asked: &Notify,
    mut watch: Option<Watch>,
) -> Infallible {
    loop {
        let changed = async {
            match &mut watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        // Cancel-safe: a change that is lost with its future is noticed again.
        tokio::select! {
            () = asked.notified() => {
                info!("asked to reload");
                api.reread_tokens();
            }
            path = changed => info!(path = %path.display(), "handler's files have changed"),
        }
        pool.reload();
    }
}

/// Takes samples of the load for its averages; never ends.
async fn sample_load(api: &Api) -> Infallible {
    let mut ticks = interval(averages::PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        api.figures().sample();
    }
}

/// Gives freed memory back to the system after each peak of load; never ends.
async fn give_back_memory(shared: &SharedParts) -> Infallible {
    let mut trimming = Trimming::new(own_resident_bytes());
    loop {
        sleep(TRIMMING_PERIOD).await;
        // Nearly all tasks are connections.
        let load = shared.budget.held() + shared.threads.tasks() as u64 * CONNECTION_BYTES;
        if trimming.is_due(load, own_resident_bytes()) {
            shared.large_bodies.trim();
            sleep(TRIMMING_PERIOD).await;
            trimming.done(load, own_resident_bytes());
        }
    }
}

/// Logs what the kernel can do for the sandbox; fails if `--sandbox` is set and cannot be kept.
fn check_sandbox(config: &IsolationConfig) -> Result<(), StartError> {
    match (sandbox_supported(), &config.sandbox) {
        (Ok(abi), Some(paths)) => {
            let [read, write] =
                [&paths.read, &paths.write].map(|paths| listed(paths.iter().map(|p| p.display())));
            info!(landlock_abi = %abi, read, write, "sandbox is on");
        }
        (Ok(abi), None) => debug!(landlock_abi = %abi, "sandbox is off"),
        (Err(why), None) => debug!(%why, "sandbox is off, and could not be had"),
        (Err(why), Some(_)) => return Err(StartError::Sandbox(why)),
    }
    Ok(())
}

//! The flags of the worker, and the settings that they mean: one module for each heading of the
//! help.

mod check;
mod connections;
mod isolation;
mod lambda;
mod map;
mod platform;
mod processes;
mod requests;
mod shutdown;

use super::sizes::Sizes;
use super::values::{Host, ReloadFolder, host, interval, port, socket_address, threads};
use super::{Task, TopSettings};
use crate::config::{Command, Config};
use crate::control_group::memory_limit;
use crate::processors::{allowed, threads_for};
pub(super) use check::CheckOptions;
use clap::Args;
use connections::ConnectionOptions;
use isolation::IsolationOptions;
use lambda::LambdaOptions;
pub(super) use map::{MapOptions, of_batch};
use platform::Platform;
use processes::ProcessOptions;
use requests::RequestOptions;
use shutdown::ShutdownOptions;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

/// The port where neither a setting nor the platform names one.
const PORT: u16 = 8000;

/// Where the worker listens.
#[derive(Debug, Args)]
pub(super) struct Address {
    /// Address of the worker, or `localhost` [default: 127.0.0.1, on OpenFaaS 0.0.0.0]
    #[arg(long, env = "HOST", value_parser = host)]
    host: Option<Host>,
    /// Its port; 0 picks a free one [default: 8000, on OpenFaaS 8080, on Azure Functions its own]
    #[arg(long, env = "PORT", value_parser = port)]
    port: Option<u16>,
}

/// The handler's command.
#[derive(Debug, Args)]
struct HandlerFlags {
    /// The command to run; split into words as a shell does, but no shell runs it
    #[arg(
        long,
        env = "HANDLER_FUNCTION",
        value_name = "COMMAND",
        hide_env_values = true
    )]
    handler: Option<String>,
    /// The command to run and its words, instead of --handler
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Flags of `faas-worker health`.
#[derive(Debug, Args)]
pub(super) struct HealthOptions {
    #[command(flatten)]
    address: Address,
    /// Ask whether a process is up, which /ready tells, and not only whether the worker answers
    #[arg(long)]
    ready: bool,
    /// The worker's --admin, where it has one: with --ready, that is asked
    #[arg(long, env = "FAAS_ADMIN", value_name = "ADDR", value_parser = socket_address)]
    admin: Option<SocketAddr>,
}

impl HealthOptions {
    pub(super) fn task(&self) -> Result<Task, String> {
        let address = self.address.resolve(&Platform::here()?);
        Ok(match (self.ready, self.admin) {
            (false, _) => Task::Health(address),
            (true, None) => Task::Ready(address),
            (true, Some(admin)) => Task::Ready(vec![admin]),
        })
    }
}

/// Flags of `faas-worker top`.
#[derive(Debug, Args)]
pub(super) struct TopOptions {
    /// Address of the worker, instead of --admin, or --host and --port
    #[arg(value_name = "ADDRESS", value_parser = socket_address)]
    at: Option<SocketAddr>,
    #[command(flatten)]
    address: Address,
    /// The worker's --admin, where it has one: only there is the table of processes
    #[arg(long, env = "FAAS_ADMIN", value_name = "ADDR", value_parser = socket_address)]
    admin: Option<SocketAddr>,
    /// Time between two samples of the worker
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print the table once, and end
    #[arg(long)]
    once: bool,
}

impl TopOptions {
    pub(super) fn task(&self) -> Result<Task, String> {
        let platform = Platform::here()?;
        let named = self.at.or(self.admin);
        let addresses =
            named.map_or_else(|| self.address.resolve(&platform), |address| vec![address]);
        Ok(Task::Top(TopSettings {
            addresses,
            interval: self.interval,
            once: self.once,
        }))
    }
}

/// Flags of `faas-worker serve`, one struct for each heading of the help.
#[derive(Debug, Args)]
pub(super) struct ServeOptions {
    #[command(flatten)]
    handler: HandlerFlags,
    #[command(flatten)]
    address: Address,

    /// Threads that serve connections and processes [default: a quarter of the CPUs it may use, 1
    /// to 8]
    #[arg(long, env = "FAAS_THREADS", value_name = "N", value_parser = threads)]
    threads: Option<NonZeroUsize>,

    #[command(flatten)]
    processes: ProcessOptions,
    #[command(flatten)]
    isolation: IsolationOptions,
    #[command(flatten)]
    requests: RequestOptions,
    #[command(flatten)]
    connections: ConnectionOptions,
    #[command(flatten)]
    lambda: LambdaOptions,
    #[command(flatten)]
    shutdown: ShutdownOptions,
}

/// Defaults that follow from the platform, where it has some.
#[derive(Debug, Default)]
struct Defaults {
    /// The longest time for one reply.
    timeout: Option<Duration>,
    /// Processes to keep alive.
    processes: Option<NonZeroUsize>,
}

/// The task of running the worker with these flags.
pub(super) fn serve(options: ServeOptions) -> Result<Task, String> {
    let ServeOptions {
        handler,
        address,
        threads,
        processes,
        isolation,
        requests,
        connections,
        lambda,
        shutdown,
    } = options;
    connections.check_token_file()?;
    let memory_limit = memory_limit();
    let sizes = Sizes::new(requests.sizes(connections.max_connections), memory_limit)?;
    let directory = processes.chdir.clone();
    let exit_on_failure = processes.exit_on_failure;
    let reload = processes.reload.clone();
    let platform = Platform::here()?;
    let lock_file = connections
        .lock_file
        .clone()
        .or_else(|| platform.lock_file.clone());
    let of_platform = platform.handler.clone().or_else(|| lambda.handler());
    let defaults = Defaults {
        timeout: lambda.timeout().or(platform.timeout),
        processes: lambda.processes(),
    };
    let (pool, process) =
        processes.into_config(&requests, &defaults, sizes.reply, shutdown.log_handler)?;
    let (log, access_log) = (shutdown.log(), shutdown.access_log);
    let config = Config {
        memory_limit,
        command: handler.command(of_platform)?,
        directory,
        exit_on_failure,
        threads: threads.unwrap_or_else(|| threads_for(allowed())),
        pool,
        process,
        isolation: isolation.into_config(),
        shutdown: shutdown.into_config(),
        reload: reload.and_then(|ReloadFolder(path)| path),
        lambda: lambda.config(),
        lock_file,
        http: connections.into_config(
            address.resolve(&platform),
            requests.pass_header,
            &sizes,
            access_log,
            platform.is_openfaas,
        )?,
    };
    Ok(Task::Serve(Box::new(config), log))
}

impl HandlerFlags {
    /// The words after `--`, or else `--handler`, or else the platform's handler, split as a shell
    /// splits them.
    fn command(self, of_platform: Option<String>) -> Result<Option<Command>, String> {
        let handler = self.handler.or(of_platform);
        let words = match handler.filter(|_| self.command.is_empty()) {
            None => self.command,
            Some(handler) => {
                let words = shell_words::split(&handler).map_err(|error| {
                    format!("--handler (HANDLER_FUNCTION): {error}: {handler:?}")
                })?;
                words.into_iter().map(OsString::from).collect()
            }
        };
        let mut words = words.into_iter();
        Ok(words.next().map(|program| Command {
            program,
            arguments: words.collect(),
        }))
    }
}

impl Address {
    pub(super) fn resolve(&self, platform: &Platform) -> Vec<SocketAddr> {
        let ips = match self.host {
            Some(Host::Address(ip)) => vec![ip],
            Some(Host::Localhost) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            None => vec![platform.host.unwrap_or(Ipv4Addr::LOCALHOST.into())],
        };
        let port = self.port.or(platform.port).unwrap_or(PORT);
        ips.into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        let split = |text: &str| {
            let handler = HandlerFlags {
                handler: Some(text.to_owned()),
                command: Vec::new(),
            };
            handler.command(None)
        };
        let words = split(r#"a 'b c' "d $(e)" f\ g"#).unwrap().unwrap();
        assert_eq!(words.program, "a");
        assert_eq!(words.arguments, ["b c", "d $(e)", "f g"]);
        assert_eq!(split("  ").unwrap(), None);
        assert!(
            split("a 'b")
                .unwrap_err()
                .starts_with("--handler (HANDLER_FUNCTION): ")
        );
    }
}

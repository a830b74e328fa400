//! Flags about connections: their limits, and which callers are answered.

use crate::cli::sizes::Sizes;
use crate::cli::values::{
    count, function_path, host_name, limit_of_time, limit_of_time_or_none, origin, size_or_none,
    socket_address,
};
use crate::config::{AccessLog, HttpConfig};
use clap::Args;
use clap::builder::BoolishValueParser;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// The variable of `--auth-token-file`.
const TOKEN_FILE: &str = "FAAS_AUTH_TOKEN_FILE";

/// An age, or `None` for no limit. The alias hides the `Option` from clap, which would take the
/// flag for one without a default.
type Age = Option<Duration>;

#[derive(Debug, Args)]
#[command(next_help_heading = "Connections")]
pub(super) struct ConnectionOptions {
    /// Connections open at one time [default: 16384, at most one for each 256 KiB of the control
    /// group's memory limit]
    #[arg(long, env = "FAAS_MAX_CONNECTIONS", value_name = "N", value_parser = count)]
    pub(super) max_connections: Option<NonZeroUsize>,
    /// For a request's head
    #[arg(long, env = "FAAS_HEADER_TIMEOUT", value_name = "DURATION", default_value = "10s",
          value_parser = limit_of_time)]
    header_timeout: Duration,
    /// For a request's body
    #[arg(long, env = "FAAS_BODY_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = limit_of_time)]
    body_timeout: Duration,
    /// How long a client may take nothing of a response
    #[arg(long, env = "FAAS_WRITE_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = limit_of_time)]
    write_timeout: Duration,
    /// What a body or a response moves at least in a second, after 5 s; 0 turns it off
    #[arg(long, env = "FAAS_LEAST_RATE", value_name = "SIZE", default_value = "1KiB",
          value_parser = size_or_none)]
    least_rate: u64,
    /// How long a connection may be idle
    #[arg(long, env = "FAAS_KEEP_ALIVE", value_name = "DURATION", default_value = "620s",
          value_parser = limit_of_time)]
    keep_alive: Duration,
    /// About when a connection is asked to close, so that new replicas get their share; 0
    /// turns it off
    #[arg(long, env = "FAAS_MAX_CONNECTION_AGE", value_name = "DURATION", default_value = "5m",
          value_parser = limit_of_time_or_none)]
    max_connection_age: Age,
    /// A host name to accept beyond the loopback names (repeatable)
    #[arg(long, env = "FAAS_ALLOW_HOST", value_name = "NAME", value_delimiter = ',',
          value_parser = host_name)]
    allow_host: Vec<String>,
    /// An origin whose pages may call, beyond our own (repeatable)
    #[arg(long, env = "FAAS_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',',
          value_parser = origin)]
    allow_origin: Vec<String>,
    /// A file of tokens, one a line: POST / then needs Authorization: Bearer with one of them
    #[arg(long, env = TOKEN_FILE, value_name = "PATH")]
    auth_token_file: Option<PathBuf>,
    /// Whether errors may quote what a handler printed, and the PATH [default: true where all
    /// addresses are loopback ones]
    #[arg(long, env = "FAAS_VERBOSE_ERRORS", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    verbose_errors: Option<bool>,
    /// A path beside / at which POST calls the function, or with * at its end all that begin so
    /// (repeatable)
    #[arg(long, env = "FAAS_FUNCTION_PATH", value_name = "PATH", value_delimiter = ',',
          value_parser = function_path)]
    function_path: Vec<String>,
    /// A file that is there while requests are taken [default: none, on OpenFaaS /tmp/.lock]
    #[arg(long, env = "FAAS_LOCK_FILE", value_name = "PATH")]
    pub(super) lock_file: Option<PathBuf>,
    /// An address of its own for /ready, /metrics, /stats and /processes, which are then not served
    /// beside POST /
    #[arg(long, env = "FAAS_ADMIN", value_name = "ADDR", value_parser = socket_address)]
    admin: Option<SocketAddr>,
}

impl ConnectionOptions {
    /// The settings of HTTP at these addresses.
    pub(super) fn into_config(
        self,
        listen: Vec<SocketAddr>,
        pass_headers: Vec<String>,
        sizes: &Sizes,
        access_log: AccessLog,
        takes_x_timeout: bool,
    ) -> Result<HttpConfig, String> {
        if let Some(admin) = self.admin.filter(|admin| is_taken_by(&listen, *admin)) {
            return Err(format!(
                "--admin (FAAS_ADMIN): needs a port of its own, --port has this one: \"{admin}\""
            ));
        }
        Ok(HttpConfig {
            listen,
            function_paths: self.function_path,
            takes_x_timeout,
            max_body_bytes: sizes.body,
            max_buffered_bytes: sizes.buffered,
            max_connections: sizes.connections,
            header_timeout: self.header_timeout,
            body_timeout: self.body_timeout,
            write_timeout: self.write_timeout,
            least_rate: self.least_rate,
            keep_alive: self.keep_alive,
            max_connection_age: self.max_connection_age,
            allowed_hosts: self.allow_host,
            allowed_origins: self.allow_origin,
            access_log,
            auth_token_file: self.auth_token_file,
            verbose_errors: self.verbose_errors,
            admin: self.admin,
            pass_headers,
        })
    }

    /// Refuses an empty variable for the file of tokens. Other empty variables count as not set;
    /// this one would leave the worker open to callers without a token where a deployment meant to
    /// name a file.
    pub(super) fn check_token_file(&self) -> Result<(), String> {
        let is_empty = std::env::var_os(TOKEN_FILE).is_some_and(|path| path.is_empty());
        if is_empty && self.auth_token_file.is_none() {
            return Err(format!(
                "--auth-token-file ({TOKEN_FILE}): empty, so that callers would need no token; \
                 unset the variable if this is meant, or name a file: \"\""
            ));
        }
        Ok(())
    }
}

/// Whether one of the addresses that are listened on covers this one.
fn is_taken_by(listen: &[SocketAddr], address: SocketAddr) -> bool {
    listen.iter().any(|taken| {
        let [ours, theirs] = [taken.ip(), address.ip()];
        // Port 0 is another one each time; an unspecified address is all of them.
        taken.port() == address.port()
            && address.port() != 0
            && (ours == theirs || ours.is_unspecified() || theirs.is_unspecified())
    })
}

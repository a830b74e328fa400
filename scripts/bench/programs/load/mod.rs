//! A load generator: closed loop (so many connections, each with its next request as soon as it
//! has its answer) or open loop (so many requests a second, whatever comes back).
//!
//! A latency in the open loop counts from when the request was due, not from when it could be
//! sent, so that a server that stalls is not spared the requests that it kept from being sent.
//!
//! One thread and one epoll, edge-triggered: what measures shares the machine with what is
//! measured, and has to be cheap. Not here: pipelining, TLS, redirects.

mod connection;
mod generator;
mod ideal;
mod probe;
mod record;
mod response;
mod schedule;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What to send, how, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the server listens
    #[arg(long)]
    address: SocketAddr,
    /// Connections that requests are sent on
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Connections beside them that are opened and never used
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// Open loop: requests a second
    #[arg(long)]
    rate: Option<f64>,
    /// Open loop: how they are spread
    #[arg(long, value_enum, default_value_t = schedule::Arrivals::Poisson)]
    arrivals: schedule::Arrivals,
    /// Open loop: what the arrivals are drawn from; the same seed gives the same
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long to measure
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    duration: Duration,
    /// How long to load before that
    #[arg(long, value_parser = humantime::parse_duration, default_value = "500ms")]
    warm_up: Duration,
    /// How long to wait for answers after that
    #[arg(long, value_parser = humantime::parse_duration, default_value = "15s")]
    patience: Duration,
    /// The payload
    #[arg(long, default_value = "dev-1,42,1678886400")]
    payload: String,
    /// A payload of so many bytes instead
    #[arg(long, conflicts_with = "payload")]
    payload_bytes: Option<usize>,
    /// Asks for this path all the while, every five milliseconds, on a connection of its own
    #[arg(long)]
    probe: Option<String>,
    /// Open loop: also what a first-in first-out queue in front of so many servers would give
    #[arg(long, requires = "ideal_time")]
    ideal_servers: Option<usize>,
    /// How long each of those servers takes for a request
    #[arg(long, value_parser = humantime::parse_duration, requires = "ideal_servers")]
    ideal_time: Option<Duration>,
}

/// Sends the load and prints what came of it as JSON.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    raise_descriptor_limit(options.connections + options.idle)?;
    let idle = generator::open_idle(options.address, options.idle)?;
    let mut outcome = generator::Generator::new(options)?.run()?;
    drop(idle);
    if let (Some(servers), Some(time), Some(rate)) =
        (options.ideal_servers, options.ideal_time, options.rate)
    {
        let schedule = schedule::Schedule::new(rate, options.arrivals, options.seed);
        outcome["ideal"] = ideal::first_in_first_out(schedule, servers, time, options);
    }
    println!("{outcome}");
    Ok(())
}

/// The request that is sent again and again.
fn request(options: &Options) -> Vec<u8> {
    let payload = match options.payload_bytes {
        Some(bytes) => "x".repeat(bytes),
        None => options.payload.clone(),
    };
    let body = serde_json::json!({ "payload": payload }).to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        options.address,
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Each connection is a descriptor, and the usual limit is 1024.
fn raise_descriptor_limit(connections: usize) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let needed = connections as u64 + 64;
    if before.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = before.maximum.map(|maximum| maximum.max(needed));
    let wanted = Rlimit {
        current: Some(needed),
        maximum,
    };
    setrlimit(Resource::Nofile, wanted).map_err(io::Error::from)
}

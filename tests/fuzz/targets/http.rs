//! Any bytes on a connection: whole responses, as many as requests at most, and then its end.
//!
//! The real listener and the real API in this process, before a pool without a command, so that a
//! request which gets through to the pool is answered with 500. Time is the runtime's own
//! and jumps to the next deadline whenever nothing else is to do: each connection ends at its
//! limits, and costs no real time.
#![no_main]

use faas_worker::budget::MemoryBudget;
use faas_worker::config::{
    AccessLog, Config, HandlerLog, HttpConfig, PoolConfig, ProcessConfig, ShutdownConfig,
};
use faas_worker::http::api::large_body::LargeBodies;
use faas_worker::http::api::{Api, Figures, Surface};
use faas_worker::http::server::listener::Listener;
use faas_worker::metrics::Metrics;
use faas_worker::pool::Pool;
use faas_worker::shutdown::Shutdown;
use faas_worker::threads::Threads;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> Config {
    let some = |number| NonZeroUsize::new(number).expect("it is not 0");
    Config {
        threads: NonZeroUsize::MIN,
        memory_limit: None,
        command: None,
        directory: None,
        exit_on_failure: false,
        lambda: None,
        lock_file: None,
        http: HttpConfig {
            function_paths: Vec::new(),
            takes_x_timeout: false,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            max_body_bytes: 1024,
            max_buffered_bytes: 1 << 20,
            max_connections: some(16),
            header_timeout: SECOND,
            body_timeout: SECOND,
            write_timeout: SECOND,
            least_rate: 1024,
            keep_alive: SECOND,
            max_connection_age: None,
            admin: None,
            auth_token_file: None,
            verbose_errors: Some(false),
            access_log: AccessLog::On,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            pass_headers: vec!["x-a".to_owned()],
        },
        pool: PoolConfig {
            processes: some(1),
            max_processes: some(1),
            idle_timeout: SECOND,
            processes_starting_at_once: some(1),
            queue: some(4),
            queue_timeout: SECOND,
            timeout: SECOND,
        },
        process: ProcessConfig {
            max_concurrency: some(1),
            read_ahead: some(1),
            wait_ready: false,
            startup_timeout: SECOND,
            max_reply_bytes: 1024,
            grace: SECOND,
            recycle: Default::default(),
            log: HandlerLog::Events,
        },
        isolation: Default::default(),
        shutdown: ShutdownConfig {
            drain_delay: SECOND,
            drain_timeout: SECOND,
        },
        reload: None,
    }
}

struct Stage {
    runtime: Runtime,
    address: SocketAddr,
}

impl Stage {
    fn new() -> Stage {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let config = config();
        let address = runtime.block_on(async {
            let listener = Listener::bind(&config.http.listen).expect("a port");
            let address = listener.addresses()[0];
            let shutdown = Shutdown::default();
            let budget = MemoryBudget::new(1 << 20);
            let threads = Threads::this_one();
            let metrics = Arc::new(Metrics::new(NonZeroUsize::MIN));
            let counted = Arc::clone(&metrics);
            let pool = Pool::start(
                &config,
                None,
                budget.clone(),
                shutdown.clone(),
                &threads,
                counted,
            );
            let pool = Arc::new(pool.expect("a pool"));
            let figures = Figures::new(
                &config.http,
                Arc::clone(&pool),
                metrics,
                budget,
                shutdown,
                threads.clone(),
            );
            let api = Arc::new(Api::new(
                config.http.clone(),
                pool,
                &[address.ip()],
                None,
                MemoryBudget::new(1 << 20),
                LargeBodies::start().expect("a thread"),
                figures,
            ));
            let answer = move |request| Arc::clone(&api).answer(request, Surface::Public);
            tokio::spawn(async move {
                let never = CancellationToken::new;
                listener
                    .serve(&config.http, answer, never(), never(), threads)
                    .await;
            });
            address
        });
        Stage { runtime, address }
    }

    /// All that comes back until the worker closes.
    fn exchange(&self, input: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let mut stream = TcpStream::connect(self.address).await.expect("it listens");
            // Closed by a reset, so that no port is kept for a minute.
            stream.set_zero_linger().expect("a socket");
            let _ = stream.write_all(input).await;
            let mut output = Vec::new();
            let ending = stream.read_to_end(&mut output);
            // A reset is an end as well, after a request that was refused unread.
            let _ = tokio::time::timeout(60 * SECOND, ending)
                .await
                .expect("the connection ends at its limits");
            output
        })
    }
}

/// Reads one response; gives what follows it.
fn check_response(output: &[u8]) -> &[u8] {
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a whole head");
    let head = std::str::from_utf8(&output[..end]).expect("a head of ours is text");
    let rest = &output[end + 4..];
    let status: u16 = head
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| head.strip_prefix("HTTP/1.0 "))
        .and_then(|line| line.get(..3)?.parse().ok())
        .expect("a status");
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    };
    if status == 100 {
        return rest;
    }
    let length: usize = header("content-length")
        .expect("a length")
        .parse()
        .expect("a number");
    // hyper's own answer to bytes that are no HTTP.
    let Some(kind) = header("content-type") else {
        assert!([400, 431, 505].contains(&status) && length == 0, "{head}");
        return rest;
    };
    assert_eq!(kind, "application/json");
    assert!(header("x-request-id").is_some());
    let known = [200, 400, 403, 404, 405, 408, 413, 422, 429, 500, 503];
    assert!(known.contains(&status), "{head}");
    let has_code = header("x-faas-error").is_some() && header("x-faas-executed") == Some("no");
    assert_eq!(
        has_code,
        status >= 400 && !head.contains("/ready"),
        "{head}"
    );
    // The answer to HEAD has the length of a body, and no body.
    if rest.is_empty() || rest.starts_with(b"HTTP/1.") {
        return rest;
    }
    let (body, rest) = rest.split_at_checked(length).expect("a whole body");
    let value: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    let member = if status == 200 { "status" } else { "detail" };
    assert!(value.get(member).is_some(), "{head} {value}");
    rest
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

fuzz_target!(|input: &[u8]| {
    let output =
        STAGE.with_borrow_mut(|stage| stage.get_or_insert_with(Stage::new).exchange(input));
    let mut rest = &output[..];
    let mut responses = 0;
    while !rest.is_empty() {
        rest = check_response(rest);
        responses += 1;
    }
    // The shortest request has 16 bytes; each may get a `100 Continue` too; bytes that are no
    // request are answered once.
    assert!(
        responses <= 2 * (input.len() / 16) + 1,
        "{responses} responses"
    );
});

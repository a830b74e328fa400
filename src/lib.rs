//! `faas-worker` turns a command into an HTTP function.
//!
//! # Theory of operation
//!
//! The worker starts the handler's command several times ahead of need and keeps the processes
//! alive. A connection task ([`http`]) reads a request's body, finds the payload's bytes in it
//! without decoding them, and puts a call into the pool's one first-in first-out queue ([`pool`]).
//! Each process has one owner ([`process::owner`]), and only the owner touches its pipes: when the
//! process may be given more, the owner takes waiting calls, writes their lines together, reads
//! lines back, and sends each answer, as the object `{"result":…}` that the caller gets, over the
//! call's own channel to the connection task, which puts it into a response.
//!
//! A client that hangs up drops its connection task at any await; the owner lives as long as the
//! process, so no client can stop it in the middle of a line.
//!
//! The parts that decide are pure, and get bytes and time from outside: [`process::line`] (framing
//! and JSON of lines), [`process::conversation`] (ids, unanswered requests, deadlines, doubt), and
//! the queue, the back-off and the health of the pool. The parts that act are thin: the owner moves
//! bytes, a slot of the pool starts, signals and reaps.
//!
//! # Invariants
//!
//! * A request is in one place: the queue, one process, or its answer's channel. It moves by
//!   value, so it is answered at most once, and given to one process at a time.
//! * A request that a process may have started is never given to another process. It is given to
//!   another in two cases: the process never read its line, or the process promised order and has
//!   not answered an earlier request.
//! * A process in doubt gets no further request.
//! * Only a slot signals and reaps a process, its group before the process itself. Descendants that
//!   processes leave behind are reaped by the thread that starts processes, and killed when all
//!   slots are empty.
//! * A handler's command is executed only in a process that the launcher step has set up.
//!
//! # Map
//!
//! | module | owns |
//! |---|---|
//! | [`cli`], [`config`] | settings as they are typed, and as they are meant |
//! | [`http`] | connections and their limits (`server`), the meaning of requests (`api`) |
//! | [`lambda`] | events of AWS Lambda, in place of connections |
//! | [`pool`] | the queue, the slots, whether the pool can serve |
//! | [`process`] | one process: start, lines, conversation, log, end |
//! | [`serve()`], [`shutdown`] | a worker from its start to its end; the stages of the end |
//! | [`service_manager`] | sockets that systemd passes on, and what it is told |
//! | [`map`](mod@map) | a batch: input lines to reply lines through the pool, with a job log to go on from |
//! | `reload` | the watch over the handler's files |
//! | [`commands`] | what the program does besides serving |
//! | [`check`] | whether a handler keeps the rules of the line protocol |
//! | [`metrics`] | counters and histograms, and their text for Prometheus |
//! | [`answer`] | the answer to a call, on its way to the caller |
//! | [`threads`] | the threads that serve, and what crosses between them |
//! | [`budget`], `allocator` | bytes held at one time; memory given back to the system |
//! | `limits`, [`control_group`], [`processors`] | limits of the system; memory and processors that the container may have |
//! | [`error`], [`logging`], [`version`] | how starts and requests fail; how the log looks; which build this is |
//! | [`trace_context`], [`traces`] | the caller's `traceparent` and `tracestate`; spans of requests, for a collector |
//! | [`handler`] | for people who write handlers in Rust; needs none of the others |
//!
//! Dependencies point one way: `cli → config`, `lambda → http → pool → process`. Nothing below
//! `http` knows HTTP, and nothing above `process` knows pipes.

#[cfg(all(feature = "worker", not(target_os = "linux")))]
compile_error!(
    "faas-worker runs on Linux only: it relies on pidfds, on process groups and on /proc"
);

#[cfg(feature = "handler")]
pub mod handler;

#[cfg(feature = "worker")]
mod allocator;
#[cfg(feature = "worker")]
pub mod answer;
#[cfg(feature = "worker")]
pub mod budget;
#[cfg(feature = "worker")]
pub mod cause;
#[cfg(feature = "worker")]
pub mod check;
#[cfg(feature = "worker")]
pub mod cli;
#[cfg(feature = "worker")]
pub mod commands;
#[cfg(feature = "worker")]
pub mod config;
#[cfg(feature = "worker")]
pub mod control_group;
#[cfg(feature = "worker")]
pub mod error;
#[cfg(feature = "worker")]
pub mod http;
#[cfg(feature = "worker")]
pub mod json_string;
#[cfg(feature = "worker")]
pub mod lambda;
#[cfg(feature = "worker")]
mod limits;
#[cfg(feature = "worker")]
pub mod logging;
#[cfg(feature = "worker")]
pub mod map;
#[cfg(feature = "worker")]
pub mod metrics;
#[cfg(feature = "worker")]
pub mod pool;
#[cfg(feature = "worker")]
pub mod process;
#[cfg(feature = "worker")]
pub mod processors;
#[cfg(feature = "worker")]
pub mod procfs;
#[cfg(feature = "worker")]
pub mod regular_file;
#[cfg(feature = "worker")]
mod reload;
#[cfg(feature = "worker")]
pub mod service_manager;
#[cfg(feature = "worker")]
pub mod shutdown;
#[cfg(feature = "worker")]
pub mod threads;
#[cfg(feature = "worker")]
pub mod trace_context;
#[cfg(feature = "worker")]
pub mod traces;
#[cfg(feature = "worker")]
pub mod version;
#[cfg(feature = "worker")]
mod worker;

#[cfg(feature = "worker")]
pub use worker::{Control, serve};

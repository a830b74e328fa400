//! The whole program, driven through its socket as its users drive it.
//!
//! Each test starts a worker of its own on a free port, with handlers that behave or, more often,
//! do not (`misbehave.rs`). A letter and a number in a test's documentation, such as B6, name the
//! fault that it stages.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod support;

mod access;
mod ahead;
mod check;
mod clients;
mod command_line;
mod contract;
mod counting;
mod directories;
mod docs;
mod doors;
mod dying;
mod framing;
mod golden;
mod health;
mod hosting;
mod http;
mod isolation;
mod lambda;
mod languages;
mod lines;
mod load;
mod logs;
mod malformed;
mod map;
mod metrics;
mod new;
mod pages;
mod platform;
mod promises;
mod python;
mod queue;
mod recycling;
mod reload;
mod rust_handlers;
mod sandbox;
mod screen;
mod service_manager;
mod settings;
mod signals;
mod start_cost;
mod starting;
mod stopping;
mod structure;
mod surroundings;
mod threads;
mod told;
mod top;

//! faas-worker turns a command into an HTTP function.
#[cfg(feature = "handler")]
pub mod handler;

#[cfg(feature = "worker")]
pub mod config;
#[cfg(feature = "worker")]
pub mod error;
#[cfg(feature = "worker")]
pub mod http;

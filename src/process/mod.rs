//! One running copy of the handler: how it is started, talked to and ended.
//!
//! Knows nothing of the queue or of HTTP: requests come from a [`owner::RequestSource`].

mod alarm;
pub mod call;
pub mod conversation;
pub mod ids;
pub mod launch;
mod launcher_thread;
pub mod line;
pub mod memory;
pub mod output_log;
pub mod owner;
pub mod reaping;
pub mod repeats;

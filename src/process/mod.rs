//! One running copy of the handler: how it is started, talked to and ended.
//!
//! Knows nothing of the queue or of HTTP: requests come in through [`owner::Feed`].

pub mod activity;
pub mod call;
pub mod conversation;
pub mod handler_log;
pub mod ids;
pub mod launch;
pub mod line;
pub mod memory;
pub mod owner;
pub mod repeats;

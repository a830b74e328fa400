//! The front door.

mod connection;
pub mod listener;
mod registry;
pub mod request;
mod state;

//! The front door.

pub mod listener;
pub mod request;

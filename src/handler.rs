//! Handlers in Rust.

//! Accepting and closing connections.

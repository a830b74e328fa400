//! HTTP: bytes and connections in one module, what a request means in the other.
//!
//! | module | what it does, and never does |
//! |---|---|
//! | [`server`] | listens, accepts, keeps connections within their limits; never knows what a request means |
//! | [`api`] | from a request's head to its response; never touches a socket |

pub mod api;
pub mod server;

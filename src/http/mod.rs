//! HTTP: bytes and connections in one room, what a request means in the other.
//!
//! | room | what it does, and never does |
//! |---|---|
//! | [`server`] | listens, accepts, keeps connections within their limits; never knows what a request means |
//! | [`api`] | from a request's head to its response; never touches a socket |

pub mod api;
pub mod server;

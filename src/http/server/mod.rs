//! The HTTP server: listening, accepting, and keeping each connection within its limits on time,
//! rate and number.
//!
//! Serves any function from a request to a response; knows nothing of the meaning of requests.

mod acceptor;
mod body;
mod clock;
mod connection;
mod flags;
mod limits;
pub mod listener;
mod rates;
mod registry;
mod snapshot;
mod sockets;
mod status;
mod waiting_room;

pub use body::{HttpResponse, RequestBody};

/// Connections that one listener may have open beyond `--max-connections`: connections that wait
/// for a place, and connections for one health check.
pub const CONNECTIONS_BEYOND_LIMIT: usize = waiting_room::MAX_WAITING + registry::MAX_HEALTH_CHECKS;

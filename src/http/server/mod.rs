//! Connections: listening, accepting, and keeping each within its limits on time, rate and number.
//!
//! Serves any function from a request to a response; never knows what a request means.

mod body;
mod connection;
pub mod listener;
mod orders;
mod rates;
mod registry;
mod status;
mod waiting_room;

pub use body::RequestBody;

/// Connections that one listener may have open beyond `--max-connections`: those that wait for a
/// place, and those that are given one answer.
pub const CONNECTIONS_BEYOND: usize = waiting_room::MOST_WAITING + registry::GUESTS;

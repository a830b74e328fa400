//! What no server can do better: the same arrivals, one queue, first in first out, servers that
//! take exactly the given time, and nothing in between that costs anything.

use super::Options;
use super::record::Latencies;
use super::schedule::Schedule;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The latencies that such a queue would give, as they are told of a real server.
pub fn first_in_first_out(
    mut schedule: Schedule,
    servers: usize,
    time: Duration,
    options: &Options,
) -> serde_json::Value {
    let end = options.warm_up + options.duration;
    let mut latencies = Latencies::new();
    // When each server is free again, the earliest on top.
    let mut free: BinaryHeap<Reverse<Duration>> =
        (0..servers).map(|_| Reverse(Duration::ZERO)).collect();
    while schedule.next() < end {
        let due = schedule.next();
        schedule.advance();
        let Some(Reverse(free_at)) = free.pop() else {
            break;
        };
        let done = free_at.max(due) + time;
        free.push(Reverse(done));
        if due >= options.warm_up {
            latencies.add(done - due);
        }
    }
    latencies.to_json()
}

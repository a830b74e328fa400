//! What no server can do better: the same arrivals, one queue, first in first out, servers that
//! take exactly the given time, and nothing in between that costs anything.

use super::Options;
use super::record::Latencies;
use super::schedule::Schedule;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The latencies of such a queue, in the form of a real server's.
pub(super) fn first_in_first_out(
    mut schedule: Schedule,
    servers: usize,
    time: Duration,
    options: &Options,
) -> serde_json::Value {
    let (begin, end) = (options.warm_up, options.warm_up + options.duration);
    simulate(&mut schedule, servers, time, begin, end).to_json()
}

/// The latencies of the requests that are due from `begin` on and before `end`.
fn simulate(
    schedule: &mut Schedule,
    servers: usize,
    time: Duration,
    begin: Duration,
    end: Duration,
) -> Latencies {
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
        if due >= begin {
            latencies.add(done - due);
        }
    }
    latencies
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Arrivals;
    use super::*;

    /// Mean and longest latency, in milliseconds, of a second of requests that come evenly.
    fn latencies(rate: f64, servers: usize) -> (f64, f64) {
        let mut schedule = Schedule::new(rate, Arrivals::Uniform, 1);
        let time = Duration::from_millis(10);
        let second = Duration::from_secs(1);
        let latencies = simulate(&mut schedule, servers, time, Duration::ZERO, second).to_json();
        let of = |name: &str| latencies[name].as_f64().unwrap() / 1000.0;
        (of("mean_us"), of("max_us"))
    }

    fn assert_close(is: f64, should_be: f64) {
        assert!(
            (is / should_be - 1.0).abs() < 0.01,
            "{is} is not {should_be}"
        );
    }

    #[test]
    fn with_a_free_server_for_each_request_none_waits() {
        let (mean, longest) = latencies(100.0, 1);
        assert_close(mean, 10.0);
        assert_close(longest, 10.0);
    }

    #[test]
    fn at_twice_what_can_be_served_each_waits_half_its_time_of_arrival_more() {
        // The last of 200 is due at 995 ms and done at 2000.
        let (mean, longest) = latencies(200.0, 1);
        assert_close(longest, 1005.0);
        assert_close(mean, 507.5);
    }

    #[test]
    fn two_servers_serve_twice_as_much() {
        assert_close(latencies(200.0, 2).1, 10.0);
    }
}

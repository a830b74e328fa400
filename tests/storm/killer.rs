//! Signals to processes and to the worker, and limits squeezed while it runs.

use crate::support::{Chance, processes};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often each thing was done.
pub(crate) type Strikes = BTreeMap<&'static str, u64>;

/// Strikes until it is stopped.
pub(crate) struct Killer {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Strikes>,
}

impl Killer {
    pub(crate) fn start(worker: u32, seed: u64) -> Killer {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut chance = Chance::seeded(seed.wrapping_mul(7919));
            let mut strikes = Strikes::new();
            while !over.load(Ordering::Relaxed) {
                let what = strike(worker, &mut chance);
                *strikes.entry(what).or_default() += 1;
                thread::sleep(Duration::from_millis(20 + chance.below(150)));
            }
            strikes
        });
        Killer { is_over, thread }
    }

    pub(crate) fn stop(self) -> Strikes {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn strike(worker: u32, chance: &mut Chance) -> &'static str {
    let victim = |chance: &mut Chance| {
        let pids = processes::living_children(worker);
        let at = usize::try_from(chance.below(pids.len().max(1) as u64)).unwrap();
        pids.get(at).copied()
    };
    let hit = |chance: &mut Chance, signal| {
        if let Some(pid) = victim(chance) {
            processes::signal(pid, signal);
        }
    };
    match chance.below(16) {
        0..=5 => {
            hit(chance, Signal::KILL);
            "SIGKILL to a process"
        }
        6..=7 => {
            hit(chance, Signal::STOP);
            "SIGSTOP to a process"
        }
        8 => {
            hit(chance, Signal::TERM);
            "SIGTERM to a process"
        }
        9..=12 => {
            processes::signal(worker, Signal::HUP);
            "SIGHUP to the worker"
        }
        13 => {
            processes::signal(worker, Signal::STOP);
            thread::sleep(Duration::from_millis(chance.below(700)));
            processes::signal(worker, Signal::CONT);
            "the worker frozen"
        }
        _ => {
            squeeze(worker, Duration::from_millis(50 + chance.below(300)));
            "no descriptor left"
        }
    }
}

/// Leaves the worker next to no descriptors for a while.
fn squeeze(worker: u32, time: Duration) {
    let pid = Pid::from_raw(i32::try_from(worker).unwrap());
    let open = processes::descriptor_count(worker) as u64;
    let Ok(before) = prlimit(
        pid,
        Resource::Nofile,
        Rlimit {
            current: Some(open + 1),
            maximum: None,
        },
    ) else {
        return;
    };
    thread::sleep(time);
    prlimit(pid, Resource::Nofile, before).unwrap();
}

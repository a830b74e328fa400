//! `faas-worker health`, as a container's health check runs it.

use crate::support::{misbehave, processes, within};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn ask(address: SocketAddr) -> Child {
    Command::new(env!("CARGO_BIN_EXE_faas-worker"))
        .args(["health", "--port", &address.port().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn said(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn a_worker_that_answers_is_well_and_one_that_is_gone_is_not() {
    let worker = misbehave(&["--ready"]).start();
    let address = worker.address;
    assert_eq!(said(ask(address)), (Some(0), format!("{address}: ok\n")));
    drop(worker);
    let (status, line) = said(ask(address));
    assert_eq!(status, Some(1), "{line}");
    assert!(line.starts_with(&format!("{address}: ")), "{line}");
}

#[test]
fn a_worker_that_says_nothing_is_not_well_within_two_seconds() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let start = Instant::now();
    let (status, line) = said(ask(silent.local_addr().unwrap()));
    assert_eq!(status, Some(1), "{line}");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1400), "{took:?}: {line}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// A container that is paused and goes on stops in the middle of a read with a time limit, which
/// the kernel then ends with EINTR.
#[test]
fn a_health_check_that_was_stopped_for_a_moment_goes_on() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let child = ask(listener.local_addr().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    let mut asked = [0; 5];
    stream.read_exact(&mut asked).unwrap();
    let state = |wanted: &'static [char]| {
        let states = processes::children(std::process::id());
        let found = states.into_iter().find(|process| process.pid == child.id());
        found.filter(|process| wanted.contains(&process.state))
    };
    let limit = Duration::from_secs(10);
    for _ in 0..3 {
        within(limit, "waits for the answer", || state(&['S']));
        processes::signal(child.id(), Signal::STOP);
        within(limit, "is stopped", || state(&['T']));
        processes::signal(child.id(), Signal::CONT);
    }
    within(limit, "goes on", || state(&['S', 'Z']));
    // An error means that it has given up: what it says tells.
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    let (status, line) = said(child);
    assert_eq!(status, Some(0), "{line}");
}

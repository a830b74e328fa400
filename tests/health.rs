//! `faas-worker health`: one line and an exit status, for any peer.

use crate::support::{Builder, misbehave, processes, program, within};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Two seconds, and one for the start of the command on a busy machine.
const LIMIT: Duration = Duration::from_secs(3);

fn health() -> Builder {
    Builder::new(Vec::new()).bare().flag("health")
}

fn of_port(port: u16) -> Builder {
    health().option("--port", &port.to_string())
}

/// The line that the command prints, and its exit status.
#[track_caller]
fn ask(builder: &Builder) -> (String, Option<i32>) {
    let start = Instant::now();
    let output = builder.output();
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text
        .strip_suffix('\n')
        .unwrap_or_else(|| panic!("no line: {text:?}"));
    assert!(
        !line.contains(|c: char| c.is_control()),
        "not one plain line: {line:?}"
    );
    assert!(line.len() < 500, "{line}");
    (line.to_owned(), output.status.code())
}

#[test]
fn a_running_worker_is_well_and_one_that_has_ended_is_not() {
    let mut worker = misbehave(&[]).start();
    let port = worker.address.port();
    let well = (format!("127.0.0.1:{port}: ok"), Some(0));
    assert_eq!(ask(&of_port(port)), well);
    let by_variable = health().environment("PORT", &port.to_string());
    assert_eq!(ask(&by_variable), well);
    worker.signal(rustix::process::Signal::TERM);
    worker.wait_for_end(Duration::from_secs(10));
    let (line, status) = ask(&of_port(port));
    assert!(line.starts_with(&format!("127.0.0.1:{port}: ")), "{line}");
    assert!(line.contains("refused"), "{line}");
    assert_eq!(status, Some(1));
}

/// In a container the worker's own variables are set for its health check too.
#[test]
fn a_worker_is_found_by_the_settings_that_it_was_started_with() {
    for (host, asked) in [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]:PORT, 127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
    ] {
        // localhost with a free port listens on one family only; that is enough to be found.
        let worker = misbehave(&[]).environment("HOST", host).start();
        let port = worker.address.port();
        let check = health()
            .environment("HOST", host)
            .environment("PORT", &port.to_string())
            .environment("HANDLER_FUNCTION", "no such handler")
            .environment("FAAS_PROCESSES", "4")
            .environment("FAAS_ALLOW_HOST", "worker.example");
        assert_eq!(
            ask(&check),
            (
                format!("{}:{port}: ok", asked.replace("PORT", &port.to_string())),
                Some(0)
            ),
            "{host}"
        );
    }
}

#[test]
fn a_worker_without_a_handler_is_alive() {
    let worker = Builder::new(Vec::new()).start();
    assert_eq!(ask(&of_port(worker.address.port())).1, Some(0));
}

#[test]
fn the_second_address_of_localhost_is_asked_when_the_first_is_not_well() {
    let worker = misbehave(&[]).option("--host", "::1").start();
    let port = worker.address.port();
    let check = of_port(port).option("--host", "localhost");
    assert_eq!(ask(&check), (format!("[::1]:{port}: ok"), Some(0)));
}

/// A peer that reads one request and then does this.
fn peer(answer: impl FnOnce(&mut TcpStream) + Send + 'static) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let length = stream.read(&mut request).unwrap();
        assert!(request[..length].starts_with(b"GET /health HTTP/1.1\r\n"));
        answer(&mut stream);
    });
    (port, thread)
}

/// Waits until the peer has closed.
fn wait_for_close(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest));
}

#[test]
fn what_is_no_whole_answer_of_a_worker_is_not_well() {
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"status\":\"ok\"}";
    let flood = "x".repeat(1 << 20);
    let control = "HTTP/1.1 500 \x1b[31m\x07bad\rworse\u{2028}\r\n\r\n";
    for (answer, shown) in [
        ("", "closed without an answer"),
        (control, "not well"),
        ("\x00\x01\x02\n\n", "not an answer"),
        (
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "503 Service Unavailable",
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\n<html>\n",
            "not the answer of a worker",
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"sick\"}",
            "not the answer of a worker",
        ),
        (&whole[..20], "not the answer of a worker"),
        (&whole[..12], "not an answer"),
        (&whole[..whole.len() - 1], "not the answer of a worker"),
        (&flood, "not an answer"),
    ] {
        let sent = answer.to_owned();
        let (port, thread) = peer(move |stream| drop(stream.write_all(sent.as_bytes())));
        let (line, status) = ask(&of_port(port));
        // A peer that closes with unread bytes sends a reset.
        let is_reset = answer.len() > 4096 && line.contains("reset");
        assert!(line.contains(shown) || is_reset, "{line}");
        assert_eq!(status, Some(1), "{line}");
        thread.join().unwrap();
    }
    let (port, thread) = peer(move |stream| {
        stream.write_all(whole.as_bytes()).unwrap();
        wait_for_close(stream);
    });
    assert_eq!(ask(&of_port(port)).1, Some(0), "whole, and kept open");
    thread.join().unwrap();
}

#[test]
fn a_peer_that_is_silent_or_slow_is_not_waited_for() {
    let silent = |stream: &mut TcpStream| wait_for_close(stream);
    let half = |stream: &mut TcpStream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"stat")
            .unwrap();
        wait_for_close(stream);
    };
    let drip = |stream: &mut TcpStream| {
        // Slower than any test waits, and never so slow that a single read times out.
        for _ in 0..200 {
            if stream.write_all(b"H").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("nobody hung up");
    };
    for (port, thread) in [peer(silent), peer(half), peer(drip)] {
        let (line, status) = ask(&of_port(port));
        assert_eq!(
            (line, status),
            (format!("127.0.0.1:{port}: timed out"), Some(1))
        );
        thread.join().unwrap();
    }
}

/// A listener whose backlog is full accepts and refuses no connection.
#[test]
fn a_peer_that_takes_no_connection_is_not_waited_for() {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    rustix::net::bind(&socket, &any).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let mut inside = Vec::new();
    within(
        Duration::from_secs(10),
        "the backlog is full",
        || match TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            Ok(stream) => {
                inside.push(stream);
                None
            }
            Err(_) => Some(()),
        },
    );
    let (line, status) = ask(&of_port(address.port()));
    assert!(line.ends_with("timed out"), "{line}");
    assert_eq!(status, Some(1));
}

#[test]
fn a_wrong_setting_is_named_and_nothing_is_asked() {
    for (builder, told) in [
        (health().option("--port", "http"), "--port (PORT): "),
        (health().environment("PORT", "70000"), "--port (PORT): "),
        (
            health().option("--host", "worker.example"),
            "--host (HOST): ",
        ),
        (health().flag("--prot"), "unexpected flag --prot"),
        (health().flag("now"), "unexpected word \"now\""),
    ] {
        let output = builder.output();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with(told), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_exit_status_holds_when_nobody_can_read_the_line() {
    let worker = misbehave(&[]).start();
    let check = of_port(worker.address.port()).prepared_by("exec >/dev/full");
    assert_eq!(check.output().status.code(), Some(0));
}

/// A container is paused in the middle of a read with a time limit; when it goes on, the kernel
/// ends that read with EINTR.
#[test]
fn a_health_check_that_was_stopped_for_a_moment_goes_on() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let child = program()
        .args(["health", "--port", &port.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
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
    // A failed write means that the command has given up: its line tells.
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}");
    let output = child.wait_with_output().unwrap();
    let line = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{line}");
}

/// A worker that listens on `::` must answer callers by IPv4 too.
#[test]
fn both_loopback_addresses_must_answer_where_the_worker_listens_on_all() {
    let worker = misbehave(&[]).option("--host", "::1").start();
    let port = worker.address.port();
    let check = of_port(port).option("--host", "::");
    let (line, status) = ask(&check);
    assert!(line.starts_with(&format!("127.0.0.1:{port}: ")), "{line}");
    assert!(line.contains("refused"), "{line}");
    assert_eq!(status, Some(1));
}

/// A function that cannot be loaded leaves the worker alive, and never ready.
#[test]
fn a_broken_function_is_alive_and_not_ready() {
    let worker = Builder::new(vec!["/no/such/handler".to_owned()]).start();
    let port = worker.address.port();
    assert_eq!(ask(&of_port(port)).1, Some(0));
    let (line, status) = ask(&of_port(port).flag("--ready"));
    assert!(
        line.starts_with(&format!("127.0.0.1:{port}: not ready: ")),
        "{line}"
    );
    assert!(line.contains("503"), "{line}");
    assert!(line.contains("no process"), "{line}");
    assert_eq!(status, Some(1));
    let worker = misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    let port = worker.address.port();
    let ready = (format!("127.0.0.1:{port}: ready"), Some(0));
    assert_eq!(ask(&of_port(port).flag("--ready")), ready);
}

/// Readiness is asked at the address of `--admin`, which a container knows from its variable.
#[test]
fn readiness_is_asked_at_the_address_for_operators() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let admin = free.local_addr().unwrap().to_string();
    drop(free);
    let worker = misbehave(&["--ready"]).option("--admin", &admin).start();
    within(Duration::from_secs(20), "is ready", || {
        let check = health().flag("--ready").environment("FAAS_ADMIN", &admin);
        (ask(&check) == (format!("{admin}: ready"), Some(0))).then_some(())
    });
    let port = worker.address.port();
    let well = health()
        .option("--port", &port.to_string())
        .environment("FAAS_ADMIN", &admin);
    assert_eq!(ask(&well), (format!("127.0.0.1:{port}: ok"), Some(0)));
    let (line, status) = ask(&of_port(port).flag("--ready"));
    assert!(line.contains("--admin (FAAS_ADMIN)"), "{line}");
    assert_eq!(status, Some(1));
}

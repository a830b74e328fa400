//! What a service manager (systemd) is told, and the sockets that it passes on.

use crate::support::client::Connection;
use crate::support::{
    PATIENCE, Scratch, assert_result, eventually, misbehave, processes, sh, without_settings,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::Signal;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_faas-worker");

/// A message that fills a notification socket.
const FILLING: &str = "STATUS=full";

/// The service manager's end of a notification socket.
struct Manager {
    scratch: Scratch,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Manager {
        let scratch = Scratch::new();
        let socket = UnixDatagram::bind(scratch.path("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { scratch, socket }
    }

    fn path(&self) -> String {
        self.scratch.path("notify")
    }

    /// Fills the socket, so that it takes no further message before one is read.
    fn fill(&self) {
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(self.path()).unwrap();
        sender.set_nonblocking(true).unwrap();
        while sender.send(FILLING.as_bytes()).is_ok() {}
    }

    /// The states of the next message.
    fn told(&self) -> String {
        let mut message = [0; 512];
        let length = self.socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    /// The next message that is no answer to the watchdog.
    fn told_of_stage(&self) -> String {
        loop {
            let told = self.told();
            if told != "WATCHDOG=1\n" {
                return told;
            }
        }
    }
}

#[test]
fn a_start_is_over_when_a_process_is_up_and_a_stop_is_told() {
    let manager = Manager::new();
    let gate = manager.scratch.path("gate");
    let script = "while [ ! -e \"$1\" ]; do sleep 0.01; done; echo '{\"ready\":true}'; \
                  while read -r line; do echo '{\"result\":1}'; done";
    let mut worker = sh(script, &[&gate])
        .environment("NOTIFY_SOCKET", &manager.path())
        .start();
    let silent = manager
        .socket
        .set_read_timeout(Some(Duration::from_millis(300)));
    silent.unwrap();
    let early = manager.socket.recv(&mut [0; 512]);
    assert!(early.is_err(), "told before a process was up");
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    std::fs::write(&gate, "").unwrap();
    assert_eq!(manager.told(), "READY=1\nSTATUS=ready\n");
    worker.signal(Signal::TERM);
    assert_eq!(manager.told(), "STOPPING=1\nSTATUS=finishing requests\n");
    assert!(worker.wait_for_end(PATIENCE).success());
}

#[test]
fn a_watchdog_is_answered_in_half_of_its_time() {
    let manager = Manager::new();
    let _worker = misbehave(&[])
        .environment("NOTIFY_SOCKET", &manager.path())
        .environment("WATCHDOG_USEC", "2000000")
        .start();
    manager.told_of_stage();
    manager
        .socket
        .set_read_timeout(Some(Duration::from_millis(1600)))
        .unwrap();
    for _ in 0..3 {
        assert_eq!(manager.told(), "WATCHDOG=1\n");
    }
}

#[test]
fn processes_cannot_speak_for_the_worker() {
    let manager = Manager::new();
    let script = "while read -r line; do \
                  echo \"{\\\"result\\\":\\\"$NOTIFY_SOCKET$WATCHDOG_USEC$LISTEN_FDS\\\"}\"; done";
    let worker = sh(script, &[])
        .environment("NOTIFY_SOCKET", &manager.path())
        .environment("WATCHDOG_USEC", "10000000")
        .environment("LISTEN_FDS", "")
        .start();
    assert_eq!(worker.post("").json()["result"], "");
}

/// A worker that is given this socket as a service manager gives it.
fn activated(socket: &TcpListener, options: &[&str]) -> Child {
    let socket = OwnedFd::from(socket.try_clone().unwrap());
    // sh becomes the worker, and so has its number.
    let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    without_settings(Command::new("sh"))
        .args(["-c", script, PROGRAM])
        .args(options)
        .args(["--drain-delay", "100ms", "--", "sh", "-c"])
        .arg("while read -r line; do echo '{\"result\":1}'; done")
        .stdin(Stdio::from(socket))
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn end(mut worker: Child) {
    processes::signal(worker.id(), Signal::TERM);
    assert!(worker.wait().unwrap().success());
}

#[test]
fn a_restart_behind_a_socket_of_the_service_manager_loses_no_request() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut answered = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        // A connection each: it is never refused, only kept waiting.
                        let mut connection = Connection::open(address).unwrap();
                        assert_eq!(connection.post("").unwrap().status, 200);
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        let mut worker = activated(&socket, &[]);
        for _ in 0..3 {
            let answers = || Connection::open(address).ok()?.post("").ok();
            eventually("serves", answers);
            end(worker);
            worker = activated(&socket, &[]);
        }
        eventually("serves", || Connection::open(address).ok()?.post("").ok());
        is_over.store(true, Ordering::Relaxed);
        let answered: u32 = callers.into_iter().map(|it| it.join().unwrap()).sum();
        assert!(answered > 20, "{answered}");
        end(worker);
    });
}

/// What a worker says that this script of sh starts, and that ends over a wrong setting.
#[track_caller]
fn refused(script: &str, stdin: Stdio) -> String {
    let output = without_settings(Command::new("sh"))
        .args(["-c", script, PROGRAM, "--", "cat"])
        .stdin(stdin)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_no_socket_is_refused() {
    let script = "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let said = refused(script, Stdio::null());
    assert!(
        said.contains("LISTEN_FDS") && said.contains("no TCP socket"),
        "{said}"
    );
}

#[test]
fn a_socket_that_does_not_listen_is_refused() {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let said = refused(script, Stdio::from(socket.unwrap()));
    assert!(said.contains("accepts no connections"), "{said}");
}

#[test]
fn more_sockets_than_can_be_open_are_refused() {
    let script = "export LISTEN_FDS=2147483647 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let said = refused(script, Stdio::null());
    assert!(said.contains("2147483647"), "{said}");
}

#[test]
fn a_service_manager_that_reads_nothing_holds_up_no_end() {
    let manager = Manager::new();
    manager.fill();
    let mut worker = misbehave(&["--ready"])
        .environment("NOTIFY_SOCKET", &manager.path())
        .environment("WATCHDOG_USEC", "100000")
        .start();
    worker.wait_until_ready();
    assert_result(&worker.post("x"), "x");
    worker.log.wait_for(&["the service manager cannot be told"]);
    worker.signal(Signal::TERM);
    assert!(worker.wait_for_end(PATIENCE).success());
}

#[test]
fn a_service_manager_that_was_slow_is_told_again() {
    let manager = Manager::new();
    manager.fill();
    let worker = misbehave(&["--ready"])
        .environment("NOTIFY_SOCKET", &manager.path())
        .start();
    worker.wait_until_ready();
    worker.log.wait_for(&["the service manager cannot be told"]);
    let mut told = std::iter::repeat_with(|| manager.told());
    let told = told.find(|told| told != FILLING).unwrap();
    assert_eq!(told, "READY=1\nSTATUS=ready\n");
}

#[test]
fn a_socket_without_a_file_is_told_as_well() {
    let name = format!("faas-worker-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let _worker = misbehave(&["--ready"])
        .environment("NOTIFY_SOCKET", &format!("@{name}"))
        .start();
    let mut message = [0; 512];
    let length = socket.recv(&mut message).unwrap();
    assert!(message[..length].starts_with(b"READY=1"));
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let worker = misbehave(&[])
        .environment("LISTEN_FDS", "1")
        .environment("LISTEN_PID", "1")
        .start();
    assert_eq!(worker.get("/health").status, 200);
}

//! `faas-worker top` on a terminal: a table of real workers, and its ends.
//!
//! The screens are kept in `top/` of the directory that cargo gives to tests, `target/tmp`.

use crate::support::{Builder, PATIENCE, Worker, eventually, misbehave, program, within};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A program on a terminal of its own.
struct Terminal {
    /// The other end of the terminal: `None` once it is gone.
    controller: Option<File>,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
    /// Has the reader let go of the terminal.
    is_cut: Arc<AtomicBool>,
    child: Child,
}

impl Terminal {
    /// Starts `faas-worker top` for the worker with this address for operators.
    fn top(admin: &str, rows: u16, columns: u16) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let terminal = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&terminal, size).unwrap();
        let own = || Stdio::from(OwnedFd::from(terminal.try_clone().unwrap()));
        let child = program()
            .args(["top", admin, "--interval", "100ms"])
            .env("TERM", "xterm-256color")
            .stdin(own())
            .stdout(own())
            .stderr(own())
            .spawn()
            .unwrap();
        let controller = File::from(controller);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(
            NonZeroU16::new(rows).unwrap(),
            NonZeroU16::new(columns).unwrap(),
            0,
        )));
        let (mut written, shared) = (controller.try_clone().unwrap(), Arc::clone(&screen));
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            let step = Timespec::try_from(Duration::from_millis(10)).unwrap();
            while !cut.load(Ordering::Relaxed) {
                let mut polled = [PollFd::new(&written, PollFlags::IN)];
                if poll(&mut polled, Some(&step)) == Ok(0) {
                    continue;
                }
                // An error when the program has closed the terminal.
                let Ok(length @ 1..) = written.read(&mut piece) else {
                    return;
                };
                shared.lock().unwrap().process(&piece[..length]);
            }
        });
        Terminal {
            controller: Some(controller),
            screen,
            reader: Some(reader),
            is_cut,
            child,
        }
    }

    /// The lines of the screen.
    fn lines(&self) -> Vec<String> {
        let screen = self.screen.lock().unwrap();
        let columns = screen.screen().size().1;
        screen.screen().rows(0, columns.get()).collect()
    }

    fn wait_for(&self, words: &str) {
        eventually(&format!("{words:?} is on the screen"), || {
            let lines = self.lines();
            lines.iter().any(|line| line.contains(words)).then_some(())
        });
    }

    fn press(&mut self, key: &[u8]) {
        self.controller.as_mut().unwrap().write_all(key).unwrap();
    }

    /// Takes the terminal away.
    fn hang_up(&mut self) {
        self.is_cut.store(true, Ordering::Relaxed);
        self.reader.take().unwrap().join().unwrap();
        self.controller = None;
    }

    /// Its exit status.
    #[track_caller]
    fn ended(&mut self) -> Option<i32> {
        let status = within(PATIENCE, "the table has ended", || {
            self.child.try_wait().unwrap()
        });
        status.code()
    }

    /// Keeps the screen for people.
    fn keep(&self, name: &str) {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("top");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name), self.lines().join("\n") + "\n").unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- screen:\n{}\n---", self.lines().join("\n"));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A worker with this many processes and an address for operators.
fn worker(processes: usize) -> (Worker, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = port.local_addr().unwrap().to_string();
    drop(port);
    let builder: Builder = misbehave(&["--ready"]);
    let worker = builder
        .option("--processes", &processes.to_string())
        .option("--admin", &admin)
        .start();
    // The figures are asked for at the other address alone.
    eventually("all processes are up", || {
        let up = worker.log.text().matches("process started").count();
        (up >= processes).then_some(())
    });
    (worker, admin)
}

/// Numbers of the processes in the table, from the top.
fn processes(lines: &[String]) -> Vec<u64> {
    let begin = lines
        .iter()
        .position(|line| line.contains("PROCESS"))
        .unwrap();
    let rows = lines[begin + 1..].iter();
    let numbers = rows.map_while(|row| row.split_whitespace().next()?.parse().ok());
    numbers.collect()
}

#[test]
fn a_process_that_hangs_is_on_top_of_pools_of_any_size_on_terminals_of_any_width() {
    for count in [1, 64] {
        let (worker, admin) = worker(count);
        let mut connection = worker.connect();
        connection.send_payload("hang").unwrap();
        for (rows, columns) in [(24, 80), (72, 200)] {
            let terminal = Terminal::top(&admin, rows, columns);
            // The head has three lines; the table's title, the number of processes without a line,
            // and the keys have one each.
            let room = usize::from(rows) - 6;
            let expected = if count > room { room } else { count };
            let up = format!(" {count} up,");
            let more = format!("and {} more", count - expected);
            let at_work = eventually("the process that hangs is on top", || {
                let lines = terminal.lines();
                let begin = lines.iter().position(|line| line.contains("PROCESS"))?;
                let is_on_top = lines.get(begin + 1)?.contains(" busy ");
                let are_up = lines.iter().any(|line| line.contains(&up));
                let is_drawn = lines.last()?.contains("q ends")
                    && processes(&lines).len() == expected
                    && lines.contains(&more) == (count > room);
                (is_on_top && are_up && is_drawn).then_some(lines)
            });
            terminal.keep(&format!("{count}-processes-{columns}-columns.txt"));
            let busy = at_work.iter().filter(|line| line.contains(" busy "));
            assert_eq!(busy.count(), 1, "{at_work:#?}");
            let title = at_work
                .iter()
                .find(|line| line.contains("PROCESS"))
                .unwrap();
            for column in ["PID", "STATE", "WORKING", "MEMORY"] {
                assert!(title.contains(column), "{title:?}");
            }
            // A column that a narrow terminal leaves out is left out whole.
            assert_eq!(title.contains("LAST STDERR"), columns == 200, "{title:?}");
        }
    }
}

#[test]
fn q_ends_the_table_and_gives_the_terminal_back() {
    let (_worker, admin) = worker(1);
    let mut terminal = Terminal::top(&admin, 24, 80);
    terminal.wait_for("PROCESS");
    assert!(terminal.screen.lock().unwrap().screen().alternate_screen());
    terminal.press(b"q");
    assert_eq!(terminal.ended(), Some(0));
    eventually("the screen before is back", || {
        let screen = terminal.screen.lock().unwrap();
        let screen = screen.screen();
        (!screen.alternate_screen() && !screen.hide_cursor()).then_some(())
    });
}

#[test]
fn a_terminal_that_is_gone_ends_the_table_and_so_does_its_signal() {
    let (_worker, admin) = worker(1);
    let mut terminal = Terminal::top(&admin, 24, 80);
    terminal.wait_for("PROCESS");
    crate::support::processes::signal(terminal.child.id(), Signal::HUP);
    assert_eq!(terminal.ended(), Some(129));

    let mut terminal = Terminal::top(&admin, 24, 80);
    terminal.wait_for("PROCESS");
    terminal.hang_up();
    assert_eq!(terminal.ended(), Some(129));
}

#[test]
fn a_worker_that_goes_away_is_told_beside_its_last_picture() {
    let (worker, admin) = worker(1);
    let mut terminal = Terminal::top(&admin, 24, 80);
    terminal.wait_for("PROCESS");
    drop(worker);
    terminal.wait_for("gone for");
    // The last picture stays.
    terminal.wait_for("PROCESS");
    terminal.keep("worker-gone-80-columns.txt");
    terminal.press(b"q");
    assert_eq!(terminal.ended(), Some(0));
}

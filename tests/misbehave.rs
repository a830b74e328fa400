//! A handler that misbehaves on purpose, for the integration tests.
//!
//! Options set its kind (with ids or without, announced concurrency, slow or failing start); the
//! payload of a request is a command. Everything from ` #` on in a payload is a mark of the test's
//! own and steers nothing. A payload that is no command is echoed.
//!
//! Each request that it starts is written to the ledger first, so that a test can prove that a
//! request was not run, or was run once.
#![allow(clippy::unwrap_used, clippy::zombie_processes)]
#![allow(clippy::disallowed_methods)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio, exit};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

/// Which replies carry the id of their request.
#[derive(Clone, Copy, PartialEq)]
enum Ids {
    Always,
    Never,
    Sometimes,
}

struct Options {
    ids: Ids,
    /// `--ready`: a plain ready line. `--announce N`: one with a concurrency.
    ready_line: Option<String>,
    /// `--threads`: starts requests as they come, with any announcement.
    threads: bool,
    ledger: Option<String>,
    function: Option<String>,
    stream: bool,
    /// `--print`: writes each payload to stdout as it is, before it begins on it.
    prints: bool,
    /// `--block-bytes N`: how much it reads from stdin at a time.
    block_bytes: usize,
    arguments: Vec<String>,
}

static OPTIONS: OnceLock<Options> = OnceLock::new();
static STDOUT: Mutex<()> = Mutex::new(());
static REPLIES: AtomicU64 = AtomicU64::new(0);
static LAST_ID: AtomicU64 = AtomicU64::new(0);
static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);
static MOST_IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);
/// A line to write when the next request has been read.
static AT_NEXT_REQUEST: Mutex<Option<String>> = Mutex::new(None);
/// A line to write when the next request has been answered.
static AFTER_NEXT_REPLY: Mutex<Option<String>> = Mutex::new(None);
/// Whole lines that have been read, of requests that have not been started.
static LINES_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// The descriptor 0 itself: the buffer of `std::io::stdin` would read further than this handler
/// means to, and a test counts the descriptors of the handler, so it has no duplicate.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::io::read(std::io::stdin(), buffer)?)
    }
}

fn main() {
    let options = OPTIONS.get_or_init(start);
    if options.stream {
        return stream();
    }
    let mut stdin = BufReader::with_capacity(options.block_bytes, Stdin);
    let mut line = Vec::new();
    loop {
        line.clear();
        if stdin.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
            while IN_FLIGHT.load(Ordering::SeqCst) > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            exit(0);
        }
        let behind = stdin.buffer().iter().filter(|byte| **byte == b'\n');
        LINES_BEHIND.store(behind.count(), Ordering::SeqCst);
        let text = String::from_utf8(line.clone()).expect("request lines are UTF-8");
        if options.threads {
            count_in();
            thread::spawn(move || {
                serve(&text);
                count_out();
            });
        } else {
            count_in();
            serve(&text);
            count_out();
        }
    }
}

thread_local! {
    /// Whether the request of this thread was counted out before its answer.
    static IS_OUT: Cell<bool> = const { Cell::new(false) };
}

fn count_out() {
    if !IS_OUT.take() {
        IN_FLIGHT.fetch_sub(1, Ordering::SeqCst);
    }
}

fn count_in() {
    let now = IN_FLIGHT.fetch_add(1, Ordering::SeqCst) + 1;
    MOST_IN_FLIGHT.fetch_max(now, Ordering::SeqCst);
}

/// Reads the options and goes through the start that they ask for.
fn start() -> Options {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut options = Options {
        ids: Ids::Always,
        ready_line: None,
        threads: false,
        ledger: None,
        function: None,
        stream: false,
        prints: false,
        block_bytes: 8192,
        arguments: arguments.clone(),
    };
    let mut rest = arguments.into_iter();
    while let Some(option) = rest.next() {
        let mut value = || {
            rest.next()
                .unwrap_or_else(|| panic!("{option} needs a value"))
        };
        match option.as_str() {
            "--ids" => {
                options.ids = match value().as_str() {
                    "always" => Ids::Always,
                    "never" => Ids::Never,
                    "sometimes" => Ids::Sometimes,
                    other => panic!("--ids {other}"),
                }
            }
            "--ready" => options.ready_line = Some(r#"{"ready":true}"#.to_owned()),
            "--announce" => {
                let count: usize = value().parse().unwrap();
                options.threads = count > 1;
                options.ready_line = Some(format!(r#"{{"ready":true,"concurrency":{count}}}"#));
            }
            "--ready-line" => options.ready_line = Some(value()),
            "--threads" => options.threads = true,
            "--ledger" => options.ledger = Some(value()),
            "--function" => options.function = Some(value()),
            "--stream" => options.stream = true,
            "--print" => options.prints = true,
            "--block-bytes" => options.block_bytes = value().parse().unwrap(),
            // What follows steers only the start, in the order given.
            "--starts" => append(&value(), &format!("{}\n", std::process::id())),
            "--stderr" => eprintln!("{}", value()),
            "--banner" => println!("{}", value()),
            "--delay" => sleep_ms(&value()),
            "--exit" => exit(value().parse().unwrap()),
            "--need" => {
                if !std::path::Path::new(&value()).exists() {
                    eprintln!("what I need is not there");
                    exit(1);
                }
            }
            // For the test of word splitting: shown by the payload `args`.
            "--words" => rest.by_ref().for_each(drop),
            other => panic!("unknown option {other}"),
        }
    }
    if let Some(line) = &options.ready_line {
        write(format!("{line}\n").as_bytes());
    }
    options
}

fn options() -> &'static Options {
    OPTIONS.get().expect("set at start")
}

fn sleep_ms(text: &str) {
    thread::sleep(Duration::from_millis(text.parse().unwrap()));
}

fn append(path: &str, text: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Writes all of `bytes`, in one call where the pipe takes it: the standard library's stdout would
/// write what stands behind the last line break in a second one.
fn write(bytes: &[u8]) {
    let _guard = STDOUT.lock().unwrap();
    // Earlier prints come first.
    let mut stdout = std::io::stdout().lock();
    if stdout.flush().is_err() {
        exit(1);
    }
    let mut left = bytes;
    while !left.is_empty() {
        match rustix::io::write(&stdout, left) {
            Ok(count) => left = &left[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => exit(1),
        }
    }
}

/// One reply line, by the rules about ids that this process keeps.
fn line(id: u64, member: &str, value: &str) -> String {
    let count = REPLIES.fetch_add(1, Ordering::SeqCst);
    let with_id = match options().ids {
        Ids::Always => true,
        Ids::Never => false,
        Ids::Sometimes => count.is_multiple_of(2),
    };
    if with_id {
        format!("{{\"id\":{id},\"{member}\":{value}}}\n")
    } else {
        format!("{{\"{member}\":{value}}}\n")
    }
}

fn answer(id: u64, result: &Value) {
    write(line(id, "result", &result.to_string()).as_bytes());
    LAST_ID.store(id, Ordering::SeqCst);
    if let Some(late) = AFTER_NEXT_REPLY.lock().unwrap().take() {
        write(late.as_bytes());
    }
}

fn forever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn signal_self(name: &str) -> ! {
    let pid = std::process::id().to_string();
    // Twice: Rust's runtime takes the first SEGV for a stack overflow, and lets it pass.
    for _ in 0..2 {
        let _ = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
    }
    forever()
}

/// Runs one request line.
fn serve(text: &str) {
    let request: Value = serde_json::from_str(text).expect("request lines are JSON");
    let id = request["id"].as_u64().expect("an id");
    let payload = request["payload"].as_str().expect("a payload").to_owned();
    if let Some(path) = &options().ledger {
        let unread = rustix::io::ioctl_fionread(std::io::stdin()).unwrap();
        let entry = json!({
            "pid": std::process::id(),
            "id": id,
            "payload": payload,
            // Requests written ahead: lines that are read already, and bytes that are not.
            "lines_behind": LINES_BEHIND.load(Ordering::SeqCst),
            "bytes_unread": unread,
        });
        // A line of its own even behind an entry that a SIGKILL has cut.
        append(path, &format!("\n{entry}\n"));
    }
    if options().prints {
        write(format!("{payload}\n").as_bytes());
    }
    if let Some(late) = AT_NEXT_REQUEST.lock().unwrap().take() {
        write(late.as_bytes());
    }
    match options().function.as_deref() {
        None => obey(id, &payload),
        Some("identity") => answer(id, &json!(payload)),
        Some("null") => answer(id, &Value::Null),
        Some("raises") => {
            let message = json!(format!("bad reading: {payload}"));
            write(line(id, "error", &message.to_string()).as_bytes());
        }
        Some("async_echo") => answer(id, &json!({"handler": "async", "echo": payload})),
        // The line itself, as it came.
        Some("line") => answer(id, &json!(text)),
        Some(other) => panic!("unknown function {other}"),
    }
}

/// Does what the payload says.
fn obey(id: u64, payload: &str) {
    let command = payload.split(" #").next().unwrap_or_default();
    let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
    let echo = json!(payload);
    // Names its request too: an answer in the wrong place can be told from a second one.
    let second = json!(format!("second of {payload}")).to_string();
    let number = || rest.parse::<usize>().unwrap();
    match name {
        // Ends.
        "exit" => exit(rest.parse().unwrap()),
        "exit-in-line" => {
            write(format!("{{\"id\":{id},\"res").as_bytes());
            exit(rest.parse().unwrap());
        }
        "reply-exit" => {
            answer(id, &echo);
            exit(rest.parse().unwrap());
        }
        "abort" => std::process::abort(),
        "signal" => signal_self(rest),

        // Takes its time.
        "hang" => forever(),
        "sleep" => {
            sleep_ms(rest);
            answer(id, &echo);
        }
        "sleep-exit" => {
            sleep_ms(rest);
            exit(3);
        }
        "stop" => signal_self("STOP"),
        // Answers, and never reads again.
        "nonblocking" => {
            let flags = rustix::fs::OFlags::NONBLOCK;
            rustix::fs::fcntl_setfl(std::io::stdin(), flags).unwrap();
            rustix::fs::fcntl_setfl(std::io::stdout(), flags).unwrap();
            rustix::fs::fcntl_setfl(std::io::stderr(), flags).unwrap();
            eprintln!("my descriptors are nonblocking");
            answer(id, &echo);
        }
        "deaf" => {
            answer(id, &echo);
            forever();
        }
        "inflight" => {
            sleep_ms(rest);
            // Counted out before the answer: the next request may come in with it.
            let most = MOST_IN_FLIGHT.load(Ordering::SeqCst);
            count_out();
            IS_OUT.set(true);
            answer(id, &json!(most));
        }

        // Breaks the rules of replies.
        "partial" => {
            write(line(id, "result", "\"par").trim_end().as_bytes());
            forever();
        }
        "partial-after" => {
            write(format!("{}{{\"id\":", line(id, "result", &echo.to_string())).as_bytes());
        }
        "twice" => {
            let both = line(id, "result", &echo.to_string()) + &line(id, "result", &second);
            write(both.as_bytes());
        }
        "twice-later" => {
            answer(id, &echo);
            let late = line(id, "result", &second);
            let pause = rest.to_owned();
            thread::spawn(move || {
                sleep_ms(&pause);
                write(late.as_bytes());
            });
        }
        "twice-next" => {
            answer(id, &echo);
            *AT_NEXT_REQUEST.lock().unwrap() = Some(line(id, "result", &second));
        }
        "after-next" => {
            *AFTER_NEXT_REPLY.lock().unwrap() = Some(line(id, "result", &echo.to_string()));
        }
        "unasked" => {
            answer(id, &echo);
            write(line(id + 1_000_000, "result", "\"unasked\"").as_bytes());
        }
        "wrong-id" => write(line(id + 1_000_000, "result", "\"wrong\"").as_bytes()),
        "stale-id" => {
            write(line(LAST_ID.load(Ordering::SeqCst), "result", "\"stale\"").as_bytes());
        }
        "next-id" => write(line(id + 1, "result", "\"next\"").as_bytes()),
        "invalid-utf8" => {
            let mut bytes = format!("{{\"id\":{id},\"result\":\"a").into_bytes();
            bytes.extend(b"\xff\xfe\"}\n");
            write(&bytes);
        }
        "nul" => write(format!("{{\"id\":{id},\"result\":\"a\0b\"}}\n").as_bytes()),
        "bom" => write(format!("\u{feff}{}", line(id, "result", &echo.to_string())).as_bytes()),
        // `raw TEXT`: the text and a line break, `$ID` replaced; the text may hold line breaks.
        "raw" => write(format!("{}\n", rest.replace("$ID", &id.to_string())).as_bytes()),
        "raw-answer" => {
            write(format!("{}\n", rest.replace("$ID", &id.to_string())).as_bytes());
            answer(id, &echo);
        }
        "answer-raw" => {
            let text = rest.replace("$ID", &id.to_string());
            write((line(id, "result", &echo.to_string()) + &text + "\n").as_bytes());
        }
        "stderr-answer" => {
            eprintln!("{rest}");
            answer(id, &echo);
        }
        "error" => write(line(id, "error", &json!(rest).to_string()).as_bytes()),
        "byte-by-byte" => {
            for byte in line(id, "result", &echo.to_string()).bytes() {
                write(&[byte]);
            }
        }

        // A great deal.
        "leak" => {
            // Written to, or the kernel would not count it.
            std::mem::forget(std::hint::black_box(vec![1u8; number() << 20]));
            answer(id, &echo);
        }
        "big" => answer(id, &json!("x".repeat(number()))),
        "digits" => {
            write(line(id, "result", &"1".repeat(number())).as_bytes());
        }
        "endless" => {
            write(format!("{{\"id\":{id},\"result\":\"").as_bytes());
            loop {
                write(&[b'x'; 65536]);
            }
        }
        "flood" => {
            let block = ("x".repeat(1000) + "\n").repeat(64);
            for _ in 0..number() / block.len() {
                write(block.as_bytes());
            }
            answer(id, &echo);
        }
        "flood-stderr" => {
            let block = ("x".repeat(1000) + "\n").repeat(64);
            for _ in 0..number() / block.len() {
                let _ = std::io::stderr().write_all(block.as_bytes());
            }
            answer(id, &echo);
        }

        // Leaves something behind: a child in its own group (or not), which holds its stdout.
        "child" => {
            let child = Command::new("sleep").arg("300").spawn().unwrap();
            answer(id, &json!(child.id()));
        }
        "child-hang" => {
            let child = Command::new("sleep").arg("300").spawn().unwrap();
            append(rest, &child.id().to_string());
            forever();
        }
        "grandchild-exit" => {
            let child = Command::new("setsid").args(["sleep", "5"]).spawn().unwrap();
            let _ = child.id();
            exit(rest.parse().unwrap());
        }

        // Tells about itself.
        "pid" => answer(id, &json!(std::process::id())),
        "args" => answer(id, &json!(options().arguments)),
        "env" => answer(id, &json!(std::env::var(rest).ok())),
        "environment" => answer(id, &json!(std::env::vars().collect::<HashMap<_, _>>())),
        "fds" => answer(id, &descriptors()),
        "file" => answer(id, &json!(std::fs::read_to_string(rest).ok())),
        "request" => answer(id, &json!({"id": id, "payload": payload})),
        _ => answer(id, &echo),
    }
}

/// The open descriptors and their targets, without the descriptor that reads the list.
fn descriptors() -> Value {
    let names: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names
        .iter()
        .filter_map(|name| {
            let target = std::fs::read_link(format!("/proc/self/fd/{name}")).ok()?;
            Some((name.clone(), json!(target.display().to_string())))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Writes each block of a reply before it reads the next block of the request: a worker that wrote
/// the whole request before reading would deadlock.
fn stream() {
    let mut stdin = std::io::stdin().lock();
    let mut block = vec![0; 4096];
    let mut head: Vec<u8> = Vec::new();
    let key = br#""payload":"#;
    let mut in_head = true;
    loop {
        let count = stdin.read(&mut block).unwrap_or(0);
        if count == 0 {
            return;
        }
        let mut bytes = &block[..count];
        if in_head {
            head.extend(bytes);
            let Some(at) = head.windows(key.len()).position(|window| window == key) else {
                continue;
            };
            write(&head[..at]);
            write(br#""result":"#);
            head.drain(..at + key.len());
            bytes = &head;
            in_head = false;
        }
        write(bytes);
        if bytes.ends_with(b"\n") {
            head.clear();
            in_head = true;
        }
    }
}

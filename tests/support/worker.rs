//! The worker as a fixture: starts the real program, collects its log, and kills it at the end.

use super::client::{Connection, Response};
use super::{PATIENCE, eventually, processes, within};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_faas-worker");

/// The worker's program, without settings from the environment that runs the tests.
pub(crate) fn program() -> Command {
    without_settings(Command::new(PROGRAM))
}

/// Takes the worker's settings out of the environment that a command inherits.
pub(crate) fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let prefixes = ["FAAS_", "AWS_LAMBDA_"];
        let names = ["HANDLER_FUNCTION", "HOST", "PORT", "_HANDLER"];
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name) {
            command.env_remove(name);
        }
    }
    command
}

/// A worker to be started.
#[derive(Clone)]
pub(crate) struct Builder {
    options: Vec<String>,
    handler: Vec<String>,
    environment: Vec<(String, String)>,
    directory: Option<PathBuf>,
    preparation: Option<String>,
}

/// The misbehaving handler with these options, two processes, and short limits.
pub(crate) fn misbehave(options: &[&str]) -> Builder {
    let mut handler = vec![rust_example("misbehave")];
    handler.extend(options.iter().map(|&option| option.to_owned()));
    Builder::new(handler)
}

/// A handler in sh; the rest of the arguments are `$1` and so on.
pub(crate) fn sh(script: &str, arguments: &[&str]) -> Builder {
    let mut handler = vec![
        "sh".to_owned(),
        "-c".to_owned(),
        script.to_owned(),
        "sh".to_owned(),
    ];
    handler.extend(arguments.iter().map(|&argument| argument.to_owned()));
    Builder::new(handler)
}

/// The path of an example, which cargo builds along with the tests.
pub(crate) fn rust_example(name: &str) -> String {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    assert!(
        path.exists(),
        "{} is not built: cargo build --examples",
        path.display()
    );
    path.display().to_string()
}

impl Builder {
    pub(crate) fn new(handler: Vec<String>) -> Builder {
        let builder = Builder {
            options: Vec::new(),
            handler,
            environment: Vec::new(),
            directory: None,
            preparation: None,
        };
        builder
            .option("--processes", "2")
            .option("--grace", "500ms")
    }

    /// Sets an option, in place of its earlier value.
    pub(crate) fn option(mut self, name: &str, value: &str) -> Builder {
        if let Some(at) = self.options.iter().position(|option| option == name) {
            self.options.drain(at..at + 2);
        }
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Adds an argument as it is.
    pub(crate) fn flag(mut self, flag: &str) -> Builder {
        self.options.push(flag.to_owned());
        self
    }

    /// No option but what follows.
    pub(crate) fn bare(mut self) -> Builder {
        self.options.clear();
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Builder {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn directory(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.directory = Some(directory.into());
        self
    }

    /// A line of sh that is run first, in the process that then becomes the worker.
    pub(crate) fn prepared_by(mut self, script: &str) -> Builder {
        self.preparation = Some(format!("{script}\nexec \"$0\" \"$@\""));
        self
    }

    fn command(&self) -> Command {
        let command = match &self.preparation {
            None => Command::new(PROGRAM),
            Some(script) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", script, PROGRAM]);
                shell
            }
        };
        let mut command = without_settings(command);
        command.args(&self.options);
        if !self.handler.is_empty() {
            command.arg("--").args(&self.handler);
        }
        // A build with the feature otlp would make spans, and look for a receiver on this machine.
        command.env("OTEL_SDK_DISABLED", "true");
        // The same tests, with a worker of several threads.
        if let Ok(threads) = std::env::var("FAAS_TEST_THREADS") {
            command.env("FAAS_THREADS", threads);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a worker that ends by itself, and gives its output.
    pub(crate) fn output(&self) -> Output {
        let mut child = self.command().spawn().unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE {
                end(&mut child);
                let output = child.wait_with_output().unwrap();
                panic!("did not end: {}", String::from_utf8_lossy(&output.stderr));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        child.wait_with_output().unwrap()
    }

    /// Starts it like [`Builder::start`], for a log level without the line that has the address.
    pub(crate) fn start_quietly(self) -> Worker {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut child = self
            .option("--port", &port.to_string())
            .command()
            .spawn()
            .unwrap();
        let log = Log::default();
        log.follow(child.stderr.take().unwrap());
        log.follow(child.stdout.take().unwrap());
        let address = ([127, 0, 0, 1], port).into();
        eventually("listens", || Connection::open(address).ok());
        Worker {
            child,
            address,
            log,
        }
    }

    /// Starts it where it does not listen.
    pub(crate) fn start_without_address(self) -> Worker {
        let mut child = self.command().spawn().unwrap();
        let log = Log::default();
        log.follow(child.stderr.take().unwrap());
        log.follow(child.stdout.take().unwrap());
        Worker {
            child,
            address: ([127, 0, 0, 1], 0).into(),
            log,
        }
    }

    /// Starts it on a free port and waits until it listens.
    pub(crate) fn start(self) -> Worker {
        let with_port = match self.options.iter().any(|option| option == "--port") {
            true => self,
            false => self.option("--port", "0"),
        };
        with_port.start_on_its_port()
    }

    /// Starts it on the port of its settings, and waits until it listens.
    pub(crate) fn start_on_its_port(self) -> Worker {
        let mut worker = self.start_without_address();
        worker.address = eventually("listens", || {
            let address = worker.log.lines().iter().find_map(|line| address_in(line));
            if address.is_none()
                && let Some(status) = worker.child.try_wait().unwrap()
            {
                panic!("ended at start with {status}");
            }
            address
        });
        worker
    }
}

/// The address in the log line that says where the worker listens.
fn address_in(line: &str) -> Option<SocketAddr> {
    let value: Value = serde_json::from_str(line).ok()?;
    if !line.contains("listening") {
        return None;
    }
    let address = value
        .get("address")
        .or_else(|| value.get("faas_worker.address"))?;
    address.as_str()?.trim_start_matches("http://").parse().ok()
}

/// Everything that a worker has logged so far.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn follow(&self, source: impl std::io::Read + Send + 'static) {
        let lines = Arc::clone(&self.0);
        std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                lines
                    .lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&line).into_owned());
            }
        });
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Waits for a line that holds all of `parts`.
    #[track_caller]
    pub(crate) fn wait_for(&self, parts: &[&str]) -> String {
        within(PATIENCE, &format!("logs {parts:?}"), || {
            let lines = self.lines();
            lines
                .into_iter()
                .find(|line| parts.iter().all(|part| line.contains(part)))
        })
    }
}

/// A running worker. Dropped, it and all below it are killed.
pub(crate) struct Worker {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) log: Log,
}

impl Worker {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address).unwrap()
    }

    /// One `POST /` on a connection of its own.
    #[track_caller]
    pub(crate) fn post(&self, payload: &str) -> Response {
        self.connect()
            .post(payload)
            .unwrap_or_else(|error| panic!("{error} instead of an answer to {payload:?}"))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.connect().request("GET", path, &[], None).unwrap()
    }

    /// The pid of the process that takes the next request; the handler must be the misbehaving one.
    #[track_caller]
    pub(crate) fn process(&self) -> u32 {
        self.post_for_pid("pid")
    }

    /// The pid that a handler answers to this payload.
    #[track_caller]
    pub(crate) fn post_for_pid(&self, payload: &str) -> u32 {
        let response = self.post(payload);
        assert_eq!(response.status, 200, "{}", response.text());
        u32::try_from(response.json()["result"].as_u64().unwrap()).unwrap()
    }

    /// Sends a request, and waits for its answer in a thread of its own.
    pub(crate) fn post_aside(&self, payload: &str) -> std::thread::JoinHandle<Response> {
        let mut connection = self.connect();
        connection.send_payload(payload).unwrap();
        std::thread::spawn(move || connection.receive().unwrap())
    }

    /// Waits until the worker has read all that clients have sent so far. It accepts connections
    /// and reads them in the order in which the kernel tells of them, so an answer on a connection
    /// that is opened now comes after that. So it is with one thread; with several, a connection of
    /// another thread may not have been read yet.
    #[track_caller]
    pub(crate) fn wait_until_read(&self) {
        self.connect().wait_until_accepted();
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        eventually("is ready", || {
            (self.get("/ready").status == 200).then_some(())
        });
    }

    /// The address for operators, as the worker logs it.
    #[track_caller]
    pub(crate) fn admin_address(&self) -> SocketAddr {
        let line = self.log.wait_for(&["listening for operators"]);
        let line: Value = serde_json::from_str(&line).unwrap();
        line["address"].as_str().unwrap().parse().unwrap()
    }

    /// The figures of `/metrics`, by name and labels.
    #[track_caller]
    pub(crate) fn scrape(&self) -> BTreeMap<String, f64> {
        let text = self.get("/metrics").text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let figures = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        figures.collect()
    }

    /// Waits until this many starts are complete, which is later than that the processes run.
    #[track_caller]
    pub(crate) fn wait_for_starts(&self, count: usize) {
        eventually(&format!("{count} processes were started"), || {
            let started = self.log.text().matches("process started").count();
            (started >= count).then_some(())
        });
    }

    /// Waits until this many processes are up, which is when they may be given requests for sure.
    #[track_caller]
    pub(crate) fn wait_until_up(&self, count: usize) {
        eventually(&format!("{count} processes are up"), || {
            let stats: Value = serde_json::from_str(&self.get("/stats").text()).ok()?;
            (stats["processes"]["up"] == count).then_some(())
        });
    }

    /// Waits until this many processes run.
    #[track_caller]
    pub(crate) fn wait_for_processes(&self, count: usize) -> Vec<u32> {
        eventually(&format!("{count} processes run"), || {
            let pids = processes::living_children(self.pid());
            (pids.len() == count).then_some(pids)
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        within(limit, "the worker has ended", || {
            self.child.try_wait().unwrap()
        })
    }

    /// Whether it has ended already.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let ended = end(&mut self.child);
        if std::thread::panicking() {
            let lines = self.log.lines();
            let tail = &lines[lines.len().saturating_sub(30)..];
            eprintln!(
                "--- end of the worker's log ({ended}):\n{}\n---",
                tail.join("\n")
            );
        }
    }
}

/// Kills a worker that still runs, and all of its processes.
fn end(child: &mut Child) -> String {
    if let Ok(Some(status)) = child.try_wait() {
        return status.to_string();
    }
    // Stopped first, so that it cannot replace a process that is killed here.
    processes::signal(child.id(), Signal::STOP);
    for pid in processes::descendants(child.id()) {
        processes::signal(pid, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
    "killed".to_owned()
}

/// The Python handler `function.handler.<name>` of the tests, run by the example that serves any.
pub(crate) fn python(name: &str) -> Option<Builder> {
    python_path(&format!("function.handler.{name}"))
}

/// The Python function of the tests with this path, run by the example that serves any.
pub(crate) fn python_path(path: &str) -> Option<Builder> {
    let interpreter = super::interpreter("python3")?;
    let root = env!("CARGO_MANIFEST_DIR");
    let serve = format!("{root}/examples/python/serve.py");
    let handler = vec![interpreter, serve, path.to_owned()];
    let functions = format!("{root}/tests/python_functions");
    Some(
        Builder::new(handler)
            .environment("PYTHONPATH", &functions)
            .directory(functions),
    )
}

//! Dependencies between the parts of the crate point one way.

use std::collections::BTreeSet;
use std::path::Path;

/// Each part with the parts that it may use; the parts that all may use are below.
const MAY_USE: [(&str, &[&str]); 34] = [
    (
        "main",
        &[
            "cli",
            "commands",
            "config",
            "map",
            "process",
            "service_manager",
            "threads",
            "worker",
        ],
    ),
    ("signals", &["procfs"]),
    ("lib", &["worker"]),
    (
        "cli",
        &["budget", "check", "config", "control_group", "processors"],
    ),
    ("commands", &["check", "config", "process", "threads"]),
    (
        "check",
        &[
            "answer",
            "budget",
            "config",
            "json_string",
            "metrics",
            "process",
            "procfs",
        ],
    ),
    (
        "map",
        &[
            "answer",
            "budget",
            "config",
            "http",
            "json_string",
            "metrics",
            "pool",
            "process",
            "threads",
            "worker",
        ],
    ),
    (
        "worker",
        &[
            "allocator",
            "budget",
            "config",
            "http",
            "lambda",
            "limits",
            "metrics",
            "pool",
            "process",
            "processors",
            "procfs",
            "reload",
            "service_manager",
            "threads",
            "traces",
        ],
    ),
    (
        "http",
        &[
            "allocator",
            "budget",
            "config",
            "json_string",
            "metrics",
            "pool",
            "procfs",
            "threads",
            "trace_context",
            "traces",
        ],
    ),
    (
        "lambda",
        &[
            "answer",
            "budget",
            "config",
            "http",
            "json_string",
            "metrics",
            "pool",
        ],
    ),
    (
        "pool",
        &[
            "answer", "budget", "config", "metrics", "process", "threads",
        ],
    ),
    (
        "process",
        &[
            "answer",
            "budget",
            "config",
            "control_group",
            "json_string",
            "metrics",
            "procfs",
            "service_manager",
            "threads",
            "trace_context",
        ],
    ),
    ("reload", &["config", "process"]),
    ("service_manager", &[]),
    ("limits", &["config", "control_group"]),
    ("allocator", &["procfs"]),
    ("budget", &[]),
    ("control_group", &[]),
    ("processors", &["control_group"]),
    ("threads", &["answer"]),
    ("answer", &[]),
    ("metrics", &["threads"]),
    ("json_string", &[]),
    ("procfs", &[]),
    ("config", &[]),
    ("handler", &[]),
    ("cause", &[]),
    ("error", &[]),
    ("logging", &["config", "json_string"]),
    ("regular_file", &[]),
    ("shutdown", &[]),
    ("trace_context", &[]),
    ("traces", &["metrics", "pool", "trace_context"]),
    ("version", &[]),
];
const ALL_MAY_USE: [&str; 6] = [
    "cause",
    "error",
    "logging",
    "regular_file",
    "shutdown",
    "version",
];

/// Each source file with the part that it belongs to.
fn sources() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                let part = name
                    .split('/')
                    .next()
                    .unwrap()
                    .trim_end_matches(".rs")
                    .to_owned();
                found.push((part, name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// The parts that a source names by `crate::`, or from the program by `faas_worker::`.
fn used(source: &str) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    // Statements, each on one line: a list of names may go over several.
    let code: Vec<&str> = source
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
        .collect();
    for line in code.join(" ").split(';') {
        for root in ["crate::", "faas_worker::"] {
            for (at, _) in line.match_indices(root) {
                let rest = &line[at + root.len()..];
                let names = match rest.strip_prefix('{') {
                    Some(group) => group.split(',').collect(),
                    None => vec![rest],
                };
                for name in names {
                    let name: String = name
                        .trim()
                        .chars()
                        .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                        .collect();
                    if !name.is_empty() {
                        parts.insert(name);
                    }
                }
            }
        }
    }
    parts
}

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for (part, name, source) in sources() {
        let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == part) else {
            wrong.push(format!("{name} is in no part that is known here"));
            continue;
        };
        for other in used(&source) {
            let is_part = MAY_USE.iter().any(|(known, _)| *known == other);
            let is_allowed = other == part
                || allowed.contains(&other.as_str())
                || ALL_MAY_USE.contains(&other.as_str());
            if is_part && !is_allowed {
                wrong.push(format!("{name} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn libraries_stay_in_their_rooms() {
    // Each library with the only parts that name it.
    let rooms: [(&str, &[&str]); 10] = [
        ("clap", &["cli"]),
        ("clap_complete", &["cli"]),
        ("clap_mangen", &["cli"]),
        ("hyper", &["http", "lambda", "traces"]),
        ("hyper_util", &["http", "lambda", "traces"]),
        ("indicatif", &["map"]),
        ("listenfd", &["service_manager"]),
        ("notify", &["reload"]),
        ("ratatui", &["commands"]),
        ("sd_notify", &["service_manager"]),
    ];
    let mut wrong = Vec::new();
    for (part, name, source) in sources() {
        for (library, allowed) in rooms {
            let names_it = source
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .any(|line| {
                    let path = format!("{library}::");
                    let paths = line.match_indices(&path);
                    let mut before = paths.map(|(at, _)| line[..at].chars().next_back());
                    before.any(|end| end.is_none_or(|end| !end.is_alphanumeric() && end != '_'))
                });
            if names_it && !allowed.contains(&part.as_str()) {
                wrong.push(format!("{name} names {library}"));
            }
        }
        let below_http = ["pool", "process"].contains(&part.as_str());
        if below_http && source.lines().any(|line| line.contains("StatusCode")) {
            wrong.push(format!("{name} knows HTTP"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A step of the wall clock changes only the times that are shown: in a log line, in `/health` and
/// in spans. Decisions go by the monotonic clock, which has no steps; but AWS Lambda names the end
/// of an event by the wall clock alone.
#[test]
fn the_wall_clock_decides_nothing() {
    let mut wrong = Vec::new();
    for (_, name, source) in sources() {
        let shows_time = [
            "lambda/deadline.rs",
            "logging/timestamp.rs",
            "traces/live.rs",
            "traces/record.rs",
        ];
        for clock in ["SystemTime", "UNIX_EPOCH", "now_utc", "now_local"] {
            if source.contains(clock) && !shows_time.contains(&name.as_str()) {
                wrong.push(format!("{name} asks {clock}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

//! Parsers of single values: hosts, durations, sizes, names.

use crate::config::map::{FailureLimit, Halt, ShowProgress};
use crate::config::{AccessLog, HandlerLog, LogFormat};
use bytesize::ByteSize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::Level;

/// What `--host` may be.
#[derive(Debug, Clone)]
pub(super) enum Host {
    Localhost,
    Address(IpAddr),
}

pub(super) fn host(text: &str) -> Result<Host, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Host::Localhost);
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse()
        .map(Host::Address)
        .map_err(|_| "not an IP address or localhost".to_owned())
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "not a port from 0 to 65535".to_owned())
}

/// An address with its port, or `localhost` with one.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:");
    if let Some(port) = port.and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    text.parse()
        .map_err(|_| "not an address with a port, expected e.g. 127.0.0.1:9000".to_owned())
}

/// The largest count: one machine has no room for more processes, requests or connections.
const MAX_COUNT: usize = 1_000_000;

/// Most threads that serve: more than any machine needs, and few enough for each to get its
/// mailbox.
const MAX_THREADS: usize = 256;

pub(super) fn count(text: &str) -> Result<NonZeroUsize, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count: &NonZeroUsize| count.get() <= MAX_COUNT);
    count.ok_or_else(|| format!("not a whole number from 1 to {MAX_COUNT}"))
}

pub(super) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let count = text.parse().ok();
    let count = count.filter(|count: &NonZeroUsize| count.get() <= MAX_THREADS);
    count.ok_or_else(|| format!("not a whole number from 1 to {MAX_THREADS}"))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| "not a duration, expected e.g. 250ms or 30s".to_owned())?;
    // A year, so that no sum of a clock and a few durations can overflow.
    if duration > Duration::from_secs(366 * 24 * 3600) {
        return Err("a duration may be a year at most".to_owned());
    }
    Ok(duration)
}

/// A time between two samples of a worker; samples without a pause would be load of their own.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        interval if interval < Duration::from_millis(100) => {
            Err("too short, expected 100ms or more".to_owned())
        }
        interval => Ok(interval),
    }
}

/// The shortest limit of a time: nothing can be read, run or written within less, and the clocks of
/// the runtime count in milliseconds.
const SHORTEST_TIME_LIMIT: Duration = Duration::from_millis(1);

/// A duration after which something ends: a request, a connection, a start.
pub(super) fn limit_of_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        limit if limit < SHORTEST_TIME_LIMIT => Err("too short, expected 1ms or more".to_owned()),
        limit => Ok(limit),
    }
}

/// A limit of time, or 0 for none.
pub(super) fn limit_of_time_or_none(text: &str) -> Result<Option<Duration>, String> {
    match duration(text)? {
        Duration::ZERO => Ok(None),
        _ => limit_of_time(text).map(Some),
    }
}

/// Starting a process takes some of it: with a shorter age one would follow another without end.
const MIN_AGE: Duration = Duration::from_millis(100);

pub(super) fn age(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        age if age < MIN_AGE => Err("too short for any process, expected 100ms or more".to_owned()),
        age => Ok(age),
    }
}

pub(super) fn whole_seconds(text: &str) -> Result<u64, String> {
    let duration = duration(text)?;
    if duration.is_zero() || duration.subsec_nanos() > 0 {
        return Err("must be whole seconds, 1s or more".to_owned());
    }
    Ok(duration.as_secs())
}

/// The largest size: more than any machine has, and small enough for sums of a few of them.
const MAX_SIZE_BYTES: u64 = 1 << 50;

pub(super) fn size(text: &str) -> Result<u64, String> {
    // As a duration, it needs its unit: 10 is rarely meant to be ten bytes.
    if text.parse::<f64>().is_ok_and(|number| number > 0.0) {
        return Err("a size needs a unit, expected e.g. 64KiB or 8MiB".to_owned());
    }
    match text.parse::<ByteSize>() {
        Ok(size) if size.as_u64() > MAX_SIZE_BYTES => Err("a size may be 1PiB at most".to_owned()),
        Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
        Ok(_) => Err("must be more than 0".to_owned()),
        Err(_) => Err("not a size, expected e.g. 64KiB or 8MiB".to_owned()),
    }
}

/// The least memory limit of a process, in bytes: no program runs in less.
const MIN_MEMORY_BYTES: u64 = 1024 * 1024;

/// The memory limit of a process.
pub(super) fn memory_limit(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < MIN_MEMORY_BYTES => {
            Err("too little for any program, expected 1MiB or more".to_owned())
        }
        bytes => Ok(bytes),
    }
}

/// The least memory budget, in bytes. Pieces below 4 KiB are not counted, so a budget of a few of
/// them would refuse every larger request, and bound nothing else.
const MIN_BUDGET_BYTES: u64 = 64 * 1024;

/// The memory budget of the worker.
pub(super) fn memory_budget(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < MIN_BUDGET_BYTES => {
            Err("too little for requests and replies, expected 64KiB or more".to_owned())
        }
        bytes => Ok(bytes),
    }
}

/// A size, or 0 for none.
pub(super) fn size_or_none(text: &str) -> Result<u64, String> {
    match text {
        "0" => Ok(0),
        size_text => size(size_text),
    }
}

/// What `--reload` may be: a path, or nothing to watch.
#[derive(Debug, Clone)]
pub(super) struct ReloadFolder(pub(super) Option<PathBuf>);

pub(super) fn reload(text: &str) -> Result<ReloadFolder, String> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(ReloadFolder(Some(PathBuf::from(".")))),
        "false" | "no" | "off" | "0" => Ok(ReloadFolder(None)),
        _ if Path::new(text).exists() => Ok(ReloadFolder(Some(PathBuf::from(text)))),
        _ => Err("no such file or folder".to_owned()),
    }
}

/// A folder that exists; kept as it was typed.
pub(super) fn folder(text: &str) -> Result<PathBuf, String> {
    match std::fs::metadata(text) {
        Ok(metadata) if metadata.is_dir() => Ok(PathBuf::from(text)),
        Ok(_) => Err("not a directory".to_owned()),
        Err(error) => Err(format!("not a directory that can be entered: {error}")),
    }
}

/// A path that exists; kept as it was typed.
pub(super) fn readable_path(text: &str) -> Result<PathBuf, String> {
    match std::fs::metadata(text) {
        Ok(_) => Ok(PathBuf::from(text)),
        Err(error) => Err(format!("not a path that can be used: {error}")),
    }
}

pub(super) fn header_name(text: &str) -> Result<String, String> {
    // A token of RFC 9110, section 5.6.2.
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let name = text.trim().to_lowercase();
    // A token may hold the sign, and no header that is in use does.
    if name.contains('*') {
        return Err("there are no wildcards, headers are named one by one".to_owned());
    }
    if name.is_empty() || !name.chars().all(is_token) {
        return Err("not a header name".to_owned());
    }
    Ok(name)
}

/// A path at which the function is called, with or without `*` for any rest.
pub(super) fn function_path(text: &str) -> Result<String, String> {
    let path = text.trim();
    let bare = path.strip_suffix('*').unwrap_or(path);
    if !bare.starts_with('/') {
        return Err("not a path, expected e.g. /api/decode or /api/*".to_owned());
    }
    if bare.contains('*') {
        return Err("the sign * stands at the end alone".to_owned());
    }
    // What a request line holds of a path: no query, no fragment.
    if let Some(wrong) = bare
        .chars()
        .find(|c| !c.is_ascii_graphic() || "?#".contains(*c))
    {
        return Err(format!("{wrong:?} is not in the path of any request"));
    }
    Ok(path.to_owned())
}

/// The name in a `Host` header, which is looked at without its port.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let name = text.trim().to_lowercase();
    let bare = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(&name);
    let is_address = bare.parse::<IpAddr>().is_ok();
    // RFC 952 and 1123, and the underscore of names in containers.
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    if is_address || (!bare.is_empty() && bare.chars().all(is_part)) {
        return Ok(bare.to_owned());
    }
    Err("not a host name, expected e.g. example.org, without scheme and port".to_owned())
}

pub(super) fn origin(text: &str) -> Result<String, String> {
    let text = text.trim().to_lowercase();
    match text.split_once("://") {
        Some((_, host)) if !host.is_empty() && !host.contains('/') => Ok(text),
        Some(_) | None => Err("not an origin, expected e.g. https://example.org".to_owned()),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "gcp" => Ok(LogFormat::Gcp),
        "ecs" => Ok(LogFormat::Ecs),
        _ => Err("not a log format, expected text, json, gcp or ecs".to_owned()),
    }
}

pub(super) fn access_log(text: &str) -> Result<AccessLog, String> {
    match text {
        "off" => Ok(AccessLog::Off),
        "on" => Ok(AccessLog::On),
        "errors" => Ok(AccessLog::Errors),
        _ => Err("not a choice of requests, expected off, on or errors".to_owned()),
    }
}

pub(super) fn handler_log(text: &str) -> Result<HandlerLog, String> {
    match text {
        "event" => Ok(HandlerLog::Events),
        "raw" => Ok(HandlerLog::Raw),
        _ => Err("not a form of handlers' output, expected event or raw".to_owned()),
    }
}

pub(super) fn log_level(text: &str) -> Result<Level, String> {
    text.parse()
        .map_err(|_| "not a level, expected error, warn, info, debug or trace".to_owned())
}

/// When failed items end a batch: `never`, or `soon` or `now` with `fail=N` or `fail=N%`.
pub(super) fn halt(text: &str) -> Result<Halt, String> {
    let wrong = || "write never, soon,fail=3, now,fail=1, or soon,fail=10%".to_owned();
    if text == "never" {
        return Ok(Halt::Never);
    }
    let (when, limit) = text.split_once(",fail=").ok_or_else(wrong)?;
    let limit = match limit.strip_suffix('%') {
        Some(percent) => match percent.parse() {
            Ok(percent @ 1..=100) => FailureLimit::Percent(percent),
            Ok(_) | Err(_) => return Err(wrong()),
        },
        None => match limit.parse() {
            Ok(count @ 1..) => FailureLimit::Count(count),
            Ok(_) | Err(_) => return Err(wrong()),
        },
    };
    match when {
        "soon" => Ok(Halt::Soon(limit)),
        "now" => Ok(Halt::Now(limit)),
        _ => Err(wrong()),
    }
}

/// When the progress of a batch is shown.
pub(super) fn show_progress(text: &str) -> Result<ShowProgress, String> {
    match text {
        "auto" => Ok(ShowProgress::Auto),
        "always" => Ok(ShowProgress::Always),
        "never" => Ok(ShowProgress::Never),
        _ => Err("write auto, always or never".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_bounds_are_refused() {
        for short in ["0s", "1ns", "999us"] {
            assert!(limit_of_time(short).is_err(), "{short}");
            assert!(age(short).is_err(), "{short}");
        }
        assert_eq!(limit_of_time("1ms"), Ok(Duration::from_millis(1)));
        assert!(whole_seconds("0s").is_err());
        assert!(duration("fast").is_err());
        assert!(whole_seconds("1500ms").is_err());
        assert_eq!(whole_seconds("2m"), Ok(120));
        assert!(interval("99ms").is_err());
        assert_eq!(interval("100ms"), Ok(Duration::from_millis(100)));
        for (parse, most) in [(count as fn(&str) -> _, MAX_COUNT), (threads, MAX_THREADS)] {
            assert!(parse("0").is_err());
            assert_eq!(parse(&most.to_string()).unwrap().get(), most);
            assert!(parse(&(most + 1).to_string()).is_err(), "{most}");
        }
        assert!(memory_limit("1048575B").is_err());
        assert_eq!(memory_limit("1MiB"), Ok(MIN_MEMORY_BYTES));
        for path in ["api", "/a*b", "/a?b", "/a#b", "/a b"] {
            assert!(function_path(path).is_err(), "{path}");
        }
        assert_eq!(function_path("/api/*"), Ok("/api/*".to_owned()));
        assert!(port("65536").is_err());
        assert!(duration("1000years").is_err());
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("0"), Err("must be more than 0".to_owned()));
        assert_eq!(size("1PiB"), Ok(MAX_SIZE_BYTES));
        for large in ["1.1PiB", "99999999TiB", "99999999999999999999B"] {
            let said = size(large).unwrap_err();
            assert_eq!(said, "a size may be 1PiB at most", "{large}");
        }
        for without in ["10", "1.5", "8388608"] {
            assert!(
                size(without).unwrap_err().contains("needs a unit"),
                "{without}"
            );
        }
        assert_eq!(size("10B"), Ok(10));
        assert_eq!(size("1.5 KiB"), Ok(1536));
        assert_eq!(size_or_none("0"), Ok(0));
        assert_eq!(size_or_none("1KiB"), Ok(1024));
        assert!(size_or_none("-1KiB").is_err());
        assert!(memory_budget("65535B").is_err());
        assert_eq!(memory_budget("64KiB"), Ok(65536));
        assert_eq!(header_name(" X-Trace "), Ok("x-trace".to_owned()));
        for name in ["*", "x-*", "", "a b"] {
            assert!(header_name(name).is_err(), "{name}");
        }
        assert!(host("example.org").is_err());
        assert!(matches!(host("[::1]"), Ok(Host::Address(_))));
        for text in ["example.org", "https://", "https://example.org/path"] {
            assert!(origin(text).is_err(), "{text}");
        }
        for host in [
            "",
            " ",
            ".",
            "example.org:80",
            "http://example.org",
            "a b",
            "[::1]:80",
        ] {
            assert!(host_name(host).is_err(), "{host}");
        }
        assert_eq!(host_name(" Example.ORG. "), Ok("example.org".to_owned()));
        assert_eq!(host_name("[::1]"), Ok("::1".to_owned()));
        assert!(socket_address("127.0.0.1").is_err());
        assert!(socket_address("9000").is_err());
        assert_eq!(
            socket_address("localhost:9000"),
            socket_address("127.0.0.1:9000")
        );
        assert!(socket_address("[::1]:9000").is_ok());
        assert!(reload("no/such/folder").is_err());
    }

    #[test]
    fn reload_is_a_path_or_a_yes_or_no() {
        assert_eq!(reload("src").unwrap().0, Some(PathBuf::from("src")));
        assert_eq!(reload("true").unwrap().0, Some(PathBuf::from(".")));
        assert_eq!(reload("0").unwrap().0, None);
    }

    #[test]
    fn the_end_after_failed_items_is_read_in_words_of_gnu_parallel() {
        let percent = FailureLimit::Percent(10);
        for (text, expected) in [
            ("never", Ok(Halt::Never)),
            ("soon,fail=10%", Ok(Halt::Soon(percent))),
            ("now,fail=1", Ok(Halt::Now(FailureLimit::Count(1)))),
        ] {
            assert_eq!(halt(text), expected);
        }
        for text in [
            "",
            "now",
            "now,fail=0",
            "soon,fail=0%",
            "soon,fail=101%",
            "now,done=1",
        ] {
            assert!(halt(text).is_err(), "{text}");
        }
    }
}

//! The JSON of `/stats` and `/processes`, as `faas-worker top` reads it.

use serde::Deserialize;

/// The body of `/stats`: the worker as a whole.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Stats {
    pub(super) version: String,
    pub(super) ready: bool,
    pub(super) uptime_seconds: f64,
    pub(super) busy_ratio: f64,
    pub(super) queue: QueueCounts,
    pub(super) processes: Counts,
    pub(super) requests: Requests,
}

/// Requests that wait for a process.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct QueueCounts {
    pub(super) length: u64,
    pub(super) limit: u64,
    pub(super) oldest_seconds: Option<f64>,
}

/// Processes by what they do.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Counts {
    pub(super) up: u64,
    pub(super) busy: u64,
    pub(super) starting: u64,
    pub(super) limit: u64,
}

/// Requests since the start of the worker.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Requests {
    pub(super) active: u64,
    pub(super) total: u64,
    pub(super) failed: u64,
}

/// One process of `/processes`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct ProcessRow {
    pub(super) process: u64,
    pub(super) pid: u32,
    pub(super) state: String,
    pub(super) request_id: Option<String>,
    pub(super) working_seconds: Option<f64>,
    pub(super) served: u64,
    pub(super) restarts: u64,
    pub(super) resident_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) age_seconds: f64,
    pub(super) last_stderr_seconds: Option<f64>,
}

/// The body of `/processes`.
#[derive(Debug, Deserialize)]
struct ProcessTable {
    processes: Vec<ProcessRow>,
}

/// The status and the body of an HTTP response, or why the bytes are no whole response.
pub(super) fn response(bytes: &[u8]) -> Result<(u16, &[u8]), String> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else {
        return Err(match bytes.is_empty() {
            true => "closed without an answer".to_owned(),
            false => "not an HTTP answer".to_owned(),
        });
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let body = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.and_then(|line| line.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| "not an HTTP answer".to_owned())?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) if body.len() < length => Err("the answer broke off".to_owned()),
        Some(length) => Ok((status, &body[..length])),
        None => Ok((status, body)),
    }
}

/// The statistics in a response to `GET /stats`.
pub(super) fn stats(bytes: &[u8]) -> Result<Stats, String> {
    match response(bytes)? {
        (200, body) => {
            serde_json::from_slice(body).map_err(|error| format!("/stats of no worker: {error}"))
        }
        (404, _) => Err(
            "no /stats here: it is asked at the address of --admin (FAAS_ADMIN), \
             if the worker has one"
                .to_owned(),
        ),
        (status, _) => Err(format!("/stats answered with status {status}")),
    }
}

/// The processes in a response to `GET /processes`; `None` at an address that does not tell them.
pub(super) fn processes(bytes: &[u8]) -> Result<Option<Vec<ProcessRow>>, String> {
    match response(bytes)? {
        (200, body) => serde_json::from_slice(body)
            .map(|body: ProcessTable| Some(body.processes))
            .map_err(|error| format!("/processes of no worker: {error}")),
        (404, _) => Ok(None),
        (status, _) => Err(format!("/processes answered with status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_whole_or_says_why_not() {
        for (bytes, expected) in [
            ("", Err("closed without an answer")),
            ("SSH-2.0\r\n\r\n", Err("not an HTTP answer")),
            ("HTTP/1.1 200 OK\r\n", Err("not an HTTP answer")),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
                Err("the answer broke off"),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
                Ok((200, "ab")),
            ),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Ok((404, ""))),
        ] {
            let expected = expected.map(|(status, body)| (status, body.as_bytes()));
            assert_eq!(
                response(bytes.as_bytes()),
                expected.map_err(str::to_owned),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn processes_are_absent_without_an_admin_address() {
        assert_eq!(processes(b"HTTP/1.1 404 Not Found\r\n\r\n"), Ok(None));
        let text = b"HTTP/1.1 200 OK\r\n\r\n{\"processes\":[]}";
        assert_eq!(processes(text), Ok(Some(Vec::new())));
        assert!(processes(b"HTTP/1.1 500 No\r\n\r\n").is_err());
        assert!(stats(b"HTTP/1.1 200 OK\r\n\r\n{}").is_err());
        assert!(
            stats(b"HTTP/1.1 404 No\r\n\r\n")
                .unwrap_err()
                .contains("--admin")
        );
    }
}

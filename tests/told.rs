//! The words about a failure, for callers, operators and the log.

use crate::support::{assert_error, misbehave, sh};

/// Whether the body of a 504 and of a 502 quotes what the handler printed, and the log does.
fn quotes(listen: &str, verbose: Option<&str>) -> (bool, bool) {
    let script = r#"while IFS= read -r line; do
        case $line in
            *crash*) echo "ValueError: my-secret" >&2; sleep 0.1; exit 7 ;;
            *) echo my-secret; exec sleep 60 ;;
        esac
    done"#;
    let mut worker = sh(script, &[])
        .option("--processes", "1")
        .option("--timeout", "300ms")
        .option("--startup-timeout", "400ms")
        .option("--host", listen);
    if let Some(verbose) = verbose {
        worker = worker.flag(&format!("--verbose-errors={verbose}"));
    }
    let worker = worker.start();
    let late = worker.post("late");
    assert_error(&late, 504, "handler_timeout", "maybe");
    let crashed = worker.post("crash");
    assert_error(&crashed, 502, "handler_exited", "maybe");
    let bodies = [late, crashed].map(|response| {
        let body = String::from_utf8_lossy(&response.body).into_owned();
        let id = response.header("x-request-id").unwrap().to_owned();
        (body, id)
    });
    let quotes = bodies[0].0.contains("my-secret");
    for (body, id) in &bodies {
        assert_eq!(body.contains("my-secret"), quotes, "{body}");
        assert_eq!(
            body.contains(&format!("request id {id}")),
            !quotes,
            "{body}"
        );
    }
    let line = worker.log.wait_for(&["request failed", &bodies[1].1]);
    (quotes, line.contains("my-secret"))
}

#[test]
fn what_a_handler_printed_is_told_on_loopback_or_where_that_is_wanted() {
    for (listen, verbose, is_quoted) in [
        ("127.0.0.1", None, true),
        ("127.0.0.1", Some("false"), false),
        ("0.0.0.0", None, false),
        ("0.0.0.0", Some("true"), true),
    ] {
        assert_eq!(
            quotes(listen, verbose),
            (is_quoted, true),
            "{listen} {verbose:?}"
        );
    }
}

#[test]
fn while_no_process_has_ever_answered_callers_are_told_so() {
    let worker = misbehave(&[])
        .option("--processes", "1")
        .option("--timeout", "300ms")
        .option("--queue-timeout", "600ms")
        .start();
    let hung = worker.post_aside("hang");
    assert_error(&hung.join().unwrap(), 504, "handler_timeout", "maybe");
    let waiting = worker.post("waiting");
    assert_error(&waiting, 429, "overloaded", "no");
    let body = String::from_utf8_lossy(&waiting.body);
    assert!(
        body.contains("no process has answered since it was started"),
        "{body}"
    );
    assert_eq!(waiting.header("retry-after"), Some("30"));
    let ready = worker.get("/ready");
    assert_eq!(ready.status, 503);
    let body = String::from_utf8_lossy(&ready.body);
    assert!(
        body.contains("no process has answered since it was started"),
        "{body}"
    );
}

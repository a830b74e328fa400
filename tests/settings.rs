//! Settings: their sources, the messages about bad values, and the environment of handlers.

use crate::support::client::body_of;
use crate::support::{Builder, assert_result, eventually, misbehave, processes};

fn nothing() -> Builder {
    Builder::new(Vec::new()).bare()
}

/// A6.
#[test]
fn a_bad_setting_is_named_with_its_flag_its_variable_and_its_value() {
    for (flag, variable, value) in [
        ("--port", "PORT", "70000"),
        ("--port", "PORT", "http"),
        ("--host", "HOST", "no such host"),
        ("--processes", "FAAS_PROCESSES", "0"),
        ("--processes", "FAAS_PROCESSES", "many"),
        ("--processes", "FAAS_PROCESSES", "-1"),
        ("--max-concurrency", "FAAS_MAX_CONCURRENCY", "0"),
        ("--startup-timeout", "FAAS_STARTUP_TIMEOUT", "soon"),
        ("--timeout", "FAAS_TIMEOUT", "fast"),
        ("--timeout", "FAAS_TIMEOUT", "0"),
        ("--timeout", "FAAS_TIMEOUT", "0s"),
        ("--timeout", "FAAS_TIMEOUT", "-1s"),
        ("--timeout", "FAAS_TIMEOUT", "1ns"),
        ("--queue-timeout", "FAAS_QUEUE_TIMEOUT", "999us"),
        ("--header-timeout", "FAAS_HEADER_TIMEOUT", "1us"),
        ("--queue", "FAAS_QUEUE", "1.5"),
        ("--queue-timeout", "FAAS_QUEUE_TIMEOUT", "10 parsecs"),
        ("--max-body", "FAAS_MAX_BODY", "huge"),
        ("--max-body", "FAAS_MAX_BODY", "10"),
        ("--max-body", "FAAS_MAX_BODY", "0"),
        ("--max-reply", "FAAS_MAX_REPLY", "8 cubits"),
        ("--max-memory", "FAAS_MAX_MEMORY", "64"),
        ("--max-buffered", "FAAS_MAX_BUFFERED", "x"),
        ("--max-buffered", "FAAS_MAX_BUFFERED", "1B"),
        ("--max-connections", "FAAS_MAX_CONNECTIONS", "0"),
        ("--header-timeout", "FAAS_HEADER_TIMEOUT", "x"),
        ("--body-timeout", "FAAS_BODY_TIMEOUT", "x"),
        ("--write-timeout", "FAAS_WRITE_TIMEOUT", "x"),
        ("--least-rate", "FAAS_LEAST_RATE", "x"),
        ("--keep-alive", "FAAS_KEEP_ALIVE", "x"),
        ("--max-connection-age", "FAAS_MAX_CONNECTION_AGE", "x"),
        ("--function-path", "FAAS_FUNCTION_PATH", "api"),
        ("--function-path", "FAAS_FUNCTION_PATH", "/a*b"),
        ("--function-path", "FAAS_FUNCTION_PATH", "/a?b"),
        ("--lambda-runtime-api", "AWS_LAMBDA_RUNTIME_API", "lambda"),
        (
            "--lambda-max-concurrency",
            "AWS_LAMBDA_MAX_CONCURRENCY",
            "0",
        ),
        ("--admin", "FAAS_ADMIN", "9000"),
        ("--admin", "FAAS_ADMIN", "example.test:9000"),
        ("--grace", "FAAS_GRACE", "x"),
        ("--max-age", "FAAS_MAX_AGE", "1ns"),
        ("--chdir", "FAAS_CHDIR", "/no/such/folder"),
        ("--chdir", "FAAS_CHDIR", "/etc/passwd"),
        ("--exit-on-failure", "FAAS_EXIT_ON_FAILURE", "perhaps"),
        ("--drain-delay", "FAAS_DRAIN_DELAY", "x"),
        ("--drain-timeout", "FAAS_DRAIN_TIMEOUT", "x"),
        ("--log-format", "FAAS_LOG_FORMAT", "xml"),
        ("--log-handler", "FAAS_LOG_HANDLER", "json"),
        ("--access-log", "FAAS_ACCESS_LOG", "yes"),
        ("--log-level", "FAAS_LOG_LEVEL", "loud"),
        ("--wait-ready", "FAAS_WAIT_READY", "perhaps"),
        ("--pass-header", "FAAS_PASS_HEADER", "not a name"),
        ("--pass-header", "FAAS_PASS_HEADER", "*"),
        ("--limit-memory", "FAAS_LIMIT_MEMORY", "much"),
        ("--limit-memory", "FAAS_LIMIT_MEMORY", "1KiB"),
        ("--limit-cpu", "FAAS_LIMIT_CPU", "0s"),
        ("--limit-files", "FAAS_LIMIT_FILES", "0"),
        ("--sandbox", "FAAS_SANDBOX", "perhaps"),
        ("--sandbox-read", "FAAS_SANDBOX_READ", "/no/such/path"),
        ("--sandbox-write", "FAAS_SANDBOX_WRITE", "/no/such/path"),
    ] {
        let by_variable = nothing().environment(variable, value).output();
        let mut ways = vec![(variable, by_variable)];
        if flag != "--wait-ready" {
            // Joined, so that a value such as -1 is not read as a flag.
            ways.push((flag, nothing().flag(&format!("{flag}={value}")).output()));
        }
        for (way, output) in ways {
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{way} {value}: {said}");
            assert!(said.contains(flag), "{way}: no {flag} in: {said}");
            assert!(said.contains(variable), "{way}: no {variable} in: {said}");
            assert!(said.contains(value), "{way}: no {value} in: {said}");
            assert!(said.lines().count() <= 8, "short: {said}");
        }
    }
    let unknown = nothing().flag("--no-such-flag").output();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        String::from_utf8(unknown.stderr)
            .unwrap()
            .contains("--no-such-flag")
    );
}

#[test]
fn a_value_that_nothing_could_serve_with_is_answered_with_the_least_one() {
    for (setting, part) in [
        ("--timeout=1ns", "1ms or more"),
        ("--max-buffered=1B", "64KiB or more"),
        ("--pass-header=*", "one by one"),
    ] {
        let output = nothing().flag(setting).output();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{setting}: {said}");
        assert!(said.contains(part), "{setting}: no {part} in: {said}");
    }
}

#[test]
fn flags_win_over_variables_and_variables_over_defaults() {
    let three = misbehave(&["--ready"])
        .environment("FAAS_PROCESSES", "1")
        .option("--processes", "3")
        .start();
    three.wait_for_processes(3);
    let one = misbehave(&["--ready"])
        .bare()
        .environment("FAAS_PROCESSES", "1")
        .start();
    one.wait_for_processes(1);
    // A command after `--` wins over the variable.
    let command = misbehave(&["--ready"])
        .environment("HANDLER_FUNCTION", "/nowhere")
        .start();
    assert_result(&command.post("x"), "x");
    // An empty variable counts as not set.
    let empty = misbehave(&["--ready"])
        .bare()
        .environment("FAAS_PROCESSES", "")
        .start();
    eventually("serves", || (empty.post("x").status == 200).then_some(()));
    assert!(processes::living_children(empty.pid()).len() >= 2);
}

#[test]
fn a_misspelt_variable_is_told_with_the_one_that_was_meant() {
    let worker = misbehave(&["--ready"])
        .environment("FAAS_PROCESES", "3")
        .environment("FAAS_COLOUR_OF_THE_SKY", "blue")
        .environment("FAAS_WORKER_SERVICE_HOST", "10.0.0.1")
        .environment("FAAS_WORKER_PORT", "tcp://10.0.0.1:80")
        .environment("FAAS_ADMIN_PORT", "9000")
        .environment("FAAS_PORT", "8000")
        .start();
    let log = worker.log.text();
    assert!(log.contains("is PORT meant?"), "{log}");
    assert!(log.contains("is FAAS_PROCESSES meant?"), "{log}");
    assert!(log.contains("FAAS_COLOUR_OF_THE_SKY"), "{log}");
    assert!(log.contains("--help lists them"), "{log}");
    assert!(!log.contains("FAAS_WORKER_"), "{log}");
    assert!(log.contains("FAAS_ADMIN_PORT"), "{log}");
    assert!(log.contains("them. The handler will not see it"), "{log}");
}

#[test]
fn the_help_is_complete() {
    let output = nothing().flag("--help").output();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for (flag, variable) in [
        ("--handler", "HANDLER_FUNCTION"),
        ("--host", "HOST"),
        ("--port", "PORT"),
        ("--processes", "FAAS_PROCESSES"),
        ("--max-concurrency", "FAAS_MAX_CONCURRENCY"),
        ("--wait-ready", "FAAS_WAIT_READY"),
        ("--startup-timeout", "FAAS_STARTUP_TIMEOUT"),
        ("--timeout", "FAAS_TIMEOUT"),
        ("--queue", "FAAS_QUEUE"),
        ("--queue-timeout", "FAAS_QUEUE_TIMEOUT"),
        ("--max-body", "FAAS_MAX_BODY"),
        ("--max-reply", "FAAS_MAX_REPLY"),
        ("--max-buffered", "FAAS_MAX_BUFFERED"),
        ("--max-connections", "FAAS_MAX_CONNECTIONS"),
        ("--header-timeout", "FAAS_HEADER_TIMEOUT"),
        ("--body-timeout", "FAAS_BODY_TIMEOUT"),
        ("--write-timeout", "FAAS_WRITE_TIMEOUT"),
        ("--least-rate", "FAAS_LEAST_RATE"),
        ("--keep-alive", "FAAS_KEEP_ALIVE"),
        ("--max-connection-age", "FAAS_MAX_CONNECTION_AGE"),
        ("--allow-host", "FAAS_ALLOW_HOST"),
        ("--allow-origin", "FAAS_ALLOW_ORIGIN"),
        ("--auth-token-file", "FAAS_AUTH_TOKEN_FILE"),
        ("--function-path", "FAAS_FUNCTION_PATH"),
        ("--lock-file", "FAAS_LOCK_FILE"),
        ("--lambda-runtime-api", "AWS_LAMBDA_RUNTIME_API"),
        ("--lambda-max-concurrency", "AWS_LAMBDA_MAX_CONCURRENCY"),
        ("--admin", "FAAS_ADMIN"),
        ("--grace", "FAAS_GRACE"),
        ("--chdir", "FAAS_CHDIR"),
        ("--exit-on-failure", "FAAS_EXIT_ON_FAILURE"),
        ("--drain-delay", "FAAS_DRAIN_DELAY"),
        ("--drain-timeout", "FAAS_DRAIN_TIMEOUT"),
        ("--pass-header", "FAAS_PASS_HEADER"),
        ("--limit-memory", "FAAS_LIMIT_MEMORY"),
        ("--limit-cpu", "FAAS_LIMIT_CPU"),
        ("--limit-files", "FAAS_LIMIT_FILES"),
        ("--sandbox", "FAAS_SANDBOX"),
        ("--sandbox-read", "FAAS_SANDBOX_READ"),
        ("--sandbox-write", "FAAS_SANDBOX_WRITE"),
        ("--log-format", "FAAS_LOG_FORMAT"),
        ("--log-level", "FAAS_LOG_LEVEL"),
        ("--log-handler", "FAAS_LOG_HANDLER"),
        ("--access-log", "FAAS_ACCESS_LOG"),
    ] {
        assert!(help.contains(flag), "no {flag} in the help");
        assert!(help.contains(variable), "no {variable} in the help");
    }
    // And nothing in it is a promise that is not kept: each flag that it names is understood.
    for word in help.split(|c: char| !(c.is_ascii_lowercase() || c == '-')) {
        if word.starts_with("--") && word.len() > 2 {
            let output = nothing().flag(word).flag("--no-such-flag").output();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(
                !said.contains(&format!("unexpected argument '{word}'")),
                "{said}"
            );
        }
    }
}

#[test]
fn the_version_is_that_of_the_crate() {
    let output = nothing().flag("--version").output();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said.trim(),
        concat!("faas-worker ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn serve_may_be_named() {
    let worker = misbehave(&["--ready"]).bare().flag("serve").start();
    eventually("serves", || (worker.post("x").status == 200).then_some(()));
}

#[test]
fn a_handler_inherits_the_environment_but_not_the_worker_s_settings() {
    let worker = misbehave(&[])
        .environment("FAAS_QUEUE", "77")
        .environment("FAAS_SOMETHING_SECRET", "s3cret")
        .environment("MY_SETTING", "kept = \"as is\"")
        .start();
    let response = worker.post("environment");
    let environment = response.json()["result"].clone();
    let names: Vec<&String> = environment.as_object().unwrap().keys().collect();
    assert!(
        !names.iter().any(|name| name.starts_with("FAAS_")),
        "{names:?}"
    );
    assert_eq!(environment["MY_SETTING"], "kept = \"as is\"");
    assert_eq!(environment["PATH"], std::env::var("PATH").unwrap());
    assert_eq!(environment["PYTHONUNBUFFERED"], "1");
    let chosen = misbehave(&[]).environment("PYTHONUNBUFFERED", "").start();
    assert_result(&chosen.post("env PYTHONUNBUFFERED"), "");
}

/// G4, as far as the worker's own descriptors go.
#[test]
fn a_handler_sees_its_own_three_descriptors_and_no_other() {
    let worker = misbehave(&[]).option("--processes", "4").start();
    // With connections, other processes and a queue there is something to leak.
    let busy: Vec<_> = (0..3).map(|_| worker.post_aside("sleep 300")).collect();
    let response = worker.post("fds");
    let open = response.json()["result"].clone();
    let names: Vec<&String> = open.as_object().unwrap().keys().collect();
    assert_eq!(names, ["0", "1", "2"], "{open}");
    for busy in busy {
        busy.join().unwrap();
    }
}

/// G4, for descriptors that the worker was given by mistake.
#[test]
fn a_descriptor_that_the_worker_was_given_does_not_reach_a_handler() {
    let worker = misbehave(&[])
        .prepared_by("exec 7</dev/null 9>/dev/null")
        .start();
    // Only a superuser can look into the worker; others must believe that it was given them.
    if let Ok(given) = std::fs::read_link(format!("/proc/{}/fd/9", worker.pid())) {
        assert_eq!(given.to_str(), Some("/dev/null"), "the worker has it");
    }
    let response = worker.post("fds");
    let open = response.json()["result"].clone();
    let names: Vec<&String> = open.as_object().unwrap().keys().collect();
    assert_eq!(names, ["0", "1", "2"], "{open}");
}

#[test]
fn a_handler_has_the_descriptor_limit_that_the_worker_was_given() {
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let worker = misbehave(&[]).start();
    let response = worker.post("file /proc/self/limits");
    let handler = response.json()["result"].as_str().unwrap().to_owned();
    let line = |text: &str| {
        text.lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap()
            .to_owned()
    };
    assert_eq!(line(&handler), line(&own));
}

/// The worker raises its own limit of descriptors to fit its connections; handlers keep theirs.
#[test]
fn the_limit_that_the_worker_raised_for_itself_is_not_the_handlers() {
    let worker = misbehave(&[]).prepared_by("ulimit -Sn 300").start();
    let soft = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap();
        line.split_whitespace().nth(3).unwrap().to_owned()
    };
    let own = std::fs::read_to_string(format!("/proc/{}/limits", worker.pid())).unwrap();
    assert_ne!(soft(&own), "300", "the worker needs more");
    // Set from outside right after the start.
    eventually("the handler has what the worker was given", || {
        let response = worker.post("file /proc/self/limits");
        (soft(response.json()["result"].as_str().unwrap()) == "300").then_some(())
    });
}

/// Logs are for operators, and hold no payloads, results or tokens.
#[test]
fn payloads_and_results_are_never_logged() {
    let worker = misbehave(&["--ready"])
        .option("--log-level", "debug")
        .option("--timeout", "500ms")
        .start();
    let headers = [("authorization", "Bearer top-s3cret")];
    for payload in [
        "very-s3cret",
        "hang #s3cret",
        "exit 1 #s3cret",
        "wrong-id #s3cret",
    ] {
        let body = body_of(payload);
        let _ = worker
            .connect()
            .request("POST", "/", &headers, Some(&body))
            .unwrap();
    }
    worker
        .connect()
        .request("POST", "/", &headers, Some(b"{\"payload\":s3cret"))
        .unwrap();
    worker
        .connect()
        .request("GET", "/?key=s3cret", &headers, None)
        .unwrap();
    eventually("the pool is whole", || {
        (processes::living_children(worker.pid()).len() == 2).then_some(())
    });
    let log = worker.log.text();
    assert!(log.len() > 100, "there is a log: {log}");
    assert!(!log.contains("s3cret"), "{log}");
}

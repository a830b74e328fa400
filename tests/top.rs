//! `faas-worker top`: one plain table, and an exit status, against a small HTTP server.

use crate::support::Builder;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

const STATS: &str = r#"{"version":"0.2.0","ready":true,"uptime_seconds":81.2,"demand":5.2,"busy_ratio":0.81,"queue":{"length":2,"limit":1024,"oldest_seconds":0.013},"processes":{"up":4,"busy":3,"starting":0,"limit":4,"capacity":4},"requests":{"active":3,"total":18234,"failed":12}}"#;

const PROCESSES: &str = r#"{"processes":[
{"process":1,"pid":4241,"slot":1,"state":"idle","requests_active":0,"request_id":null,"working_seconds":null,"served":9,"restarts":0,"resident_bytes":null,"cpu_seconds":null,"age_seconds":81.2,"last_stderr_seconds":null},
{"process":3,"pid":4242,"slot":0,"state":"busy","requests_active":1,"request_id":"5f3a9c01-7","working_seconds":12.5,"served":1234,"restarts":2,"resident_bytes":12345678,"cpu_seconds":1.23,"age_seconds":12.3,"last_stderr_seconds":4.2}]}"#;

/// Starts a server that tells the statistics, and the processes if it has them.
fn server(processes: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let body = match head[0].as_str() {
                "GET /stats HTTP/1.1" => Some(STATS),
                "GET /processes HTTP/1.1" => processes,
                _ => None,
            };
            let status = body.map_or("404 Not Found", |_| "200 OK");
            let body = body.unwrap_or_default();
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

fn top(words: &[&str]) -> (String, String, Option<i32>) {
    let words = words.iter();
    let builder = words.fold(Builder::new(Vec::new()).bare().flag("top"), |all, word| {
        all.flag(word)
    });
    let output = builder.output();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code(),
    )
}

const HEAD: &str = "\
faas-worker 0.2.0, ready, up 1m21s, by time at work
requests -/s, 3 active, 12 failed of 18234; queue 2/1024, oldest 13ms
busy [||||||||||||||||    ] 81%; processes 3 busy, 4 up, 0 starting, at most 4
";

#[test]
fn without_a_terminal_one_table_is_printed() {
    let address = server(Some(PROCESSES)).to_string();
    let table = "\
PROCESS     PID STATE    WORKING REQUEST            SERVED RESTARTS  MEMORY   CPU%    AGE LAST STDERR
      3    4242 busy       12.5s 5f3a9c01-7           1234        2   11.8M   10.0  12.3s        4.2s
      1    4241 idle           - -                       9        0       -      -  1m21s           -
";
    for words in [
        &["--admin", &address][..],
        &[&address],
        &[&address, "--once"],
    ] {
        let expected = (format!("{HEAD}{table}"), String::new(), Some(0));
        assert_eq!(top(words), expected, "{words:?}");
    }
}

#[test]
fn beside_the_callers_it_says_where_the_table_is() {
    let port = server(None).port().to_string();
    let (text, errors, status) = top(&["--port", &port]);
    assert_eq!((errors.as_str(), status), ("", Some(0)));
    let hint = text.strip_prefix(HEAD).unwrap();
    assert!(
        hint.contains("--admin") && hint.lines().count() == 1,
        "{hint:?}"
    );
}

#[test]
fn a_worker_that_does_not_answer_is_told_in_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (text, errors, status) = top(&[&address]);
    assert_eq!((text.as_str(), status), ("", Some(1)));
    assert!(errors.starts_with(&format!("{address}: ")), "{errors:?}");
    assert_eq!(errors.lines().count(), 1);
}

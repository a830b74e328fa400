//! The table of malformed requests, with the answers that are allowed.

use super::{accepted, smuggled};
use crate::support::Chance;

/// One way to be wrong.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// How many requests a reader could find in it at most.
    pub(super) requests: usize,
    /// Statuses that are documented for it.
    pub(super) allowed: Vec<u16>,
    /// Whether the connection may end without an answer.
    pub(super) may_be_closed: bool,
}

pub(super) fn cases() -> Vec<Case> {
    let mut table = Vec::new();
    lengths(&mut table);
    codings(&mut table);
    chunks(&mut table);
    heads(&mut table);
    request_lines(&mut table);
    targets(&mut table);
    hosts(&mut table);
    floods(&mut table);
    methods(&mut table);
    pipelines(&mut table);
    no_http(&mut table);
    table
}

const HOST: &str = "Host: 127.0.0.1\r\n";

/// A whole request that must never be run, to be hidden inside another.
fn hidden() -> Vec<u8> {
    post(HOST, &smuggled())
}

/// `POST /` with these header lines and a right length.
fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    raw(&format!("POST / HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n"), body)
}

fn raw(head: &str, body: &[u8]) -> Vec<u8> {
    [head.as_bytes(), body].concat()
}

fn add(table: &mut Vec<Case>, name: &str, allowed: &[u16], bytes: Vec<u8>) {
    table.push(Case {
        name: name.to_owned(),
        bytes,
        requests: 1,
        allowed: allowed.to_vec(),
        may_be_closed: !allowed.contains(&200),
    });
}

fn lengths(table: &mut Vec<Case>) {
    let body = smuggled();
    let length = body.len();
    for value in [
        "-1", "+30", "0x1e", "1e1", "3 0", "", " ", "30;", "\"30\"", "thirty", "30, 30", "30,31",
        "٣", "1.0", "18446744073709551616", "99999999999999999999999999", "-0",
    ] {
        let head = format!("POST / HTTP/1.1\r\n{HOST}Content-Length: {value}\r\n\r\n");
        add(table, &format!("length {value:?}"), &[400], raw(&head, &body));
    }
    for value in ["18446744073709551615", "9223372036854775807", "65537"] {
        let head = format!("POST / HTTP/1.1\r\n{HOST}Content-Length: {value}\r\n\r\n");
        add(table, &format!("length {value}"), &[400, 413, 431], raw(&head, &body));
    }
    for (first, second) in [(length, 3), (3, length), (0, length), (length, 0)] {
        let head = format!(
            "POST / HTTP/1.1\r\n{HOST}Content-Length: {first}\r\nContent-Length: {second}\r\n\r\n"
        );
        add(table, &format!("lengths {first} and {second}"), &[400], raw(&head, &body));
    }
    let twice = format!("{HOST}Content-Length: {}\r\n", accepted().len());
    add(table, "the same length twice", &[200, 400], post(&twice, &accepted()));
    let head = format!("POST / HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n", length + 5);
    add(table, "a length above the body's", &[408], raw(&head, &body));
    let head = format!("POST / HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n", length - 5);
    add(table, "a length below the body's", &[400, 422], raw(&head, &body));
    // The rest is no request.
    table.last_mut().unwrap().requests = 2;
    add(table, "no length", &[400, 422], raw(&format!("POST / HTTP/1.1\r\n{HOST}\r\n"), &body));
    table.last_mut().unwrap().requests = 2;
}

fn codings(table: &mut Vec<Case>) {
    let chunked = |body: &[u8]| {
        let size = format!("{:x}\r\n", body.len());
        [size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
    };
    for value in [
        "gzip, chunked", "chunked, gzip", "gzip", "identity", "chunked, identity", "xchunked",
        "chunkedx", "chunked, chunked", "chunked,", ",chunked", "\"chunked\"", "chun ked", "",
        "chunked;q=1", "chunked\u{b}", "deflate,chunked", "chunked\r\nTransfer-Encoding: chunked",
        "gzip\r\nTransfer-Encoding: chunked", "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
    ] {
        let head = format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: {value}\r\n\r\n");
        let bytes = raw(&head, &chunked(&smuggled()));
        add(table, &format!("coding {value:?}"), &[400], bytes);
    }
    for value in ["chunked", "CHUNKED", "\tchunked\t"] {
        let head = format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: {value}\r\n\r\n");
        let bytes = raw(&head, &chunked(&accepted()));
        add(table, &format!("right coding {value:?}"), &[200], bytes);
    }
    for version in ["1.0", "0.9"] {
        let head = format!("POST / HTTP/{version}\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
        let bytes = raw(&head, &chunked(&smuggled()));
        add(table, &format!("coding in HTTP/{version}"), &[400], bytes);
    }
    // By its coding the body is empty, and what follows is another request; by its length, that is
    // the body.
    let empty = [&b"0\r\n\r\n"[..], &hidden()].concat();
    for (name, headers) in [
        ("coding, length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("length, coding", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("lengths, coding", "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("long length, coding", "Content-Length: 900\r\nTransfer-Encoding: chunked\r\n"),
        ("bad length, coding", "Content-Length: x\r\nTransfer-Encoding: chunked\r\n"),
        ("coding, bad length", "Transfer-Encoding: chunked\r\nContent-Length: x\r\n"),
        ("coding, length, keep-alive", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nConnection: keep-alive\r\n"),
        ("coding with a space, length", "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n"),
        ("folded coding, length", "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n"),
    ] {
        let bytes = raw(&format!("POST / HTTP/1.1\r\n{HOST}{headers}\r\n"), &empty);
        add(table, name, &[400, 422], bytes);
    }
}

fn chunks(table: &mut Vec<Case>) {
    let body = String::from_utf8(smuggled()).unwrap();
    let size = format!("{:x}", body.len());
    let head = format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
    let long = "x".repeat(20_000);
    let many: String = (0..200).map(|number| format!("t{number}: x\r\n")).collect();
    for (name, text) in [
        ("no number", format!("zz\r\n{body}\r\n0\r\n\r\n")),
        ("negative", format!("-1\r\n{body}\r\n0\r\n\r\n")),
        ("plus", format!("+{size}\r\n{body}\r\n0\r\n\r\n")),
        ("prefix", format!("0x{size}\r\n{body}\r\n0\r\n\r\n")),
        ("space in front", format!(" {size}\r\n{body}\r\n0\r\n\r\n")),
        ("space inside", format!("1 6\r\n{body}\r\n0\r\n\r\n")),
        ("empty size", format!("\r\n{body}\r\n0\r\n\r\n")),
        ("overflow", format!("fffffffffffffffff\r\n{body}\r\n0\r\n\r\n")),
        ("overflow to the size", format!("100000000000000{size}\r\n{body}\r\n0\r\n\r\n").replacen("1000000000000", "1000000000000000", 1)),
        ("bare line feed", format!("{size}\n{body}\n0\n\n")),
        ("bare carriage return", format!("{size}\r{body}\r\n0\r\n\r\n")),
        ("no line end after data", format!("{size}\r\n{body}0\r\n\r\n")),
        ("line feed after data", format!("{size}\r\n{body}\n0\r\n\r\n")),
        ("data above the size", format!("5\r\n{body}\r\n0\r\n\r\n")),
        ("data below the size", format!("ff\r\n{body}\r\n0\r\n\r\n")),
        ("nul in size", format!("{size}\0\r\n{body}\r\n0\r\n\r\n")),
        ("comma in size", format!("{size},\r\n{body}\r\n0\r\n\r\n")),
        ("long extension", format!("{size};{long}\r\n{body}\r\n0\r\n\r\n")),
        ("many extensions", format!("{size}{}\r\n{body}\r\n0\r\n\r\n", ";a=b".repeat(5000))),
        ("line feed in extension", format!("{size};a\nb\r\n{body}\r\n0\r\n\r\n")),
        ("last chunk cut", format!("{size}\r\n{body}\r\n0\r\n")),
        ("last chunk missing", format!("{size}\r\n{body}\r\n")),
        ("no colon in trailer", format!("{size}\r\n{body}\r\n0\r\nno colon\r\n\r\n")),
        ("many trailers", format!("{size}\r\n{body}\r\n0\r\n{many}\r\n")),
        ("long trailer", format!("{size}\r\n{body}\r\n0\r\nx: {}\r\n\r\n", long.repeat(4))),
        ("request as trailer", format!("{size}\r\n{body}\r\n0\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("huge and missing", "7fffffffffffffff\r\n".to_owned()),
        ("larger than may be", format!("11000\r\n{}", "x".repeat(0x11000))),
    ] {
        let allowed = &[400, 408, 413, 431];
        add(table, &format!("chunk: {name}"), allowed, raw(&head, text.as_bytes()));
    }
    let body = String::from_utf8(accepted()).unwrap();
    let size = format!("{:X}", body.len());
    for (name, text) in [
        ("space behind", format!("{size} \r\n{body}\r\n0\r\n\r\n")),
        ("zeros in front", format!("000{size}\r\n{body}\r\n000\r\n\r\n")),
        ("extension", format!("{size};a=\"b\"\r\n{body}\r\n0;c\r\n\r\n")),
        ("trailer", format!("{size}\r\n{body}\r\n0\r\nX-Sum: 1\r\n\r\n")),
        ("length as trailer", format!("{size}\r\n{body}\r\n0\r\nContent-Length: 3\r\n\r\n")),
        ("coding as trailer", format!("{size}\r\n{body}\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n")),
    ] {
        add(table, &format!("odd chunk: {name}"), &[200], raw(&head, text.as_bytes()));
    }
}

fn heads(table: &mut Vec<Case>) {
    let body = smuggled();
    let length = body.len();
    for (name, headers) in [
        ("folded line", format!("{HOST}X-A: b\r\n c\r\n")),
        ("folded with a tab", format!("{HOST}X-A: b\r\n\tc\r\n")),
        ("folded host", "Host:\r\n 127.0.0.1\r\n".to_owned()),
        ("fold at the start", format!(" X-A: b\r\n{HOST}")),
        ("bare carriage return in value", format!("{HOST}X-A: b\rc\r\n")),
        ("bare carriage return as end", format!("{HOST}X-A: b\rX-B: c\r\n")),
        ("double carriage return", format!("{HOST}X-A: b\r\r\n")),
        ("nul in value", format!("{HOST}X-A: b\0c\r\n")),
        ("nul in name", format!("{HOST}X\0A: b\r\n")),
        ("delete in value", format!("{HOST}X-A: b\u{7f}\r\n")),
        ("escape in value", format!("{HOST}X-A: \u{1b}[31m\r\n")),
        ("space before colon", format!("{HOST}X-A : b\r\n")),
        ("tab before colon", format!("{HOST}X-A\t: b\r\n")),
        ("space in name", format!("{HOST}X A: b\r\n")),
        ("no name", format!("{HOST}: b\r\n")),
        ("no colon", format!("{HOST}X-A\r\n")),
        ("letters that are none", format!("{HOST}X-É: b\r\n")),
        ("bracket in name", format!("{HOST}X(A): b\r\n")),
        ("quote in name", format!("{HOST}\"X-A\": b\r\n")),
        ("slash in name", format!("{HOST}X/A: b\r\n")),
        ("host with a space before its colon", "Host : 127.0.0.1\r\n".to_owned()),
        ("length with a space before its colon", format!("{HOST}Content-Length : 3\r\n")),
    ] {
        add(table, &format!("head: {name}"), &[400], post(&headers, &body));
    }
    let head = format!("POST / HTTP/1.1\r\n{HOST}Content-Length:\r\n {length}\r\n\r\n");
    add(table, "head: folded length", &[400], raw(&head, &body));
    let head = format!("POST / HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n");
    add(table, "head without its end", &[400, 408], head.clone().into_bytes());
    add(table, "head with half an end", &[400, 408], raw(&head, b"\r"));
    let ends = format!("POST / HTTP/1.1\n{HOST}Content-Length: {}\n\n", accepted().len());
    let ends = ends.replace('\r', "");
    add(table, "head in line feeds", &[200, 400], raw(&ends, &accepted()));
    let underscore = format!("{HOST}Transfer_Encoding: chunked\r\nContent_Length: 3\r\n");
    add(table, "head: other names", &[200], post(&underscore, &accepted()));
    let front = [&b"\r\n\r\n"[..], &post(HOST, &accepted())].concat();
    add(table, "empty lines in front", &[200], front);
    let front = [&b" "[..], &post(HOST, &body)].concat();
    add(table, "space in front", &[400], front);
}

fn request_lines(table: &mut Vec<Case>) {
    let length = smuggled().len();
    for line in [
        "POST / HTTP/1.2", "POST / HTTP/2.0", "POST / HTTP/3", "POST / HTTP/0.9", "POST / HTTP/1",
        "POST / HTTP/1.10", "POST / HTTP/11", "POST / http/1.1", "POST / HTTPS/1.1", "POST / ICY/1.1",
        "POST / HTTP/1.1 x", "POST / HTTP 1.1", "POST / HTTP/1,1", "POST /", "POST", "POST  / HTTP/1.1",
        "POST /  HTTP/1.1", "POST\t/ HTTP/1.1", "POST /\tHTTP/1.1", "POST/ HTTP/1.1", "/ HTTP/1.1",
        " / HTTP/1.1", "PO ST / HTTP/1.1", "P\0ST / HTTP/1.1", "P@ST / HTTP/1.1 ", "PÖST / HTTP/1.1",
        "POST /\0 HTTP/1.1", "POST /a b HTTP/1.1", "POST /\u{7f} HTTP/1.1", "\"POST\" / HTTP/1.1",
        "POST / HTTP/-1.1", "POST / HTTP/1.-1", "POST / \u{b}HTTP/1.1", "(POST) / HTTP/1.1",
    ] {
        let head = format!("{line}\r\n{HOST}Content-Length: {length}\r\n\r\n");
        add(table, &format!("line {line:?}"), &[400, 404, 405], raw(&head, &smuggled()));
    }
    add(table, "HTTP/0.9", &[400], b"GET /\r\n".to_vec());
    // hyper tells it from another version by whether all of it has come.
    add(table, "HTTP/2 preface", &[505, 400], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec());
    let old = format!("POST / HTTP/1.0\r\nContent-Length: {}\r\n\r\n", accepted().len());
    add(table, "HTTP/1.0 without host", &[200], raw(&old, &accepted()));
}

fn targets(table: &mut Vec<Case>) {
    let length = smuggled().len();
    for target in [
        "//", "/%2f", "/%", "/%zz", "/%00", "/.", "/..", "/%2e%2e/", "/\\", "/x", "/;", "/%0d%0a",
        "http:", "http://", "http:///", "http://evil.test/", "http://user@127.0.0.1/",
        "http://user:word@127.0.0.1/", "http://127.0.0.1.evil.test/", "http://127.0.0.1:80:80/",
        "http://[::1/", "http://127.0.0.1@evil.test/", "evil.test:80", "127.0.0.1:80", "*", "?", "?x",
        "#", "x", "\\", "http://127.0.0.1/x", "http://127.0.0.1//", "é", "/é", "/\u{1}",
        "http://é.test/", "://127.0.0.1/", "ftp://127.0.0.1/", "http//127.0.0.1/", "/{", "/|", "/\"", "/<script>",
    ] {
        let head = format!("POST {target} HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n");
        let bytes = raw(&head, &smuggled());
        add(table, &format!("target {target:?}"), &[400, 403, 404, 405], bytes);
    }
    for target in ["/?", "/?a=b", "/?%00", "http://127.0.0.1/", "http://localhost:1?x"] {
        let head = format!("POST {target} HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n", accepted().len());
        add(table, &format!("right target {target:?}"), &[200], raw(&head, &accepted()));
    }
    for (method, target) in [("OPTIONS", "*"), ("CONNECT", "127.0.0.1:80"), ("CONNECT", "/"), ("CONNECT", "*")] {
        let head = format!("{method} {target} HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n");
        add(table, &format!("{method} {target}"), &[400, 404, 405], raw(&head, &smuggled()));
    }
    let long = format!("/{}", "a".repeat(70_000));
    let head = format!("POST {long} HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n");
    add(table, "long target", &[414, 431], raw(&head, &smuggled()));
}

fn hosts(table: &mut Vec<Case>) {
    for value in [
        "", " ", "evil.test", "user@127.0.0.1", "127.0.0.1@evil.test", "127.0.0.1, evil.test",
        "evil.test, 127.0.0.1", "127.0.0.1,127.0.0.1", "127.0.0.1:x", "127.0.0.1:-1", "127.0.0.1:80:80",
        "127.0.0.1:", "[::1", "::1]", "[::1]x", "127.0.0.1/", "127.0.0.1#", "127.0.0.1 evil.test",
        "http://127.0.0.1", "127.0.0.1.evil.test", "localhost.evil.test", "127.1.evil.test", "0x7f.1",
        "é", "１２７.0.0.1", "127.0.0.1%00", "127.0.0.1\\@evil.test", "*", "0.0.0.0", "[::]",
    ] {
        let headers = format!("Host: {value}\r\n");
        add(table, &format!("host {value:?}"), &[400, 403], post(&headers, &smuggled()));
    }
    for (name, headers) in [
        ("no host", String::new()),
        ("two hosts", format!("{HOST}{HOST}")),
        ("ours and another's", format!("{HOST}Host: evil.test\r\n")),
        ("another's and ours", format!("Host: evil.test\r\n{HOST}")),
        ("forwarded only", "X-Forwarded-Host: 127.0.0.1\r\n".to_owned()),
    ] {
        add(table, name, &[400], post(&headers, &smuggled()));
    }
    let forwarded = "Host: evil.test\r\nX-Forwarded-Host: 127.0.0.1\r\nForwarded: host=127.0.0.1\r\n";
    add(table, "forwarded host", &[403], post(forwarded, &smuggled()));
}

fn floods(table: &mut Vec<Case>) {
    let body = smuggled();
    let lines = |count: usize, value: &str| -> String {
        (0..count).map(|number| format!("X-{number}: {value}\r\n")).collect()
    };
    for (name, headers) in [
        ("101 headers", lines(101, "y")),
        ("5000 headers", lines(5000, "y")),
        ("headers without names in common", lines(90, &"y".repeat(1000))),
        ("one long value", format!("X-A: {}\r\n", "y".repeat(70_000))),
        ("one long name", format!("{}: y\r\n", "X".repeat(70_000))),
        ("many cookies", "Cookie: a=b\r\n".repeat(2000)),
        ("many lengths", format!("Content-Length: {}\r\n", body.len()).repeat(200)),
    ] {
        add(table, &format!("flood: {name}"), &[400, 431], post(&format!("{HOST}{headers}"), &body));
    }
    let method = "M".repeat(70_000);
    add(table, "flood: method", &[400, 405, 431], format!("{method} / HTTP/1.1\r\n{HOST}\r\n").into_bytes());
    add(table, "flood: no end of line", &[400, 414, 431], vec![b'A'; 200_000]);
    add(table, "flood: empty lines", &[400, 408, 431], b"\r\n".repeat(50_000));
}

fn methods(table: &mut Vec<Case>) {
    let length = smuggled().len();
    for method in [
        "GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "post", "Post", "POSTS",
        "PRI", "M-SEARCH",
    ] {
        let more = "X-HTTP-Method-Override: POST\r\nX-Method-Override: POST\r\n";
        let head = format!("{method} / HTTP/1.1\r\n{HOST}{more}Content-Length: {length}\r\n\r\n");
        add(table, &format!("method {method}"), &[405], raw(&head, &smuggled()));
    }
    for (name, headers) in [
        ("websocket", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"),
        ("h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
        ("unknown expectation", "Expect: wonders\r\n"),
        ("connection names other headers", "Connection: content-length, host\r\n"),
        ("compressed", "TE: trailers, gzip\r\nAccept-Encoding: gzip\r\n"),
    ] {
        let bytes = post(&format!("{HOST}{headers}"), &accepted());
        add(table, name, &[200, 417], bytes);
    }
}

fn pipelines(table: &mut Vec<Case>) {
    let first = post(HOST, &accepted());
    let broken: [(&str, Vec<u8>); 7] = [
        ("no request", b"nonsense\r\n\r\n".to_vec()),
        ("no host", post("", &smuggled())),
        ("a bad length", raw(&format!("POST / HTTP/1.1\r\n{HOST}Content-Length: x\r\n\r\n"), &smuggled())),
        ("a bad chunk", raw(&format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), &smuggled())),
        ("two codings", raw(&format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), b"")),
        ("half a head", b"POST / HT".to_vec()),
        ("half a body", post(HOST, &smuggled())[..60].to_vec()),
    ];
    for (name, second) in broken {
        // Behind a broken request no further request can be found.
        let bytes = [first.clone(), second, hidden()].concat();
        add(table, &format!("a second with {name}"), &[200, 400, 408, 422], bytes);
        table.last_mut().unwrap().requests = 3;
    }
}

fn no_http(table: &mut Vec<Case>) {
    let mut chance = Chance::seeded(7);
    for number in 0..6 {
        let length = 1 + chance.below(3000);
        let bytes = (0..length).map(|_| u8::try_from(chance.below(256)).unwrap()).collect();
        add(table, &format!("noise {number}"), &[400, 408, 414, 431], bytes);
    }
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20);
    for (name, bytes) in [
        ("TLS", hello),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("SMTP", b"EHLO evil.test\r\n".to_vec()),
        ("Redis", b"*1\r\n$4\r\nPING\r\n".to_vec()),
        ("memcached", b"stats\r\n".to_vec()),
        ("PROXY", b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nGET / HTTP/1.1\r\n\r\n".to_vec()),
        ("nul bytes", vec![0; 1000]),
        ("a response", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("line protocol", raw("{\"id\":1,\"payload\":\"smuggled\"}\n", b"")),
    ] {
        add(table, name, &[400, 408, 431], bytes);
    }
}

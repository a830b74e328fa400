//! Reads responses that come in pieces.

use std::io;

/// Other spellings of the first body that are kept: processes may order the keys of an object each in
/// its own way.
const SPELLINGS_AT_MOST: usize = 64;

/// The bodies of all 200s must be the same JSON; the first one is learnt.
pub(super) struct Expected {
    body: Vec<u8>,
    is_learnt: bool,
    spellings: Vec<Vec<u8>>,
}

impl Expected {
    /// Nothing learnt yet.
    pub(super) fn new() -> Expected {
        Expected {
            body: Vec::new(),
            is_learnt: false,
            spellings: Vec::new(),
        }
    }

    /// Whether a whole body is another spelling of the first, which is parsed only once for each.
    fn is_spelling(&mut self, body: &[u8]) -> bool {
        if self.spellings.iter().any(|known| known == body) {
            return true;
        }
        let parse = serde_json::from_slice::<serde_json::Value>;
        let is_same = match (parse(body), parse(&self.body)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        };
        if is_same && self.spellings.len() < SPELLINGS_AT_MOST {
            self.spellings.push(body.to_vec());
        }
        is_same
    }

    /// The beginning of the body, for messages.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned()
    }
}

/// A response that is all there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    /// Its status.
    pub status: u16,
    /// Whether the body differs from the expected one.
    pub is_wrong: bool,
    /// Whether the server closes the connection after it.
    pub is_last: bool,
}

/// Reads one response after another.
pub(super) struct Reader {
    head: Vec<u8>,
    stage: Stage,
}

enum Stage {
    Head,
    /// A body of known length, of which `at` bytes have come.
    Sized {
        done: Done,
        length: usize,
        at: usize,
    },
    /// A body in chunks, and the last bytes of it: without pipelining nothing follows its end.
    Chunked {
        done: Done,
        tail: Vec<u8>,
    },
}

const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

impl Reader {
    /// Nothing read yet.
    pub(super) fn new() -> Reader {
        Reader {
            head: Vec::new(),
            stage: Stage::Head,
        }
    }

    /// Takes what has come; gives the response if this was the end of it.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        expected: &mut Expected,
    ) -> io::Result<Option<Done>> {
        let Stage::Head = self.stage else {
            return Ok(self.feed_body(bytes, expected));
        };
        // Mostly the whole response comes at once, and nothing is copied.
        if self.head.is_empty() {
            return match parse(bytes)? {
                Some((stage, length)) => {
                    self.stage = stage;
                    Ok(self.feed_body(&bytes[length..], expected))
                }
                None => {
                    self.head.extend_from_slice(bytes);
                    Ok(None)
                }
            };
        }
        self.head.extend_from_slice(bytes);
        let Some((stage, length)) = parse(&self.head)? else {
            return Ok(None);
        };
        self.stage = stage;
        let body = std::mem::take(&mut self.head).split_off(length);
        Ok(self.feed_body(&body, expected))
    }

    fn feed_body(&mut self, bytes: &[u8], expected: &mut Expected) -> Option<Done> {
        let done = match &mut self.stage {
            Stage::Head => return None,
            Stage::Sized { done, length, at } => {
                if done.status == 200 {
                    done.is_wrong |= !is_expected(bytes, *at, *length, expected);
                }
                *at += bytes.len();
                (*at >= *length).then_some(*done)
            }
            Stage::Chunked { done, tail } => {
                tail.extend_from_slice(bytes);
                let surplus = tail.len().saturating_sub(LAST_CHUNK.len());
                tail.drain(..surplus);
                // An empty body is the last chunk alone.
                let is_end = tail == LAST_CHUNK || tail == &LAST_CHUNK[2..];
                is_end.then_some(*done)
            }
        };
        if done.is_some() {
            self.stage = Stage::Head;
        }
        done
    }
}

fn is_expected(bytes: &[u8], at: usize, length: usize, expected: &mut Expected) -> bool {
    if !expected.is_learnt {
        expected.body.extend_from_slice(bytes);
        expected.is_learnt = expected.body.len() >= length;
        return expected.body.len() <= length;
    }
    if length == expected.body.len() && expected.body.get(at..at + bytes.len()) == Some(bytes) {
        return true;
    }
    bytes.len() == length && expected.is_spelling(bytes)
}

/// What follows a head, and how long the head is; nothing if it is not all there.
fn parse(bytes: &[u8]) -> io::Result<Option<(Stage, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let mut done = Done {
        status: response.code.unwrap_or(0),
        is_wrong: false,
        is_last: false,
    };
    let mut length = None;
    let mut is_chunked = false;
    for header in response.headers.iter() {
        let is = |name| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let text = String::from_utf8_lossy(header.value);
            length = Some(text.trim().parse().map_err(io::Error::other)?);
        } else if is("transfer-encoding") {
            is_chunked = true;
        } else if is("connection") {
            done.is_last = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    let stage = match length {
        Some(length) => Stage::Sized {
            done,
            length,
            at: 0,
        },
        None if is_chunked => Stage::Chunked {
            done,
            tail: Vec::new(),
        },
        None => return Err(io::Error::other("a response without a length")),
    };
    Ok(Some((stage, head)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(u16, bool, bool)> {
        let mut reader = Reader::new();
        let mut expected = Expected::new();
        let done = pieces
            .iter()
            .filter_map(|piece| reader.feed(piece, &mut expected).unwrap());
        done.map(|done| (done.status, done.is_wrong, done.is_last))
            .collect()
    }

    #[test]
    fn a_response_is_read_wherever_it_is_cut() {
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for at in 1..response.len() {
            let (first, second) = response.split_at(at);
            assert_eq!(read(&[first, second]), [(200, false, false)], "cut at {at}");
        }
    }

    #[test]
    fn a_body_that_differs_from_the_first_is_wrong() {
        let with = |body: &str| {
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        };
        let all = [with("hello"), with("hello"), with("hullo"), with("hell")];
        let pieces: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        let wrong: Vec<bool> = read(&pieces).iter().map(|done| done.1).collect();
        assert_eq!(wrong, [false, false, true, true]);
    }

    #[test]
    fn a_body_may_have_the_keys_of_the_first_in_another_order() {
        let mut expected = Expected::new();
        let mut is = |body: &str| is_expected(body.as_bytes(), 0, body.len(), &mut expected);
        assert!(is(r#"{"a":1,"b":[2,3]}"#));
        for _ in 0..2 {
            assert!(is(r#"{"b":[2,3],"a":1}"#));
        }
        assert!(!is(r#"{"b":[3,2],"a":1}"#));
        assert!(!is(r#"{"b":[2,3]}"#));
    }

    #[test]
    fn a_chunked_body_ends_with_its_last_chunk() {
        let head = b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        let done = read(&[head, b"2\r\nab", b"\r\n0\r\n", b"\r\n", b""]);
        assert_eq!(done, [(500, false, true)]);
    }
}

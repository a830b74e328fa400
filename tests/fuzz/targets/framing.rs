//! Lines do not depend on the cut of the bytes into reads, and equal the lines of a plain split.
#![no_main]

use faas_worker::process::line::{Framer, MAX_STRAY_BYTES, ProcessLine, is_braced};
use libfuzzer_sys::fuzz_target;

const MAX_REPLY: usize = 16;
/// As documented: room for the envelope around the largest result.
const REPLY_LIMIT: usize = MAX_REPLY + 4096;

type Seen = Vec<(bool, Vec<u8>)>;

fn feed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Seen {
    let mut framer = Framer::new(MAX_REPLY);
    let mut seen = Vec::new();
    for piece in pieces {
        framer.feed(piece, |line| {
            seen.push(match line {
                ProcessLine::Whole(line) => (true, line.to_vec()),
                ProcessLine::TooLong(line) => (false, line.to_vec()),
            });
        });
        assert!(framer.partial().len() <= REPLY_LIMIT.max(MAX_STRAY_BYTES));
    }
    seen
}

/// The same by splitting all of it.
fn split(bytes: &[u8]) -> Seen {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let unfinished = lines.pop().unwrap_or_default();
    let limit = |line: &[u8]| {
        if is_braced(line) {
            REPLY_LIMIT
        } else {
            MAX_STRAY_BYTES
        }
    };
    let mut seen: Seen = Vec::new();
    for line in lines {
        match line.len() <= limit(line) {
            true => seen.push((true, line.to_vec())),
            false => seen.push((false, line[..limit(line).min(MAX_STRAY_BYTES)].to_vec())),
        }
    }
    if unfinished.len() > limit(unfinished) {
        let shown = limit(unfinished).min(MAX_STRAY_BYTES);
        seen.push((false, unfinished[..shown].to_vec()));
    }
    seen
}

fuzz_target!(|input: &[u8]| {
    let Some((&size, bytes)) = input.split_first() else {
        return;
    };
    // Long runs, or the limits would never be reached by inputs of a sensible size.
    let long: Vec<u8> = bytes
        .iter()
        .flat_map(|&byte| std::iter::repeat_n(byte, if byte == b'L' { 3000 } else { 1 }))
        .collect();
    let expected = split(&long);
    assert_eq!(feed(std::iter::once(&long[..])), expected);
    assert_eq!(feed(long.chunks(usize::from(size) + 1)), expected);
});

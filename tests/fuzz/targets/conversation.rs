//! In any order of events each request comes out once, with its own answer or none.
#![no_main]

#[path = "../table.rs"]
mod table;

use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use table::Table;

const SAYINGS: [&[u8]; 12] = [
    b"{\"ready\":true,\"concurrency\":1}\n",
    b"{\"ready\":true,\"concurrency\":3}\n",
    b"{\"ready\":true}\n",
    b"{\"result\":1}\n",
    b"{\"id\":1}\n",
    b"{\"id\":2,\"error\":\"no\"}\n",
    b"{\"id\":\"1\",\"result\":1}\n",
    b"{\"id\":99,\"result\":1}\n",
    b"{\"id\":1,\"result\":\"\xff\"}\n",
    b"print\n",
    b"{\"res",
    b"\n",
];

fuzz_target!(|input: &[u8]| {
    let mut table = Table::new();
    let mut rest = input.iter().copied();
    while let (Some(step), Some(value)) = (rest.next(), rest.next()) {
        match step % 9 {
            0 | 1 => {
                table.give();
            }
            2 => table.sends(usize::from(value)),
            3 => table.replies(u64::from(value % 4)),
            4 => table.says(SAYINGS[usize::from(value) % SAYINGS.len()]),
            5 => table.waits(Duration::from_millis(u64::from(value) * 4), None),
            6 => {
                let slowest = Duration::from_millis(u64::from(value));
                table.waits(Duration::from_millis(50), Some(slowest));
            }
            7 => {
                let bytes: Vec<u8> = rest.by_ref().take(usize::from(value)).collect();
                table.says(&bytes);
            }
            _ if value < 4 => table.talk.input_closed(u64::from(value)),
            _ if value < 8 => table.talk.output_closed(),
            _ => table.says(&vec![b'{'; usize::from(value) * 32]),
        }
    }
    table.end(input.len() % 50);
});

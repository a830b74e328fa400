//! In any order of events each request comes out once, with its own answer or none.
#![no_main]

#[path = "../clocked_conversation.rs"]
mod clocked_conversation;

use clocked_conversation::ClockedConversation;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

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
    let mut clocked = ClockedConversation::new();
    let mut rest = input.iter().copied();
    while let (Some(step), Some(value)) = (rest.next(), rest.next()) {
        match step % 9 {
            0 | 1 => {
                clocked.give();
            }
            2 => clocked.sends(usize::from(value)),
            3 => clocked.replies(u64::from(value % 4)),
            4 => clocked.says(SAYINGS[usize::from(value) % SAYINGS.len()]),
            5 => clocked.waits(Duration::from_millis(u64::from(value) * 4), None),
            6 => {
                let slowest = Duration::from_millis(u64::from(value));
                clocked.waits(Duration::from_millis(50), Some(slowest));
            }
            7 => {
                let bytes: Vec<u8> = rest.by_ref().take(usize::from(value)).collect();
                clocked.says(&bytes);
            }
            _ if value < 4 => clocked.talk.input_closed(u64::from(value)),
            _ if value < 8 => clocked.talk.output_closed(),
            _ => clocked.says(&vec![b'{'; usize::from(value) * 32]),
        }
    }
    clocked.end(input.len() % 50);
});

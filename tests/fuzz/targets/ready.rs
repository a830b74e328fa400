//! The concurrency that a ready line announces is never above the configured bound.
#![no_main]

#[path = "../clocked_conversation.rs"]
mod clocked_conversation;

use clocked_conversation::{ClockedConversation, MAX_CONCURRENCY};
use faas_worker::process::conversation::Trust;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut clocked = ClockedConversation::new();
    clocked.says(b"{\"ready\":true,");
    clocked.says(input);
    clocked.says(b"}\n");
    let free = clocked.free_capacity();
    assert!(free <= MAX_CONCURRENCY, "{free}");
    let mut given = 0;
    while clocked.give() {
        given += 1;
        assert!(given <= MAX_CONCURRENCY);
    }
    let is_sound = *clocked.talk.trust() == Trust::Sound;
    assert!(is_sound || given == 0);
    clocked.end(0);
});

//! The concurrency that a ready line announces is never above the configured bound.
#![no_main]

#[path = "../table.rs"]
mod table;

use faas_worker::process::conversation::Trust;
use libfuzzer_sys::fuzz_target;
use table::{MAX_CONCURRENCY, Table};

fuzz_target!(|input: &[u8]| {
    let mut table = Table::new();
    table.says(b"{\"ready\":true,");
    table.says(input);
    table.says(b"}\n");
    let free = table.free_places();
    assert!(free <= MAX_CONCURRENCY, "{free}");
    let mut given = 0;
    while table.give() {
        given += 1;
        assert!(given <= MAX_CONCURRENCY);
    }
    let is_sound = *table.talk.trust() == Trust::Sound;
    assert!(is_sound || given == 0);
    table.end(0);
});

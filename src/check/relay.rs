//! Hands request lines to a process in pieces of a chosen size.
//!
//! A pipe may deliver a line in any pieces. A checked process gets its first line byte by byte,
//! each when the byte before it was read, and the further lines in pieces of [`BLOCK_BYTES`].

use rustix::pipe::PipeFlags;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::yield_now;

/// Most bytes of a piece: as many as a pipe holds.
const BLOCK_BYTES: usize = 64 * 1024;

/// Longest wait until a single byte was read.
const BYTE_IS_READ_WITHIN: Duration = Duration::from_millis(5);

/// Longest time of handing over single bytes; the rest of the line then comes in one piece.
const BYTES_TAKE: Duration = Duration::from_millis(500);

/// The work of a relay; it ends when either end is closed.
pub(super) type Relay = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A relay in front of this stdin of a process, and the pipe into the relay. Must be called within
/// a runtime.
pub(super) fn relay_to(stdin: Sender) -> io::Result<(Relay, Sender)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let source = Receiver::from_owned_fd(read)?;
    let write = Sender::from_owned_fd(write)?;
    Ok((Box::pin(relay(source, stdin)), write))
}

async fn relay(mut source: Receiver, mut sink: Sender) {
    let mut block = vec![0; BLOCK_BYTES];
    let mut single_bytes_until = None;
    let mut is_first_line = true;
    while let Ok(length @ 1..) = source.read(&mut block).await {
        let mut rest = &block[..length];
        if is_first_line {
            let until = *single_bytes_until.get_or_insert_with(|| Instant::now() + BYTES_TAKE);
            let line_end = rest.iter().position(|byte| *byte == b'\n');
            let (line, behind) = rest.split_at(line_end.map_or(length, |end| end + 1));
            is_first_line = line_end.is_none();
            if hand_over_bytes(line, &mut sink, until).await.is_err() {
                return;
            }
            rest = behind;
        }
        if sink.write_all(rest).await.is_err() {
            return;
        }
    }
}

/// Writes each byte when the byte before it was read, and the rest in one piece when that takes too
/// long.
async fn hand_over_bytes(line: &[u8], sink: &mut Sender, until: Instant) -> io::Result<()> {
    for (index, byte) in line.iter().enumerate() {
        if Instant::now() > until {
            return sink.write_all(&line[index..]).await;
        }
        sink.write_all(std::slice::from_ref(byte)).await?;
        let written = Instant::now();
        // The kernel wakes readers of a full pipe, and has no event for a pipe that was emptied.
        while rustix::io::ioctl_fionread(&*sink)? > 0 && written.elapsed() < BYTE_IS_READ_WITHIN {
            yield_now().await;
        }
    }
    Ok(())
}

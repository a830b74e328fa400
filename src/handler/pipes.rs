//! The pipes to the worker, which the library takes for itself.

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use std::fs::File;
use std::io::{self, Read, Write};

/// Takes stdin and stdout for the lines alone. From now on, descriptor 1 (of `println!`, of a C
/// library, of a program that the function starts) is stderr, and descriptor 0 is empty.
///
/// Nothing is flushed before: half a line in the standard library's buffer would get in front of
/// the ready line. It follows to stderr with the next line that is printed.
pub(super) fn take_pipes() -> io::Result<(Pipe, Pipe)> {
    use rustix::stdio::{dup2_stdin, dup2_stdout, stderr, stdin, stdout};
    // From 3 on, since lower numbers have meanings of their own. Closed in programs that the
    // function starts, since a pipe that stays open in a program would hide the end from the
    // worker.
    let requests = fcntl_dupfd_cloexec(stdin(), 3)?;
    let replies = fcntl_dupfd_cloexec(stdout(), 3)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    // Stderr may be closed, by a wrapper for example.
    dup2_stdout(stderr()).or_else(|_| dup2_stdout(&null))?;
    Ok((Pipe(requests.into()), Pipe(replies.into())))
}

/// One end of a pipe; reads and writes wait even if the pipe is set to non-blocking.
///
/// `O_NONBLOCK` belongs to the open pipe and not to a descriptor: a program that had it before
/// [`super::serve`] took it, such as a wrapper script's Node, may have left it set.
pub(super) struct Pipe(File);

impl Pipe {
    fn wait(&self, wanted: PollFlags) -> io::Result<()> {
        let mut polled = [PollFd::new(&self.0, wanted)];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::IN)?;
                }
                done => return done,
            }
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT)?;
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! The loop that sends requests and takes their answers.

use super::connection::{Connection, Moved};
use super::probe::Probe;
use super::record::{Counts, Record};
use super::response::Expected;
use super::schedule::Schedule;
use super::{Options, request};
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Most that is read at once.
const READ_BYTES: usize = 256 * 1024;

/// A server that ends more connections than this does not serve.
const BROKEN_AT_MOST: u64 = 100_000;

/// The load while it runs.
pub(super) struct Generator<'a> {
    options: &'a Options,
    request: Vec<u8>,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Connections without a request; the last used is taken first.
    free: Vec<usize>,
    /// When requests were due that no connection was free for.
    backlog: VecDeque<Instant>,
    open_loop: Option<Schedule>,
    expected: Expected,
    record: Record,
    scratch: Vec<u8>,
    begin: Instant,
}

/// Connections that nothing is sent on.
pub(super) fn open_idle(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    (0..count).map(|_| TcpStream::connect(address)).collect()
}

impl<'a> Generator<'a> {
    /// Opens the connections.
    pub(super) fn new(options: &'a Options) -> io::Result<Generator<'a>> {
        // Otherwise the kernel may wake us 50 µs late, to save wake-ups.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let rate = options.rate;
        let mut generator = Generator {
            options,
            request: request(options),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::with_capacity(options.connections),
            free: (0..options.connections).collect(),
            backlog: VecDeque::new(),
            open_loop: rate.map(|rate| Schedule::new(rate, options.arrivals, options.seed)),
            expected: Expected::new(),
            record: Record::new(),
            scratch: vec![0; READ_BYTES],
            begin: Instant::now(),
        };
        for index in 0..options.connections {
            let connection = Connection::open(options.address)?;
            generator.watch(&connection, index)?;
            generator.connections.push(connection);
        }
        generator.learn()?;
        Ok(generator)
    }

    /// One request alone, before it begins: what all others must be answered with.
    fn learn(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(1024);
        let Some(connection) = self.connections.first_mut() else {
            return Ok(());
        };
        let mut moved = connection.send(&self.request, Instant::now());
        loop {
            match moved {
                Moved::Waits => {}
                Moved::Answered(done, _) if done.status == 200 => {
                    return if done.is_last { self.reopen(0) } else { Ok(()) };
                }
                Moved::Answered(done, _) => {
                    let status = done.status;
                    let why = format!("the first answer is no 200, but {status}");
                    return Err(io::Error::other(why));
                }
                Moved::Ended => return Err(io::Error::other("the first request has no answer")),
            }
            events.clear();
            let timeout = timespec(self.options.patience);
            let room = rustix::buffer::spare_capacity(&mut events);
            if epoll::wait(&self.epoll, room, Some(&timeout))? == 0 {
                return Err(io::Error::other("the first request has no answer in time"));
            }
            moved = connection.advance(&self.request, &mut self.scratch, &mut self.expected);
        }
    }

    /// Runs the load to its end and tells what came of it.
    pub(super) fn run(mut self) -> io::Result<serde_json::Value> {
        let processor = clock_gettime(ClockId::ProcessCPUTime);
        self.begin = Instant::now();
        let path = self.options.probe.as_deref();
        let (from, until) = (self.begin + self.options.warm_up, self.end());
        let probe = path.map(|path| Probe::start(self.options.address, path, from, until));
        self.drive()?;
        self.record.unanswered = (self.backlog.len() + self.outstanding()) as u64;
        let processor = seconds(clock_gettime(ClockId::ProcessCPUTime)) - seconds(processor);
        let mut outcome = self.record.to_json(self.options.duration.as_secs_f64());
        outcome["first_body"] = self.expected.shown().into();
        // Of one processor; near 1 the run has measured the load generator.
        outcome["processor_share"] = (processor / self.begin.elapsed().as_secs_f64()).into();
        if let Some(probe) = probe {
            outcome["probe"] = probe.end(self.options.duration.as_secs_f64())?;
        }
        Ok(outcome)
    }

    fn drive(&mut self) -> io::Result<()> {
        let end = self.end();
        let gives_up = end + self.options.patience;
        let mut events = Vec::with_capacity(1024);
        if self.open_loop.is_none() {
            for index in std::mem::take(&mut self.free) {
                self.send(index, Instant::now())?;
            }
        }
        loop {
            let now = Instant::now();
            let is_over = now >= end;
            if !is_over {
                self.send_due(now)?;
            } else if now >= gives_up || (self.outstanding() == 0 && self.backlog.is_empty()) {
                return Ok(());
            }
            let next = match &self.open_loop {
                _ if is_over => gives_up,
                Some(schedule) => end.min(self.begin + schedule.next()),
                None => end,
            };
            let timeout = timespec(next.saturating_duration_since(Instant::now()));
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let index = usize::try_from(event.data.u64()).map_err(io::Error::other)?;
                self.advance(index, end)?;
            }
        }
    }

    /// Sends the requests of the open loop that are due.
    fn send_due(&mut self, now: Instant) -> io::Result<()> {
        while let Some(schedule) = &mut self.open_loop {
            let due = self.begin + schedule.next();
            if due > now {
                break;
            }
            schedule.advance();
            match self.free.pop() {
                Some(index) => self.send(index, due)?,
                None => self.backlog.push_back(due),
            }
        }
        Ok(())
    }

    fn send(&mut self, index: usize, due: Instant) -> io::Result<()> {
        if self.is_measured(due) {
            self.record.late.add(due.elapsed());
        }
        match self.connections[index].send(&self.request, due) {
            Moved::Ended => self.replace(index),
            Moved::Waits | Moved::Answered(..) => Ok(()),
        }
    }

    fn advance(&mut self, index: usize, end: Instant) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let had_request = connection.due().is_some();
        match connection.advance(&self.request, &mut self.scratch, &mut self.expected) {
            Moved::Waits => Ok(()),
            Moved::Ended if had_request => self.replace(index),
            // Nothing was lost: the server closed an idle connection.
            Moved::Ended => self.reopen(index),
            Moved::Answered(done, due) => {
                let now = Instant::now();
                self.record.wrong += u64::from(done.is_wrong);
                let counts = self.counts(due, now, end);
                self.record.answered(done.status, now - due, counts);
                if done.is_last {
                    self.reopen(index)?;
                }
                self.next(index, now, end)
            }
        }
    }

    /// The next step of a connection after its answer.
    fn next(&mut self, index: usize, now: Instant, end: Instant) -> io::Result<()> {
        if self.open_loop.is_none() {
            return if now < end {
                self.send(index, now)
            } else {
                Ok(())
            };
        }
        match self.backlog.pop_front() {
            Some(due) => self.send(index, due),
            None => {
                self.free.push(index);
                Ok(())
            }
        }
    }

    /// The connection has ended with a request on it, which is lost; another takes its place.
    fn replace(&mut self, index: usize) -> io::Result<()> {
        self.record.broken += 1;
        if self.record.broken > BROKEN_AT_MOST {
            return Err(io::Error::other("the server ends its connections"));
        }
        self.reopen(index)?;
        let now = Instant::now();
        let end = self.end();
        self.next(index, now, end)
    }

    fn reopen(&mut self, index: usize) -> io::Result<()> {
        let connection = Connection::open(self.options.address)?;
        self.watch(&connection, index)?;
        self.connections[index] = connection;
        Ok(())
    }

    fn watch(&self, connection: &Connection, index: usize) -> io::Result<()> {
        use epoll::EventFlags;
        // Edge-triggered, and both at once: there is never anything to change about it.
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, connection.stream(), data, flags)?;
        Ok(())
    }

    fn end(&self) -> Instant {
        self.begin + self.options.warm_up + self.options.duration
    }

    fn outstanding(&self) -> usize {
        let has_request = |connection: &&Connection| connection.due().is_some();
        self.connections.iter().filter(has_request).count()
    }

    fn is_measured(&self, due: Instant) -> bool {
        due >= self.begin + self.options.warm_up
    }

    fn counts(&self, due: Instant, answered: Instant, end: Instant) -> Counts {
        let is_counted = self.is_measured(answered) && answered < end;
        match (self.is_measured(due), is_counted) {
            (true, true) => Counts::Wholly,
            (true, false) => Counts::Latency,
            (false, true) => Counts::Throughput,
            (false, false) => Counts::Nothing,
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn seconds(time: Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

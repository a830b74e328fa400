//! The job log: a line for each item that has ended, in the columns of GNU parallel and two more.

use crate::config::map::Resume;
use crate::logging::Printable;
use std::collections::VecDeque;
use std::io::{BufRead, Read, Write};

/// The beginning of each job log, with the version of its format.
const FORMAT: &str = "# faas-worker map 2";

/// Items at the end of the log whose replies are looked for in the output.
const LOOKED_FOR: usize = 100;

/// Bytes of a line beyond which the file is no job log; the first line has the handler's command.
const LONGEST: u64 = 1 << 20;

/// How far the number of an item may be ahead of the number of lines before it: more items than
/// this are never in hand.
const MOST_AHEAD: u64 = 1 << 24;

/// Columns of a line.
const WIDTH: usize = 11;

const COLUMNS: &str =
    "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\tHash\tEnd\n";

/// A line of the job log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct JobLogLine<'a> {
    /// The number of the input line.
    pub(super) number: u64,
    /// In seconds since 1970.
    pub(super) began: f64,
    /// In seconds.
    pub(super) took: f64,
    /// Bytes of the payload.
    pub(super) sent: usize,
    /// Bytes of the reply line.
    pub(super) received: usize,
    /// `ok`, or the code of the failure.
    pub(super) outcome: &'a str,
    /// The hash of the payload.
    pub(super) hash: u64,
    /// The length of the output with this item's line.
    pub(super) end: u64,
}

/// The first line of a job log: how the run was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// The flags on which payloads and reply lines depend.
    flags: String,
    /// The handler's command.
    command: String,
}

impl Head {
    pub(super) fn new(flags: &str, command: &str) -> Head {
        let column = |text: &str| Printable(text).to_string().replace('\t', "\\t");
        Head {
            flags: column(flags),
            command: column(command).trim_end().to_owned(),
        }
    }

    /// The first lines of a job log.
    pub(super) fn lines(&self) -> String {
        format!("{FORMAT}\t{}\t{}\n{COLUMNS}", self.flags, self.command)
    }

    /// Reads a first line, without its end.
    fn read(line: &str) -> Option<Head> {
        let mut columns = line.splitn(3, '\t');
        let format = columns.next()?;
        let (flags, command) = (columns.next()?, columns.next().unwrap_or_default());
        (format == FORMAT).then(|| Head::new(flags, command))
    }

    /// Refuses a run whose reply lines, or payloads, differ from the logged run's.
    fn check(&self, logged: &Head) -> Result<(), String> {
        let shown = |head: &Head| match head.flags.as_str() {
            "" => "none of --json, --field, --with-input and --raw".to_owned(),
            flags => flags.to_owned(),
        };
        match self.flags == logged.flags {
            true => Ok(()),
            false => Err(format!(
                "line 1: the run was begun with {}, and this one has {}: give the flags of the first \
                 run, or begin anew without --resume",
                shown(logged),
                shown(self)
            )),
        }
    }
}

impl JobLogLine<'_> {
    /// Appends the line.
    pub(super) fn write(&self, log: &mut Vec<u8>) {
        let exit = u8::from(self.outcome != "ok");
        // Writing to a Vec cannot fail.
        let _ = writeln!(
            log,
            "{}\t:\t{:.3}\t{:.3}\t{}\t{}\t{exit}\t0\t{}\t{:016x}\t{}",
            self.number,
            self.began,
            self.took,
            self.sent,
            self.received,
            self.outcome,
            self.hash,
            self.end
        );
    }
}

/// How an item of the job log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Not,
    Well,
    Failed,
}

/// The items of a job log: nine bytes each.
#[derive(Debug, Default)]
pub(super) struct Logged {
    hashes: Vec<u64>,
    ended: Vec<Ended>,
    redoes_failed: bool,
}

/// The content of the job log of the run before.
#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) logged: Logged,
    /// The bytes of the job log that count; later bytes are cut off.
    pub(super) log_length: u64,
    /// The bytes of the output that count.
    pub(super) output_length: u64,
    /// Lines of the log with the ends of their replies in the output: the last ones that count.
    pub(super) last_ends: VecDeque<(u64, u64)>,
    /// The command of the log, if it is another one.
    pub(super) other_command: Option<String>,
    /// Lines that count.
    entries: u64,
}

/// A line of a job log, as to its place in the log.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Counts,
    /// The reply is not in the output.
    IsBeyond,
    /// The reply does not begin at the end of the reply before it.
    IsOutOfPlace,
    IsForeign,
}

impl Past {
    /// Reads a job log. Its last line counts only with its line feed; a line whose reply is beyond
    /// the output's length ends the log.
    ///
    /// # Errors
    ///
    /// When the log cannot be read, is no job log of this format, was begun with other flags, or
    /// has lines that are not in the order of the replies in the output.
    pub(super) fn read(
        mut log: impl BufRead,
        output: Option<u64>,
        resume: Resume,
        head: &Head,
    ) -> Result<Past, String> {
        let mut past = Past::default();
        past.logged.redoes_failed = resume == Resume::RestAndFailed;
        let (mut line, mut has_columns) = (Vec::new(), false);
        for number in 1.. {
            line.clear();
            let read = log.by_ref().take(LONGEST).read_until(b'\n', &mut line);
            let length = read.map_err(|error| format!("cannot be read: {error}"))?;
            if line.last() != Some(&b'\n') && length as u64 != LONGEST {
                break;
            }
            let text = std::str::from_utf8(&line).unwrap_or("");
            let text = text.trim_end_matches(['\n', '\r']);
            let judged = match number {
                1 => past.begin(text, head)?,
                2 if text == COLUMNS.trim_end() => Judged::Counts,
                2 => Judged::IsForeign,
                _ => past.add(number, text, output).unwrap_or(Judged::IsForeign),
            };
            match judged {
                Judged::Counts => {}
                Judged::IsBeyond => break,
                Judged::IsOutOfPlace => return Err(out_of_place(number)),
                Judged::IsForeign => return Err(foreign(number)),
            }
            has_columns |= number == 2;
            past.entries += u64::from(number > 2);
            past.log_length += length as u64;
        }
        // Without its second line, the head is written again.
        if !has_columns {
            past.log_length = 0;
        }
        Ok(past)
    }

    /// Compares the first line with the run's.
    fn begin(&mut self, line: &str, head: &Head) -> Result<Judged, String> {
        let Some(logged) = Head::read(line) else {
            return Ok(Judged::IsForeign);
        };
        head.check(&logged)?;
        let is_other = logged.command != head.command;
        self.other_command = is_other.then_some(logged.command);
        Ok(Judged::Counts)
    }

    /// Adds a line. `None` if it is no line of a job log.
    fn add(&mut self, line_number: u64, line: &str, output: Option<u64>) -> Option<Judged> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [number, _, _, _, _, received, exit, _, _, hash, end] = columns[..] else {
            return None;
        };
        let number: u64 = number.parse().ok()?;
        // A number far ahead of the lines before it is damage.
        let is_near = (1..=self.entries + MOST_AHEAD).contains(&number);
        let number = usize::try_from(number).ok().filter(|_| is_near)?;
        let hash = u64::from_str_radix(hash, 16).ok()?;
        let (received, end): (u64, u64) = (received.parse().ok()?, end.parse().ok()?);
        let ended = match exit {
            "0" => Ended::Well,
            "1" => Ended::Failed,
            _ => return None,
        };
        if let Some(length) = output {
            if self.output_length.checked_add(received) != Some(end) {
                return Some(Judged::IsOutOfPlace);
            }
            if end > length {
                return Some(Judged::IsBeyond);
            }
            if self.last_ends.len() == LOOKED_FOR {
                self.last_ends.pop_front();
            }
            self.last_ends.push_back((line_number, end));
        }
        let logged = &mut self.logged;
        if logged.hashes.len() < number {
            logged.hashes.resize(number, 0);
            logged.ended.resize(number, Ended::Not);
        }
        logged.hashes[number - 1] = hash;
        logged.ended[number - 1] = ended;
        self.output_length = end;
        Some(Judged::Counts)
    }
}

fn out_of_place(number: u64) -> String {
    format!(
        "line {number} is out of place: its End is not the End of the line before it and its \
         Receive; restore the log as it was written, or begin anew without --resume"
    )
}

fn foreign(number: u64) -> String {
    format!(
        "line {number} is not of a job log of this version, which begins with {FORMAT:?} and has \
         lines of {WIDTH} columns"
    )
}

impl Logged {
    /// The last line of the input that is logged.
    pub(super) fn len(&self) -> u64 {
        self.hashes.len() as u64
    }

    /// Items that are not done again.
    pub(super) fn done(&self) -> u64 {
        let done = self.ended.iter().filter(|ended| self.is_final(**ended));
        done.count() as u64
    }

    /// Items that failed, and are not done again.
    pub(super) fn failed(&self) -> u64 {
        let failed = self.ended.iter().filter(|ended| **ended == Ended::Failed);
        match self.redoes_failed {
            true => 0,
            false => failed.count() as u64,
        }
    }

    /// Whether the item of this line is not done again.
    ///
    /// # Errors
    ///
    /// When the line differs from the line that was logged.
    pub(super) fn is_done(&self, number: u64, hash: u64) -> Result<bool, String> {
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        let ended = self.ended.get(index).copied().unwrap_or(Ended::Not);
        if ended != Ended::Not && self.hashes[index] != hash {
            return Err(format!(
                "--resume: line {number} of the input is not the line that was logged: the input must \
                 be the one of the job log, or the job log must go"
            ));
        }
        Ok(self.is_final(ended))
    }

    /// Whether an item that has ended so is not done again.
    fn is_final(&self, ended: Ended) -> bool {
        match ended {
            Ended::Not => false,
            Ended::Well => true,
            Ended::Failed => !self.redoes_failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, outcome: &str, end: u64) -> JobLogLine<'_> {
        JobLogLine {
            number,
            began: 1.5,
            took: 0.25,
            sent: 3,
            received: 10,
            outcome,
            hash: number * 7,
            end,
        }
    }

    fn head() -> Head {
        Head::new("--raw", "sh -c 'a\nb'")
    }

    fn read(log: &[u8], output: Option<u64>, resume: Resume) -> Result<Past, String> {
        Past::read(log, output, resume, &head())
    }

    fn log(entries: &[JobLogLine<'_>]) -> Vec<u8> {
        let mut log = head().lines().into_bytes();
        for entry in entries {
            entry.write(&mut log);
        }
        log
    }

    #[test]
    fn a_line_has_the_columns_of_gnu_parallel_first() {
        let text = String::from_utf8(log(&[entry(2, "handler_error", 20)])).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "# faas-worker map 2\t--raw\tsh -c 'a\\nb'");
        assert_eq!(
            lines[2],
            "2\t:\t1.500\t0.250\t3\t10\t1\t0\thandler_error\t000000000000000e\t20"
        );
    }

    #[test]
    fn the_log_counts_up_to_its_last_whole_line_and_the_end_of_the_output() {
        let whole = log(&[
            entry(1, "ok", 10),
            entry(3, "handler_error", 20),
            entry(2, "ok", 30),
        ]);
        let before_last = log(&[entry(1, "ok", 10), entry(3, "handler_error", 20)]).len();
        for (length, output, items, end) in [
            (whole.len(), Some(30), 3, 30),
            (whole.len(), None, 3, 30),
            (whole.len() - 1, Some(30), 2, 20),
            (before_last + 4, Some(30), 2, 20),
            (whole.len(), Some(29), 2, 20),
            (whole.len(), Some(5), 0, 0),
            (0, Some(9), 0, 0),
            (5, Some(9), 0, 0),
            (head().lines().len() + 7, Some(9), 0, 0),
        ] {
            let past = read(&whole[..length], output, Resume::Rest).unwrap();
            let done = past.logged.ended.iter();
            let done = done.filter(|ended| **ended != Ended::Not).count();
            assert_eq!(
                (done, past.output_length),
                (items, end),
                "{length} {output:?}"
            );
            let again = &whole[..usize::try_from(past.log_length).unwrap()];
            let again = read(again, output, Resume::Rest).unwrap();
            assert_eq!(again.output_length, end);
        }
    }

    #[test]
    fn wherever_a_run_was_killed_the_items_that_both_files_have_count() {
        let entries: Vec<_> = (1..6)
            .map(|number| entry(number, "ok", number * 10))
            .collect();
        let whole = log(&entries);
        let ends: Vec<usize> = (0..6).map(|count| log(&entries[..count]).len()).collect();
        for length in 0..=whole.len() {
            for output in 0..=55 {
                let past = read(&whole[..length], Some(output), Resume::Rest).unwrap();
                let logged = ends.iter().filter(|end| **end <= length).count();
                let both = (logged.max(1) as u64 - 1).min(output / 10);
                let log_length = match logged {
                    0 => 0,
                    _ => ends[usize::try_from(both).unwrap()] as u64,
                };
                assert_eq!(past.output_length, both * 10, "{length} {output}");
                assert_eq!(past.log_length, log_length, "{length} {output}");
            }
        }
    }

    #[test]
    fn another_file_is_no_job_log_and_a_damaged_line_is_named() {
        let whole = String::from_utf8(log(&[entry(1, "ok", 10)])).unwrap();
        let far = String::from_utf8(log(&[entry(1 << 40, "ok", 10)])).unwrap();
        let endless = "x".repeat(2 << 20);
        for (text, number) in [
            ("Seq\n", 1),
            (endless.as_str(), 1),
            ("# faas-worker map 1\n", 1),
            ("# faas-worker map 2\t--raw\nx\n", 2),
            (&whole.replace("\t10\n", "\n"), 3),
            (&whole.replace("\t0\t0\t", "\t7\t0\t"), 3),
            (&far, 3),
        ] {
            let why = read(text.as_bytes(), None, Resume::Rest).unwrap_err();
            assert!(why.starts_with(&format!("line {number} ")), "{why}");
        }
    }

    #[test]
    fn a_changed_line_is_named_and_failed_items_are_done_again_when_asked() {
        let log = log(&[entry(1, "ok", 10), entry(2, "handler_error", 20)]);
        for (resume, second) in [(Resume::Rest, true), (Resume::RestAndFailed, false)] {
            let logged = read(&log, None, resume).unwrap().logged;
            assert_eq!(logged.is_done(1, 7), Ok(true));
            assert_eq!(logged.is_done(2, 14), Ok(second));
            assert_eq!(logged.is_done(3, 1), Ok(false));
            let why = logged.is_done(2, 15).unwrap_err();
            assert!(why.contains("line 2 of the input"), "{why}");
        }
    }

    #[test]
    fn lines_out_of_their_order_are_named_if_there_is_an_output() {
        let whole: Vec<_> = (1..6)
            .map(|number| entry(number, "ok", number * 10))
            .collect();
        let reversed: Vec<_> = whole.iter().copied().rev().collect();
        let without_third = [&whole[..2], &whole[3..]].concat();
        let doubled = [&whole[..2], &whole[1..]].concat();
        let with_end = |end| [&whole[..4], &[entry(5, "ok", end)]].concat();
        for (entries, number) in [
            (reversed, 3),
            (without_third, 5),
            (doubled, 5),
            (with_end(0), 7),
            (with_end(45), 7),
            (with_end(u64::MAX), 7),
        ] {
            let log = log(&entries);
            let why = read(&log, Some(50), Resume::Rest).unwrap_err();
            assert!(
                why.starts_with(&format!("line {number} is out of place")),
                "{why}"
            );
            assert!(read(&log, None, Resume::Rest).is_ok());
        }
        let ends = read(&log(&whole), Some(30), Resume::Rest)
            .unwrap()
            .last_ends;
        assert_eq!(ends, [(3, 10), (4, 20), (5, 30)]);
    }

    #[test]
    fn a_run_with_other_flags_is_refused_and_another_command_is_told() {
        let log = Head::new("--field \"a\tb\"", "x\u{1b} ").lines();
        let read = |flags, command| {
            let head = Head::new(flags, command);
            Past::read(log.as_bytes(), None, Resume::Rest, &head).map(|past| past.other_command)
        };
        assert_eq!(read("--field \"a\tb\"", "x\u{1b}"), Ok(None));
        assert_eq!(
            read("--field \"a\tb\"", "y"),
            Ok(Some("x\\u{1b}".to_owned()))
        );
        for flags in ["", "--raw", "--field \"ab\""] {
            let why = read(flags, "x").unwrap_err();
            assert!(
                why.starts_with("line 1: the run was begun with --field"),
                "{why}"
            );
        }
    }
}

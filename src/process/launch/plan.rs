//! The plan for the launcher step, as words of its command line, and its report back.
//!
//! Both ends are of the same program and the same build, so nothing here is a format to keep.

use crate::config::SandboxPaths;
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The first word of the command line that asks for the launcher step.
pub(super) const STEP_WORD: &str = "launch";

/// Ends the plan; the handler's command follows.
const END: &str = "--";

/// Settings and command of one start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The descriptor to report to, open in the step.
    pub(super) report_to: RawFd,
    /// The worker's process id. A step with another parent has lost the worker already.
    pub(super) parent: i32,
    /// The folder to enter; `None` means the worker's.
    pub(super) directory: Option<PathBuf>,
    /// The soft limit of descriptors that the worker was given; `None` leaves it.
    pub(super) soft_files: Option<u64>,
    /// Most descriptors.
    pub(super) files: Option<u64>,
    /// Most private memory that can be written to.
    pub(super) memory_bytes: Option<u64>,
    /// Most processor time over the whole life.
    pub(super) cpu_seconds: Option<u64>,
    /// Where files may be read and written; `None` leaves it to their permissions.
    pub(super) sandbox: Option<SandboxPaths>,
    /// A path, or a name to look up in `PATH`.
    pub(super) program: OsString,
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
}

impl Plan {
    /// The words that follow the program's name.
    pub(super) fn to_words(&self) -> Vec<OsString> {
        let mut words = vec![
            OsString::from(STEP_WORD),
            format!("status={}", self.report_to).into(),
            format!("parent={}", self.parent).into(),
        ];
        let named = |name: &str, path: &OsStr| {
            let mut word = OsString::from(name);
            word.push(path);
            word
        };
        let directory = self.directory.as_ref();
        words.extend(directory.map(|path| named("directory=", path.as_os_str())));
        for (name, value) in [
            ("soft-files", self.soft_files),
            ("files", self.files),
            ("memory", self.memory_bytes),
            ("cpu", self.cpu_seconds),
        ] {
            words.extend(value.map(|value| OsString::from(format!("{name}={value}"))));
        }
        if let Some(paths) = &self.sandbox {
            words.push("sandbox=".into());
            let read = paths.read.iter();
            words.extend(read.map(|path| named("read=", path.as_os_str())));
            let write = paths.write.iter();
            words.extend(write.map(|path| named("write=", path.as_os_str())));
        }
        words.push(END.into());
        words.push(self.program.clone());
        words.extend(self.arguments.iter().cloned());
        words
    }

    /// Reads the words behind [`STEP_WORD`]; `None` if the worker cannot have written them.
    pub(super) fn from_words(words: impl IntoIterator<Item = OsString>) -> Option<Plan> {
        let mut words = words.into_iter();
        let mut plan = Plan {
            report_to: -1,
            parent: 0,
            directory: None,
            soft_files: None,
            files: None,
            memory_bytes: None,
            cpu_seconds: None,
            sandbox: None,
            program: OsString::new(),
            arguments: Vec::new(),
        };
        loop {
            let word = words.next()?;
            if word == END {
                break;
            }
            let at = word.as_bytes().iter().position(|byte| *byte == b'=')?;
            let (name, value) = word.as_bytes().split_at(at);
            plan.take(name, &value[1..])?;
        }
        plan.program = words.next()?;
        plan.arguments = words.collect();
        (plan.report_to > 2 && plan.parent > 0).then_some(plan)
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
        let path = || PathBuf::from(OsString::from_vec(value.to_vec()));
        match name {
            b"status" => self.report_to = RawFd::try_from(number()?).ok()?,
            b"parent" => self.parent = i32::try_from(number()?).ok()?,
            b"directory" => self.directory = Some(path()),
            b"soft-files" => self.soft_files = Some(number()?),
            b"files" => self.files = Some(number()?),
            b"memory" => self.memory_bytes = Some(number()?),
            b"cpu" => self.cpu_seconds = Some(number()?),
            b"sandbox" => self.sandbox = Some(SandboxPaths::default()),
            b"read" => self.sandbox.as_mut()?.read.push(path()),
            b"write" => self.sandbox.as_mut()?.write.push(path()),
            _ => return None,
        }
        Some(())
    }
}

/// Report of the step, over a pipe that the execution itself closes. So silence means success, but
/// only after [`Report::READY`]: a step that dies before it is silent as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// The command was executed: from now on the process is the handler.
    Executed,
    /// The command could not be executed, by the system's error number.
    NotExecuted(i32),
    /// The folder to start in could not be entered, by the system's error number.
    NotEntered(i32),
    /// The process could not be set up as it must be.
    NotSetUp(SetUpFailure),
    /// The step ended without a report.
    Died,
}

/// Why a process could not be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetUpFailure {
    pub(super) why: String,
    /// Whether the next process would fail in the same way.
    pub(super) is_lasting: bool,
}

impl Report {
    /// All is set up; only the execution is left.
    pub(super) const READY: &'static [u8] = b">";
    const FAILED: u8 = b'!';
    const FAILED_FOR_GOOD: u8 = b'#';
    const NO_FOLDER: u8 = b'/';

    /// The bytes of a report that the process could not be set up.
    pub(super) fn failure(failure: &SetUpFailure) -> Vec<u8> {
        let kind = match failure.is_lasting {
            true => Report::FAILED_FOR_GOOD,
            false => Report::FAILED,
        };
        [&[kind], failure.why.as_bytes()].concat()
    }

    /// The bytes of a report that the folder could not be entered.
    pub(super) fn no_folder(number: i32) -> Vec<u8> {
        [vec![Report::NO_FOLDER], Report::errno(number)].concat()
    }

    /// The bytes of a report, after [`Report::READY`], that the command could not be executed.
    pub(super) fn errno(number: i32) -> Vec<u8> {
        number.to_string().into_bytes()
    }

    /// Reads all that came until the pipe was closed.
    pub(super) fn read(bytes: &[u8]) -> Report {
        let number = |text| std::str::from_utf8(text).ok()?.parse().ok();
        match bytes.split_first() {
            None => Report::Died,
            Some((kind @ (&Report::FAILED | &Report::FAILED_FOR_GOOD), why)) => {
                Report::NotSetUp(SetUpFailure {
                    why: String::from_utf8_lossy(why).into_owned(),
                    is_lasting: *kind == Report::FAILED_FOR_GOOD,
                })
            }
            Some((&Report::NO_FOLDER, text)) => {
                number(text).map_or(Report::Died, Report::NotEntered)
            }
            Some((_, [])) => Report::Executed,
            Some((_, text)) => number(text).map_or(Report::Died, Report::NotExecuted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Plan {
        Plan {
            report_to: 7,
            parent: 42,
            directory: None,
            soft_files: None,
            files: None,
            memory_bytes: None,
            cpu_seconds: None,
            sandbox: None,
            program: "sh".into(),
            arguments: Vec::new(),
        }
    }

    #[test]
    fn a_plan_arrives_as_it_was_sent() {
        let odd = OsString::from_vec(b"a=b \xff\n--".to_vec());
        let full = Plan {
            directory: Some(odd.clone().into()),
            soft_files: Some(1024),
            files: Some(u64::MAX),
            memory_bytes: Some(1 << 40),
            cpu_seconds: Some(1),
            sandbox: Some(SandboxPaths {
                read: vec!["/a b".into(), odd.clone().into()],
                write: vec!["/tmp".into()],
            }),
            arguments: vec!["--".into(), "status=9".into(), OsString::new(), odd],
            ..plain()
        };
        let closed = Plan {
            sandbox: Some(SandboxPaths::default()),
            ..plain()
        };
        for plan in [plain(), closed, full] {
            let words = plan.to_words();
            assert_eq!(words[0], STEP_WORD);
            assert_eq!(Plan::from_words(words.into_iter().skip(1)), Some(plan));
        }
    }

    #[test]
    fn words_that_the_worker_did_not_write_are_no_plan() {
        let good = "status=7 parent=42 -- sh";
        let read = |text: &str| Plan::from_words(text.split(' ').map(OsString::from));
        assert!(read(good).is_some());
        for text in [
            "",
            "--",
            "-- sh",
            "status=7 parent=42",
            "status=7 parent=42 --",
            "status=2 parent=42 -- sh",
            "status=7 parent=0 -- sh",
            "status=x parent=42 -- sh",
            "status=7 parent=42 more=1 -- sh",
            "status=7 parent=42 read=/ -- sh",
            "--help",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn only_silence_after_the_last_word_means_success() {
        let with = |bytes: Vec<u8>| Report::read(&[Report::READY, &bytes].concat());
        assert_eq!(Report::read(b""), Report::Died);
        assert_eq!(with(Vec::new()), Report::Executed);
        assert_eq!(with(Report::errno(2)), Report::NotExecuted(2));
        assert_eq!(with(b"x".to_vec()), Report::Died);
        for is_lasting in [true, false] {
            let why = "no room".to_owned();
            let failure = SetUpFailure { why, is_lasting };
            let read = Report::read(&Report::failure(&failure));
            assert_eq!(read, Report::NotSetUp(failure));
        }
        assert_eq!(Report::read(&Report::no_folder(2)), Report::NotEntered(2));
    }
}

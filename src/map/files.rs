//! Opens the output and the job log, at their beginning or where an earlier run ended.

use super::input::Source;
use super::job_log::{Head, Logged, Past};
use super::output::{Files, Sink};
use crate::config::map::{InputForm, MapConfig, Resume};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// The files of a run, and what an earlier run has done.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) files: Files,
    pub(super) logged: Logged,
    /// Bytes of the output.
    pub(super) length: u64,
    /// What is to be told before the run.
    pub(super) warnings: Vec<String>,
}

/// Opens the files. With `--resume` the output and the job log are cut back to the last item that
/// both have whole. No file is changed before all of them were found to be different files.
///
/// # Errors
///
/// When a file cannot be opened, is given for two purposes, or does not fit the others.
pub(super) fn open(
    config: &MapConfig,
    sources: &[Source],
    command: &str,
) -> Result<Opened, String> {
    let output = open_output(config)?;
    let log = config.job_log.as_deref().map(open_log).transpose()?;
    let inputs = sources.iter().map(|source| (&source.name, &source.file));
    let inputs = inputs.map(|(name, file)| (name.as_str(), file));
    let written = std::iter::once(&output).chain(&log);
    let written = written.map(|sink| (sink.name.as_str(), &sink.file));
    check_distinct(&inputs.collect::<Vec<_>>(), &written.collect::<Vec<_>>())?;
    match log {
        Some(log) => with_log(config, output, log, &Head::new(&flags(config), command)),
        None => without_log(config, output),
    }
}

fn open_output(config: &MapConfig) -> Result<Sink, String> {
    let Some(path) = &config.output else {
        let name = "standard output".to_owned();
        let stdout = rustix::io::dup(io::stdout());
        let file = stdout.map_err(|error| format!("{name}: {error}"))?.into();
        return Ok(Sink { name, file });
    };
    let name = format!("-o {}", path.display());
    let file = open_uncut(path).map_err(|error| format!("{name}: {error}"))?;
    Ok(Sink { name, file })
}

/// Opens a job log that no other run has.
fn open_log(path: &Path) -> Result<Sink, String> {
    let name = format!("--job-log {}", path.display());
    let file = open_uncut(path).map_err(|error| format!("{name}: {error}"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(format!("{name}: another run has it open")),
        // Not all file systems have locks.
        Ok(()) | Err(_) => Ok(Sink { name, file }),
    }
}

fn open_uncut(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let to_write = options.write(true).create(true).truncate(false);
    // A pipe or a device need not be readable.
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => to_write.open(path),
        Ok(_) | Err(_) => to_write.read(true).open(path),
    }
}

/// Refuses a file that is written and read, or written twice.
fn check_distinct(inputs: &[(&str, &File)], written: &[(&str, &File)]) -> Result<(), String> {
    let mut known: Vec<(&str, (u64, u64))> = Vec::new();
    for (name, file) in inputs {
        known.extend(identity(file).map(|identity| (*name, identity)));
    }
    for (name, file) in written {
        let Some(identity) = identity(file) else {
            continue;
        };
        if let Some((other, _)) = known.iter().find(|(_, known)| *known == identity) {
            return Err(format!(
                "{name}: is the same file as {other}: replies and job log need files of their own"
            ));
        }
        known.push((name, identity));
    }
    Ok(())
}

/// Device and number of a regular file.
fn identity(file: &File) -> Option<(u64, u64)> {
    let metadata = file.metadata().ok()?;
    metadata.is_file().then(|| (metadata.dev(), metadata.ino()))
}

fn without_log(config: &MapConfig, mut output: Sink) -> Result<Opened, String> {
    if config.output.is_some() {
        cut(&mut output, 0)?;
    }
    let files = Files {
        output,
        job_log: None,
    };
    Ok(Opened {
        files,
        logged: Logged::default(),
        length: 0,
        warnings: Vec::new(),
    })
}

fn with_log(
    config: &MapConfig,
    mut output: Sink,
    mut log: Sink,
    head: &Head,
) -> Result<Opened, String> {
    let mut warnings = Vec::new();
    let is_file = config.output.is_some() && length(&output)?.is_some();
    let past = match config.resume {
        Resume::No => Past::default(),
        Resume::Rest | Resume::RestAndFailed => {
            if !is_file {
                warnings.push(
                    "map: --resume without -o FILE: replies that were written and not logged come again"
                        .to_owned(),
                );
            }
            past(config, &output, &log, head)?
        }
    };
    if let Some(logged) = &past.other_command {
        warnings.push(format!(
            "map: --resume: the runs before had another command: {logged}"
        ));
    }
    cut(&mut log, past.log_length)?;
    if past.log_length == 0 {
        let written = log.file.write_all(head.lines().as_bytes());
        written.map_err(|error| format!("{}: {error}", log.name))?;
    }
    if config.output.is_some() {
        cut(&mut output, past.output_length)?;
    }
    let files = Files {
        output,
        job_log: Some(log),
    };
    Ok(Opened {
        files,
        logged: past.logged,
        length: match is_file {
            true => past.output_length,
            false => 0,
        },
        warnings,
    })
}

/// What the job log tells of the run before.
fn past(config: &MapConfig, output: &Sink, log: &Sink, head: &Head) -> Result<Past, String> {
    let output_length = match config.output {
        Some(_) => length(output)?,
        None => None,
    };
    let past = match length(log)? {
        Some(_) => Past::read(
            BufReader::new(&log.file),
            output_length,
            config.resume,
            head,
        )
        .map_err(|why| format!("{}: {why}", log.name))?,
        None => Past::default(),
    };
    find_replies(&past, output).map_err(|why| format!("{}: {why}", log.name))?;
    let would_be_lost = output_length.filter(|length| *length > 0 && past.log_length == 0);
    match would_be_lost {
        Some(bytes) => Err(format!(
            "{}: is empty, and {} has {bytes} bytes, which --resume would cut off: give the job log \
             of that output, or remove the output",
            log.name, output.name
        )),
        None => Ok(past),
    }
}

/// Looks for the last logged replies in the output, of which each ends with a line feed.
fn find_replies(past: &Past, output: &Sink) -> Result<(), String> {
    for (number, end) in &past.last_ends {
        let Some(at) = end.checked_sub(1) else {
            continue;
        };
        let mut last = [0];
        let read = output.file.read_exact_at(&mut last, at);
        read.map_err(|error| format!("{}: cannot be read: {error}", output.name))?;
        if last != *b"\n" {
            return Err(format!(
                "line {number} has the End {end}, and no line of {} ends there: give the job log of \
                 that output, or begin anew without --resume",
                output.name
            ));
        }
    }
    Ok(())
}

/// The flags on which payloads and reply lines depend, in one order.
fn flags(config: &MapConfig) -> String {
    let form = match &config.form {
        InputForm::Text => None,
        InputForm::Json => Some("--json".to_owned()),
        InputForm::Field(name) => Some(format!("--field {name:?}")),
    };
    let with_input = config.with_input.then(|| "--with-input".to_owned());
    let raw = config.raw.then(|| "--raw".to_owned());
    let flags = [form, with_input, raw].into_iter().flatten();
    flags.collect::<Vec<_>>().join(" ")
}

/// Bytes of a regular file.
fn length(sink: &Sink) -> Result<Option<u64>, String> {
    let metadata = sink.file.metadata();
    let metadata = metadata.map_err(|error| format!("{}: {error}", sink.name))?;
    Ok(metadata.is_file().then_some(metadata.len()))
}

/// Cuts a regular file back to this length, and writes on from there.
fn cut(sink: &mut Sink, to: u64) -> Result<(), String> {
    if length(sink)?.is_none() {
        return Ok(());
    }
    let cut = sink.file.set_len(to);
    let cut = cut.and_then(|()| sink.file.seek(SeekFrom::Start(to)));
    cut.map(drop)
        .map_err(|error| format!("{}: {error}", sink.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_for_two_purposes_is_refused_and_a_device_is_not() {
        let folder = std::env::temp_dir().join(format!("map-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let opened = |name: &str| open_uncut(&folder.join(name)).unwrap();
        let (a, also_a, b, c) = (opened("a"), opened("a"), opened("b"), opened("c"));
        let null = || open_uncut(Path::new("/dev/null")).unwrap();
        let (null, also_null) = (null(), null());
        for (inputs, written, is_right) in [
            (vec![&a], vec![&b, &c], true),
            (vec![&a, &also_a], vec![&b], true),
            (vec![&a], vec![&also_a], false),
            (vec![&a, &b], vec![&c, &b], false),
            (vec![&a], vec![&b, &b], false),
            (vec![&null], vec![&also_null, &null], true),
        ] {
            let inputs: Vec<_> = inputs.into_iter().map(|file| ("x", file)).collect();
            let written: Vec<_> = written.into_iter().map(|file| ("y", file)).collect();
            assert_eq!(check_distinct(&inputs, &written).is_ok(), is_right);
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}

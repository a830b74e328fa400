//! Explains why a command could not be started, and how to mend that.

use super::platform::is_lasting;
use super::search_path::search_path;
use crate::cause::Cause;
use crate::config::Command;
use crate::regular_file;
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why a process could not be started.
#[derive(Debug, Clone)]
pub enum LaunchError {
    /// The command cannot be executed until the command or the system is changed.
    Command(Cause),
    /// The system has no room for a process now.
    System(String),
}

impl LaunchError {
    /// The runtime cannot watch a process or one of its pipes.
    pub fn unwatched(error: io::Error) -> LaunchError {
        LaunchError::System(format!("cannot watch the process: {error}"))
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::Command(why) => f.write_str(why.full()),
            LaunchError::System(why) => f.write_str(why),
        }
    }
}

/// Explains why `command` could not be started in `directory`.
pub(super) fn explain(command: &Command, directory: &Path, error: &io::Error) -> LaunchError {
    let passing = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if passing.into_iter().any(is) {
        return LaunchError::System(format!("the system cannot start a process now: {error}"));
    }
    if is(Errno::TXTBSY) {
        let name = command.program.to_string_lossy();
        return LaunchError::System(format!("\"{name}\" is being written: {error}"));
    }
    let path = search_path();
    LaunchError::Command(explain_command(command, &path, directory, error))
}

fn explain_command(command: &Command, path: &OsStr, directory: &Path, error: &io::Error) -> Cause {
    if command.program.is_empty() {
        return "the command is an empty word".into();
    }
    match find(&command.program, path, directory) {
        Some(file) => explain_file(&file, error).into(),
        None => explain_missing(command, path, directory),
    }
}

/// Explains a command whose file does not exist.
fn explain_missing(command: &Command, path: &OsStr, directory: &Path) -> Cause {
    let name = command.program.to_string_lossy();
    let words = || std::iter::once(&command.program).chain(&command.arguments);
    if command.arguments.is_empty() && name.contains(char::is_whitespace) {
        return format!(
            "command not found: \"{name}\" is one word, with spaces in it, as if it was in quotes: \
             drop the quotes. docker's --env-file and lists in YAML keep quotes as a part of the \
             value; after -- each word stands by itself, and --handler (HANDLER_FUNCTION) splits"
        )
        .into();
    }
    if let Some(syntax) = shell_syntax(&words().cloned().collect::<Vec<_>>()) {
        return format!(
            "command not found: \"{name}\"; no shell reads the command, and {syntax} means \
             something to a shell only: sh -c '…' has one read it"
        )
        .into();
    }
    if !name.contains('/') && directory.join(&*name).is_file() {
        return format!(
            "command not found: \"{name}\"; the file of that name in the directory where processes \
             start is run by: {}",
            how_to_run(&name)
        )
        .into();
    }
    if is_python_path(&name) {
        return format!(
            "\"{name}\" is a Python path, and the handler is a command here: \
             HANDLER_FUNCTION=\"python3 /path/to/serve.py {name}\" runs it, with \
             examples/python/serve.py of this project"
        )
        .into();
    }
    if name.contains('/') {
        return match name.starts_with('/') {
            true => format!("no such file: \"{name}\"").into(),
            false => format!(
                "no such file: \"{name}\", looked for in \"{}\"",
                directory.display()
            )
            .into(),
        };
    }
    // The PATH is for operators only.
    let general = format!("command not found: \"{name}\"");
    let full = format!("{general} (PATH={})", path.to_string_lossy());
    Cause::quoting(general, full)
}

/// Programs that run files of a kind, by the end of their names.
const INTERPRETERS: [(&str, &str); 10] = [
    ("py", "python3"),
    ("rb", "ruby"),
    ("js", "node"),
    ("mjs", "node"),
    ("cjs", "node"),
    ("jar", "java -jar"),
    ("pl", "perl"),
    ("php", "php"),
    ("lua", "lua"),
    ("sh", "sh"),
];

fn interpreter_of(name: &str) -> Option<&'static str> {
    let end = Path::new(name).extension()?;
    let known = INTERPRETERS.iter().find(|(known, _)| end == *known)?;
    Some(known.1)
}

/// The command line for a file.
fn how_to_run(name: &str) -> String {
    match (
        Path::new(name).is_absolute() || name.starts_with("./"),
        interpreter_of(name),
    ) {
        (_, Some("python3")) => format!(
            "python3 serve.py {name}:FUNCTION (with examples/python/serve.py of this project), or \
             python3 {name} if it reads the lines itself"
        ),
        (_, Some("java -jar")) => format!("java -jar {name}"),
        (true, Some(interpreter)) => format!("{interpreter} {name}"),
        (false, Some(interpreter)) => format!("{interpreter} ./{name}"),
        (true, None) => name.to_owned(),
        (false, None) => format!("./{name}"),
    }
}

/// Explains a command whose file exists.
fn explain_file(file: &Path, error: &io::Error) -> String {
    let shown = file.display();
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => return format!("\"{shown}\" is a directory"),
        Ok(metadata) if !metadata.is_file() => {
            let kind = regular_file::other_kind(metadata.file_type()).unwrap_or_default();
            return format!("\"{shown}\" is not a program: {kind}");
        }
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            let name = shown.to_string();
            let hint = match interpreter_of(&name) {
                Some(_) => format!(": {}", how_to_run(&name)),
                None => String::new(),
            };
            return format!(
                "\"{name}\" is not executable: chmod +x, or name its interpreter{hint}"
            );
        }
        Ok(_) => {}
        Err(error) => return format!("\"{shown}\": {error}"),
    }
    match interpreter(file) {
        Ok(Some(line)) if line.ends_with('\r') => {
            format!(
                "the first line of \"{shown}\" ends in a carriage return (CRLF line ends), so its \
                 interpreter \"{}\\r\" does not exist",
                line.trim()
            )
        }
        Ok(Some(line)) if error.kind() == io::ErrorKind::NotFound => {
            let interpreter = line.split_whitespace().next().unwrap_or("");
            format!("\"{shown}\" names the interpreter \"{interpreter}\", which does not exist")
        }
        Ok(Some(line)) => {
            let interpreter = line.split_whitespace().next().unwrap_or("");
            format!("\"{shown}\" names the interpreter \"{interpreter}\": {error}")
        }
        Ok(None) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
            if let Some(before) = before_the_interpreter(file) {
                return format!(
                    "\"{shown}\" must begin with its #! line, and has {before} before that: remove it"
                );
            }
            format!(
                "\"{shown}\" is no program for this machine, and has no #! line that names an \
                 interpreter: {error}"
            )
        }
        Ok(None) if error.kind() == io::ErrorKind::NotFound => {
            format!("\"{shown}\" needs a dynamic loader that is not installed here: {error}")
        }
        Ok(None) | Err(_) => format!("cannot execute \"{shown}\": {error}"),
    }
}

/// The file that a command's first word means: as the system looks it up, except that a file
/// without execute permission is found too, so that it can be named.
fn find(program: &OsStr, path: &OsStr, directory: &Path) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        let file = directory.join(program);
        // As it was typed where that is enough to find it.
        let shown = if Path::new(program).exists() {
            program.into()
        } else {
            file.clone()
        };
        return file.exists().then_some(shown);
    }
    std::env::split_paths(path)
        .map(|folder| directory.join(folder).join(program))
        .find(|file| file.is_file())
}

/// Bytes of a file before its `#!`, which keep the system from finding the `#!`.
fn before_the_interpreter(file: &Path) -> Option<&'static str> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let beginning = beginning(file).ok()?;
    let (rest, mark) = match beginning.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => (rest, Some("a byte order mark (BOM)")),
        None => (beginning.as_slice(), None),
    };
    let text = rest.trim_ascii_start();
    if !text.starts_with(b"#!") {
        return None;
    }
    mark.or((text.len() < rest.len()).then_some("an empty line or a space"))
}

fn beginning(file: &Path) -> io::Result<Vec<u8>> {
    let mut beginning = Vec::new();
    regular_file::open(file)?
        .take(256)
        .read_to_end(&mut beginning)?;
    Ok(beginning)
}

/// The text behind `#!` in the first line of a file.
fn interpreter(file: &Path) -> io::Result<Option<String>> {
    let beginning = beginning(file)?;
    let Some(line) = beginning.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

/// `function.handler.handle`: at least two names with dots between them, the last of them not the
/// end of a file's name.
fn is_python_path(name: &str) -> bool {
    let is_name = |part: &str| {
        let mut letters = part.chars();
        letters
            .next()
            .is_some_and(|c| c.is_alphabetic() || c == '_')
            && letters.all(|c| c.is_alphanumeric() || c == '_')
    };
    name.contains('.') && interpreter_of(name).is_none() && name.split('.').all(is_name)
}

/// Words that a shell carries out itself.
const BUILTINS: [&str; 9] = [
    "cd", "exec", "export", "eval", "source", ".", "set", "ulimit", "umask",
];

/// A part of a command that only a shell would interpret, and that is passed on unchanged.
pub fn shell_syntax(words: &[OsString]) -> Option<&'static str> {
    let first = words.first()?.to_string_lossy().into_owned();
    if let Some(builtin) = BUILTINS.iter().find(|builtin| first == **builtin) {
        return Some(builtin);
    }
    let is_assignment = first.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    });
    if is_assignment {
        return Some("A=b before the command");
    }
    // A shell interprets its own arguments.
    let shell = Path::new(&first).file_name().is_some_and(|name| {
        ["sh", "bash", "dash", "ash", "zsh", "ksh"]
            .iter()
            .any(|shell| name == *shell)
    });
    if shell && words.iter().any(|word| word == "-c") {
        return None;
    }
    words.iter().find_map(|word| {
        let word = word.to_string_lossy();
        let is_variable = word.split('$').skip(1).any(|rest| {
            rest.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '{' | '('))
        });
        match word.as_ref() {
            "|" | "||" => Some("|"),
            "&" | "&&" => Some("&"),
            ">" | ">>" | "<" | "2>" | "2>&1" => Some("a redirection"),
            _ if word.ends_with(';') => Some(";"),
            _ if word == "~" || word.starts_with("~/") => Some("~"),
            _ if is_variable => Some("$VAR"),
            _ => None,
        }
    })
}

/// Why the system would not start a process.
pub(super) fn start_error(error: &io::Error) -> LaunchError {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    if errno.is_some_and(is_lasting) {
        let why = format!("the system does not let the worker start a process: {error}");
        return LaunchError::Command(why.into());
    }
    LaunchError::System(format!("the system cannot start a process now: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Vec<OsString> {
        command.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn shell_syntax_is_noticed_and_nothing_else() {
        let table = [
            ("python3 serve.py a.b", None),
            ("a | b", Some("|")),
            ("a && b", Some("&")),
            ("a > b", Some("a redirection")),
            ("a /x; b", Some(";")),
            ("~/handler", Some("~")),
            ("handler $HOME/x", Some("$VAR")),
            ("handler ${X}", Some("$VAR")),
            ("handler $(date)", Some("$VAR")),
            ("A=b handler", Some("A=b before the command")),
            ("cd /app && ./handler", Some("cd")),
            ("exec ./handler", Some("exec")),
            ("sh cd", None),
            ("sh -c a|b;$X", None),
            ("handler --price=5$", None),
            ("env A=b handler", None),
        ];
        for (command, found) in table {
            assert_eq!(shell_syntax(&words(command)), found, "{command}");
        }
    }

    #[test]
    fn a_python_path_is_told_from_a_command() {
        assert!(is_python_path("function.handler.handle"));
        assert!(!is_python_path("handler"));
        assert!(!is_python_path("./handler.py"));
        assert!(!is_python_path("7.zip"));
        for file in ["handler.py", "handler.rb", "app.jar", "index.js", "run.sh"] {
            assert!(!is_python_path(file), "{file}");
        }
    }

    fn said(command: &str, path: &str, directory: &Path, error: io::ErrorKind) -> String {
        let mut words = words(command).into_iter();
        let command = Command {
            program: words.next().unwrap(),
            arguments: words.collect(),
        };
        let path = OsStr::new(path);
        let error = io::Error::from(error);
        explain_command(&command, path, directory, &error)
            .full()
            .to_owned()
    }

    #[test]
    fn a_missing_command_is_answered_with_likely_ones() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python");
        let missing = |command: &str| {
            said(
                command,
                "/no/bin:/no/usr/bin",
                &here,
                io::ErrorKind::NotFound,
            )
        };
        for (command, parts) in [
            (
                "no-such",
                &["command not found: \"no-such\" (PATH=/no/bin:/no/usr/bin)"][..],
            ),
            ("a.b", &["python3 /path/to/serve.py a.b"]),
            ("handler.rb", &["command not found: \"handler.rb\" (PATH="]),
            (
                "serve.py",
                &["python3 serve.py serve.py:FUNCTION", "python3 serve.py if"],
            ),
            ("cd /app && ./x", &["no shell reads", "cd means", "sh -c"]),
            ("exec ./x", &["no shell reads", "exec means"]),
            (
                "A=b ./x",
                &["no shell reads", "A=b before the command means"],
            ),
            (
                "./no-such",
                &["no such file: \"./no-such\"", "examples/python"],
            ),
            ("/no/such", &["no such file: \"/no/such\""]),
        ] {
            let said = missing(command);
            for part in parts {
                assert!(said.contains(part), "{command}: {said}");
            }
        }
        let one_word = Command {
            program: "python3 serve.py a.b".into(),
            arguments: Vec::new(),
        };
        let error = io::Error::from(io::ErrorKind::NotFound);
        let said = explain_command(&one_word, OsStr::new("/bin"), &here, &error);
        let said = said.full();
        assert!(
            said.contains("is one word") && said.contains("--env-file"),
            "{said}"
        );
    }

    #[test]
    fn a_pipe_is_named_and_not_opened() {
        let folder = std::env::temp_dir().join(format!("faas-pipe-{}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o755);
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("pipe"), mode).unwrap();
        let said = said("./pipe", "/bin", &folder, io::ErrorKind::PermissionDenied);
        assert!(said.ends_with("/pipe\" is not a program: a pipe"), "{said}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_of_a_known_kind_is_answered_with_its_command_line() {
        for (name, typed) in [
            ("handler.rb", "ruby ./handler.rb"),
            ("app.jar", "java -jar app.jar"),
            ("./index.mjs", "node ./index.mjs"),
            ("/srv/run.sh", "sh /srv/run.sh"),
            ("my.tool", "./my.tool"),
            ("tool", "./tool"),
        ] {
            assert_eq!(how_to_run(name), typed);
        }
        assert!(how_to_run("handler.py").starts_with("python3 serve.py handler.py:FUNCTION"));
    }

    #[test]
    fn bytes_before_the_interpreter_are_named() {
        let file = std::env::temp_dir().join(format!("faas-bom-{}", fastrand::u64(..)));
        for (content, before) in [
            (
                &b"\xef\xbb\xbf#!/bin/sh\n"[..],
                Some("a byte order mark (BOM)"),
            ),
            (b"\n#!/bin/sh\n", Some("an empty line or a space")),
            (b"  #!/bin/sh\n", Some("an empty line or a space")),
            (b"#!/bin/sh\n", None),
            (b"\xef\xbb\xbfecho\n", None),
            (b"", None),
        ] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(before_the_interpreter(&file), before, "{content:?}");
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_refusal_that_will_be_repeated_is_told_from_a_lack_of_room() {
        for (errno, is_for_good) in [
            (Errno::NOSYS, true),
            (Errno::PERM, true),
            (Errno::NOENT, true),
            (Errno::AGAIN, false),
            (Errno::NOMEM, false),
            (Errno::MFILE, false),
        ] {
            let error = start_error(&io::Error::from_raw_os_error(errno.raw_os_error()));
            let told = matches!(error, LaunchError::Command(_));
            assert_eq!(told, is_for_good, "{error}");
        }
    }
}

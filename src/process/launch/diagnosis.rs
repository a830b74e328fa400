//! Why a command could not be started, in words that are enough to mend it.

use super::LaunchError;
use crate::config::Command;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Says why `command` could not be started.
pub(super) fn explain(command: &Command, error: &io::Error) -> LaunchError {
    let passing = [
        rustix::io::Errno::AGAIN,
        rustix::io::Errno::NOMEM,
        rustix::io::Errno::MFILE,
        rustix::io::Errno::NFILE,
    ];
    if error
        .raw_os_error()
        .is_some_and(|raw| passing.iter().any(|e| e.raw_os_error() == raw))
    {
        return LaunchError::System(format!("the system cannot start a process now: {error}"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    LaunchError::Command(explain_command(&command.program, &path, error))
}

fn explain_command(program: &OsStr, path: &OsStr, error: &io::Error) -> String {
    let name = program.to_string_lossy();
    if program.is_empty() {
        return "the command is an empty word".to_owned();
    }
    let Some(file) = find(program, path) else {
        if is_python_path(&name) {
            return format!(
                "\"{name}\" is a Python path, and the handler is a command here: \
                 HANDLER_FUNCTION=\"python3 /path/to/serve.py {name}\" runs it, with \
                 examples/python/serve.py of this project"
            );
        }
        return if name.contains('/') {
            format!("no such file: \"{name}\"")
        } else {
            format!(
                "command not found: \"{name}\" (PATH={})",
                path.to_string_lossy()
            )
        };
    };
    let shown = file.display();
    if file.is_dir() {
        return format!("\"{shown}\" is a directory");
    }
    match std::fs::metadata(&file) {
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            return format!("\"{shown}\" is not executable: chmod +x, or name its interpreter");
        }
        Ok(_) => {}
        Err(error) => return format!("\"{shown}\": {error}"),
    }
    match interpreter(&file) {
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
        Ok(None) if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
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
fn find(program: &OsStr, path: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Path::new(program).exists().then(|| PathBuf::from(program));
    }
    std::env::split_paths(path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// What follows `#!` in the first line of a file.
fn interpreter(file: &Path) -> io::Result<Option<String>> {
    let mut beginning = Vec::new();
    std::fs::File::open(file)?
        .take(256)
        .read_to_end(&mut beginning)?;
    let Some(line) = beginning.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

/// `function.handler.handle`: at least two names with dots between them.
fn is_python_path(name: &str) -> bool {
    let is_name = |part: &str| {
        let mut letters = part.chars();
        letters
            .next()
            .is_some_and(|c| c.is_alphabetic() || c == '_')
            && letters.all(|c| c.is_alphanumeric() || c == '_')
    };
    name.contains('.') && name.split('.').all(is_name)
}

/// What in a command would mean something to a shell, but is passed on as it is.
pub fn shell_syntax(words: &[OsString]) -> Option<&'static str> {
    let first = words.first()?.to_string_lossy().into_owned();
    let is_assignment = first.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    });
    if is_assignment {
        return Some("A=b before the command");
    }
    // What is given to a shell, it reads itself.
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
            ("cd /x; a", Some(";")),
            ("~/handler", Some("~")),
            ("handler $HOME/x", Some("$VAR")),
            ("handler ${X}", Some("$VAR")),
            ("handler $(date)", Some("$VAR")),
            ("A=b handler", Some("A=b before the command")),
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
    }

    #[test]
    fn a_missing_command_names_the_path() {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let said = explain_command(OsStr::new("no-such"), OsStr::new("/bin:/usr/bin"), &missing);
        assert_eq!(said, "command not found: \"no-such\" (PATH=/bin:/usr/bin)");
        let said = explain_command(OsStr::new("a.b"), OsStr::new(""), &missing);
        assert!(said.contains("python3 /path/to/serve.py a.b"), "{said}");
    }
}

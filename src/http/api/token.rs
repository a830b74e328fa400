//! Bearer tokens: callers must show one of the tokens of a file in `Authorization`.
//!
//! The file holds one token a line, so that a new one can be added before the old one is removed.
//! It is read at the start and on each reload; a file that is bad by then changes nothing. No part
//! of a token is ever logged or repeated in an error.

use crate::error::{RequestFailure, StartError};
use crate::regular_file;
use hyper::header::{AUTHORIZATION, HeaderMap};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use subtle::{Choice, ConstantTimeEq};
use tracing::{error, info, warn};

/// Largest file of tokens, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Most tokens at one time: every request is compared with all of them.
const MAX_TOKENS: usize = 64;

/// Shortest token that is safe from guessing, in bytes; a shorter one is warned of.
const MIN_GOOD_TOKEN_BYTES: usize = 16;

/// The permissions of group and others to write a file.
const OTHERS_WRITE: u32 = 0o022;

/// The permissions of group and others to read a file.
const OTHERS_READ: u32 = 0o044;

/// Where containers have their secrets; Docker and Kubernetes make them readable for all users.
const SECRETS: [&str; 2] = ["/run/secrets", "/var/run/secrets"];

/// The accepted tokens, and their file.
pub struct Tokens {
    path: PathBuf,
    accepted: RwLock<Vec<Vec<u8>>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads the file; it must hold at least one token.
    pub fn of_file(path: &Path) -> Result<Tokens, StartError> {
        let accepted = read(path).map_err(|source| StartError::Tokens {
            path: path.to_owned(),
            source,
        })?;
        Ok(Tokens {
            path: path.to_owned(),
            accepted: RwLock::new(accepted),
        })
    }

    /// Reads the file again; if that fails, the tokens stay as they are.
    pub(super) fn reread(&self) {
        let path = self.path.display();
        match read(&self.path) {
            Ok(tokens) => {
                info!(%path, tokens = tokens.len(), "tokens read again");
                *self
                    .accepted
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = tokens;
            }
            Err(error) => error!(%path, %error, "tokens not read again, the old ones stay"),
        }
    }

    /// Refuses a request that does not carry one of the tokens.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), RequestFailure> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(RequestFailure::Unauthorized);
        };
        let given = bearer(value.as_bytes()).ok_or(RequestFailure::Unauthorized)?;
        let accepted = self.accepted.read().unwrap_or_else(PoisonError::into_inner);
        // Each is compared to its end, also after a match: time tells only a token's length.
        let is_known = accepted.iter().fold(Choice::from(0), |known, token| {
            known | token.as_slice().ct_eq(given)
        });
        if is_known.into() {
            Ok(())
        } else {
            Err(RequestFailure::Unauthorized)
        }
    }
}

/// The text behind `Bearer`, whose case does not count (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"bearer ".len())?;
    let token = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let file = regular_file::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "larger than {MAX_FILE_BYTES} bytes"
        )));
    }
    let tokens = parse(&bytes).map_err(io::Error::other)?;
    warn_of_risks(path, mode, &tokens);
    Ok(tokens)
}

/// Warns of settings that are accepted and most likely a mistake.
fn warn_of_risks(path: &Path, mode: u32, tokens: &[Vec<u8>]) {
    let is_open = is_open_to_others(path, mode);
    let path = path.display();
    if is_open {
        let mode = format!("{:04o}", mode & 0o7777);
        warn!(%path, mode, "the file of tokens is open to others: chmod 600");
    }
    let short = tokens
        .iter()
        .filter(|token| token.len() < MIN_GOOD_TOKEN_BYTES)
        .count();
    if short > 0 {
        warn!(
            %path,
            short,
            "tokens of fewer than {MIN_GOOD_TOKEN_BYTES} characters can be guessed; is the file whole?"
        );
    }
}

/// True when users other than the file's owner can change it, or read it where that is not the
/// custom.
fn is_open_to_others(path: &Path, mode: u32) -> bool {
    let is_secret = SECRETS.iter().any(|folder| path.starts_with(folder));
    mode & OTHERS_WRITE != 0 || mode & OTHERS_READ != 0 && !is_secret
}

/// One token a line; white space around it and empty lines do not count.
fn parse(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut tokens = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let token = line.trim_ascii();
        if !token.iter().all(u8::is_ascii_graphic) {
            let line = index + 1;
            return Err(format!(
                "line {line} is no token: only visible ASCII characters, no spaces"
            ));
        }
        if !token.is_empty() {
            tokens.push(token.to_vec());
        }
    }
    match tokens.len() {
        0 => Err("it holds no token".to_owned()),
        1..=MAX_TOKENS => Ok(tokens),
        _ => Err(format!("it holds more than {MAX_TOKENS} tokens")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn tokens(accepted: &[&str]) -> Tokens {
        let accepted = accepted.iter().map(|token| token.as_bytes().to_vec());
        Tokens {
            path: PathBuf::new(),
            accepted: RwLock::new(accepted.collect()),
        }
    }

    #[test]
    fn a_file_is_open_if_others_can_change_it_or_read_it_outside_of_secrets() {
        for (path, mode, is_open) in [
            ("/etc/tokens", 0o600, false),
            ("/etc/tokens", 0o100_711, false),
            ("/etc/tokens", 0o640, true),
            ("/etc/tokens", 0o604, true),
            ("/run/secrets/tokens", 0o444, false),
            ("/var/run/secrets/x/tokens", 0o444, false),
            ("/run/secrets/tokens", 0o664, true),
            ("/run/secrets/tokens", 0o446, true),
            ("/run/secrets-not/tokens", 0o444, true),
        ] {
            let found = is_open_to_others(Path::new(path), mode);
            assert_eq!(found, is_open, "{path} {mode:o}");
        }
    }

    #[test]
    fn only_a_whole_token_after_bearer_is_accepted() {
        let tokens = tokens(&["first", "second"]);
        for (values, is_accepted) in [
            (&["Bearer first"][..], true),
            (&["bearer  second "], true),
            (&["BEARER first"], true),
            (&[], false),
            (&["first"], false),
            (&["Bearer"], false),
            (&["Bearer "], false),
            (&["Bearer firs"], false),
            (&["Bearer firstt"], false),
            (&["Bearer First"], false),
            (&["Bearer first second"], false),
            (&["Basic first"], false),
            (&["Bearerfirst"], false),
            (&["Bearer first", "Bearer first"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(tokens.check(&headers).is_ok(), is_accepted, "{values:?}");
        }
    }

    #[test]
    fn a_file_holds_one_token_a_line() {
        let parsed = |text: &str| parse(text.as_bytes());
        assert_eq!(parsed("a\n").unwrap(), [b"a"]);
        assert_eq!(parsed("\n a \r\n\nb").unwrap(), [b"a", b"b"]);
        for (text, why) in [
            ("", "it holds no token"),
            (" \n\r\n", "it holds no token"),
            ("a\ns3cret b\n", "line 2 is no token"),
            ("é", "line 1 is no token"),
            ("a\n\u{0}", "line 2 is no token"),
        ] {
            let said = parsed(text).unwrap_err();
            assert!(said.starts_with(why), "{text:?}: {said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
        assert!(parsed(&"a\n".repeat(64)).is_ok());
        assert!(parsed(&"a\n".repeat(65)).is_err());
    }
}

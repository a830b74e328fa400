//! Defaults that follow from the platform: from variables that it, or its users, have set for other
//! programs.
//!
//! | platform | told by | variables that are read |
//! |---|---|---|
//! | OpenFaaS | `OPENFAAS_NAME` or `fprocess` | `fprocess`, `exec_timeout`, `suppress_lock` |
//! | Azure Functions | its port | `FUNCTIONS_CUSTOMHANDLER_PORT`, `FUNCTIONS_HTTPWORKER_PORT` |

use crate::cli::values::{limit_of_time, port};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// The port on which OpenFaaS looks for a function.
const OPENFAAS_PORT: u16 = 8080;

/// The file that OpenFaaS looks for where a function has no HTTP probe.
const OPENFAAS_LOCK: &str = "/tmp/.lock";

/// The variables of Azure Functions for the port, the present name first.
const AZURE_PORTS: [&str; 2] = ["FUNCTIONS_CUSTOMHANDLER_PORT", "FUNCTIONS_HTTPWORKER_PORT"];

/// Defaults of the platform, in place of the worker's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cli) struct Platform {
    /// Whether this is OpenFaaS.
    pub(super) is_openfaas: bool,
    /// The address to listen on.
    pub(super) host: Option<IpAddr>,
    /// The port to listen on.
    pub(super) port: Option<u16>,
    /// The command.
    pub(super) handler: Option<String>,
    /// The longest time for one reply.
    pub(super) timeout: Option<Duration>,
    /// The file that is there while requests are taken.
    pub(super) lock_file: Option<PathBuf>,
}

impl Platform {
    /// The platform of this process.
    pub(super) fn here() -> Result<Platform, String> {
        Platform::told_by(|name| std::env::var(name).ok())
    }

    /// The platform that has set these variables; an empty one counts as none.
    fn told_by(variable: impl Fn(&str) -> Option<String>) -> Result<Platform, String> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut platform = Platform::default();
        for name in AZURE_PORTS.into_iter().rev() {
            if let Some(value) = variable(name) {
                let port = port(&value).map_err(|why| format!("{name}: {why}: {value:?}"))?;
                platform.port = Some(port);
            }
        }
        platform.handler = variable("fprocess");
        let is_container = variable("OPENFAAS_NAME").is_some();
        platform.is_openfaas = is_container || platform.handler.is_some();
        if is_container {
            platform.host = Some(Ipv4Addr::UNSPECIFIED.into());
            platform.port = Some(OPENFAAS_PORT);
        }
        if platform.is_openfaas {
            platform.timeout = exec_timeout(variable("exec_timeout"))?;
            let is_suppressed = variable("suppress_lock").is_some_and(|value| value == "true");
            platform.lock_file = (!is_suppressed).then(|| OPENFAAS_LOCK.into());
        }
        Ok(platform)
    }
}

/// The time that OpenFaaS gives to one call: a duration, or a number of seconds. None where it is
/// 0, which means without a limit there.
fn exec_timeout(value: Option<String>) -> Result<Option<Duration>, String> {
    let Some(value) = value else {
        return Ok(None);
    };
    let is_zero = value.trim_end_matches('s') == "0";
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let duration = match is_number {
        true => format!("{value}s"),
        false => value.clone(),
    };
    match is_zero {
        true => Ok(None),
        false => limit_of_time(&duration)
            .map(Some)
            .map_err(|why| format!("exec_timeout: {why}: {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_by(variables: &[(&str, &str)]) -> Result<Platform, String> {
        Platform::told_by(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_variables_there_is_no_platform() {
        let empty = [
            ("OPENFAAS_NAME", ""),
            ("fprocess", ""),
            (AZURE_PORTS[0], ""),
        ];
        for variables in [&[][..], &empty, &[("exec_timeout", "5s")]] {
            assert_eq!(told_by(variables), Ok(Platform::default()), "{variables:?}");
        }
    }

    #[test]
    fn openfaas_is_told_by_its_variables() {
        let container = Platform {
            is_openfaas: true,
            host: Some(Ipv4Addr::UNSPECIFIED.into()),
            port: Some(8080),
            lock_file: Some("/tmp/.lock".into()),
            ..Platform::default()
        };
        assert_eq!(told_by(&[("OPENFAAS_NAME", "f")]), Ok(container.clone()));
        let suppressed = told_by(&[("OPENFAAS_NAME", "f"), ("suppress_lock", "true")]);
        let lock_file = None;
        assert_eq!(
            suppressed,
            Ok(Platform {
                lock_file,
                ..container
            })
        );
        let process = told_by(&[("fprocess", "python3 h.py")]).unwrap();
        assert_eq!(process.handler.as_deref(), Some("python3 h.py"));
        assert_eq!(
            (process.is_openfaas, process.host, process.port),
            (true, None, None)
        );
    }

    #[test]
    fn the_time_of_openfaas_is_a_duration_or_seconds() {
        for (value, expected) in [
            ("10", Ok(Some(Duration::from_secs(10)))),
            ("1m30s", Ok(Some(Duration::from_secs(90)))),
            ("250ms", Ok(Some(Duration::from_millis(250)))),
            ("0", Ok(None)),
            ("0s", Ok(None)),
            ("soon", Err("exec_timeout: ")),
        ] {
            let told = told_by(&[("OPENFAAS_NAME", "f"), ("exec_timeout", value)]);
            match (told, expected) {
                (Ok(told), Ok(timeout)) => assert_eq!(told.timeout, timeout, "{value}"),
                (Err(why), Err(start)) => {
                    assert!(why.starts_with(start) && why.ends_with("\"soon\""), "{why}");
                }
                (told, _) => panic!("{value}: {told:?}"),
            }
        }
    }

    #[test]
    fn azure_names_the_port() {
        let [present, former] = AZURE_PORTS;
        for (variables, port) in [
            (&[(present, "4001")][..], 4001),
            (&[(former, "4002")], 4002),
            (&[(present, "4001"), (former, "4002")], 4001),
        ] {
            assert_eq!(
                told_by(variables).unwrap().port,
                Some(port),
                "{variables:?}"
            );
        }
        let why = told_by(&[(present, "http")]).unwrap_err();
        assert!(
            why.starts_with(present) && why.ends_with("\"http\""),
            "{why}"
        );
    }
}

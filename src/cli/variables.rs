//! Finds environment variables that look like settings and are none.

use super::Cli;
use clap::CommandFactory;

/// The prefix of the worker's settings; variables with the prefix are withheld from handlers.
const PREFIX: &str = "FAAS_";

/// A variable that looks like a setting and is none.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// A setting whose name differs only by a typing error, or by the prefix.
    pub meant: Option<String>,
    /// Whether the variable is withheld from handlers.
    pub is_withheld: bool,
}

/// The variables of this process that look like settings and are none.
pub fn unknown_variables() -> Vec<UnknownVariable> {
    let command = Cli::command();
    let known: Vec<&str> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str())
        .collect();
    std::env::vars_os()
        .filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            unknown(&name, &value.to_string_lossy(), &known)
        })
        .collect()
}

fn unknown(name: &str, value: &str, known: &[&str]) -> Option<UnknownVariable> {
    if known.contains(&name) || is_of_a_service(name, value) {
        return None;
    }
    let is_withheld = name.starts_with(PREFIX);
    let bare = name.strip_prefix(PREFIX).map(|bare| match bare {
        // The variable of --handler has another name than its flag.
        "HANDLER" | "COMMAND" => "HANDLER_FUNCTION",
        bare => bare,
    });
    let bare = bare.filter(|bare| known.contains(bare));
    let meant = bare.map(str::to_owned).or_else(|| closest(name, known));
    // HOST and PORT are too short for this: many a name is near.
    let is_near = meant
        .as_ref()
        .is_some_and(|meant| meant.len() > "HOSTNAME".len());
    (is_withheld || is_near).then(|| UnknownVariable {
        name: name.to_owned(),
        meant,
        is_withheld,
    })
}

/// Whether this is one of the variables that Kubernetes, and Docker's links before it, set for each
/// service, here one whose name begins with `faas`: `NAME_SERVICE_HOST`,
/// `NAME_SERVICE_PORT[_PORTNAME]`, `NAME_PORT` with a URL, and
/// `NAME_PORT_<number>_<protocol>[_PROTO|_PORT|_ADDR]`.
fn is_of_a_service(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") {
        return true;
    }
    if name.contains("_SERVICE_PORT_") {
        // A port has a name and a number.
        return value.parse::<u16>().is_ok();
    }
    if name.ends_with("_PORT") && !name.contains("_PORT_") {
        let scheme = value
            .split_once("://")
            .map(|(scheme, _)| scheme.to_uppercase());
        return scheme.is_some_and(|scheme| PROTOCOLS.contains(&scheme.as_str()));
    }
    let Some((_, rest)) = name.split_once("_PORT_") else {
        return false;
    };
    let mut parts = rest.split('_');
    let is_number = parts
        .next()
        .is_some_and(|number| number.parse::<u16>().is_ok());
    let is_protocol = parts.next().is_some_and(|name| PROTOCOLS.contains(&name));
    let is_member = parts
        .next()
        .is_none_or(|member| ["PROTO", "PORT", "ADDR"].contains(&member));
    is_number && is_protocol && is_member && parts.next().is_none()
}

/// The known name that differs only by a typing error: letters that are wrong, missing, too many or
/// swapped.
pub(super) fn closest(name: &str, known: &[&str]) -> Option<String> {
    let distance = |known: &&&str| strsim::damerau_levenshtein(known, name);
    let closest = known.iter().min_by_key(distance)?;
    // In a name of three letters, two differences are another name.
    let largest = (closest.len() / 3).min(2);
    (distance(&closest) <= largest).then(|| (*closest).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_service_are_none_of_ours_and_misspelt_settings_are() {
        for (name, value) in [
            ("FAAS_WORKER_SERVICE_HOST", "10.0.0.1"),
            ("FAAS_WORKER_SERVICE_PORT", "8000"),
            ("FAAS_WORKER_SERVICE_PORT_HTTP", "8000"),
            ("FAAS_WORKER_PORT", "tcp://10.0.0.1:8000"),
            ("FAAS_PORT", "udp://10.0.0.1:53"),
            ("FAAS_WORKER_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
            ("FAAS_WORKER_PORT_8000_TCP_PROTO", "tcp"),
            ("FAAS_WORKER_PORT_8000_TCP_PORT", "8000"),
            ("FAAS_WORKER_PORT_8000_TCP_ADDR", "10.0.0.1"),
            ("FAAS_PORT_53_UDP_ADDR", "10.0.0.1"),
        ] {
            assert_eq!(unknown(name, value, &[]), None, "{name}");
        }
        for (name, value) in [
            ("FAAS_PORT", "8000"),
            ("FAAS_WORKER_PORT", "8000"),
            ("FAAS_PORT_8000", "1"),
            ("FAAS_PORT_NAME", "x"),
            ("FAAS_PORT_X_TCP", "1"),
            ("FAAS_PORT_8000_TCP_ADDRESS", "1"),
            ("FAAS_PORT_8000_TCP_ADDR_2", "1"),
            ("FAAS_SERVICE_PORT_HTTP", "http"),
            ("FAAS_SERVICE_NAME", "x"),
            ("FAAS_ADMIN_PORT", "9000"),
        ] {
            let told = unknown(name, value, &[]);
            assert!(told.is_some_and(|told| told.is_withheld), "{name}");
        }
    }

    #[test]
    fn a_slip_of_the_fingers_is_told_with_what_was_meant() {
        let known = [
            "FAAS_TIMEOUT",
            "FAAS_QUEUE",
            "HANDLER_FUNCTION",
            "HOST",
            "PORT",
        ];
        let meant = |name: &str| unknown(name, "x", &known).map(|told| told.meant);
        assert_eq!(meant("FAAS_TIMOUT"), Some(Some("FAAS_TIMEOUT".to_owned())));
        assert_eq!(
            meant("HANDLER_FUNCTON"),
            Some(Some("HANDLER_FUNCTION".to_owned()))
        );
        for bare in ["HOST", "PORT", "HANDLER_FUNCTION"] {
            assert_eq!(meant(&format!("FAAS_{bare}")), Some(Some(bare.to_owned())));
        }
        for name in ["FAAS_HANDLER", "FAAS_COMMAND"] {
            assert_eq!(meant(name), Some(Some("HANDLER_FUNCTION".to_owned())));
        }
        assert_eq!(meant("FAAS_DB_URL"), Some(None));
        // Of other programs, and near to names that are short.
        assert_eq!((meant("POST"), meant("HOSTS")), (None, None));
        assert_eq!(meant("FAAS_TIMEOUT"), None);
        assert_eq!(meant("HOME"), None);
        assert_eq!(meant("PATH"), None);
    }
}

//! Environment variables that look like settings and are none.

use super::Cli;
use clap::CommandFactory;

/// Variables that look like settings of ours and are none, each with the setting that may have been
/// meant.
pub fn unknown_variables() -> Vec<(String, Option<String>)> {
    let command = Cli::command();
    let known: Vec<&str> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str())
        .collect();
    std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("FAAS_") && !known.contains(&name.as_str()))
        // Kubernetes sets such ones for a service whose name begins with ours.
        .filter(|name| !name.contains("_SERVICE_") && !name.contains("_PORT"))
        .map(|name| {
            let meant = closest(&name, &known);
            (name, meant)
        })
        .collect()
}

/// Letters that are wrong, missing, too many or changed over in a name that was meant to be another.
const LARGEST_SLIP: usize = 2;

/// The known name that differs by a slip of the fingers.
fn closest(name: &str, known: &[&str]) -> Option<String> {
    let distance = |known: &&&str| strsim::damerau_levenshtein(known, name);
    let closest = known.iter().min_by_key(distance)?;
    (distance(&closest) <= LARGEST_SLIP).then(|| (*closest).to_owned())
}

//! The one table of paths: what each leads to, by which methods, and at which address.

use super::{Surface, pages};
use hyper::Method;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// The handler.
    Function,
    /// Whether the worker answers at all.
    Health,
    /// Whether a process is up.
    Ready,
    /// Figures as text for Prometheus.
    Metrics,
    /// Figures for autoscalers.
    Stats,
    /// What each process is doing.
    Processes,
    /// The OpenAPI document.
    Document,
    /// The page that shows it.
    Page,
    /// The page's path with a slash too many.
    PageMoved,
    /// A file that the page asks for, by its name.
    PageFile(&'a str),
}

/// Every path but those of the page's files.
const PATHS: [(&str, Target<'static>); 11] = [
    ("/", Target::Function),
    ("/health", Target::Health),
    ("/_/health", Target::Health),
    ("/ready", Target::Ready),
    ("/_/ready", Target::Ready),
    ("/metrics", Target::Metrics),
    ("/stats", Target::Stats),
    ("/processes", Target::Processes),
    ("/openapi.json", Target::Document),
    ("/docs", Target::Page),
    ("/docs/", Target::PageMoved),
];

/// What the paths of the page's files begin with.
const FILES_PREFIX: &str = "/docs/";

/// The target of a path, if there is one; the function's further paths come last.
pub(super) fn find<'a>(path: &'a str, function_paths: &[String]) -> Option<Target<'a>> {
    if let Some((_, target)) = PATHS.iter().find(|(known, _)| *known == path) {
        return Some(*target);
    }
    if let Some(name) = path.strip_prefix(FILES_PREFIX)
        && pages::has_file(name)
    {
        return Some(Target::PageFile(name));
    }
    let leads_here = |pattern: &String| match pattern.strip_suffix('*') {
        Some(beginning) => path.starts_with(beginning),
        None => path == pattern,
    };
    let is_function = function_paths.iter().any(leads_here);
    is_function.then_some(Target::Function)
}

impl Target<'_> {
    /// Whether the target is served at this address. `/ready`, `/metrics` and `/stats` move to the
    /// address of `--admin`, which also has `/health`, and alone has `/processes`.
    pub(super) fn is_served_at(self, surface: Surface, has_admin: bool) -> bool {
        match surface {
            Surface::Public => match self {
                Target::Ready | Target::Metrics | Target::Stats => !has_admin,
                Target::Processes => false,
                Target::Function
                | Target::Health
                | Target::Document
                | Target::Page
                | Target::PageMoved
                | Target::PageFile(_) => true,
            },
            Surface::Admin => matches!(
                self,
                Target::Health
                    | Target::Ready
                    | Target::Metrics
                    | Target::Stats
                    | Target::Processes
            ),
        }
    }

    /// Whether the target has this method. HEAD is answered as GET; hyper leaves out the body.
    pub(super) fn accepts(self, method: &Method) -> bool {
        match self {
            Target::Function => *method == Method::POST,
            Target::Health
            | Target::Ready
            | Target::Metrics
            | Target::Stats
            | Target::Processes
            | Target::Document
            | Target::Page
            | Target::PageMoved
            | Target::PageFile(_) => matches!(*method, Method::GET | Method::HEAD),
        }
    }

    /// The value of `allow`, as the Python worker wrote it for each path.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Target::Function => "POST",
            Target::Health | Target::Ready => "GET",
            Target::Document
            | Target::Page
            | Target::PageMoved
            | Target::PageFile(_)
            | Target::Metrics
            | Target::Stats
            | Target::Processes => "GET, HEAD",
        }
    }
}

/// Every path for callers and probes, as the OpenAPI document names it.
#[cfg(test)]
pub(super) fn documented_paths() -> impl Iterator<Item = &'static str> {
    let for_operators = [Target::Metrics, Target::Stats, Target::Processes];
    let paths = PATHS
        .iter()
        .filter(move |(_, target)| !for_operators.contains(target));
    let paths = paths.map(|(path, _)| *path);
    paths.chain(std::iter::once("/docs/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_paths_lead_to_the_function_and_hide_no_other() {
        let paths = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        for (patterns, path, target) in [
            ("/api/decode", "/api/decode", Some(Target::Function)),
            ("/api/decode", "/api/decode/", None),
            ("/api/decode", "/api", None),
            ("/api/*", "/api/decode", Some(Target::Function)),
            ("/api/*", "/api/", Some(Target::Function)),
            ("/api/*", "/api", None),
            ("/a,/b", "/b", Some(Target::Function)),
            ("/*", "/anything/at/all", Some(Target::Function)),
            ("/*", "/health", Some(Target::Health)),
            ("/*", "/docs", Some(Target::Page)),
            ("/*", "/docs/none", Some(Target::Function)),
            ("/a", "/", Some(Target::Function)),
        ] {
            assert_eq!(find(path, &paths(patterns)), target, "{patterns} {path}");
        }
        assert_eq!(find("/api/decode", &[]), None);
    }
}

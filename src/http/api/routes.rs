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
const PATHS: [(&str, Target<'static>); 8] = [
    ("/", Target::Function),
    ("/health", Target::Health),
    ("/_/health", Target::Health),
    ("/ready", Target::Ready),
    ("/_/ready", Target::Ready),
    ("/openapi.json", Target::Document),
    ("/docs", Target::Page),
    ("/docs/", Target::PageMoved),
];

/// What the paths of the page's files begin with.
const FILES: &str = "/docs/";

/// The target of a path, if there is one.
pub(super) fn find(path: &str) -> Option<Target<'_>> {
    if let Some((_, target)) = PATHS.iter().find(|(known, _)| *known == path) {
        return Some(*target);
    }
    let name = path.strip_prefix(FILES)?;
    pages::has_file(name).then_some(Target::PageFile(name))
}

impl Target<'_> {
    /// Whether the target is served at this address. `/ready` moves to the address of `--admin`,
    /// which has nothing else but `/health`.
    pub(super) fn is_served_at(self, surface: Surface, has_admin: bool) -> bool {
        match surface {
            Surface::Public => self != Target::Ready || !has_admin,
            Surface::Admin => matches!(self, Target::Health | Target::Ready),
        }
    }

    /// Whether the target has this method. HEAD is answered as GET; hyper leaves out the body.
    pub(super) fn accepts(self, method: &Method) -> bool {
        match self {
            Target::Function => *method == Method::POST,
            Target::Health
            | Target::Ready
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
            Target::Document | Target::Page | Target::PageMoved | Target::PageFile(_) => {
                "GET, HEAD"
            }
        }
    }
}

/// Every path as the OpenAPI document names it.
#[cfg(test)]
pub(super) fn documented_paths() -> impl Iterator<Item = &'static str> {
    let paths = PATHS.iter().map(|(path, _)| *path);
    paths.chain(std::iter::once("/docs/{file}"))
}

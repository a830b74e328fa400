//! The end of processes: signals, exit statuses, and orphans.
//!
//! A slot signals and reaps its own [`Process`]; [`reap_in_time`] and [`end_orphans`] see to the
//! orphans that processes leave behind.

mod family;
mod oom;
mod orphans;
mod process;

pub(super) use oom::OomWatch;
pub use orphans::{end_orphans, orphans, reap_in_time, take_in_orphans};
pub(crate) use process::EXIT_AFTER_CLOSE_TIME;
pub use process::{Death, ExitWatch, Process, describe};

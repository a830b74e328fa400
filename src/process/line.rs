//! The line protocol: framing, requests, replies. No I/O, and no state but half a line.
//!
//! Payloads and results are never decoded here. They pass as the JSON text in which they came,
//! which is checked (a result) or known (a payload) to be one valid JSON value.

mod envelope;
mod framing;
mod reply;
mod request;

pub use framing::{Framer, MAX_STRAY_BYTES, ProcessLine, is_braced, objects_in, replies_at_most};
pub use reply::{
    Announcement, ContextMember, ExtraMembers, Id, Parsed, ReplyBody, leading_id, parse,
    plain_reply,
};
pub use request::{RequestContext, encode_request};

#[cfg(test)]
mod tests;

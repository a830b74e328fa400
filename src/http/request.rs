//! The payload out of a body, or why there is none.

//! Commands of the program beside serving.

pub mod check;
mod client;
pub mod health;
pub mod new;
pub mod top;

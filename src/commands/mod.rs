//! Commands of the program beside serving.

mod client;
pub mod health;
pub mod new;
pub mod top;

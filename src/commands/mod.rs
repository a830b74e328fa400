//! Commands of the program beside serving.

pub mod health;

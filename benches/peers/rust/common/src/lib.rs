//! What every Rust client's generator shares: flags, data, pacing, and the line about a run.
//!
//! Rules: flags, data and line are the same in every language; a wrong flag ends the program.

mod args;
mod data;
mod measure;

pub use args::Args;
pub use data::{keys, murmur2, value_index, values};
pub use measure::{Clock, Latencies, Measure, Pacer, latencies};

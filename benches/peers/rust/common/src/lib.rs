//! The code that all Rust generators share: flags, data, pacing, and the line of figures.
//!
//! Rules: flags, data and line are the same in every language. A wrong flag ends the program.

mod args;
mod data;
mod measure;

pub use args::Args;
pub use data::{keys, murmur2, value_index, values};
pub use measure::{Clock, Latencies, Measure, Pacer, latencies};

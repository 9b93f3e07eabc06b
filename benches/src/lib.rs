//! The stages of the hot path and their records, shared by the project's benchmarks.
#![deny(missing_docs)]

mod core_stage;
mod records;
mod sink;
mod stages;

pub use core_stage::CoreStage;
pub use records::{VALUE_LEN, api_request, keys, limits, values};
pub use sink::sink;
pub use stages::{RECORDS, Stage, all};

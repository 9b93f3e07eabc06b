//! What the project's benchmarks share: the stages of the hot path, and the records that go through them.
#![deny(missing_docs)]

mod core_stage;
mod records;
mod stages;

pub use core_stage::CoreStage;
pub use records::{VALUE_LEN, api_request, keys, limits, values};
pub use stages::{RECORDS, Stage, all};

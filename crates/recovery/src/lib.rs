//! What kafka-courier does with records that failed for good.
//!
//! - [`DeadLetters`] keeps them in its stores: [`DeadLetterTopic`], file, memory. It is the engine's failure sink.
//! - [`verify`] searches the log for records with the outcome unknown.
//! - [`Recovery::replay`] publishes dead letters again.
//!
//! The crate knows no source of settings. Applications use the crate `kafka-courier`, which exports what they need.
#![deny(missing_docs)]

mod auto_replay;
mod dead_letters;
pub mod headers;
pub mod metrics;
mod recovery;
mod replay;
mod spool_report;
pub mod verify;

pub use auto_replay::AutoReplay;
pub use dead_letters::{
    AwaitedRecord, CursorError, DeadLetterStats, DeadLetterTopic, DeadLetters, LetterCursor, LetterPage, Listed,
    Stores, TopicEngine, TopicOptions, TopicWarning, UnfitTopic, UnsettledRecord, unsettled_records,
};
pub use recovery::Recovery;
pub use replay::{Doubtful, Replay, ReplayError, ReplayReport};
pub use spool_report::{SpoolInputReport, SpoolPartitionReport, SpoolRecordError, SpoolReport, spool_records};

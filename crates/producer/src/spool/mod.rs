//! The spool: accepted events are on disk before they are sent, and a later process delivers the events that this one
//! left.
//!
//! A producer with a spool hands each sealed batch to the spool's thread instead of the sender. The thread stores all
//! batches that wait in one round, then hands them on.
//!
//! | Module | Contents |
//! |---|---|
//! | `stage`, `lane`, `log`, `inherit` | Pure: numbers, order, settled records, due rounds. No IO, thread or clock. |
//! | `residence`, `backlog` | Pure: which stored batches are in memory, and the others. |
//! | `thread` | The thread that owns the journal. |
//! | `open`, `file_system`, `origin`, `adopt` | Opens the folder, and finds the batches of earlier processes. |
//! | `view` | Reads a folder that is not opened, for commands. |
//! | `topic_watch` | The task that learns how the cluster names itself and its topics. |
//! | `command`, `status`, `space`, `fault`, `input`, `request_key` | The interface to the rest of the producer. |
//!
//! Rule: nothing here knows deliveries, memory or dead letters. The producer carries out the spool's decisions.

mod adopt;
mod backlog;
mod command;
mod fault;
mod file_system;
mod inherit;
mod input;
mod lane;
mod log;
mod open;
mod origin;
mod request_key;
mod residence;
mod space;
mod stage;
mod status;
#[cfg(test)]
mod tests;
mod thread;
mod topic_watch;
mod view;

pub use adopt::adopt;
pub(crate) use backlog::StoredRun;
pub(crate) use command::{
    BatchSource, BatchToken, Effect, KeptToken, ReadBatch, SettledNotice, SpoolCommand, SpoolHost, SpoolLevel,
    SpoolSender, StoredPlace, Ticket, UnreadBatches,
};
pub use fault::SpoolFault;
pub use file_system::UnfitFileSystem;
pub use input::{InputId, InputItem, SpooledInput};
pub use open::{BatchReadError, OpenSpool, SpoolHolder, SpoolOpenError, SpoolSettings};
pub(crate) use open::{KeyedBatch, RecoveredSpool};
pub use request_key::RequestKey;
pub(crate) use stage::Stage;
pub(crate) use status::SpoolStatus;
pub(crate) use thread::{SpoolThread, start};
pub(crate) use topic_watch::{TopicIds, TopicNews, watch_topics};
pub use view::{SpoolDamage, SpoolEnds, SpoolView, SpoolViewError, StoredPart, StoredPartition, StoredRecord};

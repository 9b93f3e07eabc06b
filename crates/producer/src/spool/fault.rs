//! [`SpoolFault`]: why a spool accepts no more events.

use std::sync::Arc;

/// Why the spool of a producer accepts no more events.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolFault {
    /// A write to the spool's folder failed. Nothing more is written until the next process opens the folder.
    #[error("the spool can't be written: {0}: make the disk writable, then start the producer again")]
    Write(Arc<str>),
    /// The spool had no room for the event until its producer was closed.
    #[error("the spool is full: raise spool_max_bytes, or free the disk")]
    Full,
    /// The brokers belong to another cluster than the one that the stored events are for.
    #[error(
        "the spool has events for cluster {spool:?}, and the brokers belong to cluster {cluster:?}: fix brokers, or use \
         another spool_dir"
    )]
    OtherCluster {
        /// The id of the cluster that the spool is for.
        spool: Arc<str>,
        /// The id of the cluster that answered.
        cluster: Arc<str>,
    },
    /// The brokers are too old to show which stored events they have.
    #[error("brokers too old for a spool, whose events stay stored: {0}: upgrade the brokers, or set no spool_dir")]
    OutdatedBrokers(Arc<str>),
}

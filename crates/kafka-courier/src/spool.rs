//! Reads a spool without opening it, as `courier spool` does. The option `spool_dir` gives a producer a spool.
//!
//! A [`SpoolView`] is the state of a folder at one moment, and [`unsettled_records`] are its records.
//!
//! A spool also keeps the position of files whose lines are published through it: a [`SpooledInput`] has the items that are
//! dealt with, whatever moment the process was killed at. [`KafkaProducer::spool_inputs`] returns them.
//! [`KafkaProducer::publish_item`] publishes the event of another item.
//!
//! [`KafkaProducer::spool_inputs`]: crate::KafkaProducer::spool_inputs
//! [`KafkaProducer::publish_item`]: crate::KafkaProducer::publish_item

use std::path::{Path, PathBuf};

#[doc(inline)]
pub use kafka_courier_producer::{
    InputId, InputItem, SpoolDamage, SpoolEnds, SpoolHolder, SpoolView, SpoolViewError, SpooledInput, StoredPart,
    StoredPartition, UnfitFileSystem,
};
use kafka_courier_producer::{OpenSpool, SpoolSettings};
#[doc(inline)]
pub use kafka_courier_recovery::{
    SpoolInputReport, SpoolPartitionReport, SpoolRecordError, SpoolReport, UnsettledRecord, spool_records,
    unsettled_records,
};

#[doc(inline)]
pub use kafka_courier_producer::adopt_spool as adopt;

use crate::config::{ConfigErrors, ConfigProblem, KafkaConfig, SpoolFull};

/// The file of dead letters in a spool's folder.
const DEAD_LETTERS: &str = "dead-letters.redb";

/// Opens the spool of the configuration, if it has one.
pub(crate) fn open(config: &KafkaConfig) -> Result<Option<OpenSpool>, ConfigErrors> {
    if config.spool_dir.is_empty() {
        return Ok(None);
    }
    let settings = SpoolSettings {
        dir: config.spool_dir.clone().into(),
        max_bytes: config.spool_max_bytes,
        keep_free: config.spool_keep_free,
        blocks: config.spool_full == SpoolFull::Block,
        idle_sync: config.spool_idle_sync,
        any_filesystem: config.spool_any_filesystem,
    };
    Ok(Some(OpenSpool::open(&settings).map_err(ConfigProblem::spool)?))
}

/// Returns the file for dead letters if no option names a store for them: stored events need one that survives the process.
pub(crate) fn dead_letter_file(config: &KafkaConfig) -> Option<PathBuf> {
    (!config.spool_dir.is_empty()).then(|| Path::new(&config.spool_dir).join(DEAD_LETTERS))
}

//! A producer that discards its batches: the cost of publishing without a sender.

use kafka_courier::{Builder, ConfigErrors, KafkaProducer};
use kafka_courier_idempotent_sender::core::Verdict;
use kafka_courier_idempotent_sender::driver::DriverCommand;

/// Builds a producer that discards its batches, with one topic that exists on no broker. A thread delivers each sealed
/// batch without any I/O. Call it within a tokio runtime.
///
/// # Errors
///
/// As [`Builder::build`].
pub fn sink(builder: Builder, topic: &str, partitions: usize) -> Result<KafkaProducer, ConfigErrors> {
    let (producer, mut unconnected) = builder.build_unconnected()?;
    unconnected.announce_topic(topic, partitions);
    std::thread::spawn(move || {
        while let Some(command) = unconnected.commands.blocking_recv() {
            if let DriverCommand::Sealed(submission) = command {
                unconnected.settle(submission, Verdict::Delivered { base_offset: None, log_append_time: None });
            }
        }
    });
    Ok(producer)
}

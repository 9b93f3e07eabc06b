//! A producer whose batches go nowhere: what publishing alone costs, for the project's own benchmarks.
//!
//! Rule: everything up to the sealed batch is the shipped code; behind it each batch is delivered at once.

use std::sync::Arc;

use kafka_courier_idempotent_sender::core::{RecordSet, TopicId, Verdict};
use kafka_courier_idempotent_sender::driver::Command;
use tokio::sync::mpsc::unbounded_channel;

use crate::producer::KafkaProducer;

impl KafkaProducer {
    /// Gives a producer that was just built a topic that is no broker's, and takes its batches away as fast as they come.
    /// `None` if it was cloned already.
    #[doc(hidden)]
    pub fn into_sink(mut self, topic: &str, partitions: usize) -> Option<Self> {
        let inner = Arc::get_mut(&mut self.inner)?;
        let (commands, mut received) = unbounded_channel();
        // The sender's task would close the producer if nobody could tell it anything any more.
        let unused = std::mem::replace(&mut inner.intake.commands, commands);
        let shared = inner.intake.shared.clone();
        shared.topics.on_ready(TopicId(0), topic, &vec![true; partitions]);
        std::thread::spawn(move || {
            let _unused = unused;
            while let Some(command) = received.blocking_recv() {
                if let Command::Sealed(submission) = command {
                    let records = RecordSet::Range(0..submission.batch.record_count());
                    shared.release(submission.partition, submission.batch.capacity());
                    shared.recycle(Arc::new(submission.batch));
                    let verdict = Verdict::Delivered { base_offset: None, log_append_time: None };
                    let ended = submission.token.state().settle(records, verdict);
                    shared.ended(&submission.token, ended);
                }
            }
        });
        Some(self)
    }
}

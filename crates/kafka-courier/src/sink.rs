//! A producer that discards its batches. The project's benchmarks measure the cost of publishing alone with it.
//!
//! The code up to the sealed batch is the shipped code. Each sealed batch is then delivered without any I/O.

use std::sync::Arc;

use kafka_courier_client::TopicId;
use kafka_courier_idempotent_sender::core::{RecordSet, Verdict};
use kafka_courier_idempotent_sender::driver::DriverCommand;
use tokio::sync::mpsc::unbounded_channel;

use crate::producer::KafkaProducer;

impl KafkaProducer {
    /// Turns a new producer into one that discards its batches, with a topic that exists on no broker. Returns `None`
    /// if the producer was cloned.
    #[doc(hidden)]
    pub fn into_sink(mut self, topic: &str, partitions: usize) -> Option<Self> {
        let inner = Arc::get_mut(&mut self.inner)?;
        let (commands, mut received) = unbounded_channel();
        // The sender's task would close the producer if its command channel were closed.
        let unused = std::mem::replace(&mut inner.intake.commands, commands);
        let shared = inner.intake.shared.clone();
        shared.topics.on_ready(TopicId(0), topic, &vec![true; partitions]);
        std::thread::spawn(move || {
            let _unused = unused;
            while let Some(command) = received.blocking_recv() {
                if let DriverCommand::Sealed(submission) = command {
                    let records = RecordSet::Range(0..submission.batch.record_count());
                    shared.release(submission.partition, submission.batch.capacity());
                    shared.recycle(Arc::new(submission.batch));
                    let verdict = Verdict::Delivered { base_offset: None, log_append_time: None };
                    let progress = submission.token.state().settle(records, verdict);
                    shared.update_ledger(&submission.token, progress);
                }
            }
        });
        Some(self)
    }
}

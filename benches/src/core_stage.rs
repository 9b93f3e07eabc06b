//! The sender's core with a simulated cluster that answers immediately: the cost of deciding about a batch, with stamp
//! and CRC.
//!
//! Rule: the clock is simulated and advances a millisecond per round, so that every run takes the same decisions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::EncodedBatch;
use kafka_courier_client::{
    BrokerAddress, BrokerId, ClusterMetadata, PartAnswer, PartitionId, PartitionMetadata, ProduceAnswer, ProducePart,
    TopicId, TopicMetadata,
};
use kafka_courier_idempotent_sender::core::{Action, Config, Sender, Submission};

/// A core, its topic, and one circulating batch for each partition.
pub struct CoreStage {
    sender: Sender<()>,
    topic: TopicId,
    now: Instant,
    free: Vec<Option<EncodedBatch>>,
    sent: Vec<u64>,
}

impl CoreStage {
    /// Creates a core that sends one of `batches` to each partition in every round. Returns `None` if the core refuses
    /// its settings.
    #[must_use]
    pub fn new(batches: Vec<EncodedBatch>) -> Option<Self> {
        let (sender, now) = (Sender::new(Config::default()).ok()?, Instant::now());
        let free: Vec<_> = batches.into_iter().map(Some).collect();
        let mut stage = Self { sender, topic: TopicId(0), now, sent: vec![0; free.len()], free };
        stage.topic = stage.sender.want_topic(now, "t");
        stage.sender.want_producer_id();
        stage.pump();
        Some(stage)
    }

    /// Sends each partition its batch. Returns the number of delivered batches, which must be all.
    pub fn round(&mut self) -> usize {
        self.now += Duration::from_millis(1);
        for (index, free) in self.free.iter_mut().enumerate() {
            let Some(batch) = free.take() else { continue };
            let partition = PartitionId { topic: self.topic, index: index as i32 };
            let (ordinal, now) = (self.sent[index], self.now);
            self.sent[index] += 1;
            let submission =
                Submission { partition, token: (), ordinal, published_at: now, batch, aged: false, stored: None };
            if let Err(back) = self.sender.on_sealed(now, submission) {
                *free = Some(back.batch);
            }
        }
        self.pump()
    }

    fn pump(&mut self) -> usize {
        let mut delivered = 0;
        while let Some(action) = self.sender.poll(self.now) {
            match action {
                Action::Connect { conn, .. } => self.sender.on_connected(self.now, conn),
                Action::RefreshMetadata { .. } => self.sender.on_metadata(self.now, self.metadata()),
                Action::InitProducerId => self.sender.on_producer_id(self.now, 4000),
                Action::Send { conn, request, parts } => {
                    let answer = self.answer(&parts);
                    drop(parts);
                    self.sender.on_written(self.now, conn, request);
                    self.sender.on_answer(self.now, conn, request, answer);
                }
                Action::Settle(settled) => {
                    delivered += 1;
                    self.free[settled.partition.index as usize] = Arc::into_inner(settled.batch);
                }
                _ => {}
            }
        }
        delivered
    }

    fn answer(&self, parts: &[ProducePart]) -> ProduceAnswer {
        let part = |part: &ProducePart| {
            let base_offset = (self.sent[part.partition.index as usize] as i64 - 1) * 100;
            Some(PartAnswer { base_offset: Some(base_offset), ..PartAnswer::default() })
        };
        ProduceAnswer { parts: parts.iter().map(part).collect(), ..ProduceAnswer::default() }
    }

    fn metadata(&self) -> ClusterMetadata {
        let id = BrokerId(1);
        let partition = |index| PartitionMetadata { index, code: 0, leader: Some(id), leader_epoch: Some(1) };
        let partitions = (0..self.free.len() as i32).map(partition).collect();
        ClusterMetadata {
            brokers: vec![BrokerAddress { id, host: "b".into(), port: 9092 }],
            topics: vec![TopicMetadata { name: "t".into(), uuid: Some([1; 16]), code: 0, partitions }],
        }
    }
}

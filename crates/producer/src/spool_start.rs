//! The start and the end of an engine's spool.
//!
//! Rules:
//!  - The topics of earlier processes accept events before Kafka is reachable, with the partitions that they had.
//!  - The sender gets a topic's number by the order of requests. The spool's topics are requested first, in their order.
//!  - The thread ends once the sender's task has ended, or its runtime was dropped.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use kafka_courier_client::config::ClientConfig;
use kafka_courier_client::{PartitionId, TopicId};
use kafka_courier_idempotent_sender::driver::DriverCommand;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::delivery::{StoredIdentity, Token};
use crate::recovered_keys::RecoveredBatches;
use crate::shared::Shared;
use crate::spool::{
    KeptToken, KeyedBatch, OpenSpool, RecoveredSpool, SpoolCommand, SpoolSender, SpoolStatus, SpoolThread, Stage,
    StoredRun, Ticket, TopicIds, TopicNews, start, watch_topics,
};
use crate::spool_host::EngineHost;
use crate::sync::Ordering;

/// The divisor of `buffer_memory` that gives the part which stored batches share. Their publishers have the rest.
const RESIDENT_DIVISOR: usize = 4;
/// The length of the random bytes of a life.
const NONCE_LEN: usize = 16;

/// A spool that was read, before its thread starts.
pub(crate) struct SpoolParts {
    open: OpenSpool,
    recovered: RecoveredSpool,
    nonce: Arc<[u8]>,
    sender: SpoolSender<Token>,
    commands: Receiver<SpoolCommand<Token>>,
}

/// The thread of a spool. It ends when this value is dropped, after it has stored all accepted batches.
pub(crate) struct RunningSpool {
    end: SpoolEnd,
    ended: oneshot::Receiver<()>,
}

/// Ends the spool's thread when it is dropped.
struct SpoolEnd(SpoolSender<Token>);

impl Drop for SpoolEnd {
    fn drop(&mut self) {
        self.0.send(SpoolCommand::Finish);
    }
}

impl RunningSpool {
    /// Ends the thread, and waits until its files are closed.
    pub(crate) async fn finish(self) {
        drop(self.end);
        // An error means that the thread has panicked: its files are closed, too.
        let _ = self.ended.await;
    }
}

impl SpoolParts {
    /// Finds the batches of earlier processes.
    pub(crate) fn new(open: OpenSpool) -> Self {
        let recovered = open.recover();
        let mut nonce = [0; NONCE_LEN];
        fastrand::fill(&mut nonce);
        let (commands, received) = channel();
        let sender = SpoolSender { commands, status: Arc::new(SpoolStatus::new(open.blocks)) };
        sender.status.set_inputs(recovered.spool, open.journal.table().inputs.clone());
        Self { open, recovered, nonce: nonce.into(), sender, commands: received }
    }

    /// Returns the way to the thread.
    pub(crate) fn sender(&self) -> SpoolSender<Token> {
        self.sender.clone()
    }

    /// Returns the spool's id.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.recovered.spool.0
    }

    /// Returns the random bytes of this life.
    pub(crate) fn nonce(&self) -> Arc<[u8]> {
        self.nonce.clone()
    }

    /// Starts the thread, and the task that learns the ids of topics.
    ///
    /// # Errors
    ///
    /// The operating system's error, if it starts no thread.
    pub(crate) fn start(
        self,
        host: EngineHost,
        client: &ClientConfig,
        news: UnboundedReceiver<TopicNews>,
    ) -> std::io::Result<RunningSpool> {
        let Self { open, recovered, nonce, sender, commands } = self;
        // The first event must find the room that the thread later reports.
        sender.status.space.set_room(open.journal.room());
        request_topics(&host, &recovered);
        let (runtime, weak) = (host.runtime.clone(), host.commands.downgrade());
        let ids = topic_ids(&recovered);
        let stage = recovered_stage(&host.shared, recovered, nonce, &sender.status);
        let status = sender.status.clone();
        let OpenSpool { journal, idle_sync, .. } = open;
        let ended = start(SpoolThread { journal, stage, host, commands, status, idle_sync })?;
        runtime.spawn(watch_topics(client, sender.clone(), weak, news, ids));
        Ok(RunningSpool { end: SpoolEnd(sender), ended })
    }
}

/// Returns the ids of the topics that earlier processes knew.
fn topic_ids(recovered: &RecoveredSpool) -> TopicIds {
    let mut ids = TopicIds::default();
    for topic in recovered.topics.iter().flat_map(|topic| &topic.numbers) {
        ids.is_former(&topic.name, topic.id);
    }
    ids
}

fn topic_id(index: usize) -> TopicId {
    TopicId(u32::try_from(index).unwrap_or(u32::MAX))
}

/// Requests the topics of earlier processes, and accepts events for them.
fn request_topics(host: &EngineHost, recovered: &RecoveredSpool) {
    for (index, topic) in recovered.topics.iter().enumerate() {
        // The sender's task starts later, so the channel is open.
        let _ = host.commands.send(DriverCommand::WantTopic(topic.name.clone()));
        let batches = |runs: &Vec<StoredRun>| runs.iter().map(|run| run.batches).sum();
        let first_batch = |partition| recovered.runs.get(&(index, partition)).map_or(0, batches);
        host.shared.topics.on_recovered(topic_id(index), &topic.name, topic.partitions(), first_batch);
    }
}

/// Returns the stage with the batches of earlier processes.
fn recovered_stage(
    shared: &Arc<Shared>,
    recovered: RecoveredSpool,
    nonce: Arc<[u8]>,
    status: &SpoolStatus,
) -> Stage<Token> {
    let RecoveredSpool { spool, life, cluster, topics, partitions, runs, keyed, keys } = recovered;
    let budget = (shared.memory.limit() / RESIDENT_DIVISOR) as u64;
    let mut stage = Stage::new(life, nonce, cluster, budget);
    for (index, topic) in topics.iter().enumerate() {
        topic.numbers.iter().for_each(|number| stage.recover_topic(topic_id(index), number));
    }
    partitions.iter().for_each(|partition| stage.recover_partition(partition));
    let lost = partitions.iter().flat_map(|partition| &partition.lost);
    let lost: u64 = lost.map(|(first, end)| end.0.saturating_sub(first.0)).sum();
    status.lost.store(lost, Ordering::Relaxed);
    let (mut records, mut batches) = (0, RecoveredBatches::default());
    for ((index, partition), mut runs) in runs {
        let Some(topic) = topics.get(index) else { continue };
        let id = PartitionId { topic: topic_id(index), index: partition };
        let keyed = keyed.get(&(index, partition)).map_or(&[][..], Vec::as_slice);
        for run in &mut runs {
            records += run.records;
            let tokens = keyed.iter().filter(|batch| batch.place.partition == run.partition).count() as u64;
            let others = Some(run.batches.saturating_sub(tokens)).filter(|batches| *batches > 0);
            run.ticket = others.map(|batches| Ticket(shared.ledger.enter_many(batches)));
        }
        stage.recover_runs(id, runs);
        for batch in keyed {
            let token = recovered_token(shared, &topic.name, partition, spool.0, batch);
            batches.insert(batch.place, batch.records, batch.at_ms, token.state().clone());
            stage.recover_token(id, batch.place, KeptToken { token, records: batch.records });
        }
    }
    status.recovered.store(records, Ordering::Relaxed);
    *shared.recovered_keys.lock() = batches.with_keys(&keys);
    stage
}

/// Returns the token of a batch whose requests may ask for its deliveries. It has no publisher.
fn recovered_token(shared: &Arc<Shared>, topic: &str, partition: i32, spool: [u8; 16], batch: &KeyedBatch) -> Token {
    let token = Token::new(topic, partition, &shared.ledger, &shared.origin);
    token.state().set_record_count(batch.records);
    token.state().set_stored(StoredIdentity { place: batch.place, spool, nonce: batch.notes.clone() });
    token
}

//! The backlog of a [`Stage`]: which durable batches leave memory, and which are read back.
//!
//! Rules:
//!  - A durable batch stays in memory if no earlier one of its partition is on the disk alone, and the residence admits it.
//!  - The next batch of a partition is read once the partition may send it and the residence admits it. One batch of a
//!    partition is read at a time.
//!  - A batch that is damaged on the disk is lost, by name. The batches behind it get another run of stamps: the numbers of a
//!    run have no gaps that its move does not name.
//!  - A batch that the system does not return now is read again later. Its partition waits.
//!  - A batch of this process has its token back if a caller may still ask for it, and a new one otherwise.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::EncodedBatch;
use kafka_courier_client::PartitionId;
use kafka_courier_idempotent_sender::core::{ID_MEMORY, InheritedStamp, StoredBatch, Submission, is_old};
use kafka_courier_spool::core::entry::{BatchHead, Ordinal, Partition};

use super::super::backlog::{JoiningBatch, Published, StoredRun};
use super::super::command::{
    BatchSource, BatchToken, Effect, KeptToken, ReadBatch, StoredPlace, Ticket, UnreadBatches,
};
use super::super::inherit::{batch_of_part, inherited_stamp, unsettled_parts};
use super::super::lane::{DurableBatch, Lane};
use super::Stage;

/// The bits of a life's number. Those above count the losses of a partition.
const LIFE_BITS: u32 = 48;

/// The next batch of a partition, as the journal returned it.
#[derive(Debug)]
pub(crate) struct FoundBatch {
    pub(crate) head: BatchHead,
    pub(crate) bytes: Result<Arc<[u8]>, UnreadableBatch>,
}

/// Why the journal did not return a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum UnreadableBatch {
    /// The bytes are not the ones that were written.
    Damaged,
    /// A later attempt may succeed.
    NotNow(Arc<str>),
}

/// The time of a read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadTime {
    pub(crate) now: Instant,
    /// The time in milliseconds since 1970-01-01 UTC.
    pub(crate) wall_clock_ms: i64,
}

impl<T: Clone + BatchToken> Stage<T> {
    /// Adds the unsettled batches of earlier processes in a partition: those of an older topic number first, each number in its
    /// order. Their numbers count from 0, and new batches follow.
    pub(crate) fn recover_runs(&mut self, id: PartitionId, runs: Vec<StoredRun>) {
        let Some(latest) = self.latest(id) else { return };
        let mut lane = Lane::new(latest, runs.iter().map(|run| run.batches).sum());
        lane.sending = runs.first().map_or(latest, |first| first.partition);
        lane.runs = runs.into();
        self.lanes.insert(id, lane);
    }

    /// Keeps the token of a batch of a run, because a caller may ask for the batch's deliveries.
    pub(crate) fn recover_token(&mut self, id: PartitionId, place: StoredPlace, kept: KeptToken<T>) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.kept.insert((place.partition, place.first), kept);
        }
    }

    /// Keeps a durable batch in memory, or leaves its bytes to the disk.
    pub(super) fn store(&mut self, id: PartitionId, durable: DurableBatch<T>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if self.is_ending || (lane.runs.is_empty() && self.residence.admits(id)) {
            self.keep(id, durable);
        } else {
            self.unload(id, durable);
        }
    }

    fn keep(&mut self, id: PartitionId, mut durable: DurableBatch<T>) {
        let (place, batch) = (durable.place, &durable.submission.batch);
        let (records, bytes) = (batch.record_count(), batch.len() as u64);
        self.residence.add(id, place, records, bytes);
        if let Some(log) = self.logs.get_mut(&place.partition) {
            log.hold(place.first, records, bytes, batch.first_timestamp());
        }
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if let Some(stored) = &mut durable.submission.stored {
            // The sender asks for another run of stamps where this number changes.
            stored.life |= lane.losses << LIFE_BITS;
        }
        lane.resident.push_back(durable);
    }

    fn unload(&mut self, id: PartitionId, durable: DurableBatch<T>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let DurableBatch { place, submission, .. } = durable;
        let Submission { token, batch, published_at, aged: is_aged, .. } = submission;
        let (records, bytes, timestamp_ms) = (batch.record_count(), batch.len() as u64, batch.first_timestamp());
        let joining = JoiningBatch { place, records, bytes, timestamp_ms, published_at, is_aged };
        if !lane.runs.back_mut().is_some_and(|run| run.join(&joining)) {
            lane.runs.push_back(StoredRun::of(&joining));
        }
        lane.kept.insert((place.partition, place.first), KeptToken { token, records });
        self.unloaded.push_back((id, place));
        self.effects.push(Effect::Unloaded(id, batch));
    }

    /// Retires tokens that no caller needs, among up to `most` that were not looked at for longest.
    pub(crate) fn retire_tokens(&mut self, most: usize) {
        for _ in 0..most.min(self.unloaded.len()) {
            let Some((id, place)) = self.unloaded.pop_front() else { return };
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let key = (place.partition, place.first);
            let Some(kept) = lane.kept.get(&key) else { continue };
            let behind = lane.runs.partition_point(|run| (run.partition, run.next) <= key);
            let Some(run) = behind.checked_sub(1).and_then(|at| lane.runs.get_mut(at)) else { continue };
            match kept.token.retire(run.ticket) {
                Some(ticket) => {
                    run.ticket = Some(ticket);
                    lane.kept.remove(&key);
                }
                None => self.unloaded.push_back((id, place)),
            }
        }
    }

    /// Returns whether tokens may still be retired.
    pub(crate) fn has_tokens(&self) -> bool {
        !self.unloaded.is_empty()
    }

    /// Notes that records of a batch in memory are settled, and lets waiting partitions continue.
    pub(super) fn settle_resident(&mut self, place: StoredPlace, records: u32) {
        for id in self.residence.settle(place, records) {
            self.fill(id);
        }
    }

    /// Lets a partition have more batches in memory, because the sender can't decide without them.
    pub(super) fn grant(&mut self, id: PartitionId) {
        self.residence.grant(id);
        self.fill(id);
    }

    /// Reads again what the system did not return before.
    pub(crate) fn retry_reads(&mut self) {
        for id in std::mem::take(&mut self.unreadable) {
            self.fill(id);
        }
    }

    /// Returns whether some batch could not be read.
    pub(crate) fn has_unreadable(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// Requests the next batch of a partition from the disk, if the partition may send it soon.
    pub(super) fn fill(&mut self, id: PartitionId) {
        if self.is_ending || !self.is_open(id) || self.unreadable.contains(&id) {
            return;
        }
        let Some(lane) = self.lanes.get_mut(&id).filter(|lane| !lane.is_loading) else { return };
        let Some(run) = lane.runs.front() else { return };
        // The batches of a topic that was recreated leave once everything before them is settled.
        let is_later = run.partition != lane.sending;
        let is_settled = || self.logs.get(&lane.sending).is_none_or(|log| log.is_settled());
        if is_later && !(lane.resident.is_empty() && is_settled()) {
            return;
        }
        let from = StoredPlace { partition: run.partition, first: run.next };
        if self.residence.admits(id) {
            lane.is_loading = true;
            self.effects.push(Effect::Load { partition: id, from });
        }
    }

    /// Takes the next batch of a partition, which [`Effect::Load`] has requested. `found` is `None` if the journal has none.
    pub(crate) fn take_read(
        &mut self,
        id: PartitionId,
        found: Option<FoundBatch>,
        time: ReadTime,
        source: &impl BatchSource<T>,
    ) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.is_loading = false;
        // The stage may have ended meanwhile.
        let Some(run) = lane.runs.front().cloned() else { return };
        let Some(FoundBatch { head, bytes }) = found.filter(|found| found.head.partition == run.partition) else {
            return self.lose_rest(id);
        };
        let parts = self.parts(&head);
        match bytes.map(|bytes| split(&bytes, head.count, &parts)) {
            Ok(Ok(batches)) => self.take_parts(id, &run, &head, batches, time, source),
            Err(UnreadableBatch::Damaged) => self.lose(id, &run, &head, &parts),
            Ok(Err(why)) | Err(UnreadableBatch::NotNow(why)) => {
                self.unreadable.insert(id);
                self.effects.push(Effect::Unreadable(id, why));
            }
        }
        self.release(id);
    }

    /// Returns the records of a batch that are still to be sent.
    fn parts(&self, head: &BatchHead) -> Vec<Range<u32>> {
        match self.origins.get(&head.partition).filter(|_| head.life != self.life) {
            Some(state) => unsettled_parts(state, head),
            None => std::iter::once(0..head.count).collect(),
        }
    }

    fn take_parts(
        &mut self,
        id: PartitionId,
        run: &StoredRun,
        head: &BatchHead,
        batches: Vec<(Ordinal, EncodedBatch)>,
        time: ReadTime,
        source: &impl BatchSource<T>,
    ) {
        let records = batches.iter().map(|(_, batch)| u64::from(batch.record_count())).sum();
        let bytes = batches.iter().map(|(_, batch)| batch.len() as u64).sum();
        self.remove_read(id, head, batches.len() as u64, records, bytes);
        for (first, batch) in batches {
            let place = StoredPlace { partition: head.partition, first: head.first.plus(first.0) };
            source.charge(id, batch.capacity());
            let inherited = self.inherited(head, place.first);
            let token = self.token(id, place, head, run.ticket, &batch, source);
            let submission = Self::submission(id, run.published, place, head, (token, batch), time);
            self.keep(id, DurableBatch { place, submission, inherited });
        }
    }

    fn inherited(&self, head: &BatchHead, first: Ordinal) -> Option<InheritedStamp> {
        let origin = self.origins.get(&head.partition).filter(|_| head.life != self.life)?;
        inherited_stamp(origin, first)
    }

    fn token(
        &mut self,
        partition: PartitionId,
        place: StoredPlace,
        head: &BatchHead,
        ticket: Option<Ticket>,
        batch: &EncodedBatch,
        source: &impl BatchSource<T>,
    ) -> T {
        let kept = self.lanes.get_mut(&partition).and_then(|lane| lane.kept.remove(&(place.partition, place.first)));
        let records = batch.record_count();
        let read = ReadBatch { partition, place, notes: &head.notes, records, ticket };
        kept.map_or_else(|| source.token(&read), |kept| kept.token)
    }

    fn submission(
        partition: PartitionId,
        published: Option<Published>,
        place: StoredPlace,
        head: &BatchHead,
        (token, batch): (T, EncodedBatch),
        time: ReadTime,
    ) -> Submission<T> {
        let by_timestamp = published_at(&batch, time);
        let is_own_age = published.is_some_and(|published| published.is_aged);
        let published_at = match published {
            // The records' timestamps do not say when they were published.
            Some(published) if published.is_aged => published.last,
            Some(published) => published.last.min(by_timestamp),
            None => by_timestamp,
        };
        let (first, topic, life) = (place.first.0, place.partition.topic.0, head.life.0);
        Submission {
            partition,
            token,
            ordinal: 0,
            published_at,
            aged: is_own_age || is_old(batch.max_timestamp(), time.wall_clock_ms, ID_MEMORY),
            stored: Some(Box::new(StoredBatch { first, topic, life, inherited: None })),
            batch,
        }
    }

    /// Removes the journal's next batch from the runs of a partition.
    fn remove_read(&mut self, id: PartitionId, head: &BatchHead, batches: u64, records: u64, bytes: u64) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(run) = lane.runs.front_mut() else { return };
        run.remove(head.end(), batches, records, bytes);
        if run.batches == 0 {
            lane.runs.pop_front();
        }
    }

    /// Notes that the unsettled records of a batch are damaged on the disk.
    fn lose(&mut self, id: PartitionId, run: &StoredRun, head: &BatchHead, parts: &[Range<u32>]) {
        for part in parts {
            let (first, end) = (head.first.plus(part.start.into()), head.first.plus(part.end.into()));
            self.lose_range(head.partition, first, end);
        }
        let records = parts.iter().map(|part| u64::from(part.end - part.start)).sum();
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.losses += 1;
        let first = |part: &Range<u32>| head.first.plus(part.start.into());
        let tokens = parts.iter().filter_map(|part| lane.kept.remove(&(head.partition, first(part))));
        let tokens: Vec<_> = tokens.collect();
        let batches = parts.len() as u64;
        let bytes = run.bytes / run.batches.max(1) * batches;
        self.remove_read(id, head, batches, records, bytes);
        let tickets = batches.saturating_sub(tokens.len() as u64);
        let is_inherited = run.published.is_none();
        let lost = UnreadBatches { partition: id, batches: tickets, records, ticket: run.ticket, is_inherited };
        self.effects.push(Effect::Lost(lost, tokens));
        self.release_after(head.partition);
    }

    fn lose_range(&mut self, partition: Partition, first: Ordinal, end: Ordinal) {
        if let Some(log) = self.logs.get_mut(&partition) {
            log.lose(first, end);
        }
        if let Some(origin) = self.origins.get_mut(&partition) {
            origin.lost.insert(first, end);
        }
        self.changed.insert(partition);
    }

    /// Notes that the journal does not have the batches of a partition's first run.
    fn lose_rest(&mut self, id: PartitionId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(run) = lane.runs.pop_front() else { return };
        lane.losses += 1;
        let end = lane.runs.front().filter(|next| next.partition == run.partition).map(|next| next.next);
        let later = lane.kept.split_off(&(run.partition, end.unwrap_or(Ordinal(u64::MAX))));
        let tokens: Vec<_> = std::mem::replace(&mut lane.kept, later).into_values().collect();
        let accepted = self.logs.get(&run.partition).map(|log| log.end());
        self.lose_range(run.partition, run.next, end.or(accepted).unwrap_or(run.next));
        self.effects.push(Effect::Lost(unread(id, &run, &tokens), tokens));
        self.release(id);
    }

    /// Leaves the batches of a partition to a later process.
    pub(super) fn leave(&mut self, id: PartitionId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let left = lane.resident.drain(..).map(|batch| Effect::LeftStored(batch.submission));
        self.effects.extend(left);
        let mut kept = std::mem::take(&mut lane.kept);
        while let Some(run) = lane.runs.pop_back() {
            let tokens: Vec<_> = kept.split_off(&(run.partition, run.next)).into_values().collect();
            self.effects.push(Effect::LeftOnDisk(unread(id, &run, &tokens), tokens));
        }
    }
}

/// Returns the batches of a run, of which some have tokens. Their records are counted in both.
fn unread<T>(partition: PartitionId, run: &StoredRun, tokens: &[KeptToken<T>]) -> UnreadBatches {
    let batches = run.batches.saturating_sub(tokens.len() as u64);
    let (records, ticket, is_inherited) = (run.records, run.ticket, run.published.is_none());
    UnreadBatches { partition, batches, records, ticket, is_inherited }
}

/// Returns the batches of the parts of a stored batch, each with the index of its first record.
fn split(bytes: &[u8], count: u32, parts: &[Range<u32>]) -> Result<Vec<(Ordinal, EncodedBatch)>, Arc<str>> {
    let part = |part: &Range<u32>| {
        let batch = batch_of_part(bytes, count, part).map_err(|error| error.to_string())?;
        Ok((Ordinal(part.start.into()), batch))
    };
    let batches: Result<Vec<_>, String> = parts.iter().map(part).collect();
    batches.map_err(Into::into)
}

/// Returns the time at which a batch was published, by its newest record. An age that the clock can't express is none: the
/// batch is old by its timestamps.
fn published_at(batch: &EncodedBatch, time: ReadTime) -> Instant {
    let age = u64::try_from(time.wall_clock_ms.saturating_sub(batch.max_timestamp())).unwrap_or(0);
    time.now.checked_sub(Duration::from_millis(age)).unwrap_or(time.now)
}

//! The lease on the right to replay a topic's letters: acquired, renewed and released.
//!
//! Rules:
//! - Only records that were read back from the log decide, not the answers to writes.
//! - A lease is measured from before its last record left, by this process's own clocks. It therefore expires here
//!   before another process may take it over. Both clocks count, because the monotonic clock may pause while the
//!   machine sleeps.
//! - The lease is renewed after each third of its duration. A lost lease is never acquired again.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime};

use kafka_courier_dlq::{Header, Timestamp, Uuid};
use kafka_courier_producer::{Engine, wall_clock_ms};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::claim::{ClaimAction, ClaimHolder, ClaimPosition, ClaimRecord, ClaimState, ClaimStatus};
use super::reader::{RequestError, TopicPage, TopicReader};
use super::record::LoggedEntry;
use super::writer::{OutgoingRecord, WriteOutcome, write_one};
use crate::headers::DLQ_CLAIM;

/// The partition with the claim records.
const PARTITION: i32 = 0;
/// How long a written record may take to become readable.
const READ_BACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes and reads the claim records of a topic.
pub(super) struct Claimant {
    pub(super) engine: Arc<Engine>,
    pub(super) reader: TopicReader,
    pub(super) lease: Duration,
}

/// An error of acquiring the lease.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaseError {
    /// Another process holds the right to replay.
    #[error("{holder} holds the claim to replay until {until}")]
    Held { holder: String, until: Timestamp },
    /// The claim records could not be read or written.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The log does not contain the claim that was written.
    #[error("the claim to replay is not in the log")]
    NotInLog,
}

/// The sender of the notification that a lease is released.
pub(super) type Released = SyncSender<()>;

/// The time until which no other process can acquire the lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseEnd {
    monotonic: Instant,
    wall: Option<SystemTime>,
}

impl LeaseEnd {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: Some(SystemTime::now()) }
    }

    fn plus(self, time: Duration) -> Self {
        Self { monotonic: self.monotonic + time, wall: self.wall.and_then(|wall| wall.checked_add(time)) }
    }

    /// Returns whether the end is in the future by both clocks.
    pub(super) fn is_ahead(self) -> bool {
        Instant::now() < self.monotonic && self.wall.is_some_and(|wall| SystemTime::now() < wall)
    }
}

/// The right to replay, while it is renewed.
pub(super) struct Lease {
    until: Arc<Mutex<LeaseEnd>>,
    /// Releases the lease. Dropping the sender releases it too.
    pub(super) release: oneshot::Sender<Released>,
}

impl Lease {
    /// Returns the time until which the lease may be used: a fifth of the lease before its expiry, for records that are
    /// being sent.
    pub(super) fn valid(&self) -> Arc<Mutex<LeaseEnd>> {
        self.until.clone()
    }
}

/// The state of the claims, and the offset up to which they were read.
struct ClaimView {
    state: ClaimState,
    next: Option<i64>,
}

/// Acquires the lease. The returned future renews the lease, and ends once the lease is released or lost.
pub(super) async fn acquire(
    claimant: Claimant,
) -> Result<(Lease, impl Future<Output = ()> + Send + 'static), LeaseError> {
    let mut view = ClaimView { state: ClaimState::default(), next: None };
    claimant.read_to_end(&mut view, None).await?;
    let over = match view.state.status(wall_clock_ms()) {
        ClaimStatus::Free => None,
        ClaimStatus::Held(holder) => return Err(held(&holder)),
        ClaimStatus::Silent(holder) => claimant.watch(&mut view, holder).await?,
    };
    let id = Uuid::now_v7();
    let began = LeaseEnd::now();
    let at = claimant.write(ClaimAction::Claim, id, over).await?;
    claimant.read_to_end(&mut view, at).await?;
    if !view.state.is_held_by(id) {
        return Err(match view.state.holder() {
            Some(holder) => held(holder),
            None => LeaseError::NotInLog,
        });
    }
    let (release, released) = oneshot::channel();
    let until = Arc::new(Mutex::new(began.plus(claimant.usable_time())));
    let lease = Lease { until: until.clone(), release };
    Ok((lease, claimant.renew_until_released(view, id, until, released)))
}

fn held(holder: &ClaimHolder) -> LeaseError {
    LeaseError::Held { holder: holder.claim.holder(), until: holder.until() }
}

impl Claimant {
    /// Returns the time for which a renewed lease may be used, with a reserve for records that are being sent.
    fn usable_time(&self) -> Duration {
        self.lease * 4 / 5
    }

    /// Watches a silent holder for a whole lease. Returns the record from which to take over, or `None` if the holder
    /// released its claim.
    async fn watch(&self, view: &mut ClaimView, holder: ClaimHolder) -> Result<Option<ClaimPosition>, LeaseError> {
        let (topic, lease) = (&*self.reader.topic, Duration::from_millis(holder.claim.lease_ms.unsigned_abs()));
        let lease = lease.max(self.lease);
        tracing::warn!(
            topic,
            holder = holder.claim.holder(),
            ?lease,
            "claim to replay has expired, watching its holder for a lease before taking over"
        );
        let began = Instant::now();
        loop {
            tokio::time::sleep(self.lease / 20).await;
            let is_over = began.elapsed() >= lease;
            self.read_to_end(view, None).await?;
            match view.state.holder() {
                None => return Ok(None),
                Some(now) if now.seen != holder.seen => return Err(held(now)),
                Some(_) if is_over => return Ok(Some(holder.seen)),
                Some(_) => {}
            }
        }
    }

    /// Writes a claim record. Returns its offset, if known.
    async fn write(
        &self,
        act: ClaimAction,
        id: Uuid,
        over: Option<ClaimPosition>,
    ) -> Result<Option<i64>, RequestError> {
        let lease_ms = i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX);
        let claim = ClaimRecord { act, id, host: host(), pid: std::process::id(), lease_ms, over };
        let value = serde_json::to_vec(&claim)?;
        let headers = vec![Header { name: DLQ_CLAIM.to_owned(), value: Some(id.to_string().into()) }];
        let key = Some(DLQ_CLAIM.into());
        let record = OutgoingRecord { partition: Some(PARTITION), key, value: Some(value.into()), headers };
        match write_one(&self.engine, &self.reader.topic, &record).await {
            WriteOutcome::Written(_, offset) => Ok(offset),
            WriteOutcome::Failed(failure) => Err(failure.into()),
        }
    }

    /// Reads claim records to the end of the partition, and at least up to the record at `up_to`.
    async fn read_to_end(&self, view: &mut ClaimView, up_to: Option<i64>) -> Result<(), RequestError> {
        let deadline = Instant::now() + READ_BACK_TIMEOUT;
        loop {
            let TopicPage { entries, from, next } = self.reader.read(PARTITION, view.next).await?;
            if view.next.is_none() {
                view.state = ClaimState::beginning_at(from);
            }
            for (offset, entry) in entries {
                if let LoggedEntry::Claim { claim, at_ms } = entry {
                    view.state.apply(offset, at_ms, *claim);
                }
            }
            view.next = Some(next.unwrap_or(from));
            if next.is_some() {
                continue;
            }
            if up_to.is_none_or(|up_to| from > up_to) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(RequestError::NotReadable { topic: self.reader.topic.clone() });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Renews the claim until it is released or lost.
    async fn renew_until_released(
        self,
        mut view: ClaimView,
        id: Uuid,
        until: Arc<Mutex<LeaseEnd>>,
        mut released: oneshot::Receiver<Released>,
    ) {
        loop {
            tokio::select! {
                done = &mut released => {
                    if let Err(error) = self.write(ClaimAction::Release, id, None).await {
                        tracing::warn!(topic = &*self.reader.topic, why = %error, "release of claim to replay failed");
                    }
                    if let Ok(done) = done {
                        let _ = done.send(());
                    }
                    return;
                }
                () = tokio::time::sleep(self.lease / 3) => {}
            }
            let began = LeaseEnd::now();
            match self.renew(&mut view, id).await {
                Ok(true) => *until.lock() = began.plus(self.usable_time()),
                Ok(false) => {
                    *until.lock() = began;
                    let holder = view.state.holder().map(|holder| holder.claim.holder());
                    tracing::error!(topic = &*self.reader.topic, holder, "claim to replay is lost");
                    return;
                }
                Err(error) => {
                    tracing::warn!(topic = &*self.reader.topic, why = %error, "renewal of claim to replay failed");
                }
            }
        }
    }

    /// Renews the claim. Returns whether the claim is still valid.
    async fn renew(&self, view: &mut ClaimView, id: Uuid) -> Result<bool, RequestError> {
        self.read_to_end(view, None).await?;
        if !view.state.is_held_by(id) {
            return Ok(false);
        }
        let at = self.write(ClaimAction::Renew, id, None).await?;
        self.read_to_end(view, at).await?;
        Ok(view.state.is_held_by(id))
    }
}

/// Returns the name of this machine, if available.
fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let environment = || std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).ok();
    let name = kernel.or_else(environment).map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "an unnamed host".to_owned())
}

//! Takes the right to replay a topic's letters, keeps it, and gives it back.
//!
//! Rules:
//! - What counts is what was read back from the log, not what was answered.
//! - A lease is counted from before its last record left, by this process's own clocks: it has run out here before anybody
//!   else may take it over. By two of them: the monotonic one may stand still while the machine sleeps.
//! - It is renewed at a third of its time; one that was lost is never taken up again.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime};

use kafka_courier_dlq::{Header, Timestamp, Uuid};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::claim::{Act, ClaimRecord, Holder, Ledger, Seen, Standing};
use super::record::Entry;
use super::task::{Outgoing, Page, Reader, Written, write_one};
use crate::headers::DLQ_CLAIM;
use crate::producer::KafkaProducer;
use crate::shared::wall_clock_ms;

/// The partition whose log decides.
const PARTITION: i32 = 0;
/// How long what was written may take to be readable.
const READABLE: Duration = Duration::from_secs(10);

/// Where claims are made.
pub(super) struct Claims {
    pub(super) producer: KafkaProducer,
    pub(super) reader: Reader,
    pub(super) lease: Duration,
}

/// Why the right can't be had.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// Somebody else has it.
    Held { holder: String, until: Timestamp },
    /// It can't be found out, or written.
    Failed(String),
}

impl From<String> for NotTaken {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// Where a released lease says that others can have it.
pub(super) type Released = SyncSender<()>;

/// Until when nobody else can have the right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    monotonic: Instant,
    wall: Option<SystemTime>,
}

impl Until {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: Some(SystemTime::now()) }
    }

    fn plus(self, time: Duration) -> Self {
        Self { monotonic: self.monotonic + time, wall: self.wall.and_then(|wall| wall.checked_add(time)) }
    }

    /// Whether it is still before then, by both clocks.
    pub(super) fn is_ahead(self) -> bool {
        Instant::now() < self.monotonic && self.wall.is_some_and(|wall| SystemTime::now() < wall)
    }
}

/// The right to replay, as long as it is renewed.
pub(super) struct Lease {
    until: Arc<Mutex<Until>>,
    /// Dropped: it is given back too.
    pub(super) release: oneshot::Sender<Released>,
}

impl Lease {
    /// Until when nobody else can have it: a fifth of the lease before it runs out, for what is just leaving.
    pub(super) fn valid(&self) -> Arc<Mutex<Until>> {
        self.until.clone()
    }
}

/// The claims as they were read, and how far.
struct Read {
    ledger: Ledger,
    next: Option<i64>,
}

/// Takes the right; the future that comes with it keeps it, and ends once it is given back or lost.
pub(super) async fn take(claims: Claims) -> Result<(Lease, impl Future<Output = ()> + Send + 'static), NotTaken> {
    let mut read = Read { ledger: Ledger::default(), next: None };
    claims.read_on(&mut read, None).await?;
    let over = match read.ledger.standing(wall_clock_ms()) {
        Standing::Free => None,
        Standing::Held(holder) => return Err(held(&holder)),
        Standing::Silent(holder) => claims.watch(&mut read, holder).await?,
    };
    let id = Uuid::now_v7();
    let began = Until::now();
    let at = claims.write(Act::Claim, id, over).await?;
    claims.read_on(&mut read, at).await?;
    if !read.ledger.is_held_by(id) {
        return Err(match read.ledger.holder() {
            Some(holder) => held(holder),
            None => NotTaken::Failed("the claim to replay it is not in the log".to_owned()),
        });
    }
    let (release, released) = oneshot::channel();
    let until = Arc::new(Mutex::new(began.plus(claims.lasts())));
    let lease = Lease { until: until.clone(), release };
    Ok((lease, claims.keep(read, id, until, released)))
}

fn held(holder: &Holder) -> NotTaken {
    NotTaken::Held { holder: holder.claim.holder(), until: holder.until() }
}

impl Claims {
    /// How long nobody else can have what was just renewed, with something to spare for what is just leaving.
    fn lasts(&self) -> Duration {
        self.lease * 4 / 5
    }

    /// Watches a silent holder for a whole lease. Returns the record to take over from; `None`: he has given it back.
    async fn watch(&self, read: &mut Read, holder: Holder) -> Result<Option<Seen>, NotTaken> {
        let (topic, lease) = (&*self.reader.topic, Duration::from_millis(holder.claim.lease_ms.unsigned_abs()));
        let lease = lease.max(self.lease);
        tracing::warn!(
            topic,
            holder = holder.claim.holder(),
            ?lease,
            "a claim to replay these letters has run out; its holder is watched for another lease before it is taken over"
        );
        let began = Instant::now();
        loop {
            tokio::time::sleep(self.lease / 20).await;
            let is_over = began.elapsed() >= lease;
            self.read_on(read, None).await?;
            match read.ledger.holder() {
                None => return Ok(None),
                Some(now) if now.seen != holder.seen => return Err(held(now)),
                Some(_) if is_over => return Ok(Some(holder.seen)),
                Some(_) => {}
            }
        }
    }

    /// Writes a record about the claim; returns its offset, where that is known.
    async fn write(&self, act: Act, id: Uuid, over: Option<Seen>) -> Result<Option<i64>, String> {
        let lease_ms = i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX);
        let claim = ClaimRecord { act, id, host: host(), pid: std::process::id(), lease_ms, over };
        let value = serde_json::to_vec(&claim).map_err(|error| error.to_string())?;
        let headers = vec![Header { name: DLQ_CLAIM.to_owned(), value: Some(id.to_string().into()) }];
        let key = Some(DLQ_CLAIM.into());
        let record = Outgoing { partition: Some(PARTITION), key, value: Some(value.into()), headers };
        match write_one(&self.producer, &self.reader.topic, &record).await {
            Written::At(_, offset) => Ok(offset),
            Written::Not(not) => Err(not.why),
        }
    }

    /// Reads on to the end, which is behind the record at `behind`.
    async fn read_on(&self, read: &mut Read, behind: Option<i64>) -> Result<(), String> {
        let deadline = Instant::now() + READABLE;
        loop {
            let Page { entries, from, next } = self.reader.read(PARTITION, read.next).await?;
            if read.next.is_none() {
                read.ledger = Ledger::beginning_at(from);
            }
            for (offset, entry) in entries {
                if let Entry::Claim { claim, at_ms } = entry {
                    read.ledger.on(offset, at_ms, *claim);
                }
            }
            read.next = Some(next.unwrap_or(from));
            if next.is_some() {
                continue;
            }
            if behind.is_none_or(|behind| from > behind) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("what was written to {} can't be read back in time", self.reader.topic));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Renews the claim until it is given back or lost.
    async fn keep(self, mut read: Read, id: Uuid, until: Arc<Mutex<Until>>, released: oneshot::Receiver<Released>) {
        let mut released = released;
        loop {
            tokio::select! {
                done = &mut released => {
                    let given_back = self.write(Act::Release, id, None).await;
                    if let Err(why) = given_back {
                        tracing::warn!(topic = &*self.reader.topic, why, "the claim to replay ends only when it runs out");
                    }
                    if let Ok(done) = done {
                        let _ = done.send(());
                    }
                    return;
                }
                () = tokio::time::sleep(self.lease / 3) => {}
            }
            let began = Until::now();
            match self.renew(&mut read, id).await {
                Ok(true) => *until.lock() = began.plus(self.lasts()),
                Ok(false) => {
                    *until.lock() = began;
                    let holder = read.ledger.holder().map(|holder| holder.claim.holder());
                    tracing::error!(topic = &*self.reader.topic, holder, "the claim to replay these letters is lost");
                    return;
                }
                Err(why) => {
                    tracing::warn!(
                        topic = &*self.reader.topic,
                        why,
                        "the claim to replay these letters can't be renewed now"
                    );
                }
            }
        }
    }

    /// Whether it is still held.
    async fn renew(&self, read: &mut Read, id: Uuid) -> Result<bool, String> {
        self.read_on(read, None).await?;
        if !read.ledger.is_held_by(id) {
            return Ok(false);
        }
        let at = self.write(Act::Renew, id, None).await?;
        self.read_on(read, at).await?;
        Ok(read.ledger.is_held_by(id))
    }
}

/// This machine's name, as far as it says it.
fn host() -> String {
    let said = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let set = || std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).ok();
    let name = said.or_else(set).map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "an unnamed host".to_owned())
}

//! The shell: one task that owns the core, its connections and its timers.
//!
//! Rules:
//! - It decides nothing: it hands inputs and the time to the core, and carries out its actions in order.
//! - Requests of a connection are written in the order in which the core decided them: each future is
//!   polled once, which queues it, before the next is made.
//! - It ends when it was told to close (or nobody can tell it anything more) and everything has a verdict.

mod announce;
mod connection;
mod control;
mod events;
mod health;
mod linger;
mod log_client;
mod looker;
mod outages;
mod refusals;
pub mod security;
mod stream;
mod versions;
mod words;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use self::announce::Announcement;
use self::connection::{Dialer, Link};
use self::control::{Control, Endpoint};
use self::events::IoEvent;
pub use self::health::{HealthPart, Probe, Progress, Unhealthy};
use self::linger::Lingering;
pub use self::log_client::{Cleanup, Fetched, LogClient, LogError, LogErrorKind, Offsets, ReadFrom, Step, TopicInfo};
use self::looker::Looker;
pub use self::words::{Command, DriverConfig, Observation, Upcalls};
use crate::core::{
    Action, BrokerAddress, ConfigError, ConnId, PartitionId, ProducePart, Reason, RequestId, Sender, Submission,
    TopicId,
};
use crate::wire::messenger::Produced;
use crate::wire::produce::PartKey;

/// Commands that are taken at once before the core is asked again.
const COMMANDS_AT_ONCE: usize = 256;
/// Batches that are sealed, and so compressed, before answers are read again.
const SEALED_AT_ONCE: usize = 8;
/// After the deadline of a close: how often is looked for what was still being sealed.
const AFTER_CLOSE: Duration = Duration::from_millis(5);
/// The leader's own timeout comes this much before ours, so that its answer says what became of the write.
const ANSWER_HEADROOM: Duration = Duration::from_secs(2);

/// What a leader is given for a write whose answer is awaited so long.
fn brokers_patience(ours: Duration) -> Duration {
    ours.saturating_sub(ANSWER_HEADROOM).max(ours / 2)
}

type IoFuture = Pin<Box<dyn Future<Output = IoEvent> + Send>>;

struct OpenLink {
    link: Arc<Link>,
    /// Requests that were handed to it and have not left whole.
    unwritten: VecDeque<RequestId>,
    /// Frames whose leaving was told to the core, plus those that opening took.
    told: u64,
}

/// The task. Made by [`driver`], run by awaiting [`Driver::run`].
pub struct Driver<T, U>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    /// Dropped before the core, whose last batches settle by being dropped.
    upcalls: U,
    core: Sender<T>,
    commands: mpsc::UnboundedReceiver<Command<T>>,
    lingering: Lingering,
    /// A batch became due in this round because somebody waits for it.
    expedited: bool,
    /// Whether somebody may still tell us something.
    open: bool,
    links: HashMap<ConnId, OpenLink>,
    topics: HashMap<TopicId, Announcement>,
    io: FuturesUnordered<IoFuture>,
    dialer: Dialer,
    control: Arc<Control>,
    produce_timeout: Duration,
    closing: Option<Instant>,
    /// Brokers or connections may have changed since they were last told.
    brokers_changed: bool,
    /// No broker takes us, and that was logged.
    is_refused: bool,
}

/// Makes a driver and the channel to it. The channel needs no bound of its own: what travels on it is
/// bounded by the memory that batches are made of. Errors: every setting out of its bounds.
#[allow(clippy::type_complexity)]
pub fn driver<T, U>(
    config: DriverConfig,
    upcalls: U,
) -> Result<(mpsc::UnboundedSender<Command<T>>, Driver<T, U>), Vec<ConfigError>>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    let (sender, commands) = mpsc::unbounded_channel();
    let request_timeout = config.core.request_timeout;
    let dialer = config.dialer();
    let bootstrap: Vec<Endpoint> = config.bootstrap;
    let driver = Driver {
        core: Sender::new(config.core)?,
        upcalls,
        commands,
        lingering: Lingering::default(),
        expedited: false,
        open: true,
        links: HashMap::new(),
        topics: HashMap::new(),
        io: FuturesUnordered::new(),
        control: Arc::new(Control::new(dialer.clone(), request_timeout, bootstrap)),
        dialer,
        produce_timeout: brokers_patience(request_timeout),
        closing: None,
        brokers_changed: false,
        is_refused: false,
    };
    Ok((sender, driver))
}

impl<T, U> Driver<T, U>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    /// Runs until it was told to close, or nobody can tell it anything more, and everything has a verdict.
    ///
    /// Cancel safety: dropping this future drops every batch that has no verdict; whoever holds their
    /// tokens has to see to that.
    pub async fn run(mut self) {
        let mut inbox = Vec::with_capacity(COMMANDS_AT_ONCE);
        let mut alarm = Alarm::new();
        loop {
            self.carry_out().await;
            self.tell();
            if self.is_done() {
                return;
            }
            let wake = self.next_wake();
            tokio::select! {
                taken = self.commands.recv_many(&mut inbox, COMMANDS_AT_ONCE), if self.open => {
                    if taken == 0 {
                        self.abandon();
                    }
                    let now = Instant::now();
                    for command in inbox.drain(..) {
                        self.on_command(now, command);
                    }
                }
                Some(event) = self.io.next() => self.on_event(event),
                () = alarm.ring(wake) => {}
            }
            if std::mem::take(&mut self.expedited) {
                // Whoever is about to publish goes first, and shares the batch.
                tokio::task::yield_now().await;
            }
            self.report_written();
            self.on_time();
        }
    }

    /// Tells those who watch.
    fn tell(&mut self) {
        self.log_news();
        self.upcalls.counted(self.core.counters(), self.core.requests_in_flight());
        if std::mem::take(&mut self.brokers_changed) {
            self.upcalls.observed(Observation::Brokers(&self.core.broker_views()));
        }
    }

    /// Nobody can publish any more: what was accepted is still delivered, within its own time.
    fn abandon(&mut self) {
        self.open = false;
        let now = Instant::now();
        self.closing.get_or_insert_with(|| now + Duration::from_secs(60 * 60 * 24 * 365));
        self.lingering.hurry(now);
    }

    fn is_done(&self) -> bool {
        self.closing.is_some()
            && self.core.unsettled() == 0
            && self.lingering.is_empty()
            && self.commands.is_empty()
            && self.upcalls.is_idle()
    }

    fn next_wake(&self) -> Option<Instant> {
        [self.core.next_deadline(), self.lingering.next(), self.closing].into_iter().flatten().min()
    }

    fn on_command(&mut self, now: Instant, command: Command<T>) {
        match command {
            Command::WantTopic(name) => {
                self.core.want_topic(now, &name);
            }
            Command::WantProducerId => self.core.want_producer_id(),
            Command::Opened { partition, ordinal, deadline } => {
                let deadline = if self.closing.is_some() { now } else { deadline };
                self.lingering.opened(partition, ordinal, deadline);
            }
            Command::Sealed(submission) => {
                self.lingering.sealed(submission.partition, submission.ordinal);
                self.submit(now, submission);
            }
            Command::Expedite { partition, ordinal } => {
                self.lingering.awaited(partition, ordinal);
                self.expedite(now, partition);
            }
            Command::SealOpen => self.lingering.hurry(now),
            Command::Probe(probe) => self.check(probe),
            Command::Close { deadline } => {
                self.closing = Some(self.closing.map_or(deadline, |at| at.min(deadline)));
                self.lingering.hurry(now);
            }
        }
    }

    fn check(&mut self, probe: Probe) {
        let Probe { mut topics, progress, answer } = probe;
        topics.extend(self.core.ready_topics());
        topics.sort_unstable();
        topics.dedup();
        let (control, has_producer_id) = (self.control.clone(), self.core.has_producer_id());
        self.start(async move {
            // Whoever asked may have gone.
            let _ = answer.send(control.check(topics, has_producer_id, &progress).await);
            IoEvent::Probed
        });
    }

    fn submit(&mut self, now: Instant, submission: Submission<T>) {
        if let Err(submission) = self.core.on_sealed(now, submission) {
            // Partitions come from TopicReady, so there is none that the core does not know.
            tracing::error!(partition = ?submission.partition, "a batch for an unknown partition was dropped");
        }
    }

    /// Has a batch that somebody waits for leave, as soon as nothing of its partition is on its way.
    fn expedite(&mut self, now: Instant, partition: PartitionId) {
        let core = &self.core;
        self.expedited |= self.lingering.expedite(partition, now, |ordinal| core.is_free_for(partition, ordinal));
    }

    /// Seals what is due, a few batches at a time: answers are read in between.
    fn seal_due(&mut self, now: Instant, at_most: usize) {
        for _ in 0..at_most {
            let Some((partition, ordinal)) = self.lingering.pop_due(now) else { return };
            if let Some(submission) = self.upcalls.lingered(partition, ordinal) {
                self.submit(now, submission);
            }
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.seal_due(now, SEALED_AT_ONCE);
        if self.closing.is_some_and(|deadline| deadline <= now) {
            self.lingering.hurry(now);
            self.seal_due(now, usize::MAX);
            self.core.give_up_all(now, &Reason::Closed);
            // Somebody may still be sealing a batch: it is given up as it comes in.
            self.closing = Some(now + AFTER_CLOSE);
        }
    }

    /// Carries out all that the core wants done now.
    async fn carry_out(&mut self) {
        loop {
            // What the last action wrote has left, as far as the core may conclude anything from a timeout.
            self.report_written();
            let Some(action) = self.core.poll(Instant::now()) else { return };
            self.brokers_changed |= matches!(action, Action::Connect { .. } | Action::Disconnect { .. });
            match action {
                Action::Connect { conn, address } => self.connect(conn, address),
                Action::Disconnect { conn } => self.disconnect(conn),
                Action::Send { conn, request, parts } => self.send(conn, request, parts).await,
                Action::RefreshMetadata { topics } => {
                    let control = self.control.clone();
                    self.start(async move { IoEvent::Metadata(control.metadata(topics).await) });
                }
                Action::InitProducerId => {
                    let control = self.control.clone();
                    self.start(async move { IoEvent::ProducerId(control.producer_id().await) });
                }
                Action::Look(question) => {
                    let looker = self.looker();
                    self.start(async move {
                        let answer = looker.look(&question).await;
                        IoEvent::Looked(question.partition, question.look, answer)
                    });
                }
                Action::SearchLog(question) => {
                    let looker = self.looker();
                    self.start(async move {
                        let answer = looker.search(&question).await;
                        IoEvent::Searched(question.partition, question.look, answer)
                    });
                }
                Action::Settle(settlement) => {
                    let partition = settlement.partition;
                    // Whoever has a verdict finds it counted.
                    self.upcalls.counted(self.core.counters(), self.core.requests_in_flight());
                    self.upcalls.settled(settlement);
                    self.expedite(Instant::now(), partition);
                }
                Action::Correct { token, records, base_offset } => self.upcalls.corrected(token, records, base_offset),
                Action::TopicReady { topic, available } => self.announce(topic, available),
                Action::TopicFailed { topic, reason } => {
                    if let Some(name) = self.core.topic_name(topic) {
                        self.upcalls.topic_failed(topic, &name, &reason);
                    }
                }
            }
        }
    }

    fn looker(&self) -> Looker {
        Looker { dialer: self.dialer.clone(), timeout: self.control.timeout }
    }

    fn disconnect(&mut self, conn: ConnId) {
        if let Some(open) = self.links.remove(&conn) {
            open.link.cut();
        }
    }

    fn start(&mut self, io: impl Future<Output = IoEvent> + Send + 'static) {
        self.io.push(Box::pin(io));
    }

    fn connect(&mut self, conn: ConnId, address: BrokerAddress) {
        let dialer = self.dialer.clone();
        self.start(async move { IoEvent::Dialed(conn, dialer.dial(&address.host, address.port).await) });
    }

    async fn send(&mut self, conn: ConnId, request: RequestId, parts: Vec<ProducePart>) {
        let Some(open) = self.links.get_mut(&conn) else { return };
        open.unwritten.push_back(request);
        let link = open.link.clone();
        let timeout = self.produce_timeout;
        let mut io: IoFuture = Box::pin(async move {
            let (keys, since): (Vec<PartKey>, _) = (parts.iter().map(PartKey::of).collect(), Instant::now());
            let answer = link.produce(timeout, parts).await;
            let answer = answer.map(|Produced(response)| response.into_answer(&keys));
            IoEvent::Answered(conn, request, since, answer.map_err(|error| error.to_string()))
        });
        // The first poll queues the request on its connection: the order of polls is the order on the wire.
        match futures_util::poll!(&mut io) {
            std::task::Poll::Ready(event) => self.start(std::future::ready(event)),
            std::task::Poll::Pending => self.io.push(io),
        }
    }
}

/// The task was taken away with its runtime: whatever has no verdict yet is given up, so that nobody waits for ever and
/// nothing is forgotten.
impl<T, U> Drop for Driver<T, U>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    fn drop(&mut self) {
        self.upcalls.ending();
        // Who still has a batch in hand gets it back from here on.
        self.commands.close();
        let now = Instant::now();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Sealed(submission) => self.submit(now, submission),
                Command::Opened { partition, ordinal, .. } => self.lingering.opened(partition, ordinal, now),
                _ => {}
            }
        }
        self.lingering.hurry(now);
        self.seal_due(now, usize::MAX);
        // Whatever was handed to a connection may be on its way: nobody counts its bytes any more.
        for (conn, open) in &mut self.links {
            for request in open.unwritten.drain(..) {
                self.core.on_written(now, *conn, request);
            }
        }
        self.core.give_up_all(now, &Reason::Closed);
        while let Some(action) = self.core.poll(now) {
            match action {
                Action::Settle(settlement) => self.upcalls.settled(settlement),
                Action::Correct { token, records, base_offset } => self.upcalls.corrected(token, records, base_offset),
                _ => {}
            }
        }
    }
}

/// The one timer that is waited for. What is due later than before does not set it anew: it rings once in vain then, which
/// costs less than to set it, and wake the thread that waits for it, with every batch.
struct Alarm(Pin<Box<tokio::time::Sleep>>);

impl Alarm {
    fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(Duration::ZERO)))
    }

    /// Rings at `at`, or earlier. Cancel safe.
    async fn ring(&mut self, at: Option<Instant>) {
        let Some(at) = at.map(tokio::time::Instant::from) else { return std::future::pending().await };
        if at < self.0.deadline() || self.0.is_elapsed() {
            self.0.as_mut().reset(at);
        }
        self.0.as_mut().await;
    }
}

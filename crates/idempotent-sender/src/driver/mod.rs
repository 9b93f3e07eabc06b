//! The driver: one task that owns the core, its connections and its timers.
//!
//! Rules:
//! - The driver decides nothing. It passes inputs and the time to the core, and runs the core's actions in order.
//! - The requests of a connection are written in the order of the core's actions: each future is polled once, which
//!   queues its request, before the next future is created.
//! - The driver ends when it was closed, or when the command channel is closed, and each batch has a verdict.
//!
//! Imports: this parent imports `interface`, `io_event` and `lookups`, which never import it. `announcement`,
//! `events` and `outage_log` add methods to [`Driver`]: they import this parent, and it imports nothing from them.

mod announcement;
mod events;
mod interface;
mod io_event;
mod lookups;
mod outage_log;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use kafka_courier_batcher::LingerQueue;
use kafka_courier_client::connection::{BrokerConnection, Dialer, broker_timeout};
use kafka_courier_client::control::Control;
use kafka_courier_client::{BrokerAddress, PartitionId, ProducePart, Reason, TopicId};
use tokio::sync::mpsc;

pub use self::interface::{DriverCommand, DriverConfig, Observation, Probe, Upcalls};
use self::io_event::IoEvent;
use self::lookups::{LookupClient, wall_clock_ms};
use crate::core::{Action, ConfigError, ConnId, RequestId, Sender, Submission};

/// Commands per round, before the core is polled again.
const COMMANDS_PER_ROUND: usize = 256;
/// Batches that are sealed, and therefore compressed, before answers are read again.
const SEALS_PER_ROUND: usize = 8;
/// The interval between checks for batches that are still being sealed, after the deadline of a close.
const CLOSE_POLL_INTERVAL: Duration = Duration::from_millis(5);

type IoFuture = Pin<Box<dyn Future<Output = IoEvent> + Send>>;

struct OpenConnection {
    connection: Arc<BrokerConnection>,
    /// Requests that were queued on the connection and are not written completely.
    unwritten: VecDeque<RequestId>,
    /// Frames that were reported to the core as written, plus the frames of the connection's setup.
    reported: u64,
}

/// The state of a topic's announcement.
enum Announcement {
    /// The driver waits for the topic's limit. The flags are the available partitions.
    AwaitingLimit(Vec<bool>),
    Announced,
}

/// The driver's task. [`driver`] creates it, [`Driver::run`] runs it.
pub struct Driver<T, U>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    /// Dropped before the core. The core's last batches settle by being dropped.
    upcalls: U,
    core: Sender<T>,
    commands: mpsc::UnboundedReceiver<DriverCommand<T>>,
    linger: LingerQueue<PartitionId>,
    /// An awaited batch became due in this round.
    expedited: bool,
    /// Whether the command channel is open.
    open: bool,
    connections: HashMap<ConnId, OpenConnection>,
    topics: HashMap<TopicId, Announcement>,
    io: FuturesUnordered<IoFuture>,
    dialer: Dialer,
    control: Arc<Control>,
    produce_timeout: Duration,
    closing: Option<Instant>,
    /// Brokers or connections may have changed since the last report.
    brokers_changed: bool,
    /// The refusal of the client was logged, and no broker has accepted the client since.
    is_refused: bool,
}

/// Creates a driver and its command channel. The channel is unbounded: the memory of its batches is bounded already.
///
/// # Errors
///
/// Returns each setting that is out of bounds.
#[allow(clippy::type_complexity)]
pub fn driver<T, U>(
    config: DriverConfig,
    upcalls: U,
) -> Result<(mpsc::UnboundedSender<DriverCommand<T>>, Driver<T, U>), Vec<ConfigError>>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    let (sender, commands) = mpsc::unbounded_channel();
    let request_timeout = config.core.request_timeout;
    let dialer = Dialer::new(&config.client);
    let driver = Driver {
        core: Sender::new(config.core)?,
        upcalls,
        commands,
        linger: LingerQueue::default(),
        expedited: false,
        open: true,
        connections: HashMap::new(),
        topics: HashMap::new(),
        io: FuturesUnordered::new(),
        control: Arc::new(Control::new(&config.client, dialer.clone())),
        dialer,
        produce_timeout: broker_timeout(request_timeout),
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
    /// Runs until the driver was closed, or the command channel is closed, and each batch has a verdict.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping this future ends the driver. Each batch without a verdict fails with
    /// [`Reason::Closed`].
    pub async fn run(mut self) {
        let mut inbox = Vec::with_capacity(COMMANDS_PER_ROUND);
        let mut timer = WakeTimer::new();
        loop {
            self.run_actions().await;
            self.notify_observers();
            if self.is_done() {
                return;
            }
            let wake = self.next_wake();
            tokio::select! {
                received = self.commands.recv_many(&mut inbox, COMMANDS_PER_ROUND), if self.open => {
                    if received == 0 {
                        self.end_input();
                    }
                    let now = Instant::now();
                    for command in inbox.drain(..) {
                        self.handle_command(now, command);
                    }
                }
                Some(event) = self.io.next() => self.handle_event(event),
                () = timer.wait_until(wake) => {}
            }
            if std::mem::take(&mut self.expedited) {
                // A task that is about to publish runs first, and shares the batch.
                tokio::task::yield_now().await;
            }
            self.report_written();
            self.run_timers();
        }
    }

    /// Logs broker news, and passes counters and observations to the layer above.
    fn notify_observers(&mut self) {
        self.log_broker_news();
        self.upcalls.counted(self.core.counters(), self.core.requests_in_flight());
        if std::mem::take(&mut self.brokers_changed) {
            self.upcalls.observed(Observation::Brokers(&self.core.broker_views()));
        }
    }

    /// Handles a closed command channel. Accepted batches are still delivered within their own time.
    fn end_input(&mut self) {
        self.open = false;
        let now = Instant::now();
        self.closing.get_or_insert_with(|| now + Duration::from_secs(60 * 60 * 24 * 365));
        self.linger.make_all_due(now);
    }

    fn is_done(&self) -> bool {
        self.closing.is_some()
            && self.core.unsettled() == 0
            && self.linger.is_empty()
            && self.commands.is_empty()
            && self.upcalls.is_idle()
    }

    fn next_wake(&self) -> Option<Instant> {
        [self.core.next_deadline(), self.linger.next_due(), self.closing].into_iter().flatten().min()
    }

    fn handle_command(&mut self, now: Instant, command: DriverCommand<T>) {
        match command {
            DriverCommand::WantTopic(name) => {
                self.core.want_topic(now, &name);
            }
            DriverCommand::WantProducerId => self.core.want_producer_id(),
            DriverCommand::Opened { partition, ordinal, deadline } => {
                let deadline = if self.closing.is_some() { now } else { deadline };
                self.linger.opened(partition, ordinal, deadline);
            }
            DriverCommand::Sealed(submission) => {
                self.linger.sealed(submission.partition, submission.ordinal);
                self.submit(now, submission);
            }
            DriverCommand::Persisted { partition, id } => self.core.on_persisted(now, partition, id),
            DriverCommand::Expedite { partition, ordinal } => {
                self.linger.awaited(partition, ordinal);
                self.expedite(now, partition);
            }
            DriverCommand::SealOpen => self.linger.make_all_due(now),
            DriverCommand::Probe(probe) => self.start_health_check(probe),
            DriverCommand::Close { deadline } => {
                self.closing = Some(self.closing.map_or(deadline, |at| at.min(deadline)));
                self.linger.make_all_due(now);
            }
        }
    }

    fn start_health_check(&mut self, probe: Probe) {
        let Probe { mut topics, progress, answer } = probe;
        topics.extend(self.core.ready_topics());
        topics.sort_unstable();
        topics.dedup();
        let (control, has_producer_id) = (self.control.clone(), self.core.has_producer_id());
        self.spawn_io(async move {
            // The caller may have stopped waiting.
            let _ = answer.send(control.check(topics, has_producer_id, &progress).await);
            IoEvent::HealthChecked
        });
    }

    fn submit(&mut self, now: Instant, submission: Submission<T>) {
        if let Err(submission) = self.core.on_sealed(now, submission) {
            // Partitions come from TopicReady, so the core knows each of them.
            tracing::error!(partition = ?submission.partition, "batch dropped: unknown partition");
        }
    }

    /// Makes an awaited batch due, once no earlier batch of its partition is in flight.
    fn expedite(&mut self, now: Instant, partition: PartitionId) {
        let core = &self.core;
        self.expedited |= self.linger.expedite(partition, now, |ordinal| core.is_free_for(partition, ordinal));
    }

    /// Seals due batches, at most `at_most`: answers are read in between.
    fn seal_due(&mut self, now: Instant, at_most: usize) {
        for _ in 0..at_most {
            let Some((partition, ordinal)) = self.linger.pop_due(now) else { return };
            if let Some(submission) = self.upcalls.lingered(partition, ordinal) {
                self.submit(now, submission);
            }
        }
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        self.seal_due(now, SEALS_PER_ROUND);
        if self.closing.is_some_and(|deadline| deadline <= now) {
            self.linger.make_all_due(now);
            self.seal_due(now, usize::MAX);
            self.core.fail_all(now, &Reason::Closed);
            // A publisher may still be sealing a batch. The batch fails when it arrives.
            self.closing = Some(now + CLOSE_POLL_INTERVAL);
        }
    }

    /// Runs all actions that the core wants now.
    async fn run_actions(&mut self) {
        if self.core.needs_wall_clock() {
            self.core.set_wall_clock(Instant::now(), wall_clock_ms());
        }
        loop {
            // The core must know the frames that the last action wrote before it concludes anything from a timeout.
            self.report_written();
            let Some(action) = self.core.poll(Instant::now()) else { return };
            self.brokers_changed |= matches!(action, Action::Connect { .. } | Action::Disconnect { .. });
            match action {
                Action::Connect { conn, address } => self.connect(conn, address),
                Action::Disconnect { conn } => self.disconnect(conn),
                Action::Send { conn, request, parts } => self.send(conn, request, parts).await,
                Action::RefreshMetadata { topics } => {
                    let control = self.control.clone();
                    self.spawn_io(async move { IoEvent::Metadata(control.metadata(topics).await) });
                }
                Action::InitProducerId => {
                    let control = self.control.clone();
                    self.spawn_io(async move { IoEvent::ProducerId(control.producer_id().await) });
                }
                Action::LookUpState(question) => {
                    let lookup_client = self.lookup_client();
                    self.spawn_io(async move {
                        let answer = lookup_client.look_up(&question).await;
                        IoEvent::Looked(question.partition, question.look, answer)
                    });
                }
                Action::SearchLog(question) => {
                    let lookup_client = self.lookup_client();
                    self.spawn_io(async move {
                        let answer = lookup_client.search(&question).await;
                        IoEvent::Searched(question.partition, question.look, answer)
                    });
                }
                Action::Persist(stamps) => self.upcalls.persist(stamps),
                Action::More(partition) => self.upcalls.needs_more(partition),
                Action::PersistLeader(leader) => self.upcalls.persist_leader(leader),
                Action::Waits { partition, reason } => {
                    if let Some(name) = self.core.topic_name(partition.topic) {
                        self.upcalls.waits(partition, &name, &reason);
                    }
                }
                Action::Settle(settlement) => {
                    let partition = settlement.partition;
                    // A caller that sees the verdict also sees it counted.
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

    fn lookup_client(&self) -> LookupClient {
        LookupClient { dialer: self.dialer.clone(), timeout: self.control.request_timeout() }
    }

    fn disconnect(&mut self, conn: ConnId) {
        if let Some(open) = self.connections.remove(&conn) {
            open.connection.cut();
        }
    }

    fn spawn_io(&mut self, io: impl Future<Output = IoEvent> + Send + 'static) {
        self.io.push(Box::pin(io));
    }

    fn connect(&mut self, conn: ConnId, address: BrokerAddress) {
        let dialer = self.dialer.clone();
        self.spawn_io(async move { IoEvent::Dialed(conn, dialer.dial(&address.host, address.port).await) });
    }

    async fn send(&mut self, conn: ConnId, request: RequestId, parts: Vec<ProducePart>) {
        let Some(open) = self.connections.get_mut(&conn) else { return };
        open.unwritten.push_back(request);
        let connection = open.connection.clone();
        let timeout = self.produce_timeout;
        let mut io: IoFuture = Box::pin(async move {
            let since = Instant::now();
            let answer = connection.produce(timeout, parts).await;
            IoEvent::Answered(conn, request, since, answer)
        });
        // The first poll queues the request on its connection. The order of polls is the order on the wire.
        match futures_util::poll!(&mut io) {
            std::task::Poll::Ready(event) => self.spawn_io(std::future::ready(event)),
            std::task::Poll::Pending => self.io.push(io),
        }
    }
}

/// Settles each batch that has no verdict when the runtime drops the task. No caller waits indefinitely, and no
/// record is forgotten.
impl<T, U> Drop for Driver<T, U>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    fn drop(&mut self) {
        self.upcalls.ending();
        // A publisher with a sealed batch gets the batch back after this call.
        self.commands.close();
        let now = Instant::now();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                DriverCommand::Sealed(submission) => self.submit(now, submission),
                DriverCommand::Opened { partition, ordinal, .. } => self.linger.opened(partition, ordinal, now),
                _ => {}
            }
        }
        self.linger.make_all_due(now);
        self.seal_due(now, usize::MAX);
        // A queued request may be on the wire: nothing counts its bytes from here on.
        for (conn, open) in &mut self.connections {
            for request in open.unwritten.drain(..) {
                self.core.on_written(now, *conn, request);
            }
        }
        self.core.fail_all(now, &Reason::Closed);
        while let Some(action) = self.core.poll(now) {
            match action {
                Action::Settle(settlement) => self.upcalls.settled(settlement),
                Action::Correct { token, records, base_offset } => self.upcalls.corrected(token, records, base_offset),
                _ => {}
            }
        }
    }
}

/// The driver's single timer. A later deadline does not reset the timer: it then fires once too early, which is
/// cheaper than a reset, and a wake of the timer's thread, with each batch.
struct WakeTimer(Pin<Box<tokio::time::Sleep>>);

impl WakeTimer {
    fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(Duration::ZERO)))
    }

    /// Waits until `at`, or returns earlier. Cancel safe.
    async fn wait_until(&mut self, at: Option<Instant>) {
        let Some(at) = at.map(tokio::time::Instant::from) else { return std::future::pending().await };
        if at < self.0.deadline() || self.0.is_elapsed() {
            self.0.as_mut().reset(at);
        }
        self.0.as_mut().await;
    }
}

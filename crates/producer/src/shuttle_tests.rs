//! Concurrency tests under shuttle: passing batches to the sender, waking deliveries, memory, close during publish.
//!
//! The tests run the shipped modules through thousands of random schedules. A failing schedule prints how to replay it.
//! Run with `RUSTFLAGS='--cfg shuttle' cargo test -p kafka-courier-producer --lib shuttle`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_batcher::{Compression, Limits, Record};
use kafka_courier_client::{Reason, TopicId};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, RecordSet, Settlement, Submission, Verdict};
use kafka_courier_idempotent_sender::driver::{DriverCommand, Upcalls};
use shuttle::{future::block_on, thread};
use tokio::sync::mpsc;

use crate::callbacks::Callbacks;
use crate::delivery::{Delivery, Token};
use crate::failure_sink::{FailureSink, Landed, Undelivered};
use crate::intake::{Intake, Refused};
use crate::ledger::BatchLedger;
use crate::memory::{Memory, MemoryShare};
use crate::shared::Shared;
use crate::stats::Stats;
use crate::sync::Ordering;
use crate::trace::SpanOrigin;

const SCHEDULES: usize = 5_000;

/// Passes failed records to a test.
#[derive(Debug)]
struct TestSink(std::sync::mpsc::Sender<Undelivered>);

impl FailureSink for TestSink {
    fn undelivered(&self, undelivered: Undelivered) {
        self.0.send(undelivered).unwrap();
    }

    fn landed(&self, _: Landed) {}

    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

fn check(test: impl Fn() + Send + Sync + 'static) {
    let test = Arc::new(test);
    let again = test.clone();
    shuttle::check_random(move || test(), SCHEDULES);
    shuttle::check_pct(move || again(), SCHEDULES, 3);
}

fn delivered() -> Verdict {
    Verdict::Delivered { base_offset: Some(0), log_append_time: None }
}

#[test]
fn shuttle_verdict_wakes_every_waiter() {
    check(|| {
        let token = Token::new("t", 0, &Arc::default(), &SpanOrigin::default());
        token.state().set_record_count(2);
        let waiters: Vec<_> = (0..2)
            .map(|index| {
                let delivery = Delivery::new(token.state().clone(), index, 0);
                thread::spawn(move || block_on(delivery).unwrap())
            })
            .collect();
        token.state().settle(RecordSet::Range(0..1), delivered());
        token.state().settle(RecordSet::Range(1..2), delivered());
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn shuttle_abandoned_batch_wakes_every_waiter() {
    check(|| {
        let token = Token::new("t", 0, &Arc::default(), &SpanOrigin::default());
        token.state().set_record_count(1);
        let delivery = Delivery::new(token.state().clone(), 0, 0);
        let waiter = thread::spawn(move || block_on(delivery).unwrap_err());
        let other = token.clone();
        let owner = thread::spawn(move || drop(other));
        drop(token);
        owner.join().unwrap();
        waiter.join().unwrap();
    });
}

#[test]
fn shuttle_released_memory_is_reserved_once() {
    check(|| {
        let memory = Arc::new(Memory::new(100));
        assert!(memory.reserve(100, MemoryShare::Within));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let memory = memory.clone();
                thread::spawn(move || {
                    while !memory.reserve(60, MemoryShare::Within) {
                        block_on(memory.room_for(60, MemoryShare::Within));
                    }
                    assert!(memory.used() <= 100);
                    memory.release(60);
                })
            })
            .collect();
        memory.release(50);
        memory.release(50);
        for taker in takers {
            taker.join().unwrap();
        }
        assert_eq!(memory.used(), 0);
    });
}

#[test]
fn shuttle_flush_waits_for_earlier_batches() {
    check(|| {
        let ledger = Arc::new(BatchLedger::default());
        let (a, b) = (ledger.enter(), ledger.enter());
        let strikers: Vec<_> = [a, b]
            .map(|number| {
                let ledger = ledger.clone();
                thread::spawn(move || ledger.remove(number))
            })
            .into();
        block_on(ledger.wait_until_settled());
        for striker in strikers {
            striker.join().unwrap();
        }
    });
}

/// Returns the publishing half of a producer with one topic of one partition and batches of two records, and the
/// callbacks of its task. No task runs.
fn intake() -> (Arc<Intake>, mpsc::UnboundedReceiver<DriverCommand<Token>>, Callbacks) {
    intake_with(None)
}

fn intake_with(
    sink: Option<Arc<dyn FailureSink>>,
) -> (Arc<Intake>, mpsc::UnboundedReceiver<DriverCommand<Token>>, Callbacks) {
    let limits = Limits { max_records: 2, max_bytes: 1000, linger: Duration::from_secs(1) };
    let shared = Arc::new(Shared::new(limits, Compression::None, 1 << 20));
    let mut task = Callbacks { shared: shared.clone(), sink: sink.clone(), meter: None, topic_news: None };
    task.topic_ready(TopicId(0), &"t".into(), &[true]);
    let (commands, received) = mpsc::unbounded_channel();
    (Arc::new(Intake { shared, commands, sink, expedite: true }), received, task)
}

fn offer(intake: &Intake) -> bool {
    let record = Record { key: None, value: Some(b"v"), headers: &[], timestamp: 0 };
    let topic = intake.shared.topics.get_or_add("t");
    match intake.offer(&topic, None, &record) {
        Ok(delivery) => {
            delivery.detach();
            true
        }
        Err(Refused::Error(_)) => false,
        Err(_) => panic!("topic and memory are available"),
    }
}

#[test]
fn shuttle_close_follows_every_opened_batch() {
    check(|| {
        let (intake, mut received, _task) = intake();
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let intake = intake.clone();
                thread::spawn(move || (0..2).filter(|_| offer(&intake)).count())
            })
            .collect();
        intake.shared.closed.store(true, Ordering::SeqCst);
        for slot in intake.shared.topics.all_slots() {
            drop(slot.accumulator.lock());
        }
        intake.send_command(DriverCommand::Close { deadline: std::time::Instant::now() });
        let accepted: usize = publishers.into_iter().map(|publisher| publisher.join().unwrap()).sum();
        let (mut opened, mut sealed, mut closed) = (0, 0, false);
        while let Ok(command) = received.try_recv() {
            match command {
                DriverCommand::Opened { .. } => {
                    assert!(!closed, "a batch was opened after close");
                    opened += 1;
                }
                DriverCommand::Sealed(submission) => sealed += submission.batch.record_count() as usize,
                DriverCommand::Close { .. } => closed = true,
                _ => {}
            }
        }
        // Records that are not sealed are in an open batch, and the task knows of that batch.
        assert!(opened > 0 || accepted == 0);
        assert!(sealed <= accepted && accepted - sealed < 2);
    });
}

/// Ends the callbacks as the sender's task does when its runtime is dropped.
fn end_task(mut task: Callbacks, mut received: mpsc::UnboundedReceiver<DriverCommand<Token>>) {
    task.ending();
    received.close();
    let mut opened = Vec::new();
    while let Ok(command) = received.try_recv() {
        match command {
            DriverCommand::Sealed(submission) => settle_as_failed(&mut task, submission),
            DriverCommand::Opened { partition, ordinal, .. } => opened.push((partition, ordinal)),
            _ => {}
        }
    }
    for (partition, ordinal) in opened {
        if let Some(submission) = task.lingered(partition, ordinal) {
            settle_as_failed(&mut task, submission);
        }
    }
}

fn settle_as_failed(task: &mut Callbacks, submission: Submission<Token>) {
    let Submission { token, partition, published_at, batch, .. } = submission;
    let failure = Failure::untried(FailedOutcome::NotWritten, Reason::Closed);
    task.settled(Settlement {
        token,
        partition,
        records: RecordSet::Range(0..batch.record_count()),
        verdict: Verdict::Failed(Arc::new(failure)),
        published_at,
        first_attempt: None,
        charge: batch.capacity(),
        batch: Arc::new(batch),
    });
}

#[test]
fn shuttle_ending_task_fails_accepted_event() {
    check(|| {
        let (failed, taken) = std::sync::mpsc::channel();
        let (intake, received, task) = intake_with(Some(Arc::new(TestSink(failed))));
        let publisher = thread::spawn({
            let intake = intake.clone();
            move || {
                let record = Record { key: None, value: Some(b"v"), headers: &[], timestamp: 0 };
                let topic = intake.shared.topics.get_or_add("t");
                intake.offer(&topic, None, &record).ok()
            }
        });
        end_task(task, received);
        let accepted = publisher.join().unwrap();
        let mut failures = 0;
        while let Ok(failed) = taken.try_recv() {
            failures += failed.records().len();
            failed.settle(|| ());
        }
        assert_eq!(failures, u32::from(accepted.is_some()), "each accepted event fails once");
        if let Some(delivery) = accepted {
            assert!(delivery.now().is_some_and(|verdict| verdict.is_err()));
        }
        assert!(intake.shared.ledger.is_decided());
        let stats = Stats::of(&intake.shared);
        assert_eq!((stats.accepted, stats.failed, stats.in_flight), (failures.into(), failures.into(), 0));
    });
}

#[test]
fn shuttle_concurrent_batches_are_full() {
    check(|| {
        let (intake, mut received, _task) = intake();
        let publishers: Vec<_> = (0..3)
            .map(|_| {
                let intake = intake.clone();
                thread::spawn(move || (0..2).filter(|_| offer(&intake)).count())
            })
            .collect();
        let accepted: usize = publishers.into_iter().map(|publisher| publisher.join().unwrap()).sum();
        assert_eq!(accepted, 6);
        let mut ordinals = Vec::new();
        while let Ok(command) = received.try_recv() {
            if let DriverCommand::Sealed(submission) = command {
                assert_eq!(submission.batch.record_count(), 2);
                ordinals.push(submission.ordinal);
            }
        }
        ordinals.sort_unstable();
        assert_eq!(ordinals, [0, 1, 2]);
    });
}

#[test]
fn shuttle_first_poll_expedites_once() {
    check(|| {
        let (intake, mut received, _task) = intake();
        let record = Record { key: None, value: Some(b"v"), headers: &[], timestamp: 0 };
        let delivery = intake.offer(&intake.shared.topics.get_or_add("t"), None, &record).ok().unwrap();
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let delivery = delivery.clone();
                thread::spawn(move || assert!(block_on(polled_once(delivery)).is_none()))
            })
            .collect();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        let mut expedited = 0;
        while let Ok(command) = received.try_recv() {
            expedited += usize::from(matches!(command, DriverCommand::Expedite { ordinal: 0, .. }));
        }
        assert_eq!(expedited, 1);
    });
}

/// Polls a future once.
async fn polled_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match Pin::new(&mut future).poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

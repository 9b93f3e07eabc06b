//! The scene of the dead letters: the brokers reject events, which become dead letters, and a replay delivers them.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::ensure;
use console::Term;
use indicatif::HumanCount;
use kafka_courier::dlq::Selection;
use kafka_courier::{KafkaProducer, Replay, headers};
use kafka_courier_event_model::Event;
use kafka_courier_test_broker::TestCluster;

use super::ledger::EventVerdict;
use super::{Stage, publish};
use crate::dlq::{LetterRow, LetterTable};

/// The event type that the brokers reject.
const REJECTED: &str = "system.alert";
/// Dead letters that are shown.
const SHOWN: usize = 3;

/// Publishes events of which the brokers reject some, shows the dead letters, and replays them once the brokers accept them.
pub(super) async fn reject_and_replay(
    stage: &Stage,
    cluster: &TestCluster,
    producer: &KafkaProducer,
    events: impl Iterator<Item = Box<dyn Event>>,
    receipts: &mut Vec<EventVerdict>,
) -> anyhow::Result<()> {
    let before = receipts.len();
    cluster.reject_records(|record| {
        (record.header(headers::EVENT_TYPE) == Some(REJECTED.as_bytes())).then(|| "no alerts today".to_owned())
    });
    publish(stage, producer, "the brokers reject alerts", events, receipts).await?;
    let letters = producer.dead_letters();
    stage.print_line(format_args!(
        "{:>8} dead letters, as in `courier dlq list`:",
        HumanCount(letters.len()).to_string()
    ));
    show(stage, &letters.list(&Selection::all(), SHOWN).await?);

    cluster.accept_records();
    let begun = Instant::now();
    let report = producer.replay(&Replay::default(), |_| ControlFlow::Continue(())).await?;
    stage.print_line(format_args!(
        "{:>8} dead letters, {} delivered, {} left, {:>4} ms: the brokers accept alerts, as in `courier dlq replay --all`",
        HumanCount(report.selected).to_string(),
        HumanCount(report.delivered),
        HumanCount(letters.len()),
        begun.elapsed().as_millis()
    ));
    let left = letters.list(&Selection::all(), usize::MAX).await?;
    let is_left = |id: &str| left.iter().any(|held| held.letter.event_id.as_deref() == Some(id));
    let mut failed = 0;
    for receipt in receipts[before..].iter_mut().filter(|receipt| receipt.result.is_err()) {
        receipt.replayed = !is_left(&receipt.id);
        failed += 1;
    }
    ensure!(
        report.delivered == failed,
        "{failed} events failed, but the replay delivered {} dead letters",
        report.delivered
    );
    Ok(())
}

fn show(stage: &Stage, held: &[kafka_courier::dlq::Held]) {
    let rows: Vec<LetterRow> = held.iter().map(|held| LetterRow::of(&held.letter)).collect();
    if rows.is_empty() {
        return;
    }
    let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns).saturating_sub(9));
    let table = LetterTable::fit(&rows, width);
    stage.print_line(format_args!("         {}", table.title()));
    for row in &rows {
        stage.print_line(format_args!("         {}", table.line(row)));
    }
}

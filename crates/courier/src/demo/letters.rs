//! The act of the dead letters: events that the brokers refuse, their letters, and the same events delivered in the end.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::ensure;
use console::Term;
use indicatif::HumanCount;
use kafka_courier::dlq::Selection;
use kafka_courier::{KafkaProducer, Replay, headers};
use kafka_courier_event_model::Event;
use kafka_courier_test_broker::TestCluster;

use super::ledger::Receipt;
use super::{Stage, publish};
use crate::dlq::{Row, Table};

/// What the brokers refuse.
const REFUSED: &str = "system.alert";
/// Letters that are shown.
const SHOWN: usize = 3;

/// Publishes events of which some are refused, shows their letters, and sends them again once the brokers take them.
pub(super) async fn refused_and_sent_again(
    stage: &Stage,
    cluster: &TestCluster,
    producer: &KafkaProducer,
    events: impl Iterator<Item = Box<dyn Event>>,
    receipts: &mut Vec<Receipt>,
) -> anyhow::Result<()> {
    let before = receipts.len();
    cluster.reject_records(|record| {
        (record.header(headers::EVENT_TYPE) == Some(REFUSED.as_bytes())).then(|| "no alerts today".to_owned())
    });
    publish(stage, producer, "the brokers refuse alerts for good", events, receipts).await?;
    let letters = producer.dead_letters();
    stage
        .tell(format_args!("{:>8} dead letters: `courier dlq list` would show", HumanCount(letters.len()).to_string()));
    show(stage, &letters.list(&Selection::all(), SHOWN).await?);

    cluster.accept_records();
    let begun = Instant::now();
    let report = producer.replay(&Replay::default(), |_| ControlFlow::Continue(())).await?;
    stage.tell(format_args!(
        "{:>8} letters, {} delivered, {} left, {:>4} ms: the brokers take alerts again, `courier dlq replay --all`",
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
    ensure!(report.delivered == failed, "{failed} events failed, and {} letters were delivered", report.delivered);
    Ok(())
}

fn show(stage: &Stage, held: &[kafka_courier::dlq::Held]) {
    let rows: Vec<Row> = held.iter().map(|held| Row::of(&held.letter)).collect();
    if rows.is_empty() {
        return;
    }
    let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns).saturating_sub(9));
    let table = Table::fit(&rows, width);
    stage.tell(format_args!("         {}", table.title()));
    for row in &rows {
        stage.tell(format_args!("         {}", table.line(row)));
    }
}

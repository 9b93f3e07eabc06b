//! Dead letters that are sent again unasked.
//!
//! Rules: only while the cluster answers, only letters that are certainly not in the log and whose cause passes, at a
//! bounded rate; it never keeps a producer alive.

use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use kafka_courier_dlq::Selection;

use super::Replay;
use crate::config::KafkaConfig;
use crate::producer::{Inner, KafkaProducer};

/// How long the cluster may take to prove its health.
const HEALTH: Duration = Duration::from_secs(5);

impl KafkaProducer {
    /// Starts sending letters again whenever that is due.
    pub(crate) fn replay_unasked(&self, config: &KafkaConfig) {
        let replay = Replay {
            // Those that may be in the log are left out, but for those that an interrupted replay had in hand.
            selection: Selection { retriable: Some(true), ..Selection::all() },
            rate: NonZeroU32::new(config.auto_replay_rate),
            ..Replay::default()
        };
        let inner = Arc::downgrade(&self.inner);
        let mut finished = self.inner.finished.clone();
        let interval = config.auto_replay_interval;
        tokio::spawn(async move {
            let rounds = async {
                loop {
                    tokio::time::sleep(interval).await;
                    if !round(&inner, &replay).await {
                        return;
                    }
                }
            };
            tokio::select! {
                () = rounds => {}
                _ = finished.wait_for(|done| *done) => {}
            }
        });
    }
}

/// Sends again what is there, if the cluster is well. Returns whether the producer still lives.
async fn round(inner: &Weak<Inner>, replay: &Replay) -> bool {
    let Some(inner) = inner.upgrade() else { return false };
    let producer = KafkaProducer { inner };
    if producer.dead_letters().is_empty() || producer.health_check(HEALTH).await.is_err() {
        return true;
    }
    match producer.replay(replay, |_| ControlFlow::Continue(())).await {
        Ok(report) if report.delivered + report.failed + report.landed > 0 => tracing::info!(
            delivered = report.delivered,
            landed = report.landed,
            failed = report.failed,
            held_back = report.held_back,
            "dead letters were sent again"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "dead letters could not be sent again"),
    }
    true
}

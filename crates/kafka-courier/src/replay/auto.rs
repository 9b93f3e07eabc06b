//! Replays dead letters automatically.
//!
//! Rules:
//! - A replay runs only while the cluster answers, at a bounded rate.
//! - Only retriable letters that are certainly not in the log are sent.
//! - The task never keeps a producer alive.

use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use kafka_courier_dlq::Selection;

use super::Replay;
use crate::config::KafkaConfig;
use crate::producer::{Inner, KafkaProducer};

/// Timeout of the health check that precedes a replay.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

impl KafkaProducer {
    /// Starts the task that replays letters at the configured interval.
    pub(crate) fn replay_automatically(&self, config: &KafkaConfig) {
        let replay = Replay {
            // Letters that may be in the log are left out, except letters of an unfinished replay.
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
                    if !replay_once(&inner, &replay).await {
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

/// Replays the present letters if the cluster is healthy. Returns whether the producer still exists.
async fn replay_once(inner: &Weak<Inner>, replay: &Replay) -> bool {
    let Some(inner) = inner.upgrade() else { return false };
    let producer = KafkaProducer { inner };
    if producer.dead_letters().is_empty() || producer.health_check(HEALTH_TIMEOUT).await.is_err() {
        return true;
    }
    match producer.replay(replay, |_| ControlFlow::Continue(())).await {
        Ok(report) if report.delivered + report.failed + report.landed > 0 => tracing::info!(
            delivered = report.delivered,
            landed = report.landed,
            failed = report.failed,
            held_back = report.held_back,
            "dead letters replayed"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "replay of dead letters failed"),
    }
    true
}

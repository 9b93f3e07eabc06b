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

use crate::recovery::Recovery;
use crate::replay::Replay;

/// Timeout of the health check that precedes a replay.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of automatic replays.
#[derive(Clone, Copy, Debug)]
pub struct AutoReplay {
    /// The time between two replays.
    pub interval: Duration,
    /// Most letters a second. `None` for no limit.
    pub rate: Option<NonZeroU32>,
}

impl AutoReplay {
    /// Starts the task that replays the letters of `recovery` on the current tokio runtime. The task ends with the engine.
    pub fn start(self, recovery: &Arc<Recovery>) {
        let replay = Replay {
            // Letters that may be in the log are left out, except letters of an unfinished replay.
            selection: Selection { retriable: Some(true), ..Selection::all() },
            rate: self.rate,
            ..Replay::default()
        };
        let finished = recovery.engine().finished();
        let recovery = Arc::downgrade(recovery);
        tokio::spawn(async move {
            let rounds = async {
                loop {
                    tokio::time::sleep(self.interval).await;
                    if !replay_once(&recovery, &replay).await {
                        return;
                    }
                }
            };
            tokio::select! {
                () = rounds => {}
                () = finished => {}
            }
        });
    }
}

/// Replays the present letters if the cluster is healthy. Returns whether the producer still exists.
async fn replay_once(recovery: &Weak<Recovery>, replay: &Replay) -> bool {
    let Some(recovery) = recovery.upgrade() else { return false };
    if recovery.letters().is_empty() || recovery.engine().health_check(HEALTH_TIMEOUT).await.is_err() {
        return true;
    }
    match recovery.replay(replay, |_| ControlFlow::Continue(())).await {
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

//! Faults of a three-broker cluster under traffic.
//!
//! Rules:
//! - After each fault all brokers run again.
//! - The duration of a fault depends on the number of records that are acknowledged meanwhile.
use anyhow::Result;

use crate::cluster::Cluster;

/// The number of records that must be acknowledged between two steps of a fault.
pub const RECORDS_PER_STEP: u64 = 500;

/// Traffic whose acknowledgements a fault can wait for.
pub trait AcknowledgedTraffic {
    /// Waits until `count` more records are acknowledged.
    ///
    /// # Errors
    /// Fails if that takes more than a minute.
    fn wait_for_acknowledgements(&self, count: u64) -> impl Future<Output = Result<()>>;
}

/// A fault of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterFault {
    /// The leader of a partition is killed (SIGKILL) and started again.
    KillLeader,
    /// The leader of a partition is paused (SIGSTOP) and resumed.
    PauseLeader,
    /// All brokers are shut down and restarted, one after the other.
    RollingRestart,
    /// The proxies cut all connections of clients, ten times.
    CutConnections,
    /// Each broker applies Produce requests, and the proxy drops their answers.
    LoseAnswers,
}

impl ClusterFault {
    /// All faults.
    pub const ALL: [Self; 5] =
        [Self::KillLeader, Self::PauseLeader, Self::RollingRestart, Self::CutConnections, Self::LoseAnswers];

    /// Returns the arguments that `kafka up` needs for this fault.
    #[must_use]
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::CutConnections | Self::LoseAnswers => &["--proxied"],
            Self::KillLeader | Self::PauseLeader | Self::RollingRestart => &[],
        }
    }

    /// Applies the fault and removes it again.
    ///
    /// # Errors
    /// Fails if a command to the cluster fails, or if acknowledgements stop for a minute.
    pub async fn apply(self, cluster: &Cluster, topic: &str, traffic: &impl AcknowledgedTraffic) -> Result<()> {
        match self {
            Self::KillLeader => {
                let leader = cluster.leader(topic, 0)?;
                cluster.kill(leader)?;
                traffic.wait_for_acknowledgements(RECORDS_PER_STEP).await?;
                cluster.restart(leader)
            }
            Self::PauseLeader => {
                let leader = cluster.leader(topic, 0)?;
                cluster.pause(leader)?;
                traffic.wait_for_acknowledgements(3 * RECORDS_PER_STEP).await?;
                cluster.resume(leader)
            }
            Self::RollingRestart => {
                for broker in 1..=3 {
                    cluster.stop(broker)?;
                    cluster.restart(broker)?;
                    traffic.wait_for_acknowledgements(RECORDS_PER_STEP / 2).await?;
                }
                Ok(())
            }
            Self::CutConnections => {
                for _ in 0..10 {
                    cluster.fault(&["cut"])?;
                    traffic.wait_for_acknowledgements(RECORDS_PER_STEP / 10).await?;
                }
                Ok(())
            }
            Self::LoseAnswers => {
                for broker in ["1", "2", "3"] {
                    cluster.fault(&[broker, "drop_response=3", "api=0"])?;
                    traffic.wait_for_acknowledgements(RECORDS_PER_STEP / 2).await?;
                }
                cluster.fault(&["clear"])
            }
        }
    }
}

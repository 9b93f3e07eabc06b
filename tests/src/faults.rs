//! What is done to a cluster of three while traffic flows.
//!
//! Rules: each fault ends with everything running again; how long it lasts goes by what was acknowledged meanwhile.
use anyhow::Result;

use crate::cluster::Cluster;

/// Records that have to be acknowledged between one step of a fault and the next.
pub const FLOW: u64 = 500;

/// Traffic that can be waited for.
pub trait Flow {
    /// Waits until `count` more records are acknowledged than are now.
    ///
    /// # Errors
    /// When they are not within a minute.
    fn flows(&self, count: u64) -> impl Future<Output = Result<()>>;
}

/// One way to break a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// SIGKILL to the leader of a partition, which is started again later.
    KillLeader,
    /// SIGSTOP to the leader of a partition, which is continued later.
    PauseLeader,
    /// All brokers are restarted in order, one after the other.
    RollingRestart,
    /// All clients' connections are cut, again and again.
    CutConnections,
    /// Produce requests are applied and their answers lost, on each broker.
    LoseAnswers,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::KillLeader, Self::PauseLeader, Self::RollingRestart, Self::CutConnections, Self::LoseAnswers];

    /// What `kafka up` has to be told for it.
    #[must_use]
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::CutConnections | Self::LoseAnswers => &["--proxied"],
            Self::KillLeader | Self::PauseLeader | Self::RollingRestart => &[],
        }
    }

    /// Breaks the cluster and makes it whole again.
    ///
    /// # Errors
    /// When the cluster does not do as it is told, or traffic stops for good.
    pub async fn strike(self, cluster: &Cluster, topic: &str, traffic: &impl Flow) -> Result<()> {
        match self {
            Self::KillLeader => {
                let leader = cluster.leader(topic, 0)?;
                cluster.kill(leader)?;
                traffic.flows(FLOW).await?;
                cluster.restart(leader)
            }
            Self::PauseLeader => {
                let leader = cluster.leader(topic, 0)?;
                cluster.pause(leader)?;
                traffic.flows(3 * FLOW).await?;
                cluster.resume(leader)
            }
            Self::RollingRestart => {
                for broker in 1..=3 {
                    cluster.stop(broker)?;
                    cluster.restart(broker)?;
                    traffic.flows(FLOW / 2).await?;
                }
                Ok(())
            }
            Self::CutConnections => {
                for _ in 0..10 {
                    cluster.fault(&["cut"])?;
                    traffic.flows(FLOW / 10).await?;
                }
                Ok(())
            }
            Self::LoseAnswers => {
                for broker in ["1", "2", "3"] {
                    cluster.fault(&[broker, "drop_response=3", "api=0"])?;
                    traffic.flows(FLOW / 2).await?;
                }
                cluster.fault(&["clear"])
            }
        }
    }
}

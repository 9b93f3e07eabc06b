//! Brokers that are killed, hung and started again between the lives of a process.
//!
//! Rule: at most one of three brokers is away at a time.
use anyhow::Result;
use kafka_courier_tests::cluster::Cluster;

/// Splitmix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// The broker that is away.
#[derive(Default)]
pub(crate) struct BrokerFaults {
    paused: Option<u32>,
    dead: Option<u32>,
}

impl BrokerFaults {
    /// Changes the brokers before a life. Of sixteen lives, two begin with a kill, two with a pause.
    pub(crate) fn before_life(&mut self, cluster: &Cluster, life: u64, rng: &mut Rng) -> Result<()> {
        if let Some(broker) = self.paused.take() {
            cluster.resume(broker)?;
        }
        if life % 8 == 7
            && let Some(broker) = self.dead.take()
        {
            cluster.restart(broker)?;
        }
        let broker = 1 + u32::try_from(rng.below(3))?;
        match life % 16 {
            3 | 11 if self.dead.is_none() => {
                cluster.kill(broker)?;
                self.dead = Some(broker);
            }
            5 | 13 if self.dead.is_none() => {
                cluster.pause(broker)?;
                self.paused = Some(broker);
            }
            _ => {}
        }
        Ok(())
    }

    /// Lets all brokers run.
    pub(crate) fn end(self, cluster: &Cluster) -> Result<()> {
        self.paused.map(|broker| cluster.resume(broker)).transpose()?;
        self.dead.map(|broker| cluster.restart(broker)).transpose()?;
        Ok(())
    }
}

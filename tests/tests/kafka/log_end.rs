//! The questions to a partition's leader, checked on real brokers: the end of its log behind the high watermark, and the
//! rights that each question needs.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kafka_courier_batcher::Stamp;
use kafka_courier_client::config::ClientConfig;
use kafka_courier_client::connection::Dialer;
use kafka_courier_client::leader_connection::{LATEST, LeaderConnection, LeaderError};
use kafka_courier_client::security::{ConnectionSecurity, SaslSettings};
use kafka_courier_client::{BrokerAddress, BrokerId};
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::raw::{ProduceAnswer, RawConnection};

use crate::security::{AUTHORIZER, TOPIC as SECURED, change_acl};

const TOPIC: &str = "log-end";
const PATIENCE: Duration = Duration::from_secs(10);

fn dialer(security: ConnectionSecurity) -> Dialer {
    Dialer::new(&ClientConfig {
        bootstrap: Vec::new(),
        client_id: "log-end".into(),
        connect_timeout: PATIENCE,
        request_timeout: PATIENCE,
        retry_backoff: Duration::from_millis(100),
        retry_backoff_max: Duration::from_secs(1),
        security,
        default_broker: None,
    })
}

fn address(cluster: &Cluster, broker: u32) -> Result<BrokerAddress> {
    let address = cluster.bootstrap().split(',').nth(usize::try_from(broker)? - 1);
    let (host, port) = address.and_then(|address| address.rsplit_once(':')).context("no such broker")?;
    Ok(BrokerAddress { id: BrokerId(i32::try_from(broker)?), host: host.into(), port: port.parse()? })
}

async fn open(
    cluster: &Cluster,
    broker: u32,
    topic: &str,
    epoch: Option<i32>,
    security: ConnectionSecurity,
) -> Result<LeaderConnection> {
    let opened = LeaderConnection::open(&dialer(security), &address(cluster, broker)?, topic.into(), 0, epoch).await;
    opened.map_err(|error| anyhow::anyhow!("broker {broker}: {error:?}"))
}

/// Repeats a question until it has the expected answer. Brokers learn of rights and appends a little later.
async fn wait_for<T: PartialEq + std::fmt::Debug>(expected: T, mut ask: impl AsyncFnMut() -> T) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = ask().await;
        if answer == expected {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{answer:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_ends_behind_high_watermark() {
    async fn run() -> Result<()> {
        let cluster = Cluster::start(3)?;
        cluster.create_topic(TOPIC, 1, 3, &[("min.insync.replicas", "1")])?;
        let leader = cluster.leader(TOPIC, 0)?;
        let follower = leader % 3 + 1;
        let BrokerAddress { host, port, .. } = address(&cluster, leader)?;
        let mut raw = RawConnection::connect(&format!("{host}:{port}")).await?;
        let producer_id = raw.producer_id().await?;
        let stamp = |base_sequence| Stamp { producer_id, epoch: 0, base_sequence };
        let first = raw.produce(TOPIC, 0, stamp(0), b"replicated", PATIENCE).await?;
        ensure!(first == ProduceAnswer { code: 0, base_offset: 0 }, "{first:?}");
        let plain = ConnectionSecurity::default;
        let connection = open(&cluster, leader, TOPIC, Some(0), plain()).await?;
        ensure!((connection.log_end().await, connection.offset(LATEST).await) == (Ok(1), Ok(Some(1))));

        // The follower stays in sync for `broker.session.timeout.ms`, 6 seconds.
        cluster.pause(follower)?;
        let held = async {
            wait_for(Ok(2), async || connection.log_end().await).await?;
            let high_watermark = connection.offset(LATEST).await;
            ensure!(high_watermark == Ok(Some(1)), "the high watermark is {high_watermark:?}");
            cluster.resume(follower)
        };
        let (second, held) = tokio::join!(raw.produce(TOPIC, 0, stamp(1), b"late", PATIENCE), held);
        held?;
        ensure!(second? == ProduceAnswer { code: 0, base_offset: 1 });
        ensure!((connection.log_end().await, connection.offset(LATEST).await) == (Ok(2), Ok(Some(2))));

        for (broker, epoch) in [(leader, None), (leader, Some(1)), (follower, Some(0))] {
            let answer = open(&cluster, broker, TOPIC, epoch, plain()).await?.log_end().await;
            ensure!(answer == Err(LeaderError::Transient), "broker {broker} under {epoch:?}: {answer:?}");
        }
        Ok(())
    }
    run().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_questions_need_rights() {
    async fn run() -> Result<()> {
        let cluster = Cluster::start_with(1, &[&AUTHORIZER[..], &["--sasl", "plain"]].concat())?;
        cluster.create_topic(SECURED, 1, 1, &[])?;
        let [username, password] =
            ["username", "password"].map(|name| std::fs::read_to_string(cluster.file(name)).unwrap().trim().to_owned());
        let sasl = SaslSettings::Plain { username, password: password.into() };
        let security = ConnectionSecurity::new(None, Some(sasl)).ok().context("invalid security")?;
        let connection = open(&cluster, 1, SECURED, Some(0), security).await?;
        ensure!(connection.log_end().await == Err(LeaderError::Permanent), "without a right");
        change_acl(&cluster, "--add", "User:alice", "Describe")?;
        wait_for(Ok(0), async || connection.log_end().await).await?;
        ensure!(connection.producer_state(7).await == Err(LeaderError::Permanent), "with Describe alone");
        change_acl(&cluster, "--add", "User:alice", "Read")?;
        wait_for(Ok(None), async || connection.producer_state(7).await).await
    }
    run().await.unwrap();
}

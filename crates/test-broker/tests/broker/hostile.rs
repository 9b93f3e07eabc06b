//! Tests of malformed bytes and unauthenticated clients.

use crate::support::{self, Client, batch, cluster, text};
use bytes::Bytes;
use kafka_courier_test_broker::{ErrorCode, TestCluster};
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest, SaslAuthenticateRequest, SaslHandshakeRequest};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn malformed_request_ends_only_its_connection() {
    let cluster = TestCluster::builder().topic("t", 1).max_request_bytes(1 << 20).start().await.unwrap();
    let mut honest = Client::connect(&cluster, 1).await;
    let frames: [&[u8]; 9] = [
        &[0x7f, 0xff, 0xff, 0xff],                                                  // a length of 2 GiB
        &[0x00, 0x10, 0x00, 0x01],                                                  // one byte above the limit
        &[0xff, 0xff, 0xff, 0xff],                                                  // a negative length
        &[0, 0, 0, 0],                                                              // an empty request
        &[0, 0, 0, 3, 0, 3, 0],                                                     // a truncated header
        &[0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff],                   // an unknown API
        &[0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff],                        // an unknown version
        &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff], // 2^31 topics
        &[0, 0, 0, 11, 0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, b'x'],                   // a truncated client id
    ];
    for frame in frames {
        let mut hostile = Client::connect(&cluster, 1).await;
        hostile.stream.write_all(frame).await.unwrap();
        assert!(hostile.frame().await.is_none(), "{frame:?}");
    }
    assert_eq!(honest.produce(0, batch(0, 0, &["a"])).await.error_code, 0);
}

#[tokio::test]
async fn connection_limit_closes_extra_connections() {
    let cluster = TestCluster::builder().topic("t", 1).max_connections(2).start().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(&cluster, 1).await;
        client.call(&ApiVersionsRequest::default(), 0).await;
        clients.push(client);
    }
    assert!(Client::connect(&cluster, 1).await.frame().await.is_none());
    clients.clear();
    loop {
        let mut client = Client::connect(&cluster, 1).await;
        let id = client.try_send(&ApiVersionsRequest::default(), 0).await;
        if let Some(id) = id
            && client.receive::<ApiVersionsRequest>(id, 0).await.is_some()
        {
            break;
        }
    }
}

#[tokio::test]
async fn requests_wait_for_buffer_memory() {
    let cluster = TestCluster::builder().topic("t", 1).max_request_bytes(8 << 20).start().await.unwrap();
    cluster.set_topic_config("t", "max.message.bytes", "100000000").unwrap();
    let value = "x".repeat(7 << 20);
    let clients = (0..24).map(|_| async {
        let mut client = Client::connect(&cluster, 1).await;
        let records = [(None, value.as_str(), support::now_ms())];
        let batch = support::stamped(None, &records, kafka_courier_batcher::Compression::None);
        client.produce(0, batch).await.error_code
    });
    assert_eq!(futures_util::future::join_all(clients).await, [0; 24]);
}

async fn login(client: &mut Client, token: &'static [u8]) -> i16 {
    let handshake = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
    assert_eq!(client.call(&handshake, 1).await.error_code, 0);
    client.call(&SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(token)), 2).await.error_code
}

#[tokio::test]
async fn only_known_users_authenticate() {
    let cluster = TestCluster::builder().topic("t", 1).user("ann", "secret").start().await.unwrap();
    let mut client = Client::connect(&cluster, 1).await;
    client.call(&ApiVersionsRequest::default(), 4).await;
    for wrong in [&b"\0ann\0wrong"[..], b"\0bob\0secret", b"ann", b"\0ann\0secret\0", b"bob\0ann\0secret", b"\xff\0\0"]
    {
        assert_eq!(login(&mut client, wrong).await, ErrorCode::SaslAuthenticationFailed.code(), "{wrong:?}");
    }
    assert_eq!(login(&mut client, b"\0ann\0secret").await, 0);
    assert_eq!(client.produce(0, batch(0, 0, &["a"])).await.error_code, 0);
}

#[tokio::test]
async fn unauthenticated_request_ends_the_connection() {
    let cluster = TestCluster::builder().user("ann", "secret").start().await.unwrap();
    let mut client = Client::connect(&cluster, 1).await;
    let id = client.send(&MetadataRequest::default().with_topics(None), 12).await;
    assert!(client.receive::<MetadataRequest>(id, 12).await.is_none());
    let mut client = Client::connect(&cluster, 1).await;
    let other = SaslHandshakeRequest::default().with_mechanism(text("SCRAM-SHA-256"));
    let answer = client.call(&other, 1).await;
    assert_eq!(
        (answer.error_code, answer.mechanisms),
        (ErrorCode::UnsupportedSaslMechanism.code(), vec![text("PLAIN")])
    );
    let token = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0ann\0secret"));
    assert_eq!(client.call(&token, 2).await.error_code, ErrorCode::IllegalSaslState.code());
}

#[tokio::test]
async fn invalid_cluster_descriptions_are_refused() {
    assert!(TestCluster::builder().brokers(0).start().await.is_err());
    assert!(TestCluster::builder().topic("no good", 1).start().await.is_err());
    assert!(TestCluster::builder().topic("t", 0).start().await.is_err());
    let cluster = cluster(1, 1).await;
    assert!(cluster.set_topic_config("t", "no.such.thing", "1").is_err());
    assert!(!cluster.move_leader("t", 0, 9) && !cluster.pause(9) && !cluster.kill(9).await);
}

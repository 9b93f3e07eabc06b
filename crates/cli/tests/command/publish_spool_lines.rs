//! `courier publish --spool`: lines that several files share.

use crate::publish_spool::Spooled;
use crate::support::{cluster, wait_for_records};

#[tokio::test]
async fn shared_lines_are_published_again() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let short = spooled.file("short", 1..3);
    spooled.publish(&cluster, &[&short]).await.expect(0, &["2 read, 2 stored"]);
    let long = spooled.file("long", 1..31);
    spooled.publish(&cluster, &[&long]).await.expect(0, &["30 read, 30 stored"]);
    let copy = spooled.file("copy", 1..31);
    spooled.publish(&cluster, &[&copy]).await.expect(0, &["30 read, 30 stored"]);
    for file in [&short, &long, &copy] {
        spooled.publish(&cluster, &[file]).await.expect(0, &["are stored or delivered already"]);
    }
    wait_for_records(&cluster, "user-events", 62).await;
    assert_eq!(cluster.records("user-events").len(), 62);
}

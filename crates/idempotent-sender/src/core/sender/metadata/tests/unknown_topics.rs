//! Metadata requests for topics that are not known yet.

use super::*;

/// A sender, and the topics of each metadata request.
struct TopicBench {
    sender: Sender<u32>,
    now: Instant,
    asked: Vec<Vec<String>>,
    failed: Vec<TopicId>,
}

impl TopicBench {
    fn new() -> Self {
        let sender = Sender::new(Config::default()).unwrap();
        Self { sender, now: Instant::now(), asked: Vec::new(), failed: Vec::new() }
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.sender.poll(self.now) {
            match action {
                Action::RefreshMetadata { topics } => {
                    self.asked.push(topics.iter().map(ToString::to_string).collect());
                }
                Action::TopicFailed { topic, .. } => self.failed.push(topic),
                _ => {}
            }
        }
    }

    fn want(&mut self, topics: &[&str]) {
        topics.iter().for_each(|topic| {
            let _ = self.sender.want_topic(self.now, topic);
        });
        self.carry_out();
    }

    /// Answers the request in flight. Topics other than `present` do not exist.
    fn answer(&mut self, present: &[&str]) {
        let topic = |name: &String| {
            let code = if present.contains(&name.as_str()) { 0 } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0 };
            let partition = PartitionMetadata { index: 0, code: 0, leader: Some(BrokerId(1)), leader_epoch: Some(1) };
            let partitions = if code == 0 { vec![partition] } else { Vec::new() };
            TopicMetadata { name: name.as_str().into(), uuid: Some([1; 16]), code, partitions }
        };
        let topics = self.asked.last().unwrap().iter().map(topic).collect();
        let brokers = vec![BrokerAddress { id: BrokerId(1), host: "one".into(), port: 9092 }];
        self.sender.on_metadata(self.now, ClusterMetadata { brokers, topics });
        self.carry_out();
    }
}

#[test]
fn unknown_topics_share_one_request() {
    let mut bench = TopicBench::new();
    bench.want(&["a", "b", "c"]);
    assert_eq!(bench.asked, [["a", "b", "c"]]);
    bench.want(&["d"]);
    bench.want(&["e"]);
    bench.answer(&["a", "b", "c"]);
    assert_eq!(bench.asked[1..], [["d", "e"]], "both were wanted while the first request was in flight");
}

#[test]
fn unknown_topic_skips_the_backoff() {
    let mut bench = TopicBench::new();
    for topic in ["a", "b", "c", "d"] {
        bench.want(&[topic]);
        assert_eq!(bench.asked.pop().unwrap(), [topic], "no time has passed");
        bench.asked = vec![vec![topic.to_owned()]];
        bench.answer(&[topic]);
    }
}

#[test]
fn missing_topic_delays_no_other() {
    let mut bench = TopicBench::new();
    bench.want(&["missing"]);
    for _ in 0..8 {
        bench.answer(&[]);
        bench.now += Duration::from_millis(1000); // the longest backoff
        bench.carry_out();
    }
    assert_eq!(bench.asked.len(), 9, "one request after each backoff");
    bench.answer(&[]);
    bench.want(&["present"]);
    assert_eq!(bench.asked.last().unwrap()[..], ["missing", "present"]);
    bench.answer(&["present"]);
    bench.want(&["other"]);
    assert_eq!(bench.asked.len(), 11);
}

#[test]
fn missing_topics_fail_side_by_side() {
    let mut bench = TopicBench::new();
    let timeout = Config::default().metadata_timeout;
    let begun = bench.now;
    bench.want(&["a", "b", "c", "d", "e", "f"]);
    while bench.failed.len() < 6 {
        bench.answer(&[]);
        bench.now = bench.sender.next_deadline().unwrap().max(bench.now);
        bench.carry_out();
        assert!(bench.now <= begun + timeout, "{:?}", bench.failed);
    }
    assert_eq!(bench.now, begun + timeout);
    assert!(bench.asked.len() < 40, "{} requests: the topics share them", bench.asked.len());
}

#[test]
fn unanswered_requests_wait_for_the_backoff() {
    let mut bench = TopicBench::new();
    bench.want(&["a"]);
    bench.sender.on_metadata_failed(bench.now, "connection refused");
    bench.want(&["b"]);
    assert_eq!(bench.asked.len(), 1, "no broker answers");
    bench.now += Duration::from_millis(100);
    bench.carry_out();
    assert_eq!(bench.asked[1..], [["a", "b"]]);
}

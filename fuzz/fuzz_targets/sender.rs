//! Runs the sender against arbitrary brokers: any codes, offsets, leaders, partitions and addresses, early, late or
//! never.
//!
//! - Input: up to 256 steps of 8 bytes each: an event, a choice, a number, a smaller number.
//! - Rules: no input panics. Every record has exactly one verdict at the end. A partition never has more unanswered
//!   batches on a connection than allowed.
#![no_main]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{Accumulator, BufferPool, Compression, EncodedBatch, Limits, Record};
use kafka_courier_client::{
    BrokerAddress, BrokerId, ClusterMetadata, ErrorCode, PartAnswer, PartitionId, PartitionMetadata, ProduceAnswer,
    Reason, TopicId, TopicMetadata,
};
use kafka_courier_idempotent_sender::core::{
    Action, Config, ConnId, LoggedBatch, LookupId, RequestId, SearchAnswer, Sender, StateLookupAnswer, Submission,
};
use libfuzzer_sys::fuzz_target;

const PARTITIONS: i32 = 4;
const MAX_IN_FLIGHT: u32 = 5;

/// Codes that brokers commonly return. Other codes occur too.
const CODES: [i16; 16] = [0, 0, 0, 3, 6, 7, 10, 19, 45, 46, 47, 59, 87, 90, 100, 129];
const NUMBERS: [i32; 8] = [-1, 0, 1, 2, 5, i32::MAX - 1, i32::MAX, i32::MIN];

fuzz_target!(|data: &[u8]| {
    let mut bench = Bench::new();
    for step in data.chunks_exact(8).take(256) {
        bench.step(step);
        assert_eq!(bench.sender.inconsistency(), None);
    }
    bench.end();
});

/// A request without an answer.
struct Sent {
    conn: ConnId,
    request: RequestId,
    partitions: Vec<PartitionId>,
}

struct Bench {
    sender: Sender<usize>,
    now: Instant,
    ordinals: BTreeMap<PartitionId, u64>,
    connecting: Vec<ConnId>,
    open: Vec<ConnId>,
    sent: Vec<Sent>,
    lookups: Vec<(PartitionId, LookupId)>,
    searches: Vec<(PartitionId, LookupId)>,
    metadata_asked: bool,
    id_asked: bool,
    /// Number of verdicts of each record of each batch.
    verdicts: Vec<Vec<u8>>,
}

impl Bench {
    fn new() -> Self {
        let config = Config { first_sequence: i32::MAX - 3, first_epoch: i16::MAX - 2, ..Config::default() };
        let mut bench = Self {
            sender: Sender::new(config).expect("the settings are valid"),
            now: Instant::now(),
            ordinals: BTreeMap::new(),
            connecting: Vec::new(),
            open: Vec::new(),
            sent: Vec::new(),
            lookups: Vec::new(),
            searches: Vec::new(),
            metadata_asked: false,
            id_asked: false,
            verdicts: Vec::new(),
        };
        bench.sender.want_topic(bench.now, "orders");
        bench.carry_out();
        bench
    }

    fn step(&mut self, step: &[u8]) {
        let choice = step[1];
        let any = i32::from_le_bytes([step[2], step[3], step[4], step[5]]);
        let number = if choice & 8 == 0 { any } else { NUMBERS[any as usize % NUMBERS.len()] };
        let small = i16::from_le_bytes([step[6], step[7]]);
        let code = if choice & 16 == 0 { CODES[small as usize % CODES.len()] } else { small };
        match step[0] % 16 {
            0 | 1 => self.submit(choice),
            2 | 3 => self.answer(choice, number, code),
            4 => self.metadata(choice, number, code),
            5 => self.connected(),
            6 => self.ended(choice, code),
            7 => self.producer_id(choice, number, code),
            8 => self.answer_lookup(choice, number, small),
            9 => self.now += Duration::from_millis(u64::from(any.unsigned_abs() % 20_000)),
            10 => self.written(choice),
            11 if self.metadata_asked => {
                self.metadata_asked = false;
                self.sender.on_metadata_failed(self.now, "nobody");
            }
            12 if choice == 0 => self.sender.fail_all(self.now, &Reason::Closed),
            13 => self.open.iter().for_each(|conn| self.sender.on_session(self.now, *conn)),
            14 => drop(self.sender.want_topic(self.now, "orders")),
            _ => self.well(),
        }
        self.carry_out();
    }

    /// Answers everything as a healthy cluster does.
    fn well(&mut self) {
        self.metadata(1 << 5, 0, 0);
        self.producer_id(0, 7, 0);
        while !self.connecting.is_empty() {
            self.connected();
        }
        self.carry_out();
        for _ in 0..self.sent.len() {
            self.answer(0, 40, 0);
        }
    }

    fn submit(&mut self, choice: u8) {
        let partition = PartitionId { topic: TopicId(0), index: i32::from(choice) % PARTITIONS };
        let (count, token) = (u32::from(choice >> 5) + 1, self.verdicts.len());
        let ordinal = self.ordinals.entry(partition).or_default();
        let batch = batch(count);
        let submission =
            Submission { partition, token, ordinal: *ordinal, published_at: self.now, batch, aged: choice & 16 != 0, stored: None };
        if self.sender.on_sealed(self.now, submission).is_ok() {
            *ordinal += 1;
            self.verdicts.push(vec![0; count as usize]);
        }
    }

    fn answer(&mut self, choice: u8, number: i32, code: i16) {
        if self.sent.is_empty() {
            return;
        }
        let sent = self.sent.remove(choice as usize / 32 % self.sent.len());
        let offset = if choice & 2 == 0 { i64::from(number) } else { i64::from(number) << 32 | i64::MAX >> 32 };
        let part = PartAnswer {
            code,
            base_offset: Some(offset).filter(|offset| *offset >= 0),
            log_append_time: u32::try_from(number).ok().map(i64::from),
            record_errors: if choice & 4 == 0 { Vec::new() } else { vec![(number as u32 % 9, None), (0, None)] },
            message: None,
            leader: (choice & 64 != 0).then_some((BrokerId(number & 3), number)),
        };
        let mut parts: Vec<_> = sent.partitions.iter().map(|_| Some(part.clone())).collect();
        if choice & 1 != 0 {
            parts.pop();
        }
        let throttle = Duration::from_millis(u64::from(choice == 255) * u64::from(number.unsigned_abs()));
        let answer = ProduceAnswer { throttle, parts, brokers: vec![address(number & 7)] };
        self.sender.on_answer(self.now, sent.conn, sent.request, answer);
    }

    fn metadata(&mut self, choice: u8, number: i32, code: i16) {
        if !std::mem::take(&mut self.metadata_asked) {
            return;
        }
        let partition = |index| PartitionMetadata {
            index,
            code,
            leader: (choice & 32 != 0 || number >> index & 1 == 0).then_some(BrokerId(number >> (2 * index) & 3)),
            leader_epoch: Some(i32::from(code) + i32::from(choice >> 6)).filter(|epoch| *epoch >= 0),
        };
        let topic = TopicMetadata {
            name: "orders".into(),
            uuid: Some([choice & 3; 16]).filter(|uuid| *uuid != [0; 16]),
            code: if choice & 4 == 0 { 0 } else { code },
            partitions: (0..PARTITIONS - i32::from(choice & 1)).map(partition).collect(),
        };
        let brokers = (0..4).map(address).collect();
        self.sender.on_metadata(self.now, ClusterMetadata { brokers, topics: vec![topic] });
    }

    fn connected(&mut self) {
        if let Some(conn) = self.connecting.pop() {
            self.open.push(conn);
            self.sender.on_connected(self.now, conn);
        }
    }

    fn ended(&mut self, choice: u8, code: i16) {
        if let Some(conn) = self.connecting.pop() {
            let refused = Reason::Broker { code: ErrorCode(code), message: None };
            match choice & 1 {
                0 => self.sender.on_refused(self.now, conn, &refused),
                _ => self.sender.on_disconnected(self.now, conn, "it ended"),
            }
        } else if !self.open.is_empty() {
            let conn = self.open.remove(choice as usize % self.open.len());
            self.sent.retain(|sent| sent.conn != conn);
            self.sender.on_disconnected(self.now, conn, "it ended");
        }
    }

    fn producer_id(&mut self, choice: u8, number: i32, code: i16) {
        if !std::mem::take(&mut self.id_asked) {
            return;
        }
        match choice & 3 {
            0 | 1 => self.sender.on_producer_id(self.now, i64::from(number)),
            2 => self.sender.on_producer_id_failed(self.now, Some(ErrorCode(code)), "no"),
            _ => self.sender.on_producer_id_refused(self.now, &Reason::Tls("no".into())),
        }
    }

    fn answer_lookup(&mut self, choice: u8, number: i32, small: i16) {
        if let Some((partition, look)) = self.searches.pop() {
            return self.answer_search(partition, look, choice, number);
        }
        let Some((partition, look)) = self.lookups.pop() else { return };
        let answer = match choice & 3 {
            0 => StateLookupAnswer::NotKnown { log_start: 0 },
            1 => StateLookupAnswer::Unavailable,
            _ => StateLookupAnswer::Producer {
                epoch: i32::from(small),
                last_sequence: number,
                age: Duration::from_secs(u64::from(choice) << 10),
            },
        };
        self.sender.on_state_lookup(self.now, partition, look, answer);
    }

    fn answer_search(&mut self, partition: PartitionId, look: LookupId, choice: u8, number: i32) {
        let records = u32::from(choice >> 2);
        let batch = |base_sequence| LoggedBatch {
            base_sequence,
            records,
            base_offset: i64::from(number),
            log_append_time: (choice & 4 != 0).then_some(i64::from(number)),
        };
        let answer = match choice & 3 {
            0 => SearchAnswer::Unreadable,
            1 => SearchAnswer::Unavailable,
            _ => SearchAnswer::Read(vec![batch(number), batch(number.wrapping_add(1)), batch(0)]),
        };
        self.sender.on_log_search(self.now, partition, look, &answer);
    }

    fn written(&mut self, choice: u8) {
        if !self.sent.is_empty() {
            let sent = &self.sent[choice as usize % self.sent.len()];
            self.sender.on_written(self.now, sent.conn, sent.request);
        }
    }

    fn carry_out(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "the sender never becomes idle");
            let Some(action) = self.sender.poll(self.now) else { break };
            match action {
                Action::Persist(stamps) => self.sender.on_persisted(self.now, stamps.partition, stamps.id),
                Action::PersistLeader(leader) => self.sender.on_persisted(self.now, leader.partition, leader.id),
                Action::Connect { conn, .. } => self.connecting.push(conn),
                Action::Disconnect { conn } => {
                    self.connecting.retain(|other| *other != conn);
                    self.open.retain(|other| *other != conn);
                    self.sent.retain(|sent| sent.conn != conn);
                }
                Action::Send { conn, request, parts } => {
                    assert!(!parts.is_empty() && self.open.contains(&conn));
                    let partitions = parts.iter().map(|part| part.partition).collect();
                    self.sent.push(Sent { conn, request, partitions });
                }
                Action::RefreshMetadata { .. } => self.metadata_asked = true,
                Action::InitProducerId => self.id_asked = true,
                Action::LookUpState(lookup) => self.lookups.push((lookup.partition, lookup.look)),
                Action::SearchLog(search) => self.searches.push((search.partition, search.look)),
                Action::Settle(settlement) => {
                    let verdicts = &mut self.verdicts[settlement.token];
                    settlement.records.iter().for_each(|record| verdicts[record as usize] += 1);
                }
                Action::Correct { token, records, .. } => {
                    assert!(records.iter().all(|record| self.verdicts[token][record as usize] == 1));
                }
                Action::TopicReady { .. } | Action::TopicFailed { .. } | Action::Waits { .. } | Action::More(_) => {}
            }
        }
        // A batch without an answer from a former leader may already be in flight to its successor.
        let mut unanswered: BTreeMap<(ConnId, PartitionId), u32> = BTreeMap::new();
        for sent in &self.sent {
            sent.partitions.iter().for_each(|it| *unanswered.entry((sent.conn, *it)).or_default() += 1);
        }
        assert!(unanswered.values().all(|count| *count <= MAX_IN_FLIGHT), "{unanswered:?}");
        let twice = self.verdicts.iter().flatten().any(|count| *count > 1);
        assert!(!twice, "a record has two verdicts");
    }

    fn end(&mut self) {
        self.sender.fail_all(self.now, &Reason::Closed);
        self.carry_out();
        assert_eq!(self.sender.unsettled(), 0);
        assert!(self.verdicts.iter().flatten().all(|count| *count == 1), "a record has no verdict");
    }
}

fn address(id: i32) -> BrokerAddress {
    BrokerAddress { id: BrokerId(id), host: "kafka".into(), port: 9092 }
}

fn batch(count: u32) -> EncodedBatch {
    let limits = Limits { max_records: count, max_bytes: 1 << 20, linger: Duration::ZERO };
    let (pool, mut accumulator) = (BufferPool::new(0), Accumulator::new(limits, Compression::None));
    for number in 0..count {
        let record = Record { key: None, value: Some(&[1, 2, 3]), headers: &[], timestamp: i64::from(number) };
        let pushed = accumulator.push(Instant::now(), &record, &mut |_| true, &pool, || ());
        if let Some(sealed) = pushed.expect("it fits").sealed.into_iter().flatten().next() {
            return sealed.encode(&pool).batch;
        }
    }
    accumulator.seal().expect("a batch is open").encode(&pool).batch
}

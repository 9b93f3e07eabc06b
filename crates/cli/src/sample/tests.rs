//! Tests of the sample events: the same seed gives the same bytes, numbers per key have no gaps, and every type occurs.

use std::collections::{HashMap, HashSet};

use clap::Parser;
use kafka_courier_event_model::{AnyEvent, EventBuilder};
use serde_json::Value;

use super::*;

#[derive(Parser)]
struct SampleCommand {
    #[command(flatten)]
    sample: SampleArgs,
}

fn args(args: &str) -> SampleArgs {
    SampleCommand::parse_from(format!("sample {args}").split_whitespace()).sample
}

fn print(options: &str) -> String {
    let mut out = Vec::new();
    write(&args(options), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn default_is_ten_of_seed_one() {
    assert_eq!(print("").lines().count(), 10);
    assert_eq!(print(""), print("--count 10 --seed 1 --start 2025-01-01T00:00:00Z"));
}

#[test]
fn seed_determines_all_bytes() {
    assert_eq!(print("--count 1000 --seed 7"), print("--count 1000 --seed 7"));
    let (seven, eight) = (print("--count 1000 --seed 7"), print("--count 1000 --seed 8"));
    let common = seven.lines().collect::<HashSet<_>>().intersection(&eight.lines().collect()).count();
    assert_eq!(common, 0);
}

#[test]
fn count_only_cuts_the_output() {
    assert!(print("--count 500").starts_with(&print("--count 100")));
    assert_eq!(print("--count 0"), "");
}

#[test]
fn keys_belong_to_one_topic() {
    let mut topics_of_keys: HashMap<Vec<u8>, HashSet<&str>> = HashMap::new();
    let mut types = HashSet::new();
    for line in print("--count 30000").lines() {
        let event = AnyEvent::from_json(line.as_bytes()).unwrap();
        let built_in = BUILT_IN.iter().find(|built_in| built_in.event_type == event.event_type()).unwrap();
        types.insert(built_in.event_type);
        topics_of_keys.entry(event.key().unwrap().into_owned()).or_default().insert(built_in.default_topic);
    }
    assert_eq!(types.len(), BUILT_IN.len());
    assert!((1000..1100).contains(&topics_of_keys.len()), "{}", topics_of_keys.len());
    assert!(topics_of_keys.values().all(|topics| topics.len() == 1));
}

#[test]
fn numbers_per_key_have_no_gaps() {
    let mut next: HashMap<Vec<u8>, u64> = HashMap::new();
    for line in print("--count 20000").lines() {
        let event = AnyEvent::from_json(line.as_bytes()).unwrap();
        assert_eq!(event.as_str(), line);
        let json: Value = serde_json::from_str(line).unwrap();
        let next = next.entry(event.key().unwrap().into_owned()).or_default();
        assert_eq!(json["sample"]["seq"].as_u64(), Some(*next));
        *next += 1;
    }
    assert!(next.values().any(|count| *count > 10));
}

#[test]
fn ids_are_unique_and_times_grow() {
    let text = print("--count 20000");
    let events: Vec<_> = text.lines().map(|line| AnyEvent::from_json(line.as_bytes()).unwrap()).collect();
    let ids: HashSet<_> = events.iter().map(|event| event.id().as_uuid().unwrap()).collect();
    assert_eq!(ids.len(), events.len());
    assert!(ids.iter().all(|id| id.get_version_num() == 7));
    assert!(events.windows(2).all(|pair| pair[0].timestamp() < pair[1].timestamp()));
    assert!(events[0].timestamp() > args("").start);
}

#[test]
fn data_times_precede_the_event() {
    use kafka_courier_event_model::UserLoggedIn;
    let text = print("--count 100 --type user.logged_in");
    let ago = |line: &str| {
        let event = AnyEvent::from_json(line.as_bytes()).unwrap().decode::<UserLoggedIn>().unwrap();
        event.timestamp.duration_since(event.data.login_time).as_millis()
    };
    let ago: HashSet<_> = text.lines().map(ago).collect();
    assert!(ago.len() > 1 && ago.iter().all(|ago| (0..50).contains(ago)), "{ago:?}");
}

#[test]
fn every_event_fits_its_type() {
    for line in print("--count 5000").lines() {
        let event = AnyEvent::from_json(line.as_bytes()).unwrap();
        let built_in = BUILT_IN.iter().find(|built_in| built_in.event_type == event.event_type()).unwrap();
        assert!(built_in.decode(&event).is_ok(), "{line}");
    }
}

/// Types without realistic data are sampled from their examples.
#[test]
fn examples_become_events_of_their_type() {
    let mut data = data::SampleData::new(fastrand::Rng::with_seed(1), Timestamp::UNIX_EPOCH);
    let builder = EventBuilder::new("sample", "1.0");
    for built_in in BUILT_IN {
        for _ in 0..20 {
            let event = builder.untyped(built_in.event_type, data.example(built_in).unwrap()).unwrap();
            assert!(event.key().unwrap().starts_with(built_in.event_type.as_bytes()), "{event:?}");
            assert!(built_in.decode(&event).is_ok(), "{event:?}");
        }
    }
}

#[test]
fn unknown_type_is_an_error() {
    let text = print("--count 100 --type system.alert --type api.error");
    let types: HashSet<_> =
        text.lines().map(|line| AnyEvent::from_json(line.as_bytes()).unwrap().event_type().to_owned()).collect();
    assert_eq!(types, HashSet::from(["system.alert".to_owned(), "api.error".to_owned()]));
    assert!(SampleCommand::try_parse_from(["sample", "--type", "order.placed"]).is_err());
}

#[test]
fn extreme_times_do_not_panic() {
    assert_eq!(print("--count 100 --start 9999-12-30T22:00:00Z").lines().count(), 100);
    assert_eq!(print("--count 100 --start=-009999-01-02T01:59:59Z").lines().count(), 100);
}

#[test]
fn a_failing_writer_is_an_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    assert_eq!(write(&args(""), Full).unwrap_err().kind(), io::ErrorKind::StorageFull);
}

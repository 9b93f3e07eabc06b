//! A ledger that finds nothing wrong proves nothing unless it is known to find what is wrong.
use serde_json::json;

use super::*;

const FIRST: &str = "018f0000-0000-7000-8000-000000000001";
const SECOND: &str = "018f0000-0000-7000-8000-000000000002";

fn alert(id: &str, number: u64) -> Value {
    json!({
        "id": id, "type": "system.alert", "source": "s", "version": "1", "correlation_id": "c",
        "data": {"service": "billing", "resolved": false}, "sample": {"seq": number},
    })
}

fn ledger() -> Ledger {
    let events = format!("{}\n{}\n", alert(FIRST, 0), alert(SECOND, 1));
    Ledger::read(events.as_bytes(), Some("all")).unwrap()
}

/// What `kafka dump` prints of a record, as it should be.
fn dumped(event: &Value, offset: i64) -> Value {
    json!({
        "partition": 3, "offset": offset, "timestamp": 1, "java_partition": 3, "key": "billing",
        "value": event.to_string(),
        "headers": [["event_id", event["id"]], ["event_type", "system.alert"], ["correlation_id", "c"]],
    })
}

/// The first thing that is wrong with these records, as they follow each other in one topic.
fn fault(records: &[Value]) -> Option<String> {
    let mut ledger = ledger();
    let mut walk = Walk { topic: 0, offsets: HashMap::new(), running: HashMap::new() };
    records.iter().find_map(|record| {
        let line = record.to_string();
        let record = serde_json::from_str(&line).unwrap();
        ledger.take(&mut walk, &record).err().map(|error| format!("{error:#}"))
    })
}

fn finds(records: &[Value], words: &str) {
    let found = fault(records).unwrap_or_else(|| "nothing".to_owned());
    assert!(found.contains(words), "found {found}, not {words}");
}

/// The first record as it should be, but for one field.
fn with(field: &str, value: Value) -> Value {
    let mut record = dumped(&alert(FIRST, 0), 0);
    record[field] = value;
    record
}

#[test]
fn a_log_as_it_should_be_is_accepted_whatever_the_order_of_fields() {
    let turned = json!({
        "sample": {"seq": 0}, "data": {"resolved": false, "service": "billing"}, "correlation_id": "c",
        "version": "1", "source": "s", "type": "system.alert", "id": FIRST,
    });
    assert_eq!(fault(&[dumped(&turned, 0), dumped(&alert(SECOND, 1), 1)]), None);
}

#[test]
fn an_event_that_is_there_twice_is_found() {
    finds(&[dumped(&alert(FIRST, 0), 0), dumped(&alert(FIRST, 0), 1)], "in the log twice");
}

#[test]
fn an_event_that_is_not_there_is_found() {
    let mut ledger = ledger();
    let mut walk = Walk { topic: 0, offsets: HashMap::new(), running: HashMap::new() };
    for (event, missing) in [(alert(FIRST, 0), true), (alert(SECOND, 1), false)] {
        let line = dumped(&event, walk.offsets.get(&3).copied().unwrap_or(0)).to_string();
        ledger.take(&mut walk, &serde_json::from_str(&line).unwrap()).unwrap();
        let found = ledger.check_complete().err().map(|error| error.to_string());
        assert_eq!(found, missing.then(|| format!("1 events are not in the log, among them {SECOND}")));
    }
}

#[test]
fn an_event_that_nobody_published_is_found() {
    let stranger = "018f0000-0000-7000-8000-000000000009";
    finds(&[dumped(&alert(stranger, 0), 0)], "never published");
}

#[test]
fn an_event_that_changed_on_its_way_is_found() {
    let mut event = alert(FIRST, 0);
    event["data"]["resolved"] = json!(true);
    finds(&[dumped(&event, 0)], "not what was published");
}

#[test]
fn events_of_a_key_that_changed_places_are_found() {
    finds(&[dumped(&alert(SECOND, 1), 0), dumped(&alert(FIRST, 0), 1)], "out of order");
}

#[test]
fn a_gap_in_the_offsets_is_found() {
    finds(&[dumped(&alert(FIRST, 0), 0), dumped(&alert(SECOND, 1), 2)], "offset 1 expected");
}

#[test]
fn a_wrong_key_a_missing_key_and_an_empty_key_are_found() {
    for key in [json!("shipping"), json!(null), json!("")] {
        finds(&[with("key", key)], "its key is");
    }
}

#[test]
fn a_partition_that_java_would_not_have_chosen_is_found() {
    finds(&[with("java_partition", json!(4))], "into partition 4");
}

#[test]
fn a_missing_a_doubled_and_a_wrong_header_are_found() {
    let right = [json!(["event_id", FIRST]), json!(["event_type", "system.alert"])];
    finds(&[with("headers", json!(right))], "header correlation_id");
    let doubled = [json!(["event_id", FIRST]), json!(["event_id", FIRST])];
    finds(&[with("headers", json!(doubled))], "header event_id");
    finds(&[with("headers", json!([["event_id", "other"]]))], "header event_id");
}

#[test]
fn an_event_in_another_topic_than_its_types_is_found() {
    let mut ledger = Ledger::read(alert(FIRST, 0).to_string().as_bytes(), None).unwrap();
    let mut walk = Walk { topic: 0, offsets: HashMap::new(), running: HashMap::new() };
    let line = dumped(&alert(FIRST, 0), 0).to_string();
    let error = ledger.take(&mut walk, &serde_json::from_str(&line).unwrap()).unwrap_err();
    assert!(format!("{error:#}").contains("belongs into system-events"), "{error:#}");
}

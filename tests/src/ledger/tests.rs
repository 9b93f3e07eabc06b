//! The ledger detects each kind of fault. Without these tests, a passing check would prove nothing.
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

/// Returns the output of `kafka dump` for a correct record.
fn dumped(event: &Value, offset: i64) -> Value {
    json!({
        "partition": 3, "offset": offset, "timestamp": 1, "java_partition": 3, "key": "billing",
        "value": event.to_string(),
        "headers": [["event_id", event["id"]], ["event_type", "system.alert"], ["correlation_id", "c"]],
    })
}

/// Returns the first fault in these records of one topic, in this order.
fn first_fault(records: &[Value]) -> Option<String> {
    let mut ledger = ledger();
    let mut walk = TopicWalk { topic: 0, offsets: HashMap::new(), running: HashMap::new() };
    records.iter().find_map(|record| {
        let line = record.to_string();
        let record = serde_json::from_str(&line).unwrap();
        ledger.check_record(&mut walk, &record).err().map(|error| format!("{error:#}"))
    })
}

fn assert_fault(records: &[Value], words: &str) {
    let found = first_fault(records).unwrap_or_else(|| "nothing".to_owned());
    assert!(found.contains(words), "found {found}, not {words}");
}

/// Returns the correct first record with another value in one field.
fn record_with(field: &str, value: Value) -> Value {
    let mut record = dumped(&alert(FIRST, 0), 0);
    record[field] = value;
    record
}

#[test]
fn reordered_fields_are_accepted() {
    let turned = json!({
        "sample": {"seq": 0}, "data": {"resolved": false, "service": "billing"}, "correlation_id": "c",
        "version": "1", "source": "s", "type": "system.alert", "id": FIRST,
    });
    assert_eq!(first_fault(&[dumped(&turned, 0), dumped(&alert(SECOND, 1), 1)]), None);
}

#[test]
fn duplicate_event_is_found() {
    assert_fault(&[dumped(&alert(FIRST, 0), 0), dumped(&alert(FIRST, 0), 1)], "in the log twice");
}

#[test]
fn missing_event_is_found() {
    let mut ledger = ledger();
    let mut walk = TopicWalk { topic: 0, offsets: HashMap::new(), running: HashMap::new() };
    for (event, missing) in [(alert(FIRST, 0), true), (alert(SECOND, 1), false)] {
        let line = dumped(&event, walk.offsets.get(&3).copied().unwrap_or(0)).to_string();
        ledger.check_record(&mut walk, &serde_json::from_str(&line).unwrap()).unwrap();
        let found = ledger.check_complete().err().map(|error| error.to_string());
        assert_eq!(found, missing.then(|| format!("1 events are not in the log, such as {SECOND}")));
    }
}

#[test]
fn unpublished_event_is_found() {
    let stranger = "018f0000-0000-7000-8000-000000000009";
    assert_fault(&[dumped(&alert(stranger, 0), 0)], "no event with this id");
}

#[test]
fn changed_event_is_found() {
    let mut event = alert(FIRST, 0);
    event["data"]["resolved"] = json!(true);
    assert_fault(&[dumped(&event, 0)], "differs from the published one");
}

#[test]
fn swapped_events_of_key_are_found() {
    assert_fault(&[dumped(&alert(SECOND, 1), 0), dumped(&alert(FIRST, 0), 1)], "out of order");
}

#[test]
fn offset_gap_is_found() {
    assert_fault(&[dumped(&alert(FIRST, 0), 0), dumped(&alert(SECOND, 1), 2)], "expected offset 1");
}

#[test]
fn wrong_null_and_empty_keys_found() {
    for key in [json!("shipping"), json!(null), json!("")] {
        assert_fault(&[record_with("key", key)], "the key is");
    }
}

#[test]
fn partition_unlike_java_is_found() {
    assert_fault(&[record_with("java_partition", json!(4))], "into partition 4");
}

#[test]
fn wrong_and_missing_headers_are_found() {
    let right = [json!(["event_id", FIRST]), json!(["event_type", "system.alert"])];
    assert_fault(&[record_with("headers", json!(right))], "header correlation_id");
    let doubled = [json!(["event_id", FIRST]), json!(["event_id", FIRST])];
    assert_fault(&[record_with("headers", json!(doubled))], "header event_id");
    assert_fault(&[record_with("headers", json!([["event_id", "other"]]))], "header event_id");
}

#[test]
fn event_in_wrong_topic_is_found() {
    let mut ledger = Ledger::read(alert(FIRST, 0).to_string().as_bytes(), None).unwrap();
    let mut walk = TopicWalk { topic: 0, offsets: HashMap::new(), running: HashMap::new() };
    let line = dumped(&alert(FIRST, 0), 0).to_string();
    let error = ledger.check_record(&mut walk, &serde_json::from_str(&line).unwrap()).unwrap_err();
    assert!(format!("{error:#}").contains("belongs to topic system-events"), "{error:#}");
}

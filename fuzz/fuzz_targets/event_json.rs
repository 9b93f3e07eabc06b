//! Reads arbitrary bytes as an event's JSON, writes the event, and reads it again: untyped and as every built-in type.
//!
//! Rules: no input panics. An accepted event is written on one line and reads back as the same event.
#![no_main]

use std::fmt::Debug;
use std::time::Duration;

use kafka_courier_event_model::{
    AnyEvent, ApiError, ApiRequest, BUILT_IN, Envelope, Event, EventData, SystemAlert, UserLoggedIn, UserLoggedOut,
    UserRegistered, UserTokenRefreshed,
};
use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;

/// Durations in milliseconds are exact to the nanosecond below this.
const EXACT: Duration = Duration::from_secs(11 * 24 * 60 * 60);

fuzz_target!(|data: &[u8]| {
    let Ok(event) = AnyEvent::from_json(data) else { return };
    let json = encode(&event);
    assert!(!json.contains(&b'\n') && !json.contains(&b'\r'));
    let again = AnyEvent::from_json(&json).expect("our own event can be read");
    assert_eq!(again, event);
    assert_eq!(encode(&again), json);
    keyed(event.clone(), "a \"key\"\u{0}");
    keyed(event.clone(), "");
    for built_in in BUILT_IN {
        let Ok(typed) = built_in.decode(&event) else { continue };
        let again = AnyEvent::from_json(&encode(&typed)).expect("our own event can be read");
        let again = built_in.decode(&again).expect("our own event keeps its type");
        assert_eq!((again.id(), again.key()), (typed.id(), typed.key()));
    }
    typed::<UserLoggedIn>(&event, |_| true);
    typed::<UserLoggedOut>(&event, |_| true);
    typed::<UserRegistered>(&event, |_| true);
    typed::<UserTokenRefreshed>(&event, |_| true);
    typed::<ApiRequest>(&event, |request| request.duration < EXACT);
    typed::<ApiError>(&event, |_| true);
    typed::<SystemAlert>(&event, |_| true);
});

fn encode(event: &impl Event) -> Vec<u8> {
    let mut out = Vec::new();
    event.encode_into(&mut out).expect("a decoded event can be written");
    out
}

fn keyed(event: AnyEvent, key: &str) {
    let keyed = event.with_key(key);
    assert_eq!(keyed.key().as_deref(), Some(key.as_bytes()));
    assert_eq!(AnyEvent::from_json(&encode(&keyed)).expect("our own event can be read"), keyed);
}

fn typed<T: EventData + DeserializeOwned + PartialEq + Debug>(event: &AnyEvent, exact: fn(&T) -> bool) {
    let Ok(typed) = event.decode::<T>() else { return };
    let again = Envelope::<T>::from_json(&encode(&typed)).expect("our own event can be read");
    if exact(&typed.data) {
        assert_eq!(again, typed);
        assert_eq!(Event::key(&again), event.key());
    }
}

//! The generator of sample events: it draws a type by weight, creates an event of that type, and numbers the event.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fastrand::Rng;
use jiff::Timestamp;
use kafka_courier_event_model::{
    AnyEvent, ApiError, ApiRequest, BUILT_IN, BuiltIn, Event, EventBuilder, EventData, SystemAlert, UserLoggedIn,
    UserLoggedOut, UserRegistered, UserTokenRefreshed,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::data::SampleData;

/// Longest time between two events, in microseconds.
const MAX_STEP_US: i64 = 2_000;

/// Weight of a type that is not in `KINDS`.
const EXAMPLE_WEIGHT: usize = 2;

/// An event type with its weight and its constructor.
#[derive(Clone, Copy)]
struct SampleKind {
    event_type: &'static str,
    source: &'static str,
    weight: usize,
    make: Make,
}

#[derive(Clone, Copy)]
enum Make {
    /// Realistic data.
    Drawn(fn(&mut Samples, &EventBuilder) -> Box<dyn Event>),
    /// The data of an example, for types that are not in `KINDS`.
    Example(&'static BuiltIn),
}

const KINDS: [SampleKind; 7] = [
    kind::<ApiRequest>("api-gateway", 48, |samples, builder| samples.make(builder, SampleData::api_request)),
    kind::<UserLoggedIn>("auth-service", 14, |samples, builder| samples.make(builder, SampleData::user_logged_in)),
    kind::<UserTokenRefreshed>("auth-service", 14, |samples, builder| {
        samples.make(builder, SampleData::user_token_refreshed)
    }),
    kind::<UserLoggedOut>("auth-service", 10, |samples, builder| samples.make(builder, SampleData::user_logged_out)),
    kind::<ApiError>("api-gateway", 7, |samples, builder| samples.make(builder, SampleData::api_error)),
    kind::<SystemAlert>("monitor", 4, |samples, builder| samples.make(builder, SampleData::system_alert)),
    kind::<UserRegistered>("auth-service", 3, |samples, builder| samples.make(builder, SampleData::user_registered)),
];

const fn kind<T: EventData>(
    source: &'static str,
    weight: usize,
    make: fn(&mut Samples, &EventBuilder) -> Box<dyn Event>,
) -> SampleKind {
    SampleKind { event_type: T::TYPE, source, weight, make: Make::Drawn(make) }
}

/// Returns every built-in type: those in `KINDS` first.
fn kinds() -> impl Iterator<Item = SampleKind> {
    let others = BUILT_IN.iter().filter(|built_in| KINDS.iter().all(|kind| kind.event_type != built_in.event_type));
    KINDS.into_iter().chain(others.map(|built_in| SampleKind {
        event_type: built_in.event_type,
        source: "sample",
        weight: EXAMPLE_WEIGHT,
        make: Make::Example(built_in),
    }))
}

/// An endless iterator over events, the same for the same seed, start and types.
pub(crate) struct Samples {
    data: SampleData,
    /// Each type as often as its weight.
    draws: Arc<[(Make, Arc<EventBuilder>)]>,
    /// Draws ids, types and time steps. `data` has a separate generator for the events' data.
    rng: Rng,
    /// Id and timestamp of the next event, shared with the builders.
    stamp: Arc<Mutex<(Uuid, Timestamp)>>,
    numbers: HashMap<&'static str, HashMap<Box<[u8]>, u64>>,
}

impl Samples {
    /// Returns events that start at `start`, of these types. If none of the types is built in, returns all types.
    pub(crate) fn new(seed: u64, start: Timestamp, types: &[String]) -> Self {
        let mut rng = Rng::with_seed(seed);
        let stamp = Arc::new(Mutex::new((Uuid::nil(), start)));
        let wanted = |kind: &SampleKind| types.iter().any(|wanted| wanted == kind.event_type);
        let all = !kinds().any(|kind| wanted(&kind));
        let mut draws = Vec::new();
        for kind in kinds().filter(|kind| all || wanted(kind)) {
            let stamp = stamp.clone();
            let read = move || *stamp.lock().unwrap_or_else(PoisonError::into_inner);
            let builder = Arc::new(EventBuilder::new(kind.source, "1.0").with_stamper(read));
            draws.extend(std::iter::repeat_n((kind.make, builder), kind.weight));
        }
        let data = SampleData::new(rng.fork(), start);
        Self { data, draws: draws.into(), rng, stamp, numbers: HashMap::new() }
    }

    fn step(&mut self) {
        let micros = self.data.now.as_microsecond().saturating_add(self.rng.i64(1..=MAX_STEP_US));
        self.data.now = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
        let millis = u64::try_from(self.data.now.as_millisecond()).unwrap_or(0);
        let random = self.rng.u128(..).to_le_bytes();
        let (random, _) = random.split_first_chunk().unwrap_or((&[0; 10], &[]));
        let id = uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid();
        *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = (id, self.data.now);
    }

    fn make<T: EventData + 'static>(
        &mut self,
        builder: &EventBuilder,
        data: fn(&mut SampleData) -> T,
    ) -> Box<dyn Event> {
        let mut event = builder.custom(data(&mut self.data));
        if self.rng.u8(..4) == 0 {
            event = event.with_correlation_id(format!("corr-{:08x}", self.rng.u32(..)));
        }
        let number = self.number(&event);
        let added = event.set_extra("sample", json!({ "seq": number }));
        debug_assert!(added.is_ok(), "the envelope has no field of this name");
        Box::new(event)
    }

    /// Makes an event from an example of its type. Returns `None` if the example is no event, which the tests of the
    /// examples prevent.
    fn make_from_example(&mut self, builder: &EventBuilder, built_in: &BuiltIn) -> Option<Box<dyn Event>> {
        let data = self.data.example(built_in)?;
        let event = builder.untyped(built_in.event_type, data).ok()?;
        let number = self.number(&event);
        let mut json: Map<String, Value> = serde_json::from_str(event.as_str()).ok()?;
        json.insert("sample".to_owned(), json!({ "seq": number }));
        Some(Box::new(AnyEvent::from_json(&serde_json::to_vec(&json).ok()?).ok()?))
    }

    /// Returns the event's number within its default topic and key.
    fn number(&mut self, event: &impl Event) -> u64 {
        let built_in = BUILT_IN.iter().find(|built_in| built_in.event_type == event.event_type());
        let topic = built_in.map_or("", |built_in| built_in.default_topic);
        let numbers = self.numbers.entry(topic).or_default();
        let key = event.key().unwrap_or_default();
        match numbers.get_mut(&*key) {
            Some(number) => {
                *number += 1;
                *number
            }
            None => {
                numbers.insert(key.into(), 0);
                0
            }
        }
    }
}

impl Iterator for Samples {
    type Item = Box<dyn Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step();
        let draws = self.draws.clone();
        let (make, builder) = draws.get(self.rng.usize(..draws.len()))?;
        match make {
            Make::Drawn(make) => Some(make(self, builder)),
            Make::Example(built_in) => self.make_from_example(builder, built_in),
        }
    }
}

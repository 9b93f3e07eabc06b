//! The topics of the built-in event types.

use kafka_courier_event_model::BUILT_IN;

/// Returns each topic once, in alphabetical order.
pub(crate) fn built_in_topics() -> Vec<&'static str> {
    let mut topics: Vec<_> = BUILT_IN.iter().map(|built_in| built_in.default_topic).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

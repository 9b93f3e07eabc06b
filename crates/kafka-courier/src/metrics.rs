//! All metrics of a producer.

use kafka_courier_producer::metrics::{METRICS as ENGINE, MetricDoc, describe};
use kafka_courier_recovery::metrics::METRICS as RECOVERY;

/// All metrics, in the order of the documentation.
pub const METRICS: &[MetricDoc] = &ALL;

const ALL: [MetricDoc; ENGINE.len() + RECOVERY.len()] = {
    let mut all = [ENGINE[0]; ENGINE.len() + RECOVERY.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = if index < ENGINE.len() { ENGINE[index] } else { RECOVERY[index - ENGINE.len()] };
        index += 1;
    }
    all
};

/// Registers the help text and unit of each metric with the recorder.
///
/// `KafkaProducer::build` registers the same texts. An application that installs its recorder later calls this function
/// afterwards.
pub fn describe_metrics() {
    describe(METRICS);
}

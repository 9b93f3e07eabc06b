//! Reads arbitrary pairs of name and value, one per line, as the producer's environment.
//!
//! Rules: no input panics. An accepted configuration is valid, and a refused one names its variables. Brokers survive
//! printing and parsing.
#![no_main]

use kafka_courier::{ConfigLoader, Endpoint, LoadedConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let pairs = text.lines().map(|line| line.split_once('=').unwrap_or((line, "")));
    let variables = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    match ConfigLoader::new().variables(variables).load() {
        Ok(LoadedConfig { config, warnings, .. }) => {
            assert_eq!(config.validate(), Ok(()));
            assert!(warnings.iter().all(|warning| !warning.to_string().is_empty()));
            for broker in &config.brokers {
                assert_eq!(broker.to_string().parse::<Endpoint>().as_ref(), Ok(broker));
            }
        }
        Err(problems) => {
            assert!(!problems.problems().is_empty());
            assert!(problems.problems().iter().all(|problem| problem.to_string().starts_with("KAFKA_")), "{problems}");
        }
    }
});

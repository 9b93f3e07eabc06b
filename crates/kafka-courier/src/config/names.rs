//! The names of options: their own, and those of Kafka's Java producer.
//!
//! Rules:
//! - A property of the Java producer has its Java meaning, including times in milliseconds.
//! - A property that this producer does not support is an error with the remedy.
//! - The error for a misspelt name suggests the nearest name.

use kafka_courier_client::HIDDEN;

use super::KafkaConfig;

/// Java properties that are not an option's name with dots, and the option.
const JAVA: &[(&str, &str)] = &[
    ("bootstrap.servers", "brokers"),
    ("linger.ms", "flush_timeout"),
    ("batch.size", "flush_bytes"),
    ("max.in.flight.requests.per.connection", "max_in_flight"),
    ("max.request.size", "max_request_bytes"),
    ("compression.type", "compression"),
    ("retries", "retry_max"),
    ("socket.connection.setup.timeout.ms", "connect_timeout"),
];

/// Java properties with one allowed meaning: the allowed values, and the reason.
const FIXED: &[(&str, &[&str], &str)] = &[
    ("acks", &["all", "-1"], "a delivered event is on every in-sync replica"),
    ("enable.idempotence", &["true"], "each event is in the log once, in order"),
];

/// Java properties that this producer does not support, and the remedy.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("key.serializer", "keys are bytes, or a field of the event: remove it"),
    ("value.serializer", "values are bytes, or the event as JSON: remove it"),
    ("partitioner.class", "the partitioner is the Java producer's default for keys: remove it"),
    ("transactional.id", "transactions are not supported, and each event is in the log once without them: remove it"),
    ("ssl.truststore.location", "certificates are PEM files: set ssl_ca_location"),
    ("ssl.truststore.password", "certificates are PEM files without a password: remove it"),
    ("ssl.keystore.location", "certificates are PEM files: set ssl_certificate_location and ssl_key_location"),
    ("ssl.keystore.password", "certificates are PEM files without a password: remove it"),
    (
        "ssl.key.password",
        "encrypted keys are not supported: decrypt it with openssl pkey -in FILE -out NEW_FILE, and name the new file",
    ),
    ("ssl.keystore.key", "keys are PEM files: write it to a file, and set ssl_key_location"),
    ("ssl.key.pem", "keys are PEM files: write it to a file, and set ssl_key_location"),
    (
        "ssl.keystore.certificate.chain",
        "certificates are PEM files: write them to a file, and set ssl_certificate_location",
    ),
    ("ssl.certificate.pem", "certificates are PEM files: write them to a file, and set ssl_certificate_location"),
    ("ssl.truststore.certificates", "certificates are PEM files: write them to a file, and set ssl_ca_location"),
    ("ssl.ca.pem", "certificates are PEM files: write them to a file, and set ssl_ca_location"),
    ("sasl.jaas.config", "set sasl_username and sasl_password instead"),
];

/// The longest name of an option without a dot, a dash or an underscore, in bytes. A longer one may be a secret.
const MAX_WORD_LEN: usize = 16;

/// A name is near an option's name if at most one character in this many differs.
const CHARS_PER_EDIT: usize = 4;

/// The remedy for a name that is not near any option's name.
pub(super) const OPTIONS_HINT: &str = ": `courier config` and docs/CONFIGURATION.md list the options";

/// The longest name that is compared with the options, in bytes. The cost of a comparison grows with the square of the
/// length.
const MAX_NAME_LEN: usize = 80;

/// The meaning of a key.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Meaning {
    /// An option. `millis`: its value is a number of milliseconds, as in Java.
    Option { name: &'static str, millis: bool },
    /// A Java property with a fixed meaning: its name, the allowed values, and the reason.
    Fixed { name: &'static str, values: &'static [&'static str], reason: &'static str },
    /// A Java property without support: the remedy.
    Unsupported(&'static str),
    /// An unknown name.
    Unknown,
}

/// Returns the meaning of a key in a file: the name of an option or of a Java property.
pub(super) fn meaning(key: &str) -> Meaning {
    if let Some(name) = option_named(key) {
        return Meaning::Option { name, millis: false };
    }
    if let Some((name, values, reason)) = FIXED.iter().find(|fixed| fixed.0 == key) {
        return Meaning::Fixed { name, values, reason };
    }
    let dotted = key.replace('_', ".");
    if let Some((_, instead)) = UNSUPPORTED.iter().find(|strange| strange.0 == dotted) {
        return Meaning::Unsupported(instead);
    }
    if let Some((java, name)) = JAVA.iter().find(|known| known.0 == key) {
        return option_named(name)
            .map_or(Meaning::Unknown, |name| Meaning::Option { name, millis: java.ends_with(".ms") });
    }
    let (stem, millis) = key.strip_suffix(".ms").map_or((key, false), |stem| (stem, true));
    match option_named(&stem.replace('.', "_")) {
        // The error about a wrong time shows the text, so a secret never counts as milliseconds.
        Some(name) if key.contains('.') && !(millis && KafkaConfig::is_secret(name)) => {
            Meaning::Option { name, millis }
        }
        _ => Meaning::Unknown,
    }
}

/// Returns a name as problems show it. A name that is unlike any option's name may be a misplaced secret, and is
/// hidden.
pub(super) fn shown_key(key: &str) -> &str {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_word = key.len() <= MAX_WORD_LEN || key.contains(['.', '_', '-']);
    let is_like = key.len() <= MAX_NAME_LEN && is_word && key.chars().all(is_name);
    if is_like || meaning(key) != Meaning::Unknown { key } else { HIDDEN }
}

/// Returns the option of this exact name.
pub(super) fn option_named(name: &str) -> Option<&'static str> {
    KafkaConfig::NAMES.iter().find(|known| **known == name).copied()
}

/// Returns the option or Java property whose name is nearest to `key`, if one is near.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    if key.len() > MAX_NAME_LEN {
        return None;
    }
    let key = key.to_lowercase();
    let java = JAVA.iter().filter_map(|(java, _)| if_known(java));
    let distances = KafkaConfig::NAMES.iter().copied().chain(java).map(|name| (edit_distance(&key, name), name));
    let best = distances.min_by_key(|(distance, _)| *distance);
    best.filter(|(distance, name)| *distance <= (key.len().min(name.len()) / CHARS_PER_EDIT).max(1))
        .map(|(_, name)| name)
}

/// Returns the Damerau-Levenshtein distance of two names. `.`, `-` and `_` are equal.
fn edit_distance(key: &str, name: &str) -> usize {
    let plain = |text: &str| text.replace(['.', '-'], "_");
    strsim::damerau_levenshtein(&plain(key), &plain(name))
}

fn if_known(java: &'static str) -> Option<&'static str> {
    (meaning(java) != Meaning::Unknown).then_some(java)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_properties_name_options() {
        for (key, name, millis) in [
            ("bootstrap.servers", "brokers", false),
            ("client.id", "client_id", false),
            ("linger.ms", "flush_timeout", true),
            ("batch.size", "flush_bytes", false),
            ("delivery.timeout.ms", "delivery_timeout", true),
            ("request.timeout.ms", "request_timeout", true),
            ("max.in.flight.requests.per.connection", "max_in_flight", false),
            ("buffer.memory", "buffer_memory", false),
            ("max.block.ms", "max_block", true),
            ("compression.type", "compression", false),
            ("retries", "retry_max", false),
            ("retry.backoff.ms", "retry_backoff", true),
            ("retry.backoff.max.ms", "retry_backoff_max", true),
            ("metadata.max.age.ms", "metadata_max_age", true),
            ("max.request.size", "max_request_bytes", false),
            ("socket.connection.setup.timeout.ms", "connect_timeout", true),
            ("security.protocol", "security_protocol", false),
            ("sasl.mechanism", "sasl_mechanism", false),
            ("sasl.username", "sasl_username", false),
            ("sasl.password", "sasl_password", false),
            ("ssl.ca.location", "ssl_ca_location", false),
            ("ssl.key.location", "ssl_key_location", false),
        ] {
            assert_eq!(meaning(key), Meaning::Option { name, millis }, "{key}");
        }
        assert!(matches!(meaning("acks"), Meaning::Fixed { .. }));
        assert!(matches!(meaning("key.serializer"), Meaning::Unsupported(_)));
        assert!(matches!(meaning("ssl_key_password"), Meaning::Unsupported(why) if why.contains("decrypt it")));
        assert_eq!(meaning("group.id"), Meaning::Unknown);
    }

    #[test]
    fn every_java_name_is_known() {
        assert!(JAVA.iter().all(|(java, _)| meaning(java) != Meaning::Unknown));
    }

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(nearest("borkers"), Some("brokers"));
        assert_eq!(nearest("flush_mesages"), Some("flush_messages"));
        assert_eq!(nearest("linger.msec"), Some("linger.ms"));
        assert_eq!(nearest("delivery_timout"), Some("delivery_timeout"));
        for far in ["qqq", "dir", "nosuch", "version", "heap", "cache", "jvm", "deliveries"] {
            assert_eq!(nearest(far), None, "{far}");
        }
    }

    #[test]
    fn keys_unlike_names_are_hidden() {
        for key in ["borkers", "flush_mesages", "group.id", "sasl_oauthbearer_token_location", "topic_mapping.user.*"] {
            assert!(shown_key(key) == key || key.contains('*'), "{key}");
        }
        for key in ["-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG", "a+b/c=", "two words", &"a_".repeat(50)] {
            assert_eq!(shown_key(key), HIDDEN, "{key}");
        }
    }

    #[test]
    fn overlong_names_are_not_compared() {
        assert_eq!(nearest(&"brokers".repeat(1000)), None);
        let names = KafkaConfig::NAMES.iter().copied().chain(JAVA.iter().map(|(java, _)| *java));
        assert!(
            names.map(str::len).all(|length| length * 3 / 2 < MAX_NAME_LEN),
            "a misspelt name of each option is compared"
        );
    }
}

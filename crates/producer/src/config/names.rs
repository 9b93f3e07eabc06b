//! What an option may be called besides its own name.
//!
//! Rules: Java's producer properties mean here what they mean there, times in milliseconds included; a property that asks
//! for what this producer never does is an error that says so; a name that is nearly one is told which.

use kafka_courier_idempotent_sender::HIDDEN;

use super::KafkaConfig;

/// Properties whose names are not the option's with dots.
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

/// Properties with one possible value, and why.
const FIXED: &[(&str, &[&str], &str)] = &[
    ("acks", &["all", "-1"], "it can only be all: delivered means on every in-sync replica"),
    ("enable.idempotence", &["true"], "it can only be true: each event is in the log once, in order"),
];

/// Properties that mean nothing here, and what to do instead.
const STRANGE: &[(&str, &str)] = &[
    ("key.serializer", "keys are bytes, or what the event's type says: leave it out"),
    ("value.serializer", "values are bytes, or the event as JSON: leave it out"),
    ("partitioner.class", "keys go where Java's default partitioner puts them: leave it out"),
    ("transactional.id", "there are no transactions, and each event is in the log once without them: leave it out"),
    ("ssl.truststore.location", "certificates are PEM files: set ssl_ca_location"),
    ("ssl.truststore.password", "certificates are PEM files without a password: leave it out"),
    ("ssl.keystore.location", "certificates are PEM files: set ssl_certificate_location and ssl_key_location"),
    ("ssl.keystore.password", "certificates are PEM files without a password: leave it out"),
    (
        "ssl.key.password",
        "an encrypted key can't be used: decrypt it with openssl pkey -in FILE -out NEW_FILE, name the new file",
    ),
    ("ssl.keystore.key", "a key is in a PEM file: write it to one, and set ssl_key_location"),
    ("ssl.key.pem", "a key is in a PEM file: write it to one, and set ssl_key_location"),
    (
        "ssl.keystore.certificate.chain",
        "certificates are in a PEM file: write them to one, and set ssl_certificate_location",
    ),
    ("ssl.certificate.pem", "certificates are in a PEM file: write them to one, and set ssl_certificate_location"),
    ("ssl.truststore.certificates", "certificates are in a PEM file: write them to one, and set ssl_ca_location"),
    ("ssl.ca.pem", "certificates are in a PEM file: write them to one, and set ssl_ca_location"),
    ("sasl.jaas.config", "set sasl_username and sasl_password instead"),
];

/// A longer name without a dot, a dash or an underscore is no option's, and may be a secret.
const LONGEST_WORD: usize = 16;

/// A name is near an option's where at most one letter in this many differs.
const LETTERS_PER_SLIP: usize = 4;

/// What is said of a name that is near no option's.
pub(super) const LIST: &str = ": `courier config` and docs/CONFIGURATION.md list the options";

/// A longer name is no slip of any option's, and what comparing costs grows with its square.
const LONGEST: usize = 80;

/// What a key stands for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Meaning {
    /// An option of ours; Java writes its time in milliseconds.
    Option { name: &'static str, millis: bool },
    /// Nothing that could be set: one of these values is allowed, for this reason.
    Fixed(&'static [&'static str], &'static str),
    /// Nothing here: this is what to do instead.
    Strange(&'static str),
    /// Nothing.
    Unknown,
}

/// What a key in a file stands for: an option's name, or Java's.
pub(super) fn meaning(key: &str) -> Meaning {
    if let Some(name) = own(key) {
        return Meaning::Option { name, millis: false };
    }
    if let Some((_, allowed, why)) = FIXED.iter().find(|fixed| fixed.0 == key) {
        return Meaning::Fixed(allowed, why);
    }
    let dotted = key.replace('_', ".");
    if let Some((_, instead)) = STRANGE.iter().find(|strange| strange.0 == dotted) {
        return Meaning::Strange(instead);
    }
    if let Some((java, name)) = JAVA.iter().find(|known| known.0 == key) {
        return own(name).map_or(Meaning::Unknown, |name| Meaning::Option { name, millis: java.ends_with(".ms") });
    }
    let (stem, millis) = key.strip_suffix(".ms").map_or((key, false), |stem| (stem, true));
    match own(&stem.replace('.', "_")) {
        // What is wrong with a time is told with its text.
        Some(name) if key.contains('.') && !(millis && KafkaConfig::is_secret(name)) => {
            Meaning::Option { name, millis }
        }
        _ => Meaning::Unknown,
    }
}

/// A name as problems show it: what is unlike any option's name may be a secret in the wrong place.
pub(super) fn shown_key(key: &str) -> &str {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_word = key.len() <= LONGEST_WORD || key.contains(['.', '_', '-']);
    let is_like = key.len() <= LONGEST && is_word && key.chars().all(is_name);
    if is_like || meaning(key) != Meaning::Unknown { key } else { HIDDEN }
}

/// The option of that name.
pub(super) fn own(name: &str) -> Option<&'static str> {
    KafkaConfig::NAMES.iter().find(|known| **known == name).copied()
}

/// The option that was probably meant.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    if key.len() > LONGEST {
        return None;
    }
    let key = key.to_lowercase();
    let java = JAVA.iter().filter_map(|(java, _)| own_or_java(java));
    let distances = KafkaConfig::NAMES.iter().copied().chain(java).map(|name| (slips(&key, name), name));
    let best = distances.min_by_key(|(slips, _)| *slips);
    best.filter(|(slips, name)| *slips <= (key.len().min(name.len()) / LETTERS_PER_SLIP).max(1)).map(|(_, name)| name)
}

/// How many letters differ; two that changed places are one slip, and `.`, `-` and `_` are the same.
fn slips(key: &str, name: &str) -> usize {
    let plain = |text: &str| text.replace(['.', '-'], "_");
    strsim::damerau_levenshtein(&plain(key), &plain(name))
}

fn own_or_java(java: &'static str) -> Option<&'static str> {
    (meaning(java) != Meaning::Unknown).then_some(java)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn javas_properties_mean_our_options() {
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
        assert!(matches!(meaning("acks"), Meaning::Fixed(..)));
        assert!(matches!(meaning("key.serializer"), Meaning::Strange(_)));
        assert!(matches!(meaning("ssl_key_password"), Meaning::Strange(why) if why.contains("decrypt it")));
        assert_eq!(meaning("group.id"), Meaning::Unknown);
    }

    #[test]
    fn every_name_that_java_has_leads_to_an_option() {
        assert!(JAVA.iter().all(|(java, _)| meaning(java) != Meaning::Unknown));
    }

    #[test]
    fn a_slip_of_the_finger_is_told_what_was_meant_and_nonsense_is_not() {
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
    fn a_name_longer_than_any_option_is_compared_with_none() {
        assert_eq!(nearest(&"brokers".repeat(1000)), None);
        let names = KafkaConfig::NAMES.iter().copied().chain(JAVA.iter().map(|(java, _)| *java));
        assert!(names.map(str::len).all(|length| length * 3 / 2 < LONGEST), "slips of each are told");
    }
}

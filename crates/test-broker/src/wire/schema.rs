//! The requests that this broker takes: their versions, and their fields as the walk needs them.
//!
//! Rules: one table for each request, in the order of Kafka's message definitions; the versions that are walked are those
//! that ApiVersions names, but for two requests that it names from version 0 on.

use kafka_protocol::messages::ApiKey;

/// What a field is, as far as its length goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// So many bytes.
    Fixed(usize),
    String,
    Bytes,
    /// An array of plain values.
    Values(&'static Kind),
    /// An array of structures.
    Structs(&'static [Field]),
    Struct(&'static [Field]),
}

/// A field and the versions that have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) kind: Kind,
    from: i16,
    to: i16,
}

impl Field {
    pub(crate) fn is_in(&self, version: i16) -> bool {
        (self.from..=self.to).contains(&version)
    }
}

/// A tagged field that the decoder knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    pub(crate) number: u32,
    pub(crate) since: i16,
    pub(crate) kind: Kind,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema {
    pub(crate) key: ApiKey,
    pub(crate) min: i16,
    pub(crate) max: i16,
    /// The lowest version that ApiVersions names.
    pub(crate) named_from: i16,
    flexible_from: i16,
    pub(crate) fields: &'static [Field],
    pub(crate) tags: &'static [Tag],
}

impl Schema {
    /// Whether strings, arrays and tagged fields are those of KIP-482.
    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    /// The request of that key.
    pub(crate) fn of(api_key: i16) -> Option<&'static Self> {
        SCHEMAS.iter().find(|schema| schema.key as i16 == api_key)
    }
}

const NEVER: i16 = i16::MAX;
const BOOL: Field = all(Kind::Fixed(1));
const I16: Field = all(Kind::Fixed(2));
const I32: Field = all(Kind::Fixed(4));
const I64: Field = all(Kind::Fixed(8));
const UUID: Kind = Kind::Fixed(16);
const STRING: Field = all(Kind::String);

const fn all(kind: Kind) -> Field {
    Field { kind, from: 0, to: NEVER }
}

const fn since(from: i16, kind: Kind) -> Field {
    Field { kind, from, to: NEVER }
}

const fn until(to: i16, kind: Kind) -> Field {
    Field { kind, from: 0, to }
}

const fn request(key: ApiKey, versions: (i16, i16), flexible_from: i16, fields: &'static [Field]) -> Schema {
    Schema { key, min: versions.0, max: versions.1, named_from: versions.0, flexible_from, fields, tags: &[] }
}

/// Every request, by ascending key.
pub(crate) const SCHEMAS: &[Schema] = &[
    // Named from version 0 on, as by Apache Kafka 4, or librdkafka does not compress (KAFKA-18659).
    Schema { named_from: 0, ..request(ApiKey::Produce, (3, 13), 9, PRODUCE) },
    Schema { tags: FETCH_TAGS, ..request(ApiKey::Fetch, (4, 16), 12, FETCH) },
    request(ApiKey::ListOffsets, (1, 9), 6, LIST_OFFSETS),
    request(ApiKey::Metadata, (0, 13), 9, METADATA),
    // Version 0 goes on without headers (KIP-43), and whoever has SaslAuthenticate takes version 1 (KIP-152); but librdkafka
    // looks for version 0 before it takes any.
    Schema { named_from: 0, ..request(ApiKey::SaslHandshake, (1, 1), NEVER, &[STRING]) },
    request(ApiKey::ApiVersions, (0, 4), 3, API_VERSIONS),
    request(ApiKey::CreateTopics, (2, 7), 5, CREATE_TOPICS),
    request(ApiKey::InitProducerId, (0, 5), 2, INIT_PRODUCER_ID),
    request(ApiKey::DescribeConfigs, (1, 4), 4, DESCRIBE_CONFIGS),
    request(ApiKey::SaslAuthenticate, (0, 2), 2, &[all(Kind::Bytes)]),
    request(ApiKey::DescribeProducers, (0, 0), 0, DESCRIBE_PRODUCERS),
];

const PRODUCE: &[Field] = &[
    STRING, // transactional id
    I16,    // acks
    I32,    // timeout
    all(Kind::Structs(&[
        until(12, Kind::String), // topic
        since(13, UUID),
        all(Kind::Structs(&[I32, all(Kind::Bytes)])), // partition, records
    ])),
];

const FETCH: &[Field] = &[
    until(14, Kind::Fixed(4)), // replica id
    I32,                       // max wait
    I32,                       // min bytes
    I32,                       // max bytes
    BOOL,                      // isolation level
    since(7, Kind::Fixed(8)),  // session id and epoch
    all(Kind::Structs(&[
        until(12, Kind::String),
        since(13, UUID),
        all(Kind::Structs(&[
            I32,                       // partition
            since(9, Kind::Fixed(4)),  // current leader epoch
            I64,                       // offset
            since(12, Kind::Fixed(4)), // last fetched epoch
            since(5, Kind::Fixed(8)),  // log start offset
            I32,                       // max bytes
        ])),
    ])),
    // Forgotten topics.
    since(7, Kind::Structs(&[until(12, Kind::String), since(13, UUID), all(Kind::Values(&Kind::Fixed(4)))])),
    since(11, Kind::String), // rack
];

const FETCH_TAGS: &[Tag] = &[
    Tag { number: 0, since: 12, kind: Kind::String }, // cluster id
    Tag { number: 1, since: 15, kind: Kind::Struct(&[I32, I64]) }, // replica state
];

const LIST_OFFSETS: &[Field] = &[
    I32,                      // replica id
    since(2, Kind::Fixed(1)), // isolation level
    all(Kind::Structs(&[
        STRING,
        all(Kind::Structs(&[I32, since(4, Kind::Fixed(4)), I64])), // partition, leader epoch, timestamp
    ])),
];

const METADATA: &[Field] = &[
    all(Kind::Structs(&[since(10, UUID), STRING])),
    since(4, Kind::Fixed(1)),                        // allow auto creation
    Field { kind: Kind::Fixed(1), from: 8, to: 10 }, // cluster's authorised operations
    since(8, Kind::Fixed(1)),                        // topics' authorised operations
];

const API_VERSIONS: &[Field] = &[since(3, Kind::String), since(3, Kind::String)];

const CREATE_TOPICS: &[Field] = &[
    all(Kind::Structs(&[
        STRING,
        I32,                                                            // partitions
        I16,                                                            // replication
        all(Kind::Structs(&[I32, all(Kind::Values(&Kind::Fixed(4)))])), // assignments
        all(Kind::Structs(&[STRING, STRING])),                          // configs
    ])),
    I32,  // timeout
    BOOL, // validate only
];

const INIT_PRODUCER_ID: &[Field] = &[
    STRING,                    // transactional id
    I32,                       // transaction timeout
    since(3, Kind::Fixed(10)), // producer id and epoch
];

const DESCRIBE_CONFIGS: &[Field] = &[
    all(Kind::Structs(&[BOOL, STRING, all(Kind::Values(&Kind::String))])), // type, name, keys
    BOOL,                                                                  // synonyms
    since(3, Kind::Fixed(1)),                                              // documentation
];

const DESCRIBE_PRODUCERS: &[Field] = &[all(Kind::Structs(&[STRING, all(Kind::Values(&Kind::Fixed(4)))]))];

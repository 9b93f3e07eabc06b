//! The requests that this broker supports: their versions, and the sizes of their fields.
//!
//! Rules: each request has one table, in the order of Kafka's message definitions. The supported versions equal the
//! versions that ApiVersions lists, except for two requests that ApiVersions lists from version 0 on.

use kafka_protocol::messages::ApiKey;

/// The length encoding of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FieldType {
    /// A fixed number of bytes.
    Fixed(usize),
    String,
    Bytes,
    /// An array of plain values.
    Values(&'static FieldType),
    /// An array of structures.
    Structs(&'static [Field]),
    Struct(&'static [Field]),
}

/// A field and the versions that have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) kind: FieldType,
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
    pub(crate) kind: FieldType,
}

/// The versions and fields of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema {
    pub(crate) key: ApiKey,
    pub(crate) min: i16,
    pub(crate) max: i16,
    /// The lowest version that ApiVersions lists.
    pub(crate) listed_from: i16,
    flexible_from: i16,
    pub(crate) fields: &'static [Field],
    pub(crate) tags: &'static [Tag],
}

impl Schema {
    /// Returns whether a version has compact strings, compact arrays and tagged fields (KIP-482).
    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    /// Returns the request with this API key.
    pub(crate) fn of(api_key: i16) -> Option<&'static Self> {
        SCHEMAS.iter().find(|schema| schema.key as i16 == api_key)
    }
}

const NEVER: i16 = i16::MAX;
const BOOL: Field = all(FieldType::Fixed(1));
const I16: Field = all(FieldType::Fixed(2));
const I32: Field = all(FieldType::Fixed(4));
const I64: Field = all(FieldType::Fixed(8));
const UUID: FieldType = FieldType::Fixed(16);
const STRING: Field = all(FieldType::String);

const fn all(kind: FieldType) -> Field {
    Field { kind, from: 0, to: NEVER }
}

const fn since(from: i16, kind: FieldType) -> Field {
    Field { kind, from, to: NEVER }
}

const fn until(to: i16, kind: FieldType) -> Field {
    Field { kind, from: 0, to }
}

const fn request(key: ApiKey, versions: (i16, i16), flexible_from: i16, fields: &'static [Field]) -> Schema {
    Schema { key, min: versions.0, max: versions.1, listed_from: versions.0, flexible_from, fields, tags: &[] }
}

/// Every request, by ascending key.
pub(crate) const SCHEMAS: &[Schema] = &[
    // Apache Kafka 4 lists Produce from version 0 on too. Otherwise librdkafka does not compress (KAFKA-18659).
    Schema { listed_from: 0, ..request(ApiKey::Produce, (3, 13), 9, PRODUCE) },
    Schema { tags: FETCH_TAGS, ..request(ApiKey::Fetch, (4, 16), 12, FETCH) },
    request(ApiKey::ListOffsets, (1, 9), 6, LIST_OFFSETS),
    request(ApiKey::Metadata, (0, 13), 9, METADATA),
    // Authentication continues without headers after version 0 (KIP-43). Clients with SaslAuthenticate use version 1
    // (KIP-152), but librdkafka requires version 0 in the list.
    Schema { listed_from: 0, ..request(ApiKey::SaslHandshake, (1, 1), NEVER, &[STRING]) },
    request(ApiKey::ApiVersions, (0, 4), 3, API_VERSIONS),
    request(ApiKey::CreateTopics, (2, 7), 5, CREATE_TOPICS),
    request(ApiKey::InitProducerId, (0, 5), 2, INIT_PRODUCER_ID),
    request(ApiKey::OffsetForLeaderEpoch, (2, 4), 4, OFFSET_FOR_LEADER_EPOCH),
    request(ApiKey::DescribeConfigs, (1, 4), 4, DESCRIBE_CONFIGS),
    request(ApiKey::SaslAuthenticate, (0, 2), 2, &[all(FieldType::Bytes)]),
    request(ApiKey::DescribeProducers, (0, 0), 0, DESCRIBE_PRODUCERS),
];

const PRODUCE: &[Field] = &[
    STRING, // transactional id
    I16,    // acks
    I32,    // timeout
    all(FieldType::Structs(&[
        until(12, FieldType::String), // topic
        since(13, UUID),
        all(FieldType::Structs(&[I32, all(FieldType::Bytes)])), // partition, records
    ])),
];

const FETCH: &[Field] = &[
    until(14, FieldType::Fixed(4)), // replica id
    I32,                            // max wait
    I32,                            // min bytes
    I32,                            // max bytes
    BOOL,                           // isolation level
    since(7, FieldType::Fixed(8)),  // session id and epoch
    all(FieldType::Structs(&[
        until(12, FieldType::String),
        since(13, UUID),
        all(FieldType::Structs(&[
            I32,                            // partition
            since(9, FieldType::Fixed(4)),  // current leader epoch
            I64,                            // offset
            since(12, FieldType::Fixed(4)), // last fetched epoch
            since(5, FieldType::Fixed(8)),  // log start offset
            I32,                            // max bytes
        ])),
    ])),
    // Forgotten topics.
    since(
        7,
        FieldType::Structs(&[
            until(12, FieldType::String),
            since(13, UUID),
            all(FieldType::Values(&FieldType::Fixed(4))),
        ]),
    ),
    since(11, FieldType::String), // rack
];

const FETCH_TAGS: &[Tag] = &[
    Tag { number: 0, since: 12, kind: FieldType::String }, // cluster id
    Tag { number: 1, since: 15, kind: FieldType::Struct(&[I32, I64]) }, // replica state
];

const LIST_OFFSETS: &[Field] = &[
    I32,                           // replica id
    since(2, FieldType::Fixed(1)), // isolation level
    all(FieldType::Structs(&[
        STRING,
        all(FieldType::Structs(&[I32, since(4, FieldType::Fixed(4)), I64])), // partition, leader epoch, timestamp
    ])),
];

const METADATA: &[Field] = &[
    all(FieldType::Structs(&[since(10, UUID), STRING])),
    since(4, FieldType::Fixed(1)),                        // allow auto creation
    Field { kind: FieldType::Fixed(1), from: 8, to: 10 }, // cluster's authorised operations
    since(8, FieldType::Fixed(1)),                        // topics' authorised operations
];

const API_VERSIONS: &[Field] = &[since(3, FieldType::String), since(3, FieldType::String)];

const CREATE_TOPICS: &[Field] = &[
    all(FieldType::Structs(&[
        STRING,
        I32,                                                                           // partitions
        I16,                                                                           // replication
        all(FieldType::Structs(&[I32, all(FieldType::Values(&FieldType::Fixed(4)))])), // assignments
        all(FieldType::Structs(&[STRING, STRING])),                                    // configs
    ])),
    I32,  // timeout
    BOOL, // validate only
];

const INIT_PRODUCER_ID: &[Field] = &[
    STRING,                         // transactional id
    I32,                            // transaction timeout
    since(3, FieldType::Fixed(10)), // producer id and epoch
];

const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    since(3, FieldType::Fixed(4)), // replica id
    // Topic, then partition, current leader epoch, leader epoch.
    all(FieldType::Structs(&[STRING, all(FieldType::Structs(&[I32, I32, I32]))])),
];

const DESCRIBE_CONFIGS: &[Field] = &[
    all(FieldType::Structs(&[BOOL, STRING, all(FieldType::Values(&FieldType::String))])), // type, name, keys
    BOOL,                                                                                 // synonyms
    since(3, FieldType::Fixed(1)),                                                        // documentation
];

const DESCRIBE_PRODUCERS: &[Field] =
    &[all(FieldType::Structs(&[STRING, all(FieldType::Values(&FieldType::Fixed(4)))]))];

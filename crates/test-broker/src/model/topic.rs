//! A topic: its id, configuration and partitions.
//!
//! Rules: names are Kafka's; a topic that is made anew has another id.

use uuid::Uuid;

use super::{Partition, TopicConfig};

const MAX_NAME: usize = 249;

/// A topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Partition>,
}

impl Topic {
    /// The partition of that index.
    pub(crate) fn partition(&self, index: i32) -> Option<&Partition> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }

    /// The partition of that index, to be changed.
    pub(crate) fn partition_mut(&mut self, index: i32) -> Option<&mut Partition> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get_mut(index))
    }

    /// Bytes that its logs are charged.
    pub(crate) fn charged(&self) -> usize {
        self.partitions.iter().map(|partition| partition.log.charged()).sum()
    }
}

/// Whether Kafka allows the name (`Topic.validate`).
pub(crate) fn name_is_valid(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kafka_allows() {
        assert!(["a", "user-events", "A.b_c-9", "..."].into_iter().all(name_is_valid));
        assert!(["", ".", "..", "a b", "a/b", "ä"].into_iter().all(|name| !name_is_valid(name)));
        assert!(name_is_valid(&"x".repeat(249)) && !name_is_valid(&"x".repeat(250)));
    }
}

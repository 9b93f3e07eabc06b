//! A topic: its id, configuration and partitions.
//!
//! Rules: topic names follow Kafka's rules. A recreated topic has another id.

use uuid::Uuid;

use super::{PartitionModel, TopicConfig};

const MAX_NAME: usize = 249;

/// A topic.
#[derive(Debug)]
pub(crate) struct TopicModel {
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<PartitionModel>,
}

impl TopicModel {
    /// Returns a partition by its index.
    pub(crate) fn partition(&self, index: i32) -> Option<&PartitionModel> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }

    /// Returns a partition by its index, mutably.
    pub(crate) fn partition_mut(&mut self, index: i32) -> Option<&mut PartitionModel> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get_mut(index))
    }

    /// Returns the bytes charged for the topic's logs.
    pub(crate) fn charged(&self) -> usize {
        self.partitions.iter().map(|partition| partition.log.charged()).sum()
    }
}

/// Returns whether Kafka allows a topic name (`Topic.validate`).
pub(crate) fn name_is_valid(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kafka_names_are_valid() {
        assert!(["a", "user-events", "A.b_c-9", "..."].into_iter().all(name_is_valid));
        assert!(["", ".", "..", "a b", "a/b", "ä"].into_iter().all(|name| !name_is_valid(name)));
        assert!(name_is_valid(&"x".repeat(249)) && !name_is_valid(&"x".repeat(250)));
    }
}

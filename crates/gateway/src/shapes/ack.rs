//! [`Ack`], the acknowledgement that an answer means, and the operator's rules for it.
//!
//! Rules:
//! - An event whose request asks for less than the floor of its topic is not published, and neither is an array with such an
//!   event, unless the request says `partial=true`.
//! - `disk` needs a spool.

use std::fmt;

use super::failure::Failure;
use super::problem::Problem;
use super::topic_pattern::TopicPattern;

/// The meaning of an answer of success, the weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ack {
    /// The event is in the memory of this process.
    Memory,
    /// The event is in the spool of this process, on disk.
    Disk,
    /// The event is in the log of every in-sync replica.
    Broker,
}

impl Ack {
    /// Parses the name of an acknowledgement.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "memory" => Some(Self::Memory),
            "disk" => Some(Self::Disk),
            "broker" => Some(Self::Broker),
            _ => None,
        }
    }

    /// Returns the name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Broker => "broker",
        }
    }
}

/// The acknowledgements of single topics.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TopicAcks(Vec<TopicAck>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct TopicAck {
    topics: TopicPattern,
    default: Ack,
    floor: Option<Ack>,
}

impl TopicAcks {
    /// Parses `topic=default` and `topic=default:floor`, separated by commas.
    pub fn parse(text: &str) -> Option<Self> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(TopicAck::parse).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Returns the entry of a topic: the topic itself, else the longest prefix.
    fn entry(&self, topic: &str) -> Option<&TopicAck> {
        self.0.iter().filter(|entry| entry.topics.has(topic)).max_by_key(|entry| entry.topics.narrowness())
    }
}

impl TopicAck {
    fn parse(text: &str) -> Option<Self> {
        let (topic, acks) = text.split_once('=')?;
        let (default, floor) = match acks.split_once(':') {
            Some((default, floor)) => (Ack::parse(default.trim())?, Some(Ack::parse(floor.trim())?)),
            None => (Ack::parse(acks.trim())?, None),
        };
        let topics = TopicPattern::parse(topic.trim())?;
        floor.is_none_or(|floor| floor <= default).then_some(Self { topics, default, floor })
    }
}

impl fmt::Display for TopicAcks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.0.iter().enumerate() {
            let TopicAck { topics, default, floor } = entry;
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{topics}={}", default.as_str())?;
            floor.map_or(Ok(()), |floor| write!(f, ":{}", floor.as_str()))?;
        }
        Ok(())
    }
}

/// The operator's rules for acknowledgements.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AckRules {
    /// The acknowledgement if a request asks for none.
    pub default: Ack,
    /// The weakest acknowledgement.
    pub floor: Ack,
    /// The acknowledgements of single topics.
    pub topics: TopicAcks,
    /// Whether the producer has a spool.
    pub has_spool: bool,
}

impl AckRules {
    /// Returns the acknowledgement for an event of a request that asks for `asked`. `client_floor` is the weakest one of the
    /// client.
    ///
    /// # Errors
    ///
    /// The failure of the event.
    pub fn choose(&self, topic: &str, asked: Option<Ack>, client_floor: Option<Ack>) -> Result<Ack, Failure> {
        let entry = self.topics.entry(topic);
        let floor = entry.and_then(|entry| entry.floor).unwrap_or(self.floor);
        let floor = client_floor.map_or(floor, |of_client| of_client.max(floor));
        let default = entry.map_or(self.default, |entry| entry.default).max(floor);
        let ack = asked.unwrap_or(default);
        if ack < floor {
            let why = format!(
                "ack={} is weaker than topic {topic:?} or the client's rights demand: use ack={}",
                ack.as_str(),
                floor.as_str()
            );
            return Err(Failure::new(Problem::AckTooWeak, why));
        }
        if ack == Ack::Disk && !self.has_spool {
            let why = "ack=disk needs a spool, and this service has none: use ack=broker, or set spool_dir";
            return Err(Failure::new(Problem::AckUnavailable, why));
        }
        Ok(ack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(topics: &str) -> AckRules {
        let topics = TopicAcks::parse(topics).unwrap();
        AckRules { default: Ack::Broker, floor: Ack::Memory, topics, has_spool: true }
    }

    #[test]
    fn longest_entry_of_topic_counts() {
        let rules = rules("*=memory,logs.*=disk,logs.audit=broker:broker");
        for (topic, ack) in [("orders", Ack::Memory), ("logs.web", Ack::Disk), ("logs.audit", Ack::Broker)] {
            assert_eq!(rules.choose(topic, None, None), Ok(ack), "{topic}");
        }
    }

    #[test]
    fn floor_refuses_weaker_requests() {
        let rules = rules("orders=broker:disk");
        assert_eq!(rules.choose("orders", Some(Ack::Disk), None), Ok(Ack::Disk));
        let refused = |topic, asked, of_client| rules.choose(topic, Some(asked), of_client).unwrap_err().problem;
        assert_eq!(refused("orders", Ack::Memory, None), Problem::AckTooWeak);
        assert_eq!(rules.choose("other", Some(Ack::Memory), None), Ok(Ack::Memory));
        assert_eq!(refused("other", Ack::Memory, Some(Ack::Disk)), Problem::AckTooWeak);
        assert_eq!(refused("orders", Ack::Memory, Some(Ack::Memory)), Problem::AckTooWeak);
    }

    #[test]
    fn disk_needs_a_spool() {
        let rules = AckRules { has_spool: false, ..rules("") };
        assert_eq!(rules.choose("t", Some(Ack::Disk), None).unwrap_err().problem, Problem::AckUnavailable);
        assert_eq!(rules.choose("t", None, None), Ok(Ack::Broker));
    }

    #[test]
    fn invalid_lists_are_refused() {
        for text in ["orders", "orders=paper", "=disk", "a*b=disk", "orders=memory:broker", "orders=disk:x"] {
            assert_eq!(TopicAcks::parse(text), None, "{text}");
        }
        assert_eq!(TopicAcks::parse(" a = disk , ").unwrap().to_string(), "a=disk");
        assert_eq!(TopicAcks::parse("a*=broker:disk").unwrap().to_string(), "a*=broker:disk");
    }
}

//! Settings as serde finds them: names and values, tables within tables.
//!
//! Rules: a table's name stands before its settings' with a dot between, so that `linger.ms` and `[linger] ms` are one;
//! a list's items stand in a row with commas; nothing is lost, settings that are there twice included.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::KafkaConfig;
use super::load::ConfigLoader;
use super::resolve::Origin;

/// Tables within tables beyond this many are no settings.
const DEEPEST: usize = 16;

/// The option that a table may stand for: type = topic.
const MAPPING: &str = "topic_mapping.";

/// A value as it was found.
enum Node {
    Text(String),
    Table(Vec<(String, Self)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings: text, numbers, true or false, lists of them and tables")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            match item {
                Node::Text(text) => items.push(text),
                Node::Table(_) => return Err(de::Error::custom("a list of settings has only text and numbers")),
            }
        }
        Ok(Node::Text(items.join(",")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry::<String, Self::Value>()? {
            pairs.push(pair);
        }
        Ok(unwrapped(pairs))
    }
}

/// A table; or the number or date that serde_json and toml hand over in a table's guise.
fn unwrapped(mut pairs: Vec<(String, Node)>) -> Node {
    match pairs.pop() {
        Some((name, Node::Text(text))) if pairs.is_empty() && name.starts_with('$') => Node::Text(text),
        last => {
            pairs.extend(last);
            Node::Table(pairs)
        }
    }
}

/// Names and values, in the order in which they were found.
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Node::Table(table) = Node::deserialize(deserializer)? else {
            return Err(de::Error::custom("settings are a table of names and values"));
        };
        let mut pairs = Vec::new();
        flatten(String::new(), table, 0, &mut pairs).map_err(de::Error::custom)?;
        Ok(Self(gather_mapping(pairs)))
    }
}

fn flatten(
    prefix: String,
    table: Vec<(String, Node)>,
    depth: usize,
    pairs: &mut Vec<(String, String)>,
) -> Result<(), &'static str> {
    if depth > DEEPEST {
        return Err("tables are nested too deep for settings");
    }
    for (name, node) in table {
        let name = format!("{prefix}{name}");
        match node {
            Node::Text(text) => pairs.push((name, text)),
            Node::Table(table) => flatten(format!("{name}."), table, depth + 1, pairs)?,
        }
    }
    Ok(())
}

/// The table of types and topics, as the option's text has it.
fn gather_mapping(pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    let (mut mapping, mut pairs): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(name, _)| name.starts_with(MAPPING));
    if !mapping.is_empty() {
        mapping.sort_unstable();
        let entries = mapping.iter().map(|(name, topic)| format!("{}={topic}", &name[MAPPING.len()..]));
        pairs.push((MAPPING.trim_end_matches('.').to_owned(), entries.collect::<Vec<_>>().join(",")));
    }
    pairs
}

/// Reads a configuration out of any format of serde's, as a part of an application's own. Names are the options', or
/// those of Java's properties. The error tells everything that is wrong.
impl<'de> Deserialize<'de> for KafkaConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Pairs(pairs) = Pairs::deserialize(deserializer)?;
        let mut loader = ConfigLoader::new();
        loader.take_pairs(pairs, &Origin::Default);
        loader.load().map(|loaded| loaded.config).map_err(|errors| de::Error::custom(errors.0.join("; ")))
    }
}

//! Settings as serde finds them: names and values, tables within tables.
//!
//! Rules: a table's name stands before its settings' with a dot between, so that `linger.ms` and `[linger] ms` are one;
//! a list's items stand in a row with commas; nothing is lost, settings that are there twice included.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::KafkaConfig;
use super::load::ConfigLoader;
use super::names::shown_key;
use super::resolve::Origin;

/// Tables within tables beyond this many are no settings.
const DEEPEST: usize = 16;

/// The option that a table may stand for: type = topic.
const MAPPING: &str = "topic_mapping.";

/// A value as it was found.
pub(super) enum Node {
    Text(String),
    List(Vec<Self>),
    Table(Vec<(String, Self)>),
    /// Nothing, as JSON's null.
    Null,
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

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
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
            items.push(item);
        }
        Ok(Node::List(items))
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

/// Names and values, in the order in which they were found. Errors name a setting, and no value.
pub(super) fn pairs(node: Node) -> Result<Vec<(String, String)>, String> {
    let Node::Table(table) = node else {
        return Err("settings are a table of names and values".to_owned());
    };
    let mut pairs = Vec::new();
    flatten("", table, 0, &mut pairs)?;
    Ok(gather_mapping(pairs))
}

fn flatten(
    prefix: &str,
    table: Vec<(String, Node)>,
    depth: usize,
    pairs: &mut Vec<(String, String)>,
) -> Result<(), String> {
    if depth > DEEPEST {
        return Err("tables are nested too deep for settings".to_owned());
    }
    for (name, node) in table {
        let name = format!("{prefix}{name}");
        match node {
            Node::Text(text) => pairs.push((name, text)),
            Node::List(items) => {
                let text =
                    list(items).ok_or_else(|| format!("{}: a list has only text and numbers", shown_key(&name)))?;
                pairs.push((name, text));
            }
            Node::Null => return Err(format!("{} is null: leave it out", shown_key(&name))),
            Node::Table(_) if KafkaConfig::is_secret(&name) => {
                return Err(format!("{name} is a table, but takes text: put the text in quotes"));
            }
            Node::Table(table) => flatten(&format!("{name}."), table, depth + 1, pairs)?,
        }
    }
    Ok(())
}

/// A list's items in a row, unless some are neither text nor numbers.
fn list(items: Vec<Node>) -> Option<String> {
    let texts: Option<Vec<String>> = items
        .into_iter()
        .map(|item| match item {
            Node::Text(text) => Some(text),
            _ => None,
        })
        .collect();
    texts.map(|texts| texts.join(","))
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
        let pairs = pairs(Node::deserialize(deserializer)?).map_err(de::Error::custom)?;
        let mut loader = ConfigLoader::new();
        loader.take_pairs(pairs, &Origin::Default);
        loader.load().map(|loaded| loaded.config).map_err(|errors| de::Error::custom(errors.0.join("; ")))
    }
}

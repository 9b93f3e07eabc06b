//! Settings from any serde format: names and values in nested tables.
//!
//! Rules:
//! - A setting in a table has the table's name and a dot before its own name: `[linger] ms` is `linger.ms`.
//! - The items of a list are joined by commas.
//! - Every setting is kept, including duplicates.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::KafkaConfig;
use super::names::shown_key;

/// The deepest nesting of tables.
const MAX_DEPTH: usize = 16;

/// The option that may be a table of types and topics.
const MAPPING: &str = "topic_mapping.";

/// A value of a settings file.
pub(super) enum SettingsNode {
    Text(String),
    List(Vec<Self>),
    Table(Vec<(String, Self)>),
    /// The null of JSON.
    Null,
}

impl<'de> Deserialize<'de> for SettingsNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = SettingsNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings: text, numbers, booleans, lists of those, and tables")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<SettingsNode, E> {
        Ok(SettingsNode::Text(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<SettingsNode, E> {
        Ok(SettingsNode::Text(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<SettingsNode, E> {
        Ok(SettingsNode::Text(value.to_string()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<SettingsNode, E> {
        Ok(SettingsNode::Text(value.to_string()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<SettingsNode, E> {
        Ok(SettingsNode::Text(value.to_string()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<SettingsNode, E> {
        Ok(SettingsNode::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<SettingsNode, E> {
        Ok(SettingsNode::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<SettingsNode, D::Error> {
        SettingsNode::deserialize(deserializer)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<SettingsNode, E> {
        Ok(SettingsNode::Text(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<SettingsNode, E> {
        Ok(SettingsNode::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<SettingsNode, E> {
        Ok(SettingsNode::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<SettingsNode, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(SettingsNode::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SettingsNode, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry::<String, Self::Value>()? {
            pairs.push(pair);
        }
        Ok(table_or_scalar(pairs))
    }
}

/// Returns a table, or the number or date that serde_json and toml represent as a table with one key that begins with
/// `$`.
fn table_or_scalar(mut pairs: Vec<(String, SettingsNode)>) -> SettingsNode {
    match pairs.pop() {
        Some((name, SettingsNode::Text(text))) if pairs.is_empty() && name.starts_with('$') => SettingsNode::Text(text),
        last => {
            pairs.extend(last);
            SettingsNode::Table(pairs)
        }
    }
}

/// An error of the structure of settings. It contains the name of a setting as problems show it, and no value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum TreeError {
    #[error("expected a table of names and values")]
    NotATable,
    #[error("tables are nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("{name}: a list may contain only text and numbers")]
    List { name: String },
    #[error("{name} is null: remove it")]
    Null { name: String },
    #[error("{name} is a table, but must be text: put the text in quotes")]
    SecretTable { name: String },
}

/// Returns the names and values in file order.
pub(super) fn pairs(node: SettingsNode) -> Result<Vec<(String, String)>, TreeError> {
    let SettingsNode::Table(table) = node else { return Err(TreeError::NotATable) };
    let mut pairs = Vec::new();
    flatten("", table, 0, &mut pairs)?;
    Ok(merge_mapping(pairs))
}

fn flatten(
    prefix: &str,
    table: Vec<(String, SettingsNode)>,
    depth: usize,
    pairs: &mut Vec<(String, String)>,
) -> Result<(), TreeError> {
    if depth > MAX_DEPTH {
        return Err(TreeError::TooDeep);
    }
    for (name, node) in table {
        let name = format!("{prefix}{name}");
        match node {
            SettingsNode::Text(text) => pairs.push((name, text)),
            SettingsNode::List(items) => {
                let text = list(items).ok_or_else(|| TreeError::List { name: shown_key(&name).to_owned() })?;
                pairs.push((name, text));
            }
            SettingsNode::Null => return Err(TreeError::Null { name: shown_key(&name).to_owned() }),
            SettingsNode::Table(_) if KafkaConfig::is_secret(&name) => return Err(TreeError::SecretTable { name }),
            SettingsNode::Table(table) => flatten(&format!("{name}."), table, depth + 1, pairs)?,
        }
    }
    Ok(())
}

/// Joins the items of a list by commas. Returns `None` if an item is neither text nor a number.
fn list(items: Vec<SettingsNode>) -> Option<String> {
    let texts: Option<Vec<String>> = items
        .into_iter()
        .map(|item| match item {
            SettingsNode::Text(text) => Some(text),
            _ => None,
        })
        .collect();
    texts.map(|texts| texts.join(","))
}

/// Replaces the entries of the table `topic_mapping` by one setting with the option's text.
fn merge_mapping(pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    let (mut mapping, mut pairs): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(name, _)| name.starts_with(MAPPING));
    if !mapping.is_empty() {
        mapping.sort_unstable();
        let entries = mapping.iter().map(|(name, topic)| format!("{}={topic}", &name[MAPPING.len()..]));
        pairs.push((MAPPING.trim_end_matches('.').to_owned(), entries.collect::<Vec<_>>().join(",")));
    }
    pairs
}

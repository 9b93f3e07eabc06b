//! The sections of docs/EVENTS.md about built-in types equal the structs and their comments. `just config-docs` writes them.
//!
//! Rule: golden lines and structs name the same fields.

use std::fmt::Write as _;

use kafka_courier_event_model::{BUILT_IN, BuiltIn};
use serde_json::Value;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/EVENTS.md");
const TYPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/types");
const BEGIN: &str = "<!-- made by `just config-docs` -->\n";
const END: &str = "<!-- end -->\n";

/// A struct of a built-in type, as its source describes it.
#[derive(Debug, Default)]
struct TypeSource {
    text: String,
    fields: Vec<FieldSource>,
}

#[derive(Debug, Default)]
struct FieldSource {
    name: String,
    kind: &'static str,
    is_required: bool,
    text: String,
}

/// Returns the JSON of a field of this Rust type.
fn kind(rust_type: &str) -> &'static str {
    match rust_type {
        "String" => "string",
        "Timestamp" => "string, RFC 3339",
        "bool" => "boolean",
        "u16" => "integer, 0 to 65535",
        "u32" | "u64" => "integer",
        "f64" | "Duration" => "number",
        "Value" => "any",
        "Map<String, Value>" => "object",
        other => panic!("name the JSON of {other} here"),
    }
}

/// Reads a field such as `email: Option<String>`, with its comment and its attributes.
fn field(declaration: &str, text: &str, attributes: &str) -> FieldSource {
    let (name, rust_type) = declaration.split_once(": ").unwrap();
    let inner = rust_type.strip_prefix("Option<").and_then(|rest| rest.strip_suffix('>'));
    let renamed = attributes.split_once("rename = \"").and_then(|(_, rest)| rest.split_once('"'));
    FieldSource {
        name: renamed.map_or(name, |(new, _)| new).to_owned(),
        kind: kind(inner.unwrap_or(rust_type)),
        is_required: inner.is_none(),
        text: text.to_owned(),
    }
}

/// Returns the struct whose comment begins with the type's name.
fn type_source(event_type: &str) -> TypeSource {
    let mut source = String::new();
    for file in std::fs::read_dir(TYPES).unwrap() {
        source += &std::fs::read_to_string(file.unwrap().path()).unwrap();
    }
    let start = format!("/// `{event_type}`: ");
    let (_, rest) = source.split_once(&start).unwrap_or_else(|| panic!("no struct has the comment {start}"));
    let (body, _) = rest.split_once("\n}").unwrap();
    let (mut found, mut text, mut attributes) = (TypeSource::default(), String::new(), String::new());
    for line in format!("/// {body}").lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            text += comment;
        } else if line.starts_with("#[") {
            attributes += line;
        } else if line.starts_with("pub struct ") {
            found.text = std::mem::take(&mut text).trim().to_owned();
            attributes.clear();
        } else if let Some(declaration) = line.strip_prefix("pub ").and_then(|line| line.strip_suffix(','))
            && declaration != "extra: Map<String, Value>"
        {
            found.fields.push(field(declaration, text.trim(), &attributes));
            (text, attributes) = Default::default();
        }
    }
    found
}

/// Returns the text with a capital letter at its start.
fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

fn section(built_in: &BuiltIn) -> String {
    let source = type_source(built_in.event_type);
    let mut section = format!(
        "## `{}`\n\n{} Key: `{}`. Default topic: `{}`.\n\n| Field | JSON | | Meaning |\n|---|---|---|---|\n",
        built_in.event_type,
        sentence(&source.text),
        built_in.key_field,
        built_in.default_topic
    );
    for FieldSource { name, kind, is_required, text } in source.fields {
        let required = if is_required { "required" } else { "optional" };
        writeln!(section, "| `{name}` | {kind} | {required} | {text} |").unwrap();
    }
    section
}

#[test]
fn built_in_types_are_documented() {
    let sections: Vec<_> = BUILT_IN.iter().map(section).collect();
    let made = format!("\n{}\n", sections.join("\n"));
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(DOCUMENT, format!("{before}{BEGIN}{made}{END}{after}")).unwrap();
    } else {
        assert_eq!(written, made, "docs/EVENTS.md is out of date: run `just config-docs`");
    }
}

/// The first golden line has every field and one unknown field, the second has only the required fields.
#[test]
fn golden_lines_have_the_fields() {
    for built_in in BUILT_IN {
        let fields = type_source(built_in.event_type).fields;
        let names = |required_only: bool| {
            fields.iter().filter(|field| field.is_required || !required_only).map(|field| field.name.clone()).collect()
        };
        let data = |line: &str| -> Vec<String> {
            let event: Value = serde_json::from_str(line).unwrap();
            event["data"].as_object().unwrap().keys().cloned().collect()
        };
        let lines: Vec<_> = built_in.examples.lines().collect();
        let mut full = data(lines[0]);
        let unknown = full.pop();
        let every: Vec<String> = names(false);
        assert!(!every.contains(&unknown.unwrap()), "{}: the last field is an unknown one", built_in.event_type);
        assert_eq!(full, every, "{}", built_in.event_type);
        let required: Vec<String> = names(true);
        assert!(required.iter().all(|name| data(lines[1]).contains(name)), "{}", built_in.event_type);
    }
}

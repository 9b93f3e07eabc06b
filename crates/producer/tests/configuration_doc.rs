//! The documented table of options is the one in the code.

use std::fmt::Write as _;

use kafka_courier::KafkaConfig;

#[test]
fn the_documented_options_are_those_of_the_code() {
    let mut table = String::from("| option | variable | default | what it does |\n|---|---|---|---|\n");
    for option in KafkaConfig::options() {
        let default = if option.default.is_empty() { "none".to_owned() } else { format!("`{}`", option.default) };
        writeln!(table, "| `{}` | `{}` | {default} | {} |", option.name, option.variable, option.help).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIGURATION.md");
    let document = std::fs::read_to_string(path).unwrap();
    assert!(document.contains(&table), "docs/CONFIGURATION.md should hold this table:\n\n{table}");
}

//! The table of options in the documentation equals the options in the code. `just config-docs` writes the table.

use std::fmt::Write as _;

use kafka_courier::KafkaConfig;

const BEGIN: &str = "<!-- made by `just config-docs` -->\n";
const END: &str = "<!-- end -->\n";

#[test]
fn documented_options_match_the_code() {
    let mut table = String::from("| option | variable | default | what it does |\n|---|---|---|---|\n");
    for option in KafkaConfig::options() {
        let default = if option.default.is_empty() { "none".to_owned() } else { format!("`{}`", option.default) };
        let secret = if option.secret { " Never shown." } else { "" };
        writeln!(table, "| `{}` | `{}` | {default} | {}{secret} |", option.name, option.variable, option.help).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIGURATION.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(written, table, "docs/CONFIGURATION.md is out of date: run `just config-docs`");
    }
}

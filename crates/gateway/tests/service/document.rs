//! docs/HTTP.md has the options and the problems of the code. `just config-docs` writes both tables.

use std::fmt::Write as _;

use kafka_courier_gateway::GatewayConfig;
use kafka_courier_gateway::shapes::problem::Problem;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/HTTP.md");
const END: &str = "<!-- end -->\n";

fn options() -> String {
    let mut table = String::from("| option | default | what it does |\n|---|---|---|\n");
    for option in GatewayConfig::options() {
        let default = if option.default.is_empty() { String::new() } else { format!("`{}`", option.default) };
        let argument = option.name.replace('_', "-");
        writeln!(table, "| `--{argument}` | {default} | {} |", option.help).unwrap();
    }
    table
}

fn problems() -> String {
    let mut table = String::from("| code | status | meaning | retry |\n|---|---|---|---|\n");
    for problem in Problem::ALL {
        let retry = match problem.retry_after() {
            Some(seconds) => format!("after {seconds} s"),
            None if *problem == Problem::Unknown => "no: the event may be written twice".to_owned(),
            None => "no".to_owned(),
        };
        let (code, status, title) = (problem.code(), problem.status(), problem.title());
        writeln!(table, "| `{code}` | {status} | {title}. | {retry} |").unwrap();
    }
    table
}

#[test]
fn documented_tables_match_the_code() {
    for (name, table) in [("options", options()), ("problems", problems())] {
        let begin = format!("<!-- {name}, made by `just config-docs` -->\n");
        let document = std::fs::read_to_string(DOCUMENT).unwrap();
        let (before, rest) = document.split_once(&begin).unwrap();
        let (written, after) = rest.split_once(END).unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(DOCUMENT, format!("{before}{begin}{table}{END}{after}")).unwrap();
        } else {
            assert_eq!(written, table, "docs/HTTP.md is out of date: run `just config-docs`");
        }
    }
}

//! Metrics in the text format of OpenMetrics 1.0, from Prometheus' text format.
//!
//! Rules:
//! - A family of counters has its name without `_total`, and its samples have `_total`. A counter without `_total` is of unknown type.
//! - The last line is `# EOF`, so that a reader notices a text that was cut.

/// The content type of the format.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns whether a client prefers OpenMetrics to Prometheus' text format, by its header `accept`.
pub fn is_preferred(accept: Option<&str>) -> bool {
    let (mut open, mut text) = (0, 0);
    for part in accept.unwrap_or_default().split(',') {
        let mut parts = part.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: Vec<(&str, &str)> = parts.filter_map(|parameter| parameter.split_once('=')).collect();
        let parameter = |name: &str| parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let weight = parameter("q").map_or(Some(1000), |(_, weight)| thousandths(weight)).unwrap_or(0);
        match media.as_str() {
            "application/openmetrics-text" if parameter("version").is_none_or(|(_, version)| *version == "1.0.0") => {
                open = open.max(weight);
            }
            "text/plain" => text = text.max(weight),
            _ => {}
        }
    }
    open > 0 && open >= text
}

/// Parses a weight such as `0.75` (RFC 9110, 12.4.2).
fn thousandths(weight: &str) -> Option<u32> {
    let (whole, rest) = weight.split_once('.').unwrap_or((weight, ""));
    let whole: u32 = whole.parse().ok().filter(|whole| *whole <= 1)?;
    let rest: u32 = if rest.is_empty() { 0 } else { format!("{rest:0<3}").get(..3)?.parse().ok()? };
    Some((whole * 1000 + rest).min(1000))
}

/// Returns the text of OpenMetrics for a text of Prometheus.
pub fn from_prometheus(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let counters: Vec<&str> = text.lines().filter_map(counter).collect();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let line = match line.split_once(' ').and_then(|(mark, rest)| (mark == "#").then_some(rest)) {
            None => line.to_owned(),
            Some(rest) => match metadata(rest, &counters) {
                Some(line) => line,
                None => continue,
            },
        };
        out.push_str(&line);
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

/// Returns the family of a line that says that it is a counter.
fn counter(line: &str) -> Option<&str> {
    line.strip_prefix("# TYPE ")?.strip_suffix(" counter")
}

/// Returns the line of a family's type or help, without its mark. Other comments have no place in the format.
fn metadata(line: &str, counters: &[&str]) -> Option<String> {
    let mut parts = line.splitn(3, ' ');
    let (kind, family, text) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
    let is_counter = counters.contains(&family);
    let name = if is_counter { family.strip_suffix("_total").unwrap_or(family) } else { family };
    match kind {
        "TYPE" => {
            let is_unknown = text == "untyped" || (is_counter && name == family);
            Some(format!("# TYPE {name} {}", if is_unknown { "unknown" } else { text }))
        }
        // Prometheus' text has no escape for quotes.
        "HELP" => Some(format!("# HELP {name} {}", text.replace('"', "\\\""))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_lose_their_suffix() {
        let prometheus = "# HELP a_total The \"a\".\n# TYPE a_total counter\na_total{x=\"1\"} 2\n\n# TYPE b_seconds histogram\n\
                          b_seconds_bucket{le=\"+Inf\"} 1\nb_seconds_sum 1\nb_seconds_count 1\n# HELP c_totals C\n# TYPE c counter\nc 1\n\
                          # TYPE d untyped\nd 1\n# by hand\n";
        let expected = "# HELP a The \\\"a\\\".\n# TYPE a counter\na_total{x=\"1\"} 2\n# TYPE b_seconds histogram\n\
                        b_seconds_bucket{le=\"+Inf\"} 1\nb_seconds_sum 1\nb_seconds_count 1\n# HELP c_totals C\n# TYPE c unknown\nc 1\n\
                        # TYPE d unknown\nd 1\n# EOF\n";
        assert_eq!(from_prometheus(prometheus), expected);
        assert_eq!(from_prometheus(""), "# EOF\n");
    }

    #[test]
    fn accept_chooses_the_format() {
        let scraper = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                       text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, is_open) in [
            (scraper, true),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", true),
            ("Application/OpenMetrics-Text", true),
            ("text/plain;q=0.9, application/openmetrics-text;q=0.95", true),
            ("text/plain, application/openmetrics-text;q=0.5", false),
            ("application/openmetrics-text;version=0.0.1", false),
            ("application/openmetrics-text;q=0", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(is_preferred(Some(accept)), is_open, "{accept}");
        }
        assert!(!is_preferred(None));
    }
}

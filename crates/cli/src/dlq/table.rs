//! Dead letters as lines of a table.
//!
//! Rules: the reason is cut first.

use kafka_courier::dlq::Letter;

use crate::table::{Layout, Table, key_cell};
use crate::terminal::printable;

const COLUMNS: usize = 7;
const LAYOUT: Layout<COLUMNS> = Layout {
    titles: ["ID", "LAST ATTEMPT", "TOPIC", "KEY", "OUTCOME", "ERROR", "REASON"],
    least: [36, 20, 8, 4, 11, 9, 16],
    most: [36, 20, 32, 24, 11, 32, usize::MAX],
    cut: &[6, 3, 2, 5],
    omitted: &[3, 5, 1, 4, 2, 6],
};

/// The cells of a dead letter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LetterRow([String; COLUMNS]);

impl LetterRow {
    pub(crate) fn of(letter: &Letter) -> Self {
        let cells = [
            letter.id.to_string(),
            format!("{:.0}", letter.last_attempt),
            letter.topic.clone(),
            key_cell(letter.key.as_deref()),
            letter.outcome.to_string(),
            letter.error_code.clone().unwrap_or_else(|| "-".to_owned()),
            reason(letter),
        ];
        Self(cells.map(|cell| printable(&cell).into_owned()))
    }
}

/// Returns the reason as a person reads it. The stored state does not say whether the replay is still running.
fn reason(letter: &Letter) -> String {
    match letter.failure_reason.as_str() {
        reason if !letter.is_replay_unfinished() => reason.to_owned(),
        "" => "in a replay that has not finished".to_owned(),
        before => format!("in a replay that has not finished; before: {before}"),
    }
}

/// A table of dead letters.
#[derive(Clone, Debug)]
pub(crate) struct LetterTable(Table<COLUMNS>);

impl LetterTable {
    /// Returns a table for rows like these on a terminal of this `width`.
    pub(crate) fn fit(rows: &[LetterRow], width: Option<usize>) -> Self {
        Self(Table::fit(&LAYOUT, rows.iter().map(|row| &row.0), width))
    }

    /// Returns the title line.
    pub(crate) fn title(&self) -> String {
        self.0.title()
    }

    /// Returns the line of a row.
    pub(crate) fn line(&self, row: &LetterRow) -> String {
        self.0.line(&row.0)
    }
}

#[cfg(test)]
mod tests {
    use kafka_courier::dlq::{Bytes, Outcome, ReplayState};

    use super::*;

    fn letter(reason: &str) -> Letter {
        let at = "2024-01-15T10:00:00.123456Z".parse().unwrap();
        let mut letter = Letter::new("orders", None, reason, at);
        letter.outcome = Outcome::NotWritten;
        letter.error_code = Some("NOT_ENOUGH_REPLICAS".into());
        letter
    }

    fn rows() -> Vec<LetterRow> {
        vec![LetterRow::of(&letter(&"a long reason ".repeat(20)))]
    }

    #[test]
    fn mark_reads_the_same_while_running() {
        let mut letter = Letter::new("t", None, "no answer", kafka_courier::dlq::Timestamp::UNIX_EPOCH);
        let stamped = ReplayState::Stamped { producer_id: 7, producer_epoch: 0, sequence: 0 };
        for replay in [ReplayState::InProgress, stamped] {
            (letter.replay, letter.outcome) = (replay, Outcome::Unknown);
            assert_eq!(reason(&letter), "in a replay that has not finished; before: no answer");
            letter.outcome = Outcome::NotWritten;
            assert_eq!(reason(&letter), "no answer", "no replay marked it");
        }
    }

    #[test]
    fn lines_fit_the_terminal() {
        let rows = rows();
        for width in 36..400 {
            let table = LetterTable::fit(&rows, Some(width));
            for line in [table.title(), table.line(&rows[0])] {
                assert!(console::measure_text_width(&line) <= width, "{width}: {line:?}");
            }
            assert!(table.line(&rows[0]).contains(&rows[0].0[0]), "{width}");
        }
    }

    #[test]
    fn narrow_terminal_keeps_the_reason() {
        let rows = rows();
        let wide = LetterTable::fit(&rows, Some(160)).title();
        assert!(LAYOUT.titles.iter().all(|title| wide.contains(title)), "{wide}");
        let narrow = LetterTable::fit(&rows, Some(80)).title();
        assert!(narrow.contains("REASON") && narrow.contains("TOPIC") && !narrow.contains("KEY"), "{narrow}");
    }

    #[test]
    fn pipe_output_is_not_cut() {
        let rows = rows();
        let line = LetterTable::fit(&rows, None).line(&rows[0]);
        assert!(line.contains(rows[0].0[6].trim_end()) && !line.contains('…'), "{line}");
        assert!(line.contains("2024-01-15T10:00:00Z"), "{line}");
    }

    #[test]
    fn long_cell_pads_no_other_row() {
        let (short, mut long) = (letter("no answer"), letter("no answer"));
        long.key = Some(Bytes::from(vec![b'k'; 10_000]));
        let rows = [LetterRow::of(&short), LetterRow::of(&long)];
        let table = LetterTable::fit(&rows, None);
        assert!(table.line(&rows[0]).len() < 500, "{}", table.line(&rows[0]));
        assert!(table.line(&rows[1]).contains(&"k".repeat(10_000)));
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut letter = letter("bell \u{7} and \u{1b}[2J");
        letter.key = Some(Bytes::from_static(b"a\nb"));
        let line = LetterTable::fit(&[LetterRow::of(&letter)], None).line(&LetterRow::of(&letter));
        assert!(!line.contains(char::is_control) && line.contains("a\\nb") && line.contains("\\u{1b}[2J"), "{line:?}");
        letter.key = Some(Bytes::from_static(b"\xff\x00"));
        assert_eq!(LetterRow::of(&letter).0[3], "0xff00");
    }
}

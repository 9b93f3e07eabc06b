//! Dead letters as lines of a table.
//!
//! Rules:
//! - The code does no IO.
//! - A line fits the terminal: cells are cut, the reason first, and then columns are left out.
//! - No control character of a dead letter reaches the terminal.

use kafka_courier::dlq::Letter;

use crate::terminal::printable;

const COLUMNS: usize = 7;
const TITLES: [&str; COLUMNS] = ["ID", "LAST ATTEMPT", "TOPIC", "KEY", "OUTCOME", "ERROR", "REASON"];
/// The smallest width of each column.
const LEAST: [usize; COLUMNS] = [36, 20, 8, 4, 11, 9, 16];
/// The largest width of each column on a terminal.
const MOST: [usize; COLUMNS] = [36, 20, 32, 24, 11, 32, usize::MAX];
/// Columns in the order in which their cells are cut.
const CUT: [usize; 4] = [6, 3, 2, 5];
/// Columns in the order in which they are left out.
const OMITTED: [usize; 6] = [3, 5, 1, 4, 2, 6];
const GAP: usize = 2;

/// The cells of a dead letter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LetterRow([String; COLUMNS]);

impl LetterRow {
    pub(crate) fn of(letter: &Letter) -> Self {
        let key = match letter.key.as_deref().map(|key| (str::from_utf8(key), key)) {
            None => "-".to_owned(),
            Some((Ok(text), _)) => text.to_owned(),
            Some((Err(_), bytes)) => {
                format!("0x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
            }
        };
        let cells = [
            letter.id.to_string(),
            format!("{:.0}", letter.last_attempt),
            letter.topic.clone(),
            key,
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

/// The widths of a table's columns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LetterTable {
    /// `None` if the column is left out.
    widths: [Option<usize>; COLUMNS],
    /// Whether cells are cut.
    is_cut: bool,
}

impl LetterTable {
    /// Returns a table for rows like these on a terminal of this `width`. Nothing is cut if there is no width, and a long
    /// cell pads no other row.
    pub(crate) fn fit(rows: &[LetterRow], width: Option<usize>) -> Self {
        let wanted: [usize; COLUMNS] = std::array::from_fn(|i| {
            let cells = rows.iter().map(|row| console::measure_text_width(&row.0[i]));
            cells.chain([TITLES[i].len()]).max().unwrap_or_default()
        });
        let Some(width) = width else { return Self { widths: at_most(wanted), is_cut: false } };
        let mut widths = at_most(wanted);
        for omitted in [None].into_iter().chain(OMITTED.map(Some)) {
            if let Some(column) = omitted {
                widths[column] = None;
            }
            cut(&mut widths, width);
            if total(&widths) <= width {
                break;
            }
        }
        Self { widths, is_cut: true }
    }

    /// Returns the title line.
    pub(crate) fn title(&self) -> String {
        self.line(&LetterRow(TITLES.map(str::to_owned)))
    }

    /// Returns the line of a row.
    pub(crate) fn line(&self, row: &LetterRow) -> String {
        let mut line = String::new();
        for (cell, width) in row.0.iter().zip(self.widths) {
            let Some(width) = width else { continue };
            let cut = if self.is_cut { Some("…") } else { None };
            let cell = match cut {
                Some(tail) => console::truncate_str(cell, width, tail),
                None => cell.into(),
            };
            let width = width.max(console::measure_text_width(&cell));
            line.push_str(&console::pad_str(&cell, width + GAP, console::Alignment::Left, None));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn at_most(wanted: [usize; COLUMNS]) -> [Option<usize>; COLUMNS] {
    std::array::from_fn(|i| Some(wanted[i].min(MOST[i])))
}

/// Cuts columns, down to their smallest widths, until the line fits.
fn cut(widths: &mut [Option<usize>; COLUMNS], width: usize) {
    for column in CUT {
        let over = total(widths).saturating_sub(width);
        if let Some(is) = &mut widths[column] {
            *is -= over.min(is.saturating_sub(LEAST[column]));
        }
    }
}

fn total(widths: &[Option<usize>; COLUMNS]) -> usize {
    let shown: Vec<usize> = widths.iter().copied().flatten().collect();
    shown.iter().sum::<usize>() + GAP * shown.len().saturating_sub(1)
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
        assert!(TITLES.iter().all(|title| wide.contains(title)), "{wide}");
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

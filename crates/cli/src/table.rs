//! Tables on a terminal.
//!
//! Rules:
//! - The code does no IO.
//! - A line fits the terminal: cells are cut, and then columns are left out.

const GAP: usize = 2;

/// The columns of a table.
#[derive(Clone, Debug)]
pub(crate) struct Layout<const N: usize> {
    pub(crate) titles: [&'static str; N],
    /// The smallest width of each column.
    pub(crate) least: [usize; N],
    /// The largest width of each column on a terminal.
    pub(crate) most: [usize; N],
    /// Columns in the order in which their cells are cut.
    pub(crate) cut: &'static [usize],
    /// Columns in the order in which they are left out.
    pub(crate) omitted: &'static [usize],
}

/// The widths of a table's columns.
#[derive(Clone, Debug)]
pub(crate) struct Table<const N: usize> {
    titles: [&'static str; N],
    /// `None` if the column is left out.
    widths: [Option<usize>; N],
    /// Whether cells are cut.
    is_cut: bool,
}

impl<const N: usize> Table<N> {
    /// Returns a table for rows like these on a terminal of this `width`. Nothing is cut if there is no width, and a long
    /// cell pads no other row.
    pub(crate) fn fit<'a>(
        layout: &Layout<N>,
        rows: impl Iterator<Item = &'a [String; N]>,
        width: Option<usize>,
    ) -> Self {
        let titles = layout.titles;
        let mut wanted = titles.map(str::len);
        for row in rows {
            for (wanted, cell) in wanted.iter_mut().zip(row) {
                *wanted = (*wanted).max(console::measure_text_width(cell));
            }
        }
        let mut widths = std::array::from_fn(|i| Some(wanted[i].min(layout.most[i])));
        let Some(width) = width else { return Self { titles, widths, is_cut: false } };
        for omitted in [None].into_iter().chain(layout.omitted.iter().map(Some)) {
            if let Some(column) = omitted {
                widths[*column] = None;
            }
            cut(layout, &mut widths, width);
            if total(&widths) <= width {
                break;
            }
        }
        Self { titles, widths, is_cut: true }
    }

    /// Returns the title line.
    pub(crate) fn title(&self) -> String {
        self.line(&self.titles.map(str::to_owned))
    }

    /// Returns the line of a row.
    pub(crate) fn line(&self, row: &[String; N]) -> String {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(self.widths) {
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

/// Cuts columns, down to their smallest widths, until the line fits.
fn cut<const N: usize>(layout: &Layout<N>, widths: &mut [Option<usize>; N], width: usize) {
    for &column in layout.cut {
        let over = total(widths).saturating_sub(width);
        if let Some(is) = &mut widths[column] {
            *is -= over.min(is.saturating_sub(layout.least[column]));
        }
    }
}

fn total<const N: usize>(widths: &[Option<usize>; N]) -> usize {
    let shown: Vec<usize> = widths.iter().copied().flatten().collect();
    shown.iter().sum::<usize>() + GAP * shown.len().saturating_sub(1)
}

/// Returns the cell of a record's key.
pub(crate) fn key_cell(key: Option<&[u8]>) -> String {
    match key.map(|key| (str::from_utf8(key), key)) {
        None => "-".to_owned(),
        Some((Ok(text), _)) => text.to_owned(),
        Some((Err(_), bytes)) => format!("0x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

//! Tables of plain text.

use std::fmt;

/// Which side of a column is even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For names.
    Left,
    /// For numbers.
    Right,
}

/// Between columns.
const GAP: &str = "  ";

/// Rows of as many cells as there are columns.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// No rows yet. A title that begins with `>` stands over numbers.
    pub fn new(titles: &[&'static str]) -> Self {
        let column = |title: &&'static str| match title.strip_prefix('>') {
            Some(title) => (title, Align::Right),
            None => (*title, Align::Left),
        };
        Self { columns: titles.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row. Cells that are missing are empty, and those beyond the last column are not shown.
    /// What would break a line or a column apart is shown escaped.
    pub fn row<C: ToString>(&mut self, cells: impl IntoIterator<Item = C>) {
        let shown = |cell: C| {
            let cell = cell.to_string();
            let text: String = cell.chars().flat_map(printable).collect();
            if text.is_empty() { "-".to_owned() } else { text }
        };
        let mut row: Vec<String> = cells.into_iter().map(shown).collect();
        row.resize(self.columns.len(), "-".to_owned());
        self.rows.push(row);
    }
}

/// Names come from other machines: none of them may move the cursor of a terminal.
fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = (!c.is_control()).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |index: usize, title: &str| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or_default()
        };
        let widths: Vec<usize> =
            self.columns.iter().enumerate().map(|(index, (title, _))| width(index, title)).collect();
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let cell = |((cell, (_, align)), &width): ((&String, &(_, Align)), &usize)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            };
            let cells: Vec<String> = row.iter().zip(&self.columns).zip(&widths).map(cell).collect();
            writeln!(out, "{}", cells.join(GAP).trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["NAME", ">SLOTS", "ZONE"]);
        table.row(["zürich-1", "7", "a"]);
        table.row(["b", "12345678", ""]);
        table.row(["c"]);
        let expected = "\
NAME         SLOTS  ZONE
zürich-1         7  a
b         12345678  -
c                -  -
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn cells_stay_in_their_place() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["x\ny\u{1b}[2J", "1"]);
        assert_eq!(table.to_string().lines().count(), 2);
        assert!(table.to_string().ends_with("x\\ny\\u{1b}[2J  1\n"), "{table}");
    }
}

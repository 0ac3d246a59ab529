//! A table of two columns, in plain text.

use std::fmt;

/// Rows with a label and two cells each, the cells aligned to the right.
pub struct Table {
    rows: Vec<[String; 3]>,
}

impl Table {
    pub fn new(title: &str, first: &str, second: &str) -> Table {
        Table { rows: vec![[title.to_owned(), first.to_owned(), second.to_owned()]] }
    }

    pub fn row(&mut self, label: &str, cells: [String; 2]) {
        let [first, second] = cells;
        self.rows.push([label.to_owned(), first, second]);
    }

    /// The widest cell of a column, in characters.
    fn width(&self, column: usize) -> usize {
        self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [label, first, second] = [self.width(0), self.width(1), self.width(2)];
        for (at, row) in self.rows.iter().enumerate() {
            writeln!(f, "{:label$}   {:>first$}   {:>second$}", row[0], row[1], row[2])?;
            if at == 0 {
                writeln!(f, "{}", "-".repeat(label + first + second + 6))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_under_their_heads() {
        let mut table = Table::new("run", "no cache", "embercache");
        table.row("p50", ["9 µs".into(), "1 µs".into()]);
        let expected =
            "run   no cache   embercache\n---------------------------\np50       9 µs         1 µs\n";
        assert_eq!(table.to_string(), expected);
    }
}

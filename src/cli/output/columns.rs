//! Plain tables of text: columns below their headings, without rules.

use std::fmt::{self, Write};

/// How the cells of a column are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Left, for words.
    Left,
    /// Right, for numbers.
    Right,
}

/// Writes rows below their headings, two spaces between columns.
///
/// # Errors
/// Those of the writer.
pub(crate) fn write_columns<const N: usize>(
    out: &mut impl Write,
    headings: [(&str, Align); N],
    rows: &[[String; N]],
) -> fmt::Result {
    let cells = |row: &[String; N], column: usize| row[column].chars().count();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let widest = rows.iter().map(|row| cells(row, column)).max().unwrap_or_default();
        widest.max(headings[column].0.chars().count())
    });
    let names = headings.map(|(name, _)| name.to_owned());
    for row in std::iter::once(&names).chain(rows) {
        let mut line = String::new();
        for ((cell, (_, align)), width) in row.iter().zip(headings).zip(widths) {
            match align {
                Align::Left => write!(line, "{cell:<width$}  ")?,
                Align::Right => write!(line, "{cell:>width$}  ")?,
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let headings = [("name", Align::Left), ("µs", Align::Right), ("n", Align::Right)];
        let rows =
            [["a", "1", "12345"], ["longest", "10.25", ""]].map(|row| row.map(str::to_owned));
        let mut out = String::new();
        write_columns(&mut out, headings, &rows).unwrap();
        let expected = "\
name        µs      n
a            1  12345
longest  10.25
";
        assert_eq!(out, expected);
    }
}

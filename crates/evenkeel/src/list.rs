//! Lists, as commands print them.

/// How a list looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ListFormat {
    /// Columns
    Table,
    /// JSON
    Json,
}

/// Lays rows out in columns, two spaces between them.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|i| {
        rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["NAME", "STATE"], ["app-1", "ready"], ["größe", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "NAME   STATE\napp-1  ready\ngröße  x\n");
    }
}

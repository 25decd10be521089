//! Tables on pages: columns as wide as their contents ask, heads repeated on each page.

use super::layout::{KEPT_MAX, Layout, MARGIN, PageLink, WIDTH, style};
use crate::{
    document::{Cell, Column, Kind, Table, Tone},
    font::Face,
    picture::{Anchor, Area, Ink, Pen, Style, at},
};

const SIZE: f64 = 8.6;
const LEADING: f64 = 11.4;
const PADDING: f64 = 13.0;
const ROW: f64 = 6.0;
/// A longer title is broken into lines rather than asking for more room.
const TITLE_MAX: f64 = 96.0;
/// A column of words isn't made narrower than this.
const NARROWEST: f64 = 48.0;

/// Puts a table on pages.
pub(super) fn draw(layout: &mut Layout, table: &Table) {
    let widths = widths(table);
    let rows: Vec<Vec<Vec<String>>> =
        table.rows.iter().map(|row| wrap(row, &table.columns, &widths)).collect();
    let head_height = height(&heads(&table.columns, &widths));
    let whole = rows.iter().map(|row| height(row)).sum::<f64>() + head_height + 4.0;
    layout.room(if whole <= KEPT_MAX { whole } else { head_height + 3.0 * (LEADING + ROW) });
    layout.y += 4.0;
    head(layout, &table.columns, &widths);
    for (row, cells) in table.rows.iter().zip(&rows) {
        let height = height(cells);
        let before = layout.y;
        layout.room(height);
        if layout.y < before {
            head(layout, &table.columns, &widths);
        }
        let mut x = MARGIN;
        for ((cell, lines), (column, width)) in row.iter().zip(cells).zip(table.columns.iter().zip(&widths)) {
            draw_cell(layout, cell, lines, column.kind, Span { x, width: *width });
            x += width;
        }
        layout.y += height;
        let line = Pen::new(Ink::Grid, 0.6);
        layout.page.canvas.line(at(MARGIN, layout.y), at(MARGIN + WIDTH, layout.y), line);
    }
    layout.y += 10.0;
}

/// The height of a row of wrapped cells.
fn height(row: &[Vec<String>]) -> f64 {
    row.iter().map(Vec::len).max().unwrap_or(1) as f64 * LEADING + ROW
}

/// The lines of each column's title.
fn heads(columns: &[Column], widths: &[f64]) -> Vec<Vec<String>> {
    let columns = columns.iter().zip(widths);
    columns.map(|(column, width)| Face::Bold.wrap(&column.title, SIZE, width - 4.0)).collect()
}

/// The lines of each cell of a row.
fn wrap(row: &[Cell], columns: &[Column], widths: &[f64]) -> Vec<Vec<String>> {
    let cells = row.iter().zip(columns.iter().zip(widths));
    cells
        .map(|(cell, (column, width))| {
            let style = cell_style(cell, column.kind);
            style.face.wrap(&cell.text, style.size, width - PADDING)
        })
        .collect()
}

/// Where a cell lies within its row.
#[derive(Clone, Copy)]
struct Span {
    x: f64,
    width: f64,
}

fn head(layout: &mut Layout, columns: &[Column], widths: &[f64]) {
    let titles = heads(columns, widths);
    let mut x = MARGIN;
    for ((lines, column), width) in titles.iter().zip(columns).zip(widths) {
        let style = Style::new(SIZE, Ink::Muted).bold();
        for (index, line) in lines.iter().enumerate() {
            let y = layout.y + (index + 1) as f64 * LEADING;
            put(layout, line, style, column.kind, Span { x, width: *width }, y);
        }
        x += width;
    }
    layout.y += height(&titles);
    let line = Pen::new(Ink::Muted, 0.9);
    layout.page.canvas.line(at(MARGIN, layout.y), at(MARGIN + WIDTH, layout.y), line);
}

fn cell_style(cell: &Cell, kind: Kind) -> Style {
    if cell.anchor.is_some() {
        return Style::new(SIZE, Ink::Data);
    }
    let style = style(cell.tone, SIZE);
    if kind == Kind::Code && cell.tone == Tone::Plain {
        Style { size: SIZE - 0.6, ..style.mono() }
    } else {
        style
    }
}

fn draw_cell(layout: &mut Layout, cell: &Cell, lines: &[String], kind: Kind, span: Span) {
    let style = cell_style(cell, kind);
    for (index, line) in lines.iter().enumerate() {
        let y = layout.y + (index + 1) as f64 * LEADING;
        put(layout, line, style, kind, span, y);
        if let Some(anchor) = &cell.anchor {
            let width = style.face.width(line, style.size);
            let area = Area { x: span.x, y: y - SIZE, width, height: LEADING };
            layout.page.links.push(PageLink { area, anchor: anchor.clone() });
        }
    }
}

/// Numbers end where their column ends, so that digits stand below each other.
fn put(layout: &mut Layout, text: &str, style: Style, kind: Kind, span: Span, y: f64) {
    match kind {
        Kind::Number => {
            layout.text(span.x + span.width - PADDING, y, text, style.anchored(Anchor::End));
        }
        Kind::Words | Kind::Code => layout.text(span.x, y, text, style),
    }
}

/// Widths of all columns, which together are the page's.
fn widths(table: &Table) -> Vec<f64> {
    let natural: Vec<f64> = table
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells = table.rows.iter().filter_map(|row| row.get(index)).map(|cell| {
                let style = cell_style(cell, column.kind);
                style.face.width(&cell.text, style.size)
            });
            let title = Face::Bold.width(&column.title, SIZE).min(TITLE_MAX);
            cells.fold(title, f64::max) + PADDING
        })
        .collect();
    let total: f64 = natural.iter().sum();
    if total <= WIDTH {
        let more = (WIDTH - total) / natural.len().max(1) as f64;
        return natural.into_iter().map(|width| width + more).collect();
    }
    // Columns that are narrower than their part of what is left keep their width; the others share the rest.
    let mut widths = vec![0.0; natural.len()];
    let mut open: Vec<usize> = (0..natural.len()).collect();
    let mut left = WIDTH;
    loop {
        let part = left / open.len().max(1) as f64;
        let fitting: Vec<usize> = open
            .iter()
            .copied()
            .filter(|index| natural.get(*index).is_some_and(|width| *width <= part))
            .collect();
        if fitting.is_empty() {
            for index in &open {
                if let Some(width) = widths.get_mut(*index) {
                    *width = part.max(NARROWEST.min(WIDTH / natural.len() as f64));
                }
            }
            return widths;
        }
        for index in fitting {
            if let (Some(width), Some(natural)) = (widths.get_mut(index), natural.get(index)) {
                *width = *natural;
                left -= natural;
            }
            open.retain(|other| *other != index);
        }
        if open.is_empty() {
            return widths;
        }
    }
}

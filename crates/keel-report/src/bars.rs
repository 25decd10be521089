//! Charts of bars in groups: each bar has its name on the left and its number at its end.
//!
//! Names and numbers stand in words beside the bars, so that nothing has to be read off colours or an axis.

use crate::{
    font::{Face, OTHER_FONT},
    picture::{Anchor, Area, Ink, Pen, Picture, Style, at},
};

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 16.0;
const HEAD: f64 = 26.0;
const COLUMN_GAP: f64 = 28.0;
const GROUP_HEAD: f64 = 26.0;
const GROUP_GAP: f64 = 10.0;
const ROW: f64 = 22.0;
const BAR: f64 = 14.0;

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// Its head.
    pub title: String,
    /// What it shows, for those who can't see it.
    pub label: String,
    /// The groups, in reading order.
    pub groups: Vec<Group>,
    /// How many groups stand beside each other.
    pub columns: usize,
    /// Room for a bar's name.
    pub name_width: f64,
    /// Room for a bar's number.
    pub number_width: f64,
    /// Whether bars of different groups can be compared.
    pub scale: Scale,
    /// What a bar's stroke means; drawn where any bar has one.
    pub stroke_means: &'static str,
}

/// What the longest bar stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The largest value of all groups.
    Common,
    /// The largest value of its own group.
    PerGroup,
}

/// Bars below one head.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its head.
    pub title: String,
    /// What stands at the right of the head; may be empty.
    pub note: String,
    /// From the top.
    pub bars: Vec<Bar>,
}

/// A bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What was measured.
    pub name: String,
    /// How long it is.
    pub value: f64,
    /// The interval that holds the value, drawn as a thin line.
    pub interval: Option<Interval>,
    /// Where a stroke lies across it.
    pub stroke: Option<f64>,
    /// What the bar is filled with.
    pub ink: Ink,
    /// The number at its end.
    pub number: String,
    /// The number's ink.
    pub number_ink: Ink,
}

/// From where to where a value may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Bar {
    /// A bar of what was measured.
    pub fn new(name: impl Into<String>, value: f64, number: impl Into<String>) -> Self {
        Bar {
            name: name.into(),
            value,
            interval: None,
            stroke: None,
            ink: Ink::Data,
            number: number.into(),
            number_ink: Ink::Text,
        }
    }

    /// The largest value that it shows.
    fn reach(&self) -> f64 {
        let interval = self.interval.map_or(0.0, |interval| interval.high);
        self.value.max(self.stroke.unwrap_or_default()).max(interval)
    }
}

impl Group {
    fn reach(&self) -> f64 {
        self.bars.iter().map(Bar::reach).filter(|reach| reach.is_finite()).fold(0.0, f64::max)
    }

    fn height(&self) -> f64 {
        GROUP_HEAD + self.bars.len() as f64 * ROW + GROUP_GAP
    }
}

/// Where a group stands.
#[derive(Clone, Copy)]
struct Column {
    left: f64,
    right: f64,
}

impl Bars {
    /// Draws the chart.
    pub fn draw(&self) -> Picture {
        let mut picture = Picture::new(WIDTH, self.label.clone());
        let mut y = MARGIN;
        picture.text(at(MARGIN, y + 12.0), self.title.as_str(), Style::new(14.0, Ink::Text).bold());
        y += HEAD;
        let columns = self.columns.max(1);
        let gaps = COLUMN_GAP * (columns - 1) as f64;
        let width = (WIDTH - 2.0 * MARGIN - gaps) / columns as f64;
        let longest = self.groups.iter().map(Group::reach).fold(0.0, f64::max);
        for row in self.groups.chunks(columns) {
            for (index, group) in row.iter().enumerate() {
                let left = MARGIN + index as f64 * (width + COLUMN_GAP);
                let longest = match self.scale {
                    Scale::Common => longest,
                    Scale::PerGroup => group.reach(),
                };
                self.draw_group(&mut picture, group, Column { left, right: left + width }, y, longest);
            }
            y += row.iter().map(Group::height).fold(0.0, f64::max);
        }
        if self.groups.iter().flat_map(|group| &group.bars).any(|bar| bar.stroke.is_some()) {
            picture.line(vec![at(MARGIN + 1.0, y), at(MARGIN + 1.0, y + 12.0)], Pen::new(Ink::Text, 2.0));
            picture.text(at(MARGIN + 9.0, y + 10.0), self.stroke_means, Style::new(11.0, Ink::Muted));
            y += 16.0;
        }
        picture.height = y + MARGIN - GROUP_GAP / 2.0;
        picture
    }

    fn draw_group(&self, picture: &mut Picture, group: &Group, column: Column, top: f64, longest: f64) {
        let Column { left, right } = column;
        let mut y = top;
        let room = (right - left) / OTHER_FONT - Face::Regular.width(&group.note, 12.0) - 16.0;
        let title = Face::Bold.fit(&group.title, 12.0, room);
        picture.text(at(left, y + 12.0), title, Style::new(12.0, Ink::Text).bold());
        if !group.note.is_empty() {
            let style = Style::new(12.0, Ink::Muted).anchored(Anchor::End);
            picture.text(at(right, y + 12.0), group.note.as_str(), style);
        }
        y += GROUP_HEAD - 6.0;
        picture.line(vec![at(left, y), at(right, y)], Pen::new(Ink::Grid, 1.0));
        y += 6.0;
        let bar_left = left + self.name_width;
        let room = right - self.number_width - bar_left;
        let length = |value: f64| {
            let share = if longest > 0.0 { value / longest } else { 0.0 };
            if share.is_finite() { share.clamp(0.0, 1.0) * room } else { 0.0 }
        };
        for bar in &group.bars {
            let middle = y + ROW / 2.0;
            picture.text(
                at(bar_left - 10.0, middle + 4.0),
                Face::Regular.fit(&bar.name, 12.0, (self.name_width - 12.0) / OTHER_FONT),
                Style::new(12.0, Ink::Text).anchored(Anchor::End),
            );
            let area =
                Area { x: bar_left, y: middle - BAR / 2.0, width: length(bar.value).max(1.0), height: BAR };
            picture.rectangle(area, 2.0, Some(bar.ink), None);
            if let Some(Interval { low, high }) = bar.interval {
                let ends = vec![at(bar_left + length(low), middle), at(bar_left + length(high), middle)];
                picture.line(ends, Pen::new(Ink::Text, 1.0));
            }
            if let Some(stroke) = bar.stroke {
                let x = bar_left + length(stroke);
                let ends = vec![at(x, middle - BAR / 2.0 - 3.0), at(x, middle + BAR / 2.0 + 3.0)];
                picture.line(ends, Pen::new(Ink::Text, 2.0));
            }
            let end = bar_left + length(bar.reach());
            let number = Face::Regular.fit(&bar.number, 12.0, (right - end - 9.0) / OTHER_FONT);
            picture.text(at(end + 9.0, middle + 4.0), number, Style::new(12.0, bar.number_ink));
            y += ROW;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Mark;

    fn chart(scale: Scale, columns: usize) -> Picture {
        let group = |title: &str, values: &[f64]| Group {
            title: title.to_owned(),
            note: String::new(),
            bars: values.iter().map(|value| Bar::new("one", *value, "1")).collect(),
        };
        let bars = Bars {
            title: "Values".to_owned(),
            label: "Values".to_owned(),
            groups: vec![group("low", &[1.0, 2.0]), group("high", &[8.0, f64::NAN])],
            columns,
            name_width: 100.0,
            number_width: 80.0,
            scale,
            stroke_means: "",
        };
        bars.draw()
    }

    fn lengths(picture: &Picture) -> Vec<f64> {
        let areas = picture.marks.iter().filter_map(|mark| match mark {
            Mark::Rectangle { area, .. } => Some(area.width),
            _ => None,
        });
        areas.collect()
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let room = 760.0 - 32.0 - 180.0;
        assert_eq!(lengths(&chart(Scale::Common, 1)), [room / 8.0, room / 4.0, room, 1.0]);
        assert_eq!(lengths(&chart(Scale::PerGroup, 1)), [room / 2.0, room, room, 1.0]);
    }

    #[test]
    fn groups_beside_each_other_make_it_lower() {
        let (one, two) = (chart(Scale::Common, 1), chart(Scale::Common, 2));
        assert!(two.height < one.height && two.width == one.width);
    }
}

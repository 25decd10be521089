//! The chart of the README: CPU time for each request, an SVG that reads well on light and on dark pages.

use anyhow::Context;
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{report::Record, work::Work};

const WIDTH: u32 = 880;
const HEIGHT: u32 = 400;
/// Stands for the page's text colour until the end, when it becomes `currentColor`.
const INK: RGBColor = RGBColor(1, 2, 3);
const INK_IN_SVG: &str = "#010203";
/// The first proxy's colour, then the others'. Each has contrast with white and with black.
const COLORS: [RGBColor; 6] = [
    RGBColor(20, 152, 130),
    RGBColor(110, 133, 171),
    RGBColor(148, 148, 148),
    RGBColor(182, 134, 84),
    RGBColor(150, 110, 160),
    RGBColor(170, 160, 90),
];
/// What follows the page's colours, and its font.
const STYLE: &str = "<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}\
                     text{font-family:system-ui,-apple-system,\"Segoe UI\",sans-serif}</style>\n";

/// Draws the chart.
pub(crate) fn draw(record: &Record) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        draw_on(&root, record).map_err(|error| anyhow::anyhow!("the chart can't be drawn: {error}"))?;
    }
    let head = svg.find(">\n").context("the chart has no head")? + 2;
    svg.insert_str(head, STYLE);
    Ok(svg.replace(INK_IN_SVG, "currentColor"))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn ink(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn draw_on(root: &Area<'_>, record: &Record) -> Drawn {
    let works = record.works();
    let colored: Vec<(&str, RGBColor)> =
        record.proxies.iter().map(|proxy| proxy.name.as_str()).zip(COLORS.into_iter().cycle()).collect();
    let cpu = |proxy: &str, work| record.median(proxy, work, |sample| sample.cpu_us_per_request());
    let highest = works
        .iter()
        .flat_map(|work| colored.iter().filter_map(|(proxy, _)| cpu(proxy, *work)))
        .fold(0.0, |most: f64, median| most.max(median.high));
    let (head, plot) = root.split_vertically(64);
    draw_head(&head, &colored)?;
    let mut chart = ChartBuilder::on(&plot)
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..works.len() as f64, 0.0..highest.max(1.0) * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.15))
        .axis_style(INK.mix(0.4))
        .y_labels(6)
        .y_label_formatter(&|value| format!("{value:.0} µs"))
        .y_label_style(ink(13))
        .draw()?;
    let centered = Pos::new(HPos::Center, VPos::Bottom);
    for (&work, group) in works.iter().zip(0u32..) {
        let width = 0.8 / colored.len().max(1) as f64;
        for (&(proxy, color), bar) in colored.iter().zip(0u32..) {
            let Some(median) = cpu(proxy, work) else { continue };
            let left = f64::from(group) + 0.1 + f64::from(bar) * width;
            let right = left + width * 0.92;
            let middle = f64::midpoint(left, right);
            chart.draw_series([Rectangle::new([(left, 0.0), (right, median.median)], color.filled())])?;
            let interval = [(middle, median.low), (middle, median.high)];
            chart.draw_series([PathElement::new(interval, INK.mix(0.7).stroke_width(1))])?;
            let label = Text::new(
                format!("{:.0}", median.median),
                (middle, median.high + highest * 0.01),
                ink(12).pos(centered),
            );
            chart.draw_series([label])?;
        }
        let (x, y) = chart.backend_coord(&(f64::from(group) + 0.5, 0.0));
        root.draw(&Text::new(title(work), (x, y + 8), ink(13).pos(Pos::new(HPos::Center, VPos::Top))))?;
    }
    root.present()?;
    Ok(())
}

fn title(work: Work) -> String {
    match work {
        Work::Browser | Work::NewConnections => work.title().to_owned(),
        Work::Body100 | Work::Body1k | Work::Body10k | Work::Body100k => format!("{} body", work.title()),
    }
}

fn draw_head(area: &Area<'_>, colored: &[(&str, RGBColor)]) -> Drawn {
    area.draw(&Text::new("CPU time of the proxy for each request, less is better", (12, 10), ink(16)))?;
    let mut x = 12;
    for &(proxy, color) in colored {
        area.draw(&Rectangle::new([(x, 38), (x + 12, 50)], color.filled()))?;
        area.draw(&Text::new(proxy.to_owned(), (x + 18, 37), ink(13)))?;
        x += 44 + 7 * i32::try_from(proxy.len()).unwrap_or(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_follows_the_page_s_colours() {
        let svg = draw(&crate::report::tests::record()).unwrap();
        assert!(svg.contains("prefers-color-scheme:dark") && svg.contains("currentColor"), "{svg}");
        assert!(!svg.contains(INK_IN_SVG) && svg.contains("nginx 1.31.5"), "{svg}");
    }
}

//! The chart of the README: CPU time for each request.

use keel_report::{
    bars::{Bar, Bars, Group, Interval, Scale},
    picture::{Ink, Picture},
};

use crate::{report::Record, work::Work};

/// Draws the chart.
pub(crate) fn draw(record: &Record) -> Picture {
    let groups = record.works().into_iter().map(|work| Group {
        title: title(work),
        note: String::new(),
        bars: bars(record, work),
    });
    let bars = Bars {
        title: "CPU time of the proxy for each request in µs, less is better".to_owned(),
        label: "CPU time of each proxy for each request, by kind of work".to_owned(),
        groups: groups.collect(),
        columns: 2,
        name_width: 122.0,
        number_width: 44.0,
        scale: Scale::Common,
        stroke_means: "",
    };
    bars.draw()
}

fn bars(record: &Record, work: Work) -> Vec<Bar> {
    let mut inks = std::iter::once(Ink::Data).chain(std::iter::repeat(Ink::Muted));
    let mut bars = Vec::new();
    for proxy in &record.proxies {
        let ink = inks.next().unwrap_or(Ink::Muted);
        let Some(cpu) = record.median(&proxy.name, work, |sample| sample.cpu_us_per_request()) else {
            continue;
        };
        let bar = Bar::new(proxy.name.as_str(), cpu.median, format!("{:.1}", cpu.median));
        let interval = Some(Interval { low: cpu.low, high: cpu.high });
        bars.push(Bar { ink, interval, ..bar });
    }
    bars
}

fn title(work: Work) -> String {
    match work {
        Work::UnixPeers | Work::Browser | Work::NewConnections => work.title().to_owned(),
        Work::Body100 | Work::Body1k | Work::Body10k | Work::Body16k | Work::Body100k => {
            format!("{} body", work.title())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_a_bar_for_each_proxy() {
        let svg = keel_report::svg(&draw(&crate::report::tests::record()));
        for text in ["0.1 KB body", "nginx 1.31.5", ">21.0<", ">30.0<", "prefers-color-scheme: dark"] {
            assert!(svg.contains(text), "{text} isn't in {svg}");
        }
    }
}

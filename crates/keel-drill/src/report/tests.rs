//! What holds for every whole report.

use std::{collections::BTreeMap, fs, path::Path, process::Command, sync::LazyLock};

use keel_report::{picture::Ink, words};

use super::{compare, fixture, write};
use crate::results::Results;

type Files = BTreeMap<String, Vec<u8>>;

static CLEAN: LazyLock<Files> = LazyLock::new(|| report(&fixture::clean()));
static WITH_FINDINGS: LazyLock<Files> = LazyLock::new(|| report(&fixture::with_findings()));

/// Every file of a report by its name.
fn report(results: &Results) -> Files {
    let folder = tempfile::tempdir().expect("a folder");
    let written = write(results, folder.path()).expect("the report is written");
    let files: BTreeMap<_, _> =
        written.iter().map(|path| (name(path), fs::read(path).expect("it is there"))).collect();
    assert_eq!(files.len(), written.len(), "no file is written twice");
    let there = fs::read_dir(folder.path()).expect("the folder is there").count();
    assert_eq!(files.len(), there, "each file is named");
    files
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

fn text(files: &Files, name: &str) -> String {
    let bytes = files.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", files.keys()));
    String::from_utf8(bytes.clone()).expect("text")
}

/// With `KEEL_REPORT_DIR=folder`, keeps a report there to be looked at.
fn keep(results: &Results) {
    if let Some(folder) = std::env::var_os("KEEL_REPORT_DIR") {
        write(results, &Path::new(&folder).join(words::slug(&results.proxy))).expect("the report is kept");
    }
}

#[test]
fn the_report_in_words() {
    keep(&fixture::clean());
    keep(&fixture::with_findings());
    insta::assert_snapshot!("report.md", text(&WITH_FINDINGS, "results.md"));
}

#[test]
fn side_by_side() {
    let all = [fixture::clean(), fixture::with_findings()];
    let folder = tempfile::tempdir().expect("a folder");
    let written = compare(&all, folder.path()).expect("the comparison is written");
    let names: Vec<_> = written.iter().map(|path| name(path)).collect();
    assert_eq!(names, ["compare.md", "compare.html", "compare.pdf", "compare.svg", "compare.png"]);
    if let Some(kept) = std::env::var_os("KEEL_REPORT_DIR") {
        compare(&all, Path::new(&kept)).expect("the comparison is kept");
    }
    insta::assert_snapshot!(
        "compare.md",
        fs::read_to_string(folder.path().join("compare.md")).expect("text")
    );

    let clean = tempfile::tempdir().expect("a folder");
    let written = compare(&[fixture::clean()], clean.path()).expect("the comparison is written");
    assert_eq!(written.len(), 3, "no chart where nothing was lost");
}

#[test]
fn the_system_in_plantuml() {
    insta::assert_snapshot!("architecture.puml", text(&CLEAN, "architecture.puml"));
}

#[test]
fn a_chart_of_shares() {
    insta::assert_snapshot!("shares.svg", text(&WITH_FINDINGS, "shares-kill-one.svg"));
}

#[test]
fn the_same_results_give_the_same_bytes() {
    let results = fixture::with_findings();
    let (first, second) = (&*WITH_FINDINGS, report(&results));
    assert!(first.len() > 5);
    for (name, bytes) in first {
        assert!(second.get(name) == Some(bytes), "{name} differs");
    }
}

#[test]
fn results_json_is_read_back_whole() {
    let results = fixture::with_findings();
    let json = text(&report(&results), "results.json");
    assert_eq!(serde_json::from_str::<Results>(&json).expect("it is the schema's"), results);
}

#[test]
fn findings_come_first_with_their_ids() {
    let files = &*WITH_FINDINGS;
    for file in ["results.md", "report.html"] {
        let text = text(files, file);
        let findings = text.find("14 requests were lost").expect("the finding");
        let ids = text.find("k1-006031").expect("its ids");
        let summary = text.find("Sent").expect("the summary");
        assert!(findings < ids && ids < summary, "{file}");
        assert!(text.contains("3 findings in 1 of 4 cases"), "{file}");
    }
}

#[test]
fn what_none_lost_bounds_is_said_exactly() {
    let markdown = text(&CLEAN, "results.md");
    // 12,012 + 18,000 + 6,000 requests in all.
    assert!(
        markdown
            .contains("0 of 36,012 lost: at most 3/36,012 = 0.0083 % with 95 % confidence (rule of three).")
    );
    assert!(
        markdown.contains("0 of 4,500 POSTs received twice: at most 3/4,500 = 0.067 % with 95 % confidence")
    );
    assert!(text(&WITH_FINDINGS, "results.md").contains("14 of 48,012 lost: 0.029 %."));
}

#[test]
fn the_page_needs_nothing_else() {
    let html = text(&WITH_FINDINGS, "report.html");
    for reference in
        ["src=", "url(", "@import", "<link", "<script", "<iframe", "<base", "href=\"http", "href=\"/"]
    {
        assert!(!html.contains(reference), "{reference}");
    }
    for link in html.split("href=\"").skip(1) {
        let (target, _) = link.split_once('"').expect("a closed attribute");
        let anchor = target.strip_prefix('#').expect("a link within the page");
        assert!(html.contains(&format!("id=\"{anchor}\"")), "{anchor}");
    }
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("<svg"));
}

/// Puts a text into everything of results that is one.
fn poisoned(text: &str) -> Results {
    let mut value = serde_json::to_value(fixture::with_findings()).expect("results are JSON");
    poison(&mut value, text);
    serde_json::from_value(value).expect("still results")
}

fn poison(value: &mut serde_json::Value, text: &str) {
    match value {
        serde_json::Value::String(string) => *string = format!("{string}{text}"),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| poison(item, text)),
        // `source` is one of three words and no text.
        serde_json::Value::Object(fields) => {
            fields
                .iter_mut()
                .filter(|(name, _)| *name != "source")
                .for_each(|(_, field)| poison(field, text));
        }
        _ => {}
    }
}

#[test]
fn files_of_other_cases_are_on_the_page_alone() {
    let files = &*CLEAN;
    let (markdown, html) = (text(files, "results.md"), text(files, "report.html"));
    assert!(markdown.contains("# of the first case") && html.contains("# of the first case"));
    assert!(!markdown.contains("# of the second case") && html.contains("# of the second case"));
}

#[test]
fn hostile_names_stay_text_in_every_form() {
    let hostile = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>|`*\u{1b}[31m\n\n# x\n@enduml";
    let files = report(&poisoned(hostile));
    for (name, bytes) in &files {
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')), "{name}");
        let Ok(text) = std::str::from_utf8(bytes) else { continue };
        if name.ends_with(".json") {
            continue;
        }
        assert!(!text.contains("\u{1b}"), "{name}");
        assert!(!(text.contains("<script") || text.contains("<img")) || name.ends_with(".md"), "{name}");
    }
    let html = text(&files, "report.html");
    assert!(html.contains("&lt;script&gt;"));
    let puml = text(&files, "architecture.puml");
    assert_eq!(puml.lines().filter(|line| line.trim() == "@enduml").count(), 1);
    let markdown = text(&files, "results.md");
    let prose: Vec<_> = markdown.split("```").step_by(2).collect();
    assert!(!prose.concat().contains("<script"), "only a file's own text, between fences, has it");
}

#[test]
fn charts_are_png_of_twice_their_size() {
    let files = &*CLEAN;
    for name in ["architecture", "shares-even", "timeline-stop-one"] {
        let svg = text(files, &format!("{name}.svg"));
        let side = |side: &str| {
            let (_, after) = svg.split_once(&format!(" {side}=\"")).expect("a size");
            after.split('"').next().and_then(|size| size.parse::<f64>().ok()).expect("a number")
        };
        let png = files.get(&format!("{name}.png")).expect("the chart");
        let pixmap = tiny_skia::Pixmap::decode_png(png).expect("a PNG");
        assert!((f64::from(pixmap.width()) - 2.0 * side("width")).abs() < 1.0, "{name}");
        assert!((f64::from(pixmap.height()) - 2.0 * side("height")).abs() < 1.0, "{name}");
        let data = Ink::Data.light();
        let drawn = pixmap.pixels().iter().filter(|pixel| [pixel.red(), pixel.green(), pixel.blue()] == data);
        assert!(drawn.count() > 500, "{name} shows data");
    }
}

/// What `pdftotext` reads; none where it isn't installed.
fn read_pdf(pdf: &[u8]) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.pdf");
    fs::write(&path, pdf).expect("written");
    let output = match Command::new("pdftotext").arg("-layout").arg(&path).arg("-").output() {
        Ok(output) => output,
        Err(error) => {
            keel_testkit::not_run(format_args!("pdftotext (package poppler-utils) can't be run: {error}"));
            return None;
        }
    };
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn the_pdf_has_real_text() {
    let files = &*WITH_FINDINGS;
    let pdf = files.get("report.pdf").expect("the PDF");
    assert!(pdf.starts_with(b"%PDF-1.7"));
    let Some(text) = read_pdf(pdf) else { return };
    for part in [
        "Drill of shop",
        "3 findings in 1 of 4 cases",
        "k1-006031",
        "How it was measured",
        "0 of 12,012 lost: at most 3/12,012 = 0.025 % with 95 % confidence (rule of three).",
        "what the instance should have received",
        "127.83.7.5:9000",
        "proxy_pass http://app;",
        "page 1 of ",
    ] {
        assert!(text.contains(part), "{part} isn't in:\n{text}");
    }
    let text = read_pdf(report(&poisoned(" Привет 日本")).get("report.pdf").expect("the PDF"));
    let text = text.expect("it was there just now");
    assert!(text.contains("Привет"), "{text}");
    assert!(!text.contains('日'), "what the fonts lack is a box, and isn't read as something else");
}

#[test]
fn empty_and_odd_results_make_a_report_too() {
    let html = text(&report(&Results::default()), "report.html");
    assert!(html.contains("No case was played"));
    let mut odd = fixture::with_findings();
    for case in &mut odd.cases {
        case.latency.p99 = f64::NAN;
        case.load.rate = Some(f64::INFINITY);
        for slice in &mut case.timeline {
            slice.rate = f64::NAN;
            slice.p99 = Some(f64::INFINITY);
        }
    }
    let twice = odd.cases[0].clone();
    odd.cases.push(twice);
    let files = report(&odd);
    assert!(files.contains_key("shares-even.svg") && files.contains_key("shares-even-2.svg"));
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".svg")) {
        let svg = std::str::from_utf8(bytes).expect("text");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}");
    }
}

//! The report as PDF: real text, fonts within it, an outline and links.
//!
//! `pdf-writer` (kept by Typst's people) writes the format. What is above that is ours: pages that are filled from top to
//! bottom, tables whose columns are as wide as their contents ask, and the same pictures as everywhere. There is no date
//! in the file, so that the same results give the same bytes.

mod canvas;
mod embed;
mod layout;
mod table;

use pdf_writer::{Filter, Finish, Pdf, Rect, Ref, TextStr, types::ActionType, types::AnnotationType};

use crate::{
    document::{Document, Level},
    font::Face,
};
use canvas::{PAGE_HEIGHT, PAGE_WIDTH};
use layout::{Entry, Page, Pages};

const CATALOG: Ref = Ref::new(1);
const TREE: Ref = Ref::new(2);
const INFO: Ref = Ref::new(3);
const OUTLINE: Ref = Ref::new(4);
const FONTS: Ref = Ref::new(5);

/// Writes a report as PDF.
pub fn render(document: &Document) -> Vec<u8> {
    let Pages { pages, entries, mut letters } = layout::lay_out(document);
    let mut pdf = Pdf::new();
    let mut next = FONTS;
    let mut fonts = Vec::new();
    for face in [Face::Regular, Face::Bold, Face::Mono] {
        fonts.push((face, next));
        next = embed::embed(&mut pdf, next, face, letters.of(face));
    }
    let first = next.get();
    let count = i32::try_from(pages.len()).unwrap_or(i32::MAX);
    let page_ref = |index: usize| Ref::new(first + 2 * i32::try_from(index).unwrap_or_default());
    let ids = Ids { first_outline: first + 2 * count, fonts: &fonts };

    pdf.pages(TREE).kids((0..pages.len()).map(page_ref)).count(count);
    let mut next_link = ids.first_outline + i32::try_from(entries.len()).unwrap_or_default();
    for (index, mut page) in pages.into_iter().enumerate() {
        page.links.retain(|link| entries.iter().any(|entry| entry.anchor == link.anchor));
        let links = write_page(&mut pdf, page, page_ref(index), &ids, next_link);
        for (offset, link) in (0..).zip(&links) {
            let Some(entry) = entries.iter().find(|entry| entry.anchor == link.anchor) else { continue };
            let mut annotation = pdf.annotation(Ref::new(next_link + offset));
            let rect = link.area;
            let [left, top] = [rect.x as f32, (PAGE_HEIGHT - rect.y) as f32];
            annotation
                .subtype(AnnotationType::Link)
                .rect(Rect::new(left, top - rect.height as f32, left + rect.width as f32, top))
                .border(0.0, 0.0, 0.0, None);
            annotation.action().action_type(ActionType::GoTo).destination().page(page_ref(entry.page)).xyz(
                0.0,
                (PAGE_HEIGHT - entry.y) as f32,
                None,
            );
        }
        next_link += i32::try_from(links.len()).unwrap_or_default();
    }
    write_outline(&mut pdf, &entries, &ids, page_ref);

    let mut catalog = pdf.catalog(CATALOG);
    catalog.pages(TREE).outlines(OUTLINE).lang(TextStr("en"));
    catalog.viewer_preferences().display_doc_title(true);
    catalog.finish();
    pdf.document_info(INFO)
        .title(TextStr(&document.title))
        .subject(TextStr(&document.subtitle))
        .creator(TextStr("Evenkeel"));
    pdf.finish()
}

/// Ids that more than one part needs.
struct Ids<'a> {
    first_outline: i32,
    fonts: &'a [(Face, Ref)],
}

/// Writes a page, whose annotations will have the ids from `first_link` on, and gives its links.
fn write_page(pdf: &mut Pdf, page: Page, id: Ref, ids: &Ids<'_>, first_link: i32) -> Vec<layout::PageLink> {
    let content = Ref::new(id.get() + 1);
    let mut writer = pdf.page(id);
    writer
        .parent(TREE)
        .media_box(Rect::new(0.0, 0.0, PAGE_WIDTH as f32, PAGE_HEIGHT as f32))
        .contents(content)
        .annotations((first_link..).zip(&page.links).map(|(link, _)| Ref::new(link)));
    let mut resources = writer.resources();
    let mut fonts = resources.fonts();
    for (face, font) in ids.fonts {
        fonts.pair(canvas::resource(*face), *font);
    }
    fonts.finish();
    resources.finish();
    writer.finish();
    let packed = pack(&page.canvas.finish());
    pdf.stream(content, &packed).filter(Filter::FlateDecode);
    page.links
}

/// Chapters, and their sections below them.
fn write_outline(pdf: &mut Pdf, entries: &[Entry], ids: &Ids<'_>, page_ref: impl Fn(usize) -> Ref) {
    let id = |index: usize| Ref::new(ids.first_outline + i32::try_from(index).unwrap_or_default());
    let chapters: Vec<usize> = (0..entries.len()).filter(|index| is_chapter(entries, *index)).collect();
    let mut outline = pdf.outline(OUTLINE);
    if let (Some(first), Some(last)) = (chapters.first(), chapters.last()) {
        outline.first(id(*first)).last(id(*last)).count(i32::try_from(chapters.len()).unwrap_or_default());
    }
    outline.finish();
    for (index, entry) in entries.iter().enumerate() {
        let (parent, siblings) = if is_chapter(entries, index) {
            (OUTLINE, chapters.clone())
        } else {
            let chapter = chapters.iter().copied().rfind(|chapter| *chapter < index);
            (chapter.map_or(OUTLINE, id), sections(entries, chapter.unwrap_or_default()))
        };
        let place = siblings.iter().position(|sibling| *sibling == index).unwrap_or_default();
        let mut item = pdf.outline_item(id(index));
        item.title(TextStr(&entry.text)).parent(parent);
        if let Some(before) = place.checked_sub(1).and_then(|before| siblings.get(before)) {
            item.prev(id(*before));
        }
        if let Some(after) = siblings.get(place + 1) {
            item.next(id(*after));
        }
        let below = if is_chapter(entries, index) { sections(entries, index) } else { Vec::new() };
        if let (Some(first), Some(last)) = (below.first(), below.last()) {
            item.first(id(*first)).last(id(*last));
            // Negative: closed until it is opened.
            item.count(-i32::try_from(below.len()).unwrap_or_default());
        }
        item.dest().page(page_ref(entry.page)).xyz(0.0, (PAGE_HEIGHT - entry.y) as f32, None);
    }
}

fn is_chapter(entries: &[Entry], index: usize) -> bool {
    entries.get(index).is_some_and(|entry| entry.level == Level::Chapter)
}

/// The sections of a chapter.
fn sections(entries: &[Entry], chapter: usize) -> Vec<usize> {
    (chapter + 1..entries.len()).take_while(|index| !is_chapter(entries, *index)).collect()
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec_zlib(bytes, 7)
}

//! The fonts within a PDF, with the table that gives a reader the text back.

use std::collections::BTreeMap;

use pdf_writer::{
    Filter, Finish, Name, Pdf, Rect, Ref, Str,
    types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap},
};
use ttf_parser::{GlyphId, Tag};

use crate::font::Face;

/// Glyphs are their own character ids (ISO 32000-1 §9.7.4.2).
const IDENTITY: SystemInfo<'static> =
    SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"Identity"), supplement: 0 };

/// Objects that a font needs.
const OBJECTS: i32 = 5;

/// Writes a font under `id` and the ids after it, and gives the next free id.
pub(super) fn embed(pdf: &mut Pdf, id: Ref, face: Face, used: &BTreeMap<u16, char>) -> Ref {
    let [cid, descriptor, file, to_unicode] = [1, 2, 3, 4].map(|offset| Ref::new(id.get() + offset));
    let base = Name(name(face));
    let cff = face.parsed().raw_face().table(Tag::from_bytes(b"CFF "));

    pdf.type0_font(id)
        .base_font(base)
        .encoding_predefined(Name(b"Identity-H"))
        .descendant_font(cid)
        .to_unicode(to_unicode);

    let mut font = pdf.cid_font(cid);
    font.subtype(if cff.is_some() { CidFontType::Type0 } else { CidFontType::Type2 })
        .base_font(base)
        .system_info(IDENTITY)
        .font_descriptor(descriptor)
        .default_width(0.0);
    if cff.is_none() {
        font.cid_to_gid_map_predefined(Name(b"Identity"));
    }
    let mut widths = font.widths();
    for glyph in used.keys() {
        widths.consecutive(*glyph, [(face.advance(GlyphId(*glyph)) * 1_000.0) as f32]);
    }
    widths.finish();
    font.finish();

    describe(pdf, descriptor, face, cff.map_or(FontFile::TrueType(file), |_| FontFile::Cff(file)));
    let bytes = cff.unwrap_or(face.file());
    let packed = super::pack(bytes);
    let mut stream = pdf.stream(file, &packed);
    stream.filter(Filter::FlateDecode);
    if cff.is_some() {
        stream.pair(Name(b"Subtype"), Name(b"CIDFontType0C"));
    } else {
        stream.pair(Name(b"Length1"), i32::try_from(bytes.len()).unwrap_or(i32::MAX));
    }
    stream.finish();

    let mut map = UnicodeCmap::new(Name(b"Custom"), IDENTITY);
    for (glyph, character) in used {
        map.pair(*glyph, *character);
    }
    let packed = super::pack(map.finish().as_slice());
    pdf.cmap(to_unicode, &packed).filter(Filter::FlateDecode);
    Ref::new(id.get() + OBJECTS)
}

/// Where the letters are, by their format.
enum FontFile {
    TrueType(Ref),
    Cff(Ref),
}

fn describe(pdf: &mut Pdf, id: Ref, face: Face, file: FontFile) {
    let parsed = face.parsed();
    let unit = 1_000.0 / f32::from(parsed.units_per_em());
    let bounds = parsed.global_bounding_box();
    let bounds = [bounds.x_min, bounds.y_min, bounds.x_max, bounds.y_max].map(|side| f32::from(side) * unit);
    let [left, bottom, right, top] = bounds;
    let pitch = if face == Face::Mono { FontFlags::FIXED_PITCH } else { FontFlags::empty() };
    let mut descriptor = pdf.font_descriptor(id);
    descriptor
        .name(Name(name(face)))
        .flags(FontFlags::SYMBOLIC | pitch)
        .bbox(Rect::new(left, bottom, right, top))
        .italic_angle(0.0)
        .ascent(f32::from(parsed.ascender()) * unit)
        .descent(f32::from(parsed.descender()) * unit)
        .cap_height(f32::from(parsed.capital_height().unwrap_or_default()) * unit)
        .stem_v(if face == Face::Bold { 130.0 } else { 90.0 });
    match file {
        FontFile::TrueType(file) => descriptor.font_file2(file),
        FontFile::Cff(file) => descriptor.font_file3(file),
    };
}

/// The font's name behind a tag that says it is a part (ISO 32000-1 §9.6.4).
fn name(face: Face) -> &'static [u8] {
    match face {
        Face::Regular => b"KEELRE+Inter-Regular",
        Face::Bold => b"KEELSB+Inter-SemiBold",
        Face::Mono => b"KEELMO+JetBrainsMono-Regular",
    }
}

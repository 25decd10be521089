//! Reading of one argument, each with the text that nginx has for what is wrong with it.

use std::{path::PathBuf, time::Duration};

use keel_diag::Diagnostic;
use keel_model::{Buffers, ByteSize, MediaTypes, SizeValue};

use crate::{
    ast::Directive,
    reader::{Frame, Reader},
    value::{self, Resolution},
};

/// How many characters all levels of a temporary path have at most.
const PATH_LEVELS_MAX: u64 = 10;

/// Reads `on` or `off`.
pub(crate) fn flag(reader: &mut Reader<'_>, directive: &Directive) -> Option<bool> {
    let word = directive.args.first()?;
    match word.text.to_ascii_lowercase().as_str() {
        "on" => Some(true),
        "off" => Some(false),
        _ => {
            let (name, text) = (&directive.name.text, &word.text);
            let nginx =
                format!("invalid value \"{text}\" in \"{name}\" directive, it must be \"on\" or \"off\"");
            reader.invalid(directive, word, nginx, "`on` or `off`");
            None
        }
    }
}

/// Reads a time in the resolution of milliseconds.
pub(crate) fn msec(reader: &mut Reader<'_>, directive: &Directive) -> Option<Duration> {
    time(reader, directive, Resolution::Milliseconds)
}

/// Reads a time in the resolution of seconds.
pub(crate) fn seconds(reader: &mut Reader<'_>, directive: &Directive) -> Option<Duration> {
    time(reader, directive, Resolution::Seconds)
}

fn time(reader: &mut Reader<'_>, directive: &Directive, resolution: Resolution) -> Option<Duration> {
    let word = directive.args.first()?;
    let time = value::time(&word.text, resolution);
    if time.is_none() {
        let nginx = format!("\"{}\" directive invalid value", directive.name.text);
        reader.invalid(directive, word, nginx, "a time such as `500ms`, `30s` or `1h30m`");
    }
    time
}

/// Reads a size.
pub(crate) fn size(reader: &mut Reader<'_>, directive: &Directive) -> Option<ByteSize> {
    let word = directive.args.first()?;
    let size = value::size(&word.text);
    if size.is_none() {
        let nginx = format!("\"{}\" directive invalid value", directive.name.text);
        reader.invalid(directive, word, nginx, "a size such as `512`, `8k` or `1m`");
    }
    size
}

/// Reads a size, or a text with variables that comes to one.
pub(crate) fn size_value(reader: &mut Reader<'_>, directive: &Directive) -> Option<SizeValue> {
    let word = directive.args.first()?;
    if crate::variables::has_variables(&word.text) {
        return reader.template(word).map(SizeValue::Evaluated);
    }
    size(reader, directive).map(SizeValue::Fixed)
}

/// Reads an offset.
pub(crate) fn offset(reader: &mut Reader<'_>, directive: &Directive) -> Option<ByteSize> {
    let word = directive.args.first()?;
    let size = value::offset(&word.text);
    if size.is_none() {
        let nginx = format!("\"{}\" directive invalid value", directive.name.text);
        reader.invalid(directive, word, nginx, "a size such as `8k`, `1m` or `1g`");
    }
    size
}

/// Reads a number.
pub(crate) fn number(reader: &mut Reader<'_>, directive: &Directive) -> Option<u64> {
    let word = directive.args.first()?;
    let number = value::number(&word.text);
    if number.is_none() {
        let nginx = format!("\"{}\" directive invalid number", directive.name.text);
        reader.invalid(directive, word, nginx, "a number");
    }
    number
}

/// Reads a number that fits 32 bits; a larger one counts as the largest.
pub(crate) fn number32(reader: &mut Reader<'_>, directive: &Directive) -> Option<u32> {
    number(reader, directive).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// Reads a number from 0 to 255.
pub(crate) fn byte(reader: &mut Reader<'_>, directive: &Directive) -> Option<u8> {
    let byte = u8::try_from(number(reader, directive)?);
    if byte.is_err() {
        let nginx = "value must be equal to or less than 255".to_owned();
        reader.invalid(directive, directive.args.first()?, nginx, "a number from 0 to 255");
    }
    byte.ok()
}

/// Reads the status of an error, 400 to 599.
pub(crate) fn status_of_error(reader: &mut Reader<'_>, directive: &Directive) -> Option<u16> {
    let status = number(reader, directive)?;
    if let Some(status) = u16::try_from(status).ok().filter(|status| (400..600).contains(status)) {
        return Some(status);
    }
    let (bound, limit) = if status < 400 { ("greater", 400) } else { ("less", 599) };
    let nginx = format!("value must be equal to or {bound} than {limit}");
    reader.invalid(directive, directive.args.first()?, nginx, "a number from 400 to 599");
    None
}

/// Reads a number and size of buffers.
pub(crate) fn buffers(reader: &mut Reader<'_>, directive: &Directive) -> Option<Buffers> {
    let [count, size] = directive.args.as_slice() else {
        return None;
    };
    let nginx = || format!("\"{}\" directive invalid value", directive.name.text);
    let Some(number) = value::number(&count.text).filter(|&number| number > 0) else {
        reader.invalid(directive, count, nginx(), "a number of buffers, at least 1");
        return None;
    };
    let Some(bytes) = value::size(&size.text).filter(|bytes| bytes.0 > 0) else {
        reader.invalid(directive, size, nginx(), "a size such as `8k`");
        return None;
    };
    Some(Buffers { count: u32::try_from(number).unwrap_or(u32::MAX), size: bytes })
}

/// Adds media types to the list that one block has of them; `text/html` is always in it.
pub(crate) fn media_types(
    reader: &mut Reader<'_>,
    directive: &Directive,
    slot: fn(&mut Frame) -> &mut Option<MediaTypes>,
) {
    for word in &directive.args {
        let types = slot(&mut reader.frame).get_or_insert_with(MediaTypes::always);
        let MediaTypes::These(list) = types else { return };
        let media = word.text.to_ascii_lowercase();
        if media == "*" {
            *types = MediaTypes::All;
        } else if !list.contains(&media) {
            list.push(media);
        } else if media != MediaTypes::ALWAYS {
            reader.diagnostics.push(
                Diagnostic::warning("nginx::duplicate-type", format!("`{media}` is in the list already"))
                    .at(word.span, "named again here")
                    .nginx(format!("duplicate MIME type \"{media}\"")),
            );
        }
    }
}

/// Reads a number in a range.
pub(crate) fn number_in(
    reader: &mut Reader<'_>,
    directive: &Directive,
    range: std::ops::RangeInclusive<u32>,
) -> Option<u32> {
    let value = number32(reader, directive)?;
    if range.contains(&value) {
        return Some(value);
    }
    let (from, to) = (range.start(), range.end());
    let nginx = match value < *from {
        true => format!("value must be equal to or greater than {from}"),
        false => format!("value must be equal to or less than {to}"),
    };
    reader.invalid(directive, directive.args.first()?, nginx, &format!("a number from {from} to {to}"));
    None
}

/// Reads a size out of a list, in bytes; gives its place there.
pub(crate) fn size_of_list(reader: &mut Reader<'_>, directive: &Directive, sizes: &[u64]) -> Option<usize> {
    let bytes = size(reader, directive)?;
    let place = sizes.iter().position(|size| *size == bytes.0);
    if place.is_none() {
        let names: Vec<_> = sizes.iter().map(|bytes| value::size_text(*bytes)).collect();
        let names = names.join(", ");
        let nginx = format!("\"{}\" directive must be {names}", directive.name.text);
        reader.invalid(directive, directive.args.first()?, nginx, &format!("one of {names}"));
    }
    place
}

/// Reads the text of the first argument.
pub(crate) fn text(_: &mut Reader<'_>, directive: &Directive) -> Option<String> {
    directive.args.first().map(|word| word.text.clone())
}

/// Reads a path, made absolute with the prefix.
pub(crate) fn path(reader: &mut Reader<'_>, directive: &Directive) -> Option<PathBuf> {
    directive.args.first().map(|word| reader.absolute(&word.text))
}

/// Reads the path of temporary files and its levels of folders, of which only the path matters here.
pub(crate) fn temp_path(reader: &mut Reader<'_>, directive: &Directive) -> Option<PathBuf> {
    let mut characters = 0u64;
    for word in directive.args.iter().skip(1) {
        let level = value::number(&word.text).filter(|&level| level > 0);
        characters = characters.saturating_add(level.unwrap_or(0));
        if level.is_none() || characters > PATH_LEVELS_MAX {
            let nginx = format!("\"{}\" directive invalid value", directive.name.text);
            reader.invalid(directive, word, nginx, "a number of characters, ten in all levels at most");
        }
    }
    path(reader, directive)
}

/// Reads a word out of a list.
pub(crate) fn keyword<T: Clone>(
    reader: &mut Reader<'_>,
    directive: &Directive,
    choices: &[(&str, T)],
) -> Option<T> {
    let word = directive.args.first()?;
    let choice = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(&word.text));
    if choice.is_none() {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
        let nginx = format!("invalid value \"{}\"", word.text);
        reader.invalid(directive, word, nginx, &format!("one of {}", names.join(", ")));
    }
    choice.map(|(_, value)| value.clone())
}

/// Reads words out of a list, one or more; a repeated one is reported and counts once.
pub(crate) fn keywords<T: Copy + PartialEq>(
    reader: &mut Reader<'_>,
    directive: &Directive,
    choices: &[(&str, T)],
) -> Vec<T> {
    let mut values = Vec::new();
    for word in &directive.args {
        match choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(&word.text)) {
            Some((_, value)) if values.contains(value) => reader.diagnostics.push(
                Diagnostic::warning("nginx::duplicate-value", format!("`{}` stands twice", word.text))
                    .at(word.span, "")
                    .nginx(format!("duplicate value \"{}\"", word.text)),
            ),
            Some((_, value)) => values.push(*value),
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
                let nginx = format!("invalid value \"{}\"", word.text);
                reader.invalid(directive, word, nginx, &format!("one of {}", names.join(", ")));
            }
        }
    }
    values
}

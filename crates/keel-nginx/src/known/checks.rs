//! Arguments that a list of words or a number doesn't describe, each as nginx reads it.

use std::net::{IpAddr, SocketAddr};

use keel_diag::Diagnostic;

use crate::{
    arguments::size,
    ast::{Directive, Word},
    reader::Reader,
    value::{self, Resolution},
};

/// The least shared memory that nginx takes for a zone: eight pages, and two for a cache's keys.
const KEYS_ZONE_BYTES_MIN: u64 = 2 * 4096;

/// The least memory pool that nginx makes, and what its size is a multiple of.
const POOL_BYTES_MIN: u64 = 112;
const POOL_BYTES_UNIT: u64 = 16;

/// The most processors that a mask of `worker_cpu_affinity` names.
const PROCESSORS_MAX: usize = 1024;

/// `use`: the methods of Linux.
pub(super) fn event_method(reader: &mut Reader<'_>, directive: &Directive) {
    let methods = ["epoll", "poll", "select"];
    for word in directive.args.iter().filter(|word| !methods.contains(&word.text.as_str())) {
        let nginx = format!("invalid event type \"{}\"", word.text);
        reader.invalid(directive, word, nginx, "`epoll`, `poll` or `select`");
    }
}

/// `aio`.
pub(super) fn aio(reader: &mut Reader<'_>, directive: &Directive) {
    for word in &directive.args {
        if !matches!(word.text.as_str(), "on" | "off" | "threads") && !word.text.starts_with("threads=") {
            let nginx = format!("invalid value \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "`on`, `off`, `threads` or `threads=pool`");
        }
    }
}

/// `directio`.
pub(super) fn directio(reader: &mut Reader<'_>, directive: &Directive) {
    let invalid = |word: &&Word| word.text != "off" && value::offset(&word.text).is_none();
    if let Some(word) = directive.args.iter().find(invalid) {
        let nginx = "\"directio\" directive invalid value".to_owned();
        reader.invalid(directive, word, nginx, "`off` or a size such as `4m`");
    }
}

/// `open_file_cache` and `open_log_file_cache`.
pub(super) fn open_file_cache(reader: &mut Reader<'_>, directive: &Directive) {
    let name = directive.name.text.clone();
    let is_log = name == "open_log_file_cache";
    let mut has_max = false;
    for word in &directive.args {
        let sound = match word.text.split_once('=') {
            None => word.text == "off",
            Some(("max", number)) => value::number(number).is_some_and(|number| number > 0),
            Some(("inactive", time)) => value::time(time, Resolution::Seconds).is_some(),
            Some(("min_uses", number)) if is_log => value::number(number).is_some(),
            Some(("valid", time)) if is_log => value::time(time, Resolution::Seconds).is_some(),
            Some(_) => false,
        };
        has_max |= word.text == "off" || word.text.starts_with("max=");
        if !sound {
            let nginx = format!("invalid \"{name}\" parameter \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "`off`, or `max=number` and `inactive=time`");
        }
    }
    if !has_max {
        missing(reader, directive, &name, "max");
    }
}

/// `worker_priority`.
pub(super) fn priority(reader: &mut Reader<'_>, directive: &Directive) {
    let digits = |word: &Word| word.text.strip_prefix(['-', '+']).unwrap_or(&word.text).to_owned();
    if let Some(word) = directive.args.iter().find(|word| value::number(&digits(word)).is_none()) {
        let nginx = "\"worker_priority\" directive invalid number".to_owned();
        reader.invalid(directive, word, nginx, "a number such as `-5`");
    }
}

/// `worker_cpu_affinity`.
pub(super) fn cpu_affinity(reader: &mut Reader<'_>, directive: &Directive) {
    let auto = directive.arg(0) == "auto";
    if auto && directive.args.len() > 2 {
        return reader.wrong_count(directive, "one mask at most may follow `auto`".to_owned());
    }
    for word in directive.args.iter().skip(usize::from(auto)) {
        if word.text.len() > PROCESSORS_MAX {
            let nginx = format!("\"worker_cpu_affinity\" supports up to {PROCESSORS_MAX} CPUs only");
            return reader.invalid(directive, word, nginx, "a shorter mask");
        }
        if let Some(odd) = word.text.chars().find(|c| !matches!(c, '0' | '1' | ' ')) {
            let nginx = format!("invalid character \"{odd}\" in \"worker_cpu_affinity\"");
            reader.invalid(directive, word, nginx, "a mask of `0` and `1`");
        }
    }
}

/// `thread_pool`.
pub(super) fn thread_pool(reader: &mut Reader<'_>, directive: &Directive) {
    let positive = |text: &str| value::number(text).is_some_and(|number| number > 0);
    let mut has_threads = false;
    for word in directive.args.iter().skip(1) {
        match word.text.split_once('=') {
            Some(("threads", number)) => {
                has_threads = true;
                if !positive(number) {
                    let nginx = format!("invalid threads value \"{}\"", word.text);
                    reader.invalid(directive, word, nginx, "`threads=number`");
                }
            }
            Some(("max_queue", number)) if value::number(number).is_none() => {
                let nginx = format!("invalid max_queue value \"{}\"", word.text);
                reader.invalid(directive, word, nginx, "`max_queue=number`");
            }
            _ => {}
        }
    }
    if !has_threads {
        missing(reader, directive, directive.arg(0), "threads");
    }
}

/// Checks `name:size`.
fn keys_zone(reader: &mut Reader<'_>, directive: &Directive, word: &Word, zone: &str) {
    let size = zone.split_once(':').filter(|(name, _)| !name.is_empty());
    match size.and_then(|(_, size)| value::size(size)) {
        Some(bytes) if bytes.0 >= KEYS_ZONE_BYTES_MIN => {}
        Some(_) => {
            let nginx = format!("keys zone \"{}\" is too small", word.text);
            let expected = format!("at least {}", value::size_text(KEYS_ZONE_BYTES_MIN));
            reader.invalid(directive, word, nginx, &expected);
        }
        None => {
            let nginx = format!("invalid keys zone size \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "`name:size`");
        }
    }
}

/// `proxy_cache_path` and its like.
pub(super) fn cache_path(reader: &mut Reader<'_>, directive: &Directive) {
    let mut has_zone = false;
    for word in directive.args.iter().skip(1) {
        let Some((key, text)) = word.text.split_once('=') else {
            let nginx = format!("invalid parameter \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "`levels=`, `keys_zone=`, `inactive=`, `max_size=`");
            continue;
        };
        let nginx = match key {
            "keys_zone" => {
                has_zone = true;
                keys_zone(reader, directive, word, text);
                if let Some((zone, _)) = text.split_once(':') {
                    reader.http.cache_zones.defined.push((directive.name.text.clone(), zone.to_owned()));
                }
                continue;
            }
            "levels" if levels(text) => continue,
            "levels" => format!("invalid \"levels\" \"{}\"", word.text),
            "use_temp_path" if matches!(text, "on" | "off") => continue,
            "use_temp_path" => {
                format!("invalid use_temp_path value \"{}\", it must be \"on\" or \"off\"", word.text)
            }
            "inactive" if value::time(text, Resolution::Seconds).is_some() => continue,
            "max_size" | "min_free" if value::offset(text).is_some() => continue,
            "loader_files" | "manager_files" if value::number(text).is_some() => continue,
            "loader_sleep" | "loader_threshold" | "manager_sleep" | "manager_threshold"
                if value::time(text, Resolution::Milliseconds).is_some() =>
            {
                continue;
            }
            "inactive" | "max_size" | "min_free" | "loader_files" | "loader_sleep" | "loader_threshold"
            | "manager_files" | "manager_sleep" | "manager_threshold" => {
                format!("invalid {key} value \"{}\"", word.text)
            }
            _ => format!("invalid parameter \"{}\"", word.text),
        };
        reader.invalid(directive, word, nginx, "what nginx's documentation of the directive lists");
    }
    if !has_zone {
        missing(reader, directive, &directive.name.text, "keys_zone");
    }
}

/// Tells whether a text is one to three of `1` and `2`, with colons between.
fn levels(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() <= 3 && parts.iter().all(|part| matches!(*part, "1" | "2"))
}

/// `proxy_cache_valid` and its like: statuses, then a time.
pub(super) fn cache_valid(reader: &mut Reader<'_>, directive: &Directive) {
    let Some((time, statuses)) = directive.args.split_last() else { return };
    if value::time(&time.text, Resolution::Seconds).is_none() {
        let nginx = format!("invalid time value \"{}\"", time.text);
        reader.invalid(directive, time, nginx, "a time such as `10m`");
    }
    for word in statuses.iter().filter(|word| word.text != "any") {
        if !value::number(&word.text).is_some_and(|status| (100..=599).contains(&status)) {
            let nginx = format!("invalid status \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "a status from 100 to 599, or `any`");
        }
    }
}

/// `proxy_store_access` and its like.
pub(super) fn access(reader: &mut Reader<'_>, directive: &Directive) {
    for word in &directive.args {
        let rights = word.text.split_once(':').filter(|(who, _)| matches!(*who, "user" | "group" | "all"));
        if !rights.is_some_and(|(_, rights)| matches!(rights, "r" | "rw")) {
            let nginx = format!("invalid value \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "`user:rw`, `group:r` and the like");
        }
    }
}

/// `request_pool_size` and `connection_pool_size`.
pub(super) fn pool_size(reader: &mut Reader<'_>, directive: &Directive) {
    let Some(bytes) = size(reader, directive) else { return };
    let Some(word) = directive.args.first() else { return };
    if bytes.0 < POOL_BYTES_MIN {
        let nginx = format!("the pool size must be no less than {POOL_BYTES_MIN}");
        reader.invalid(directive, word, nginx, &format!("at least {POOL_BYTES_MIN}"));
    } else if !bytes.0.is_multiple_of(POOL_BYTES_UNIT) {
        let nginx = format!("the pool size must be a multiple of {POOL_BYTES_UNIT}");
        reader.invalid(directive, word, nginx, &format!("a multiple of {POOL_BYTES_UNIT}"));
    }
}

/// `proxy_bind` and its like.
pub(crate) fn bind(reader: &mut Reader<'_>, directive: &Directive) {
    let mut words = directive.args.iter();
    let Some(address) = words.next() else { return };
    let text = address.text.as_str();
    let is_address = || text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok();
    let is_off = text == "off" && directive.args.len() == 1;
    if !is_off && !text.contains('$') && !is_address() {
        let nginx = format!("invalid address \"{text}\"");
        reader.invalid(directive, address, nginx, "an address, or `off`");
    }
    for word in words.filter(|word| word.text != "transparent") {
        let nginx = format!("invalid parameter \"{}\"", word.text);
        reader.invalid(directive, word, nginx, "`transparent`");
    }
}

/// `ssl_certificate_cache` and its like.
pub(super) fn certificate_cache(reader: &mut Reader<'_>, directive: &Directive) {
    let mut has_max = false;
    for word in &directive.args {
        let sound = match word.text.split_once('=') {
            None => word.text == "off",
            Some(("max", number)) => value::number(number).is_some_and(|number| number > 0),
            Some(("inactive" | "valid", time)) => value::time(time, Resolution::Seconds).is_some(),
            Some(_) => false,
        };
        has_max |= word.text == "off" || word.text.starts_with("max=");
        if !sound {
            let nginx = format!("invalid parameter \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "`off`, or `max=number`, `inactive=time`, `valid=time`");
        }
    }
    if !has_max {
        missing(reader, directive, &directive.name.text, "max");
    }
}

/// `proxy_cache` and its like: the zone must be there when the file has been read.
pub(super) fn cache(reader: &mut Reader<'_>, directive: &Directive) {
    let Some(word) = directive.args.first() else { return };
    if word.text != "off" && !word.text.contains('$') {
        let name = directive.name.text.clone();
        reader.http.cache_zones.uses.push((name, word.clone()));
    }
}

/// Reports zones of caches that nothing defines.
pub(crate) fn check_cache_zones(reader: &mut Reader<'_>) {
    let zones = std::mem::take(&mut reader.http.cache_zones);
    for (name, word) in zones.uses {
        let defined = (format!("{name}_path"), word.text.clone());
        if !zones.defined.contains(&defined) {
            let message = format!("`{name}` names a zone `{}` that nothing defines", word.text);
            let nginx = format!("\"{name}\" zone \"{}\" is unknown", word.text);
            let found = Diagnostic::error("nginx::unknown-zone", message);
            let help = format!("define it in `http`: `{name}_path /path keys_zone={}:10m;`", word.text);
            reader.diagnostics.push(found.at(word.span, "").help(help).nginx(nginx));
        }
    }
}

/// Zones of caches, by the directive that defines them or uses them.
#[derive(Debug, Default)]
pub(crate) struct CacheZones {
    defined: Vec<(String, String)>,
    uses: Vec<(String, Word)>,
}

fn missing(reader: &mut Reader<'_>, directive: &Directive, whose: &str, parameter: &str) {
    let nginx = format!("\"{whose}\" must have \"{parameter}\" parameter");
    let message = format!("`{}` lacks `{parameter}=`", directive.name.text);
    reader.error("nginx::missing-parameter", message, directive.span(), nginx);
}

//! Fields that only a container has: limits, rights, and those that Evenkeel can't honour for one.

use keel_diag::Diagnostic;
use keel_model::Confinement;

use crate::{
    MountSource, Origin, Reservations, Service,
    decode::Decoder,
    report::Report,
    yaml::{Node, Value},
};

/// Reads limits and rights.
pub(crate) fn confinement(decoder: &mut Decoder<'_>, node: &Node) -> Confinement {
    let get = |field: &str| node.get(field).filter(|node| !node.is_null());
    let mut texts = |field: &str| -> Vec<String> {
        get(field)
            .map_or_else(Vec::new, |node| decoder.texts(node))
            .into_iter()
            .map(|text| text.value)
            .collect()
    };
    let (cap_add, cap_drop) = (texts("cap_add"), texts("cap_drop"));
    let (security_opt, group_add) = (texts("security_opt"), texts("group_add"));
    let (mut dns, tmpfs) = (texts("dns"), texts("tmpfs"));
    // Compose leaves out empty ones: a variable that isn't set asks for nothing.
    dns.retain(|address| !address.is_empty());
    let tmpfs = tmpfs.into_iter().map(|text| match text.split_once(':') {
        Some((path, options)) => (path.to_owned(), options.to_owned()),
        None => (text, String::new()),
    });
    let tmpfs = tmpfs.chain(get("volumes").into_iter().flat_map(memory_mounts)).collect();
    let sysctls = get("sysctls").map(|node| decoder.labels(node)).unwrap_or_default();
    let mut flag = |field: &str| get(field).and_then(|node| decoder.flag(node)).map(|flag| flag.value);
    let (init, read_only) = (flag("init"), flag("read_only") == Some(true));
    let (privileged, tty) = (flag("privileged") == Some(true), flag("tty") == Some(true));
    Confinement {
        init,
        read_only,
        privileged,
        tty,
        cap_add,
        cap_drop,
        security_opt,
        group_add,
        dns,
        tmpfs,
        sysctls: sysctls.into_iter().map(|(name, value)| (name, value.value)).collect(),
        shm_bytes: get("shm_size").and_then(|node| bytes(decoder, node)),
        memory_bytes: get("mem_limit").and_then(|node| bytes(decoder, node)),
        nano_cpus: get("cpus").and_then(|node| nano_cpus(decoder, node)),
        pids_max: get("pids_limit").and_then(|node| decoder.number(node)).map(|limit| limit.value),
    }
}

/// Reads `deploy.resources.limits`; as in Compose they are the same limits as `cpus`, `mem_limit` and `pids_limit`, and may
/// not say otherwise.
pub(crate) fn deploy_limits(decoder: &mut Decoder<'_>, limits: &Node, confinement: &mut Confinement) {
    let get = |field: &str| limits.get(field).filter(|node| !node.is_null());
    let cpus = get("cpus").and_then(|node| Some((node, nano_cpus(decoder, node)?)));
    let memory = get("memory").and_then(|node| Some((node, bytes(decoder, node)?)));
    let pids = get("pids").and_then(|node| Some((node, decoder.number::<i64>(node)?.value)));
    let mut settle = |given: Option<(&Node, i64)>, own: &mut Option<i64>, field: &str| {
        let Some((node, value)) = given else { return };
        if own.is_some_and(|own| own != value) {
            let message = format!("this limit and `{field}` differ");
            return decoder.invalid(node.span, message, "say it in one place");
        }
        *own = Some(value);
    };
    settle(cpus, &mut confinement.nano_cpus, "cpus");
    settle(memory, &mut confinement.memory_bytes, "mem_limit");
    settle(pids, &mut confinement.pids_max, "pids_limit");
}

/// Reads `deploy.resources.reservations`.
pub(crate) fn reservations(decoder: &mut Decoder<'_>, node: &Node) -> Reservations {
    let get = |field: &str| node.get(field).filter(|node| !node.is_null());
    Reservations {
        memory_bytes: get("memory").and_then(|node| bytes(decoder, node)),
        nano_cpus: get("cpus").and_then(|node| nano_cpus(decoder, node)),
    }
}

/// The paths of `volumes` with `type: tmpfs`.
fn memory_mounts(volumes: &Node) -> Vec<(String, String)> {
    let Value::Sequence(items) = &volumes.value else { return Vec::new() };
    let scalar = |node: Option<&Node>| match node.map(|node| &node.value) {
        Some(Value::Scalar(scalar)) => Some(scalar.text.clone()),
        _ => None,
    };
    let is_memory = |item: &&Node| scalar(item.get("type")).as_deref() == Some("tmpfs");
    let targets = items.iter().filter(is_memory).filter_map(|item| scalar(item.get("target")));
    targets.map(|target| (target, String::new())).collect()
}

fn bytes(decoder: &mut Decoder<'_>, node: &Node) -> Option<i64> {
    let text = decoder.text(node)?;
    let parsed = parse_bytes(&text.value);
    if parsed.is_none() {
        decoder.invalid(text.span, format!("`{}` is not a size", text.value), "such as 512m or 1g");
    }
    parsed
}

/// Reads a size: a number and `b`, `k`, `m`, `g` or `t`, alone or followed by `b`; powers of 1024.
fn parse_bytes(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1024_i64.pow(power));
    }
    fraction(number, 1024_f64.powi(i32::try_from(power).ok()?))
}

fn nano_cpus(decoder: &mut Decoder<'_>, node: &Node) -> Option<i64> {
    let text = decoder.text(node)?;
    let parsed = fraction(&text.value, 1e9);
    if parsed.is_none() {
        decoder.invalid(text.span, format!("`{}` is not a number of processors", text.value), "such as 0.5");
    }
    parsed
}

/// Reads a number with a fraction, times something.
fn fraction(text: &str, by: f64) -> Option<i64> {
    let value = text.trim().parse::<f64>().ok()? * by;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it was checked to be in range, and a fraction of a unit is nothing"
    )]
    let whole = (0.0..9e18).contains(&value).then_some(value.round() as i64);
    whole
}

/// Reports what a container that Evenkeel balances can't have.
pub(crate) fn check(service: &Service, report: &mut Report) {
    if let Some(mode) = &service.network_mode
        && !matches!(mode.value.as_str(), "bridge" | "default" | "")
    {
        let message = format!("`network_mode: {}` can't be honoured", mode.value);
        report.push(
            Diagnostic::error("compose::not-honoured", message)
                .at(mode.span, "an instance needs an address of its own")
                .help("publish what it listens on with `ports`; other services reach it by its name"),
        );
    }
    for mount in service.configs.iter().chain(&service.secrets) {
        let problem = match &mount.origin {
            Some(Origin::Host(_)) => continue,
            Some(Origin::Text(_)) => {
                "its content stands in the file, and only files of this host are mounted"
            }
            None => "it is made by somebody else",
        };
        report.push(
            Diagnostic::error("compose::not-honoured", format!("`{}` can't be mounted", mount.source))
                .at(mount.span, problem)
                .help("put the content into a file and name it with `file:`"),
        );
    }
    let anonymous = service.volumes.iter().filter(|mount| mount.source == MountSource::Anonymous);
    if service.replicas() > 1 && anonymous.clone().next().is_some() {
        // Said nowhere else: each of them begins empty.
        for mount in anonymous.filter(|mount| !service.confinement.tmpfs.contains_key(&mount.target)) {
            let message = format!("each instance has a volume of its own at {}", mount.target);
            report.push(Diagnostic::warning("compose::own-volume", message).at(mount.span, ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        let check = |text: &str, expect: Option<i64>| assert_eq!(parse_bytes(text), expect, "{text}");
        check("1024", Some(1024));
        check("10b", Some(10));
        check("64k", Some(64 << 10));
        check("512M", Some(512 << 20));
        check("1gb", Some(1 << 30));
        check("1.5g", Some(3 << 29));
        for bad in ["", "m", "1x", "-1", "99999999999t"] {
            check(bad, None);
        }
    }

    #[test]
    fn reads_fractions() {
        let check = |text: &str, expect: Option<i64>| assert_eq!(fraction(text, 1e9), expect, "{text}");
        check("0.5", Some(500_000_000));
        check("2", Some(2_000_000_000));
        for bad in ["", "-1", "many", "NaN", "1e300"] {
            check(bad, None);
        }
    }
}

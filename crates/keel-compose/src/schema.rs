//! Every field of the Compose specification by name, and what it means that Evenkeel doesn't honour one.
//!
//! A field that is read has nothing to say. Another is a warning where the service still answers as it should (limits,
//! logging, hardening), an error where the user would get something else. A field that isn't in the specification is an
//! error, unless it begins with `x-`. The reasons speak of the process driver, which is the default.

use keel_diag::{Diagnostic, suggest};

use crate::{
    report::Report,
    yaml::{Mapping, Node, Value},
};

/// A field and what becomes of it.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) effect: Effect,
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It is honoured, or there is nothing to honour.
    Read,
    /// It isn't; every response stays correct.
    Warn(&'static str),
    /// It isn't, and these values say what holds all the same.
    WarnUnless(&'static [&'static str], &'static str),
    /// It isn't, and the user would get something else.
    Error(&'static str),
}

use Effect::{Error, Read, Warn, WarnUnless};

const fn read(name: &'static str) -> Field {
    Field { name, effect: Read }
}

const fn warn(name: &'static str, reason: &'static str) -> Field {
    Field { name, effect: Warn(reason) }
}

const fn warn_unless(name: &'static str, defaults: &'static [&'static str], reason: &'static str) -> Field {
    Field { name, effect: WarnUnless(defaults, reason) }
}

const fn error(name: &'static str, reason: &'static str) -> Field {
    Field { name, effect: Error(reason) }
}

const NO_LIMIT: &str = "the process isn't limited";
const NO_IMAGE: &str = "no image is built or pulled for a process";
const NO_NETWORK: &str = "processes share this host's network, and containers get a plain bridge";
const NO_NAMESPACE: &str = "the process shares it with this host";
const OWN_IPC: &str = "each instance has shared memory and semaphores of its own";
const HARDENING: &str = "the process has the rights of the user who runs Evenkeel";
const OWNER: &str = "the file keeps the owner and the rights that it has on this host";

/// What this machine is called as a platform.
const PLATFORMS: &[&str] = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => &["linux/amd64", "linux/x86_64", "linux/amd64/v1", "amd64", "linux"],
    b"aarch64" => &["linux/arm64", "linux/aarch64", "linux/arm64/v8", "arm64", "linux"],
    _ => &["linux"],
};

/// The top level.
pub(crate) const TOP: &[Field] = &[
    read("version"),
    read("name"),
    read("services"),
    read("networks"),
    read("volumes"),
    read("configs"),
    read("secrets"),
    read("include"),
    read("x-driver"),
    error("models", "no model is run or reached for services"),
];

/// `services.NAME`.
pub(crate) const SERVICE: &[Field] = &[
    warn("annotations", "there is no container to put them on"),
    warn_unless("attach", &["true"], "its output is shown all the same"),
    warn("blkio_config", NO_LIMIT),
    read("build"),
    warn("cap_add", HARDENING),
    warn("cap_drop", HARDENING),
    warn_unless("cgroup", &["private", "host"], NO_NAMESPACE),
    warn("cgroup_parent", "the process stays in Evenkeel's own cgroup"),
    read("command"),
    error("configs", "nothing is mounted for a process, so the file is not there for it to read"),
    read("container_name"),
    warn("cpu_count", NO_LIMIT),
    warn("cpu_percent", NO_LIMIT),
    warn("cpu_period", NO_LIMIT),
    warn("cpu_quota", NO_LIMIT),
    warn("cpu_rt_period", NO_LIMIT),
    warn("cpu_rt_runtime", NO_LIMIT),
    warn("cpu_shares", NO_LIMIT),
    warn("cpus", NO_LIMIT),
    warn("cpuset", NO_LIMIT),
    warn("credential_spec", "it concerns Windows only"),
    read("depends_on"),
    read("deploy"),
    warn("develop", "nothing is watched for changes"),
    warn("device_cgroup_rules", "the process reaches the devices that its user may"),
    warn("devices", "the process sees this host's devices under this host's names"),
    warn("dns", "names are resolved as on this host"),
    warn("dns_opt", "names are resolved as on this host"),
    warn("dns_search", "names are resolved as on this host"),
    warn("domainname", "the process has this host's name"),
    read("entrypoint"),
    read("env_file"),
    read("environment"),
    read("expose"),
    read("extends"),
    error("external_links", "a container of another project can't be reached by this name"),
    read("extra_hosts"),
    warn("gpus", "the process sees this host's devices"),
    warn("group_add", HARDENING),
    read("healthcheck"),
    read("hostname"),
    read("image"),
    read("init"),
    warn_unless("ipc", &["private", "shareable"], OWN_IPC),
    warn_unless("isolation", &["default"], "it concerns Windows only"),
    warn("label_file", "labels from files are not read"),
    read("labels"),
    read("links"),
    warn("logging", "output goes to the terminal and to `evenkeel logs`"),
    warn("mac_address", NO_NETWORK),
    warn("mem_limit", NO_LIMIT),
    warn("mem_reservation", NO_LIMIT),
    warn("mem_swappiness", NO_LIMIT),
    warn("memswap_limit", NO_LIMIT),
    error("models", "no model is run or reached for services"),
    read("network_mode"),
    read("networks"),
    warn("oom_kill_disable", NO_LIMIT),
    warn_unless("oom_score_adj", &["0"], NO_LIMIT),
    warn_unless("pid", &["host"], NO_NAMESPACE),
    warn("pids_limit", NO_LIMIT),
    warn_unless("platform", PLATFORMS, "the process runs on this machine as it is"),
    read("ports"),
    error("post_start", "the hook is not run"),
    error("pre_stop", "the hook is not run"),
    warn("privileged", HARDENING),
    read("profiles"),
    error("provider", "no provider is called"),
    read("pull_policy"),
    read("pull_refresh_after"),
    warn("read_only", "the process can write where its user may"),
    read("restart"),
    warn_unless("runtime", &["runc", "io.containerd.runc.v2"], "there is no container runtime"),
    read("scale"),
    error("secrets", "nothing is mounted for a process, so the file is not there for it to read"),
    warn("security_opt", HARDENING),
    warn("shm_size", NO_LIMIT),
    warn("stdin_open", "standard input is /dev/null"),
    read("stop_grace_period"),
    read("stop_signal"),
    warn("storage_opt", NO_LIMIT),
    warn("sysctls", "this host's kernel settings hold"),
    warn("tmpfs", "nothing is mounted for a process; only /tmp is its own"),
    warn("tty", "the process writes to a pipe, not a terminal"),
    warn("ulimits", "the limits of the user who runs Evenkeel hold"),
    error("use_api_socket", "the engine's socket and credentials are not handed to the process"),
    read("user"),
    warn_unless("userns_mode", &["host"], NO_NAMESPACE),
    warn_unless("uts", &["private"], NO_NAMESPACE),
    read("volumes"),
    error("volumes_from", "nothing is mounted for a process"),
    read("working_dir"),
    read("x-driver"),
    read("x-process"),
];

/// What a container gets although a process doesn't.
const CONTAINER: &[&str] = &[
    "cap_add",
    "cap_drop",
    "configs",
    "cpus",
    "dns",
    "group_add",
    "mem_limit",
    "pids_limit",
    "privileged",
    "read_only",
    "resources",
    "secrets",
    "security_opt",
    "shm_size",
    "sysctls",
    "tmpfs",
    "tty",
    "user",
];

/// What manifests say besides.
const CLUSTER: &[&str] = &["network_mode", "reservations", "update_config"];

/// `services.NAME.build`.
pub(crate) const BUILD: &[Field] = &[
    error("additional_contexts", "what is copied from another context is not there for a process"),
    read("args"),
    read("cache_from"),
    read("cache_to"),
    read("context"),
    read("dockerfile"),
    read("dockerfile_inline"),
    warn("entitlements", NO_IMAGE),
    warn("extra_hosts", NO_IMAGE),
    warn("isolation", NO_IMAGE),
    read("labels"),
    warn("network", NO_IMAGE),
    read("no_cache"),
    warn("no_cache_filter", NO_IMAGE),
    warn_unless("platforms", PLATFORMS, "the image is built for this machine alone"),
    warn("privileged", NO_IMAGE),
    read("provenance"),
    read("pull"),
    read("sbom"),
    warn("secrets", NO_IMAGE),
    warn("shm_size", NO_IMAGE),
    warn("ssh", NO_IMAGE),
    read("tags"),
    read("target"),
    warn("ulimits", NO_IMAGE),
];

/// `services.NAME.deploy`.
pub(crate) const DEPLOY: &[Field] = &[
    warn_unless("endpoint_mode", &["vip"], "requests are always balanced over the instances"),
    read("labels"),
    read("mode"),
    warn("placement", "everything runs on this machine"),
    read("replicas"),
    warn("resources", NO_LIMIT),
    read("restart_policy"),
    warn("rollback_config", "a failed rollout stops where it is"),
    warn("update_config", "instances are always replaced one at a time, the new one first"),
];

/// `services.NAME.deploy.resources`.
pub(crate) const RESOURCES: &[Field] = &[read("limits"), warn("reservations", NO_LIMIT)];

/// `services.NAME.deploy.resources.limits`.
pub(crate) const LIMITS: &[Field] = &[read("cpus"), read("memory"), read("pids")];

/// `services.NAME.deploy.restart_policy`.
pub(crate) const RESTART_POLICY: &[Field] =
    &[read("condition"), read("delay"), read("max_attempts"), read("window")];

/// `services.NAME.deploy.update_config`.
pub(crate) const UPDATE_CONFIG: &[Field] = &[
    read("delay"),
    read("failure_action"),
    read("max_failure_ratio"),
    read("monitor"),
    read("order"),
    read("parallelism"),
];

/// `services.NAME.healthcheck`.
pub(crate) const HEALTHCHECK: &[Field] = &[
    read("disable"),
    read("interval"),
    read("retries"),
    read("start_interval"),
    read("start_period"),
    read("test"),
    read("timeout"),
];

/// `services.NAME.ports[]`.
pub(crate) const PORT: &[Field] = &[
    read("app_protocol"),
    read("host_ip"),
    read("mode"),
    read("name"),
    read("protocol"),
    read("published"),
    read("target"),
];

/// `services.NAME.volumes[]`.
pub(crate) const MOUNT: &[Field] = &[
    read("bind"),
    read("consistency"),
    warn("image", "nothing is mounted for a process"),
    read("read_only"),
    read("source"),
    read("target"),
    read("tmpfs"),
    read("type"),
    read("volume"),
];

/// `services.NAME.networks.NAME`.
pub(crate) const ATTACHMENT: &[Field] = &[
    read("aliases"),
    warn("driver_opts", NO_NETWORK),
    read("gw_priority"),
    warn("interface_name", NO_NETWORK),
    error(
        "ipv4_address",
        "an instance has an address of its own on this host, not this one; use the service's name",
    ),
    error(
        "ipv6_address",
        "an instance has an address of its own on this host, not this one; use the service's name",
    ),
    warn("link_local_ips", NO_NETWORK),
    warn("mac_address", NO_NETWORK),
    read("priority"),
];

/// `services.NAME.depends_on.NAME`.
pub(crate) const DEPENDS_ON: &[Field] = &[read("condition"), read("required"), read("restart")];

/// `services.NAME.configs[]` and `secrets[]`.
pub(crate) const CONFIG_MOUNT: &[Field] = &[
    warn_unless("gid", &["0"], OWNER),
    warn_unless("mode", &["0444", "444", "0440", "0400", "292"], OWNER),
    read("source"),
    read("target"),
    warn_unless("uid", &["0"], OWNER),
];

/// `services.NAME.env_file[]`.
pub(crate) const ENV_FILE: &[Field] = &[read("format"), read("path"), read("required")];

/// `services.NAME.extends`.
pub(crate) const EXTENDS: &[Field] = &[read("file"), read("service")];

/// `include[]`.
pub(crate) const INCLUDE: &[Field] = &[read("env_file"), read("path"), read("project_directory")];

/// `services.NAME.x-process`.
pub(crate) const PROCESS: &[Field] = &[read("address"), read("build"), read("command"), read("environment")];

/// `networks.NAME`.
pub(crate) const NETWORK: &[Field] = &[
    read("attachable"),
    warn_unless("driver", &["bridge", "default"], NO_NETWORK),
    warn("driver_opts", NO_NETWORK),
    warn_unless("enable_ipv4", &["true"], NO_NETWORK),
    warn("enable_ipv6", NO_NETWORK),
    read("external"),
    warn("internal", "instances reach whatever this host reaches"),
    warn("ipam", NO_NETWORK),
    read("labels"),
    read("name"),
];

/// `volumes.NAME`.
pub(crate) const VOLUME: &[Field] = &[
    warn_unless(
        "driver",
        &["local", "default"],
        "processes get no volume, and containers one of the engine's own kind",
    ),
    warn("driver_opts", "processes get no volume, and containers one of the engine's own kind"),
    read("external"),
    read("labels"),
    read("name"),
];

/// `configs.NAME` and `secrets.NAME`.
pub(crate) const CONFIG: &[Field] = &[
    read("content"),
    warn("driver", "only files, texts and variables are read"),
    warn("driver_opts", "only files, texts and variables are read"),
    read("environment"),
    read("external"),
    read("file"),
    read("labels"),
    read("name"),
    warn("template_driver", "the text is taken as it stands"),
];

/// Whether what isn't honoured is worth a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// What it describes is run here: every field counts.
    Effects,
    /// It runs as a container.
    Container,
    /// It runs in a cluster.
    Cluster,
    /// It isn't (the balancer's seat, a service found elsewhere): only the names are checked.
    Names,
}

/// Checks the fields of one mapping against its table.
pub(crate) fn check(entries: &Mapping, fields: &[Field], what: &str, care: Care, report: &mut Report) {
    for (name, entry) in entries {
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            if !name.starts_with("x-") {
                report.push(unknown(name, entry, fields, what));
            }
            continue;
        };
        if care == Care::Names || is_off(&entry.value) || is_default(field, &entry.value) {
            continue;
        }
        let effect = match (care, field.effect) {
            (Care::Container, Warn(_) | WarnUnless(..) | Error(_)) if CONTAINER.contains(&field.name) => Read,
            (Care::Container, Warn(_) | WarnUnless(..)) => Warn("the container is made without it"),
            (Care::Container, Error(_)) => Error("the container would be made without it"),
            (Care::Cluster, Warn(_) | WarnUnless(..) | Error(_)) if is_in_manifests(field.name) => Read,
            (Care::Cluster, Warn(_) | WarnUnless(..)) => Warn("the manifests are written without it"),
            (Care::Cluster, Error(_)) => Error("the manifests would be written without it"),
            (_, effect) => effect,
        };
        match effect {
            Read => {}
            Warn(reason) | WarnUnless(_, reason) => report.push(
                Diagnostic::warning("compose::not-honoured", format!("`{name}` is not honoured: {reason}"))
                    .at(entry.key, ""),
            ),
            Error(reason) => report.push(
                Diagnostic::error("compose::not-honoured", format!("`{name}` can't be honoured: {reason}"))
                    .at(entry.key, ""),
            ),
        }
    }
}

fn unknown(name: &str, entry: &crate::yaml::Entry, fields: &[Field], what: &str) -> Diagnostic {
    let diagnostic = Diagnostic::error("compose::unknown-field", format!("unknown field `{name}`"))
        .at(entry.key, format!("not a field of {what}"));
    match suggest(name, fields.iter().map(|field| field.name)) {
        Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
        None => diagnostic.help("a field of your own begins with `x-`"),
    }
}

/// Whether manifests say what a field says.
fn is_in_manifests(name: &str) -> bool {
    CONTAINER.contains(&name) || CLUSTER.contains(&name)
}

/// Whether a field says what holds without it.
fn is_off(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(scalar) => scalar.is_null() || matches!(scalar.text.as_str(), "" | "false"),
        Value::Sequence(items) => items.iter().all(is_off),
        Value::Mapping(entries) => entries.values().all(|entry| is_off(&entry.value)),
    }
}

/// Options of log drivers that bound what is kept, as Evenkeel does by itself.
const LOG_LIMITS: [&str; 3] = ["compress", "max-file", "max-size"];

/// Whether a field asks for what holds anyway.
fn is_default(field: &Field, node: &Node) -> bool {
    let text = |node: &Node| match &node.value {
        Value::Scalar(scalar) => Some(scalar.text.to_ascii_lowercase()),
        _ => None,
    };
    let names = |node: Option<&Node>, known: &[&str]| match node.map(|node| &node.value) {
        Some(Value::Mapping(entries)) => entries.keys().all(|key| known.contains(&key.as_str())),
        _ => true,
    };
    let driver = |known: &[&str]| {
        node.get("driver").is_none_or(|driver| text(driver).is_some_and(|name| known.contains(&&*name)))
    };
    match (field.name, field.effect, &node.value) {
        ("logging", ..) => {
            driver(&["json-file", "local"])
                && names(Some(node), &["driver", "options"])
                && names(node.get("options"), &LOG_LIMITS)
        }
        ("ipam", ..) => driver(&["default"]) && names(Some(node), &["driver"]),
        (_, WarnUnless(defaults, _), Value::Sequence(items)) => {
            items.iter().all(|item| text(item).is_some_and(|text| defaults.contains(&text.as_str())))
        }
        (_, WarnUnless(defaults, _), _) => text(node).is_some_and(|text| defaults.contains(&text.as_str())),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_without_doubles() {
        for table in [
            SERVICE,
            BUILD,
            DEPLOY,
            HEALTHCHECK,
            PORT,
            MOUNT,
            ATTACHMENT,
            NETWORK,
            VOLUME,
            CONFIG,
            RESOURCES,
            LIMITS,
            UPDATE_CONFIG,
        ] {
            let names: Vec<_> = table.iter().map(|field| field.name).collect();
            assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        }
    }
}

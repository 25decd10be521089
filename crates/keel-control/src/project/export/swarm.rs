//! A stack file for `docker stack deploy`, with Evenkeel in the seat.
//!
//! Services other than the seat get `endpoint_mode: dnsrr`: their name then stands for the addresses of all tasks, as it
//! stands for all containers under Compose, and nginx.conf stays as it is. Evenkeel follows it through the swarm's DNS.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use keel_compose::{
    HealthTest, Healthcheck, MountSource, Origin, PortMapping, Project, Service, UpdateOrder,
};
use keel_diag::{Diagnostic, Span};
use keel_model::{DependencyCondition, Protocol, RestartCondition};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Exported, ExportedFile, Part, Readers, Reading, Seat};
use crate::project::{ProjectOptions, process::hex};

/// The name of a balancer that no service is.
const NAME: &str = "evenkeel";
/// How long the balancer may take for what is in flight.
const FINISH_SECONDS: u64 = 40;

/// What the files don't say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmOptions {
    /// Evenkeel's image, for the seat.
    pub image: String,
}

impl ProjectOptions {
    /// Writes the project as a stack file and the files that it names.
    pub fn export_swarm(&self, options: &SwarmOptions) -> Exported {
        let mut exported = Exported::default();
        let Some(Reading { project, seat }) = self.read_for_cluster(&mut exported) else { return exported };
        let mut writer = Writer {
            project: &project,
            seat: seat.as_ref(),
            options,
            exported: &mut exported,
            configs: Map::new(),
            secrets: Map::new(),
        };
        let stack = writer.stack();
        match serde_saphyr::to_string(&stack) {
            Ok(text) => exported.files.insert(0, file("stack.yml", text)),
            Err(error) => {
                let message = format!("the stack file can't be written: {error}");
                exported.diagnostics.push(Diagnostic::error("export::yaml", message));
            }
        }
        exported
    }
}

fn file(path: impl Into<PathBuf>, text: String) -> ExportedFile {
    ExportedFile { path: path.into(), text, readers: Readers::All, part: Part::Object }
}

struct Writer<'a> {
    project: &'a Project,
    seat: Option<&'a Seat>,
    options: &'a SwarmOptions,
    exported: &'a mut Exported,
    configs: Map<String, Value>,
    secrets: Map<String, Value>,
}

impl Writer<'_> {
    fn stack(&mut self) -> Value {
        let mut services = Map::new();
        let seat_name = self.seat.and_then(|seat| seat.service.as_deref());
        for service in self.project.services.values().filter(|service| service.enabled && !service.faulty) {
            let name = &service.name.value;
            if seat_name == Some(name.as_str()) {
                continue;
            }
            if service.image.is_none() && service.build.is_none() {
                let message = format!("`{name}` isn't exported: it has no image");
                self.cannot_say(service.name.span, message, "");
                continue;
            }
            let value = self.service(service);
            services.insert(name.clone(), value);
        }
        if let Some(seat) = self.seat {
            let value = self.balancer(seat);
            services.insert(seat_name.unwrap_or(NAME).to_owned(), value);
        }
        let mut stack = Map::new();
        stack.insert("version".into(), json!("3.8"));
        stack.insert("services".into(), Value::Object(services));
        stack.insert("networks".into(), self.networks());
        for (section, entries) in [
            ("volumes", self.volumes()),
            ("configs", self.configs.clone()),
            ("secrets", self.secrets.clone()),
        ] {
            if !entries.is_empty() {
                stack.insert(section.into(), Value::Object(entries));
            }
        }
        Value::Object(stack)
    }

    fn cannot_say(&mut self, span: Span, message: impl Into<String>, help: &str) {
        let diagnostic = Diagnostic::warning("swarm::not-said", message).at(span, "");
        let diagnostic = if help.is_empty() { diagnostic } else { diagnostic.help(help) };
        self.exported.diagnostics.push(diagnostic);
    }

    fn networks(&self) -> Value {
        let overlay = || json!({"driver": "overlay", "attachable": true});
        let declared = self.project.networks.iter().map(|(name, network)| {
            let own = network.name.as_ref().map(|name| name.value.as_str());
            let value = match network.external {
                true => json!({"external": true, "name": own.unwrap_or(name)}),
                false => overlay(),
            };
            (name.clone(), value)
        });
        let mut networks: Map<String, Value> = declared.collect();
        networks.entry("default").or_insert_with(overlay);
        Value::Object(networks)
    }

    fn volumes(&self) -> Map<String, Value> {
        let volumes = self.project.volumes.iter().map(|(name, volume)| {
            let own = volume.name.as_ref().map(|name| name.value.as_str());
            let value = match (volume.external, own) {
                (true, own) => json!({"external": true, "name": own.unwrap_or(name)}),
                (false, Some(own)) => json!({"name": own}),
                (false, None) => json!({}),
            };
            (name.clone(), value)
        });
        volumes.collect()
    }

    fn service(&mut self, service: &Service) -> Value {
        self.name_what_a_stack_has_not(service);
        let mut value = Map::new();
        let mut set = |name: &str, field: Value| {
            let is_empty = match &field {
                Value::Null => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(entries) => entries.is_empty(),
                _ => false,
            };
            if !is_empty {
                value.insert(name.to_owned(), field);
            }
        };
        let words = |words: &Option<keel_compose::Spanned<Vec<String>>>| {
            words.as_ref().map(|words| words.value.iter().map(|word| escape(word)).collect::<Vec<_>>())
        };
        let image = service.image.as_ref().map(|image| image.value.clone());
        set("image", json!(image.unwrap_or_else(|| built_image(self.project, service))));
        set("entrypoint", json!(words(&service.entrypoint)));
        set("command", json!(words(&service.command)));
        let environment = service.environment.iter();
        set(
            "environment",
            environment.map(|(name, value)| (name.clone(), json!(escape(&value.value)))).collect(),
        );
        set("working_dir", json!(service.working_dir.as_ref().map(|folder| &folder.value)));
        set("user", json!(service.user.as_ref().map(|user| &user.value)));
        set("hostname", json!(service.hostname.as_ref().map(|name| &name.value)));
        set("healthcheck", service.healthcheck.as_ref().map_or(Value::Null, healthcheck));
        let grace = service.stop_grace_period.as_ref();
        set("stop_grace_period", json!(grace.map(|grace| duration(grace.value))));
        let signal = service.stop_signal.as_ref().map(|signal| signal.value.to_string());
        set("stop_signal", json!(signal));
        set("networks", networks_of(service));
        let hosts = service.extra_hosts.iter().map(|(name, ip)| format!("{name}:{}", ip.value));
        set("extra_hosts", json!(hosts.collect::<Vec<_>>()));
        let confinement = &service.confinement;
        set("cap_add", json!(confinement.cap_add));
        set("cap_drop", json!(confinement.cap_drop));
        set("dns", json!(confinement.dns));
        set("sysctls", json!(confinement.sysctls));
        set("tmpfs", json!(confinement.tmpfs.keys().collect::<Vec<_>>()));
        set("init", json!(confinement.init));
        if confinement.read_only {
            set("read_only", json!(true));
        }
        let mounts: Vec<Value> = service.volumes.iter().map(mount).collect();
        set("volumes", json!(mounts));
        let published: Vec<Value> = service.ports.iter().filter_map(port).collect();
        let has_ports = !published.is_empty();
        set("ports", json!(published));
        let configs = self.mounted(service, Kind::Config);
        let secrets = self.mounted(service, Kind::Secret);
        set("configs", json!(configs));
        set("secrets", json!(secrets));
        set("deploy", deploy(service, if has_ports { Endpoint::Address } else { Endpoint::Tasks }));
        Value::Object(value)
    }

    fn name_what_a_stack_has_not(&mut self, service: &Service) {
        let name = &service.name.value;
        if let Some(build) = &service.build {
            let image = service
                .image
                .as_ref()
                .map_or_else(|| built_image(self.project, service), |one| one.value.clone());
            let help =
                format!("`docker-compose build {name}`, then push it to a registry that all nodes reach");
            self.cannot_say(build.span, format!("the swarm doesn't build `{image}`"), &help);
        }
        for on in service.depends_on.iter().filter(|on| on.condition != DependencyCondition::Started) {
            let message = format!("tasks don't wait for `{}`: all start at once", on.service.value);
            self.cannot_say(on.service.span, message, "");
        }
        for mount in service.volumes.iter().filter(|mount| matches!(mount.source, MountSource::Bind(_))) {
            let message = format!("{} must be there on every node", mount.target);
            self.cannot_say(mount.span, message, "a config, a volume or the image takes it along");
        }
        let upstreams = self.seat.map(Seat::upstreams).unwrap_or_default();
        let is_followed = upstreams.contains_key(name);
        if let (true, Some(mapping)) = (is_followed, service.ports.first()) {
            let message =
                format!("with published ports `{name}` is one address, behind which the swarm balances");
            let help = format!("write `tasks.{name}` in nginx.conf, which stands for its tasks");
            self.cannot_say(mapping.span, message, &help);
        }
        if let Some(action) = service.deploy_update.as_ref().and_then(|update| update.failure_action.as_ref())
            && !matches!(action.value.as_str(), "pause" | "continue" | "rollback")
        {
            self.cannot_say(action.span, format!("`{}` is no action of a swarm", action.value), "");
        }
    }

    /// Writes the configs or secrets that a service mounts, and their entries at top level.
    fn mounted(&mut self, service: &Service, kind: Kind) -> Vec<Value> {
        let mounts = match kind {
            Kind::Config => &service.configs,
            Kind::Secret => &service.secrets,
        };
        let mut entries = Vec::new();
        for mount in mounts {
            let entry = match &mount.origin {
                None => json!({"external": true}),
                Some(Origin::Host(path)) => json!({"file": path}),
                Some(Origin::Text(text)) => self.written(&mount.source, text, kind),
            };
            match kind {
                Kind::Config => self.configs.insert(mount.source.clone(), entry),
                Kind::Secret => self.secrets.insert(mount.source.clone(), entry),
            };
            entries.push(json!({"source": mount.source, "target": mount.target}));
        }
        entries
    }

    /// Writes a text into a file of the stack. Its content is part of the name: a swarm's configs don't change.
    fn written(&mut self, name: &str, text: &str, kind: Kind) -> Value {
        let path = Path::new("files").join(name);
        let digest = hex(&Sha256::digest(text.as_bytes()), 8);
        let readers = match kind {
            Kind::Config => Readers::All,
            Kind::Secret => Readers::Owner,
        };
        let written = ExportedFile { readers, ..file(path.clone(), text.to_owned()) };
        if !self.exported.files.contains(&written) {
            self.exported.files.push(written);
        }
        json!({"file": Path::new(".").join(path), "name": format!("{}_{name}_{digest}", self.project.name)})
    }

    fn balancer(&mut self, seat: &Seat) -> Value {
        let mut mounts = Vec::new();
        for (path, text) in &seat.files {
            let name = path.to_string_lossy().trim_matches('/').replace('/', "_");
            let entry = self.written(&name, text, Kind::Config);
            self.configs.insert(name.clone(), entry);
            mounts.push(json!({"source": name, "target": path}));
        }
        let own = seat.service.as_ref().and_then(|name| self.project.services.get(name));
        let rendered = |target: &str| {
            let target = Path::new(target);
            seat.files.keys().any(|path| path == target || path.parent() == Some(target))
        };
        let other = own.into_iter().flat_map(|service| &service.volumes);
        let other: Vec<_> = other.filter(|mount| !rendered(&mount.target)).collect();
        for mount in other.iter().filter(|mount| matches!(mount.source, MountSource::Bind(_))) {
            self.cannot_say(mount.span, format!("{} must be there on every node", mount.target), "");
        }
        let ports: Vec<Value> = seat.published(self.project).iter().filter_map(port).collect();
        let mut command = vec!["nginx".to_owned()];
        command.extend(seat.arguments.iter().map(|word| escape(word)));
        let mut value = json!({
            "image": self.options.image,
            "command": command,
            "environment": {"EVENKEEL_RESOLVER": "system"},
            "configs": mounts,
            "ports": ports,
            "stop_grace_period": format!("{FINISH_SECONDS}s"),
            "deploy": {
                "replicas": own.map_or(1, Service::replicas),
                "update_config": {"parallelism": 1, "order": "start-first"},
                "restart_policy": {"condition": "any"},
            },
        });
        if let Some(fields) = value.as_object_mut() {
            let volumes: Vec<Value> = other.into_iter().map(mount).collect();
            if !volumes.is_empty() {
                fields.insert("volumes".into(), json!(volumes));
            }
            let networks = own.map_or(Value::Null, networks_of);
            if !networks.is_null() {
                fields.insert("networks".into(), networks);
            }
        }
        value
    }
}

/// Configs and secrets are alike, and differ in who may read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Config,
    Secret,
}

/// What a service's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    /// The addresses of its tasks.
    Tasks,
    /// One address: what published ports need.
    Address,
}

fn built_image(project: &Project, service: &Service) -> String {
    format!("{}_{}", project.name, service.name.value)
}

/// Keeps a dollar sign, which the stack's reader would take for a variable.
fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

fn duration(duration: std::time::Duration) -> String {
    format!("{}ms", duration.as_millis())
}

fn networks_of(service: &Service) -> Value {
    let links = service.link_aliases.iter().map(|alias| alias.value.clone());
    let mut networks: BTreeMap<String, Vec<String>> = service
        .networks
        .iter()
        .map(|(name, attachment)| {
            (name.clone(), attachment.aliases.iter().map(|alias| alias.value.clone()).collect())
        })
        .collect();
    let links: Vec<String> =
        links.chain(service.container_name.iter().map(|name| name.value.clone())).collect();
    if !links.is_empty() {
        if networks.is_empty() {
            networks.insert("default".into(), Vec::new());
        }
        networks.values_mut().for_each(|aliases| aliases.extend(links.iter().cloned()));
    }
    if networks.is_empty() {
        return Value::Null;
    }
    let entry = |(name, aliases): (String, Vec<String>)| match aliases.is_empty() {
        true => (name, json!({})),
        false => (name, json!({"aliases": aliases})),
    };
    Value::Object(networks.into_iter().map(entry).collect())
}

fn healthcheck(check: &Healthcheck) -> Value {
    let test = match &check.test {
        Some(HealthTest::Disabled) => return json!({"disable": true}),
        Some(HealthTest::Command(argv)) => {
            let words = argv.iter().map(|word| escape(word));
            json!(std::iter::once("CMD".to_owned()).chain(words).collect::<Vec<_>>())
        }
        Some(HealthTest::Shell(line)) => json!(["CMD-SHELL", escape(line)]),
        None => Value::Null,
    };
    let fields = [
        ("test", test),
        ("interval", json!(check.interval.map(duration))),
        ("timeout", json!(check.timeout.map(duration))),
        ("retries", json!(check.retries)),
        ("start_period", json!(check.start_period.map(duration))),
    ];
    let given = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(given.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn mount(mount: &keel_compose::Mount) -> Value {
    let mut value = match &mount.source {
        MountSource::Bind(path) => json!({"type": "bind", "source": path, "target": mount.target}),
        MountSource::Named(name) => json!({"type": "volume", "source": name, "target": mount.target}),
        MountSource::Anonymous => json!({"type": "volume", "target": mount.target}),
    };
    if let (true, Some(fields)) = (mount.read_only, value.as_object_mut()) {
        fields.insert("read_only".into(), json!(true));
    }
    value
}

fn port(mapping: &PortMapping) -> Option<Value> {
    let protocol = match mapping.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let published = mapping.published?.first;
    Some(json!({"target": mapping.target, "published": published, "protocol": protocol, "mode": "ingress"}))
}

fn deploy(service: &Service, endpoint: Endpoint) -> Value {
    let mut deploy = Map::new();
    match service.deploy_global {
        Some(_) => deploy.insert("mode".into(), json!("global")),
        None => deploy.insert("replicas".into(), json!(service.replicas())),
    };
    if endpoint == Endpoint::Tasks {
        deploy.insert("endpoint_mode".into(), json!("dnsrr"));
    }
    let update = service.deploy_update.as_ref();
    let order = match update.and_then(|update| update.order) {
        Some(UpdateOrder::StopFirst) => "stop-first",
        Some(UpdateOrder::StartFirst) | None => "start-first",
    };
    let mut update_config = Map::new();
    update_config.insert("parallelism".into(), json!(update.and_then(|one| one.parallelism).unwrap_or(1)));
    update_config.insert("order".into(), json!(order));
    if let Some(delay) = update.and_then(|update| update.delay) {
        update_config.insert("delay".into(), json!(duration(delay)));
    }
    if let Some(action) = update.and_then(|update| update.failure_action.as_ref()) {
        update_config.insert("failure_action".into(), json!(action.value));
    }
    deploy.insert("update_config".into(), Value::Object(update_config));
    let given = service.deploy_restart.as_ref().or(service.restart.as_ref());
    let condition = given.map_or("any", |policy| match policy.value.condition {
        RestartCondition::Never => "none",
        RestartCondition::OnFailure => "on-failure",
        RestartCondition::Always => "any",
    });
    deploy.insert("restart_policy".into(), json!({"condition": condition}));
    let amounts = |nano_cpus: Option<i64>, bytes: Option<i64>| {
        let mut amounts = Map::new();
        if let Some(nano) = nano_cpus {
            amounts.insert(
                "cpus".into(),
                json!(format!("{}.{:03}", nano / 1_000_000_000, nano / 1_000_000 % 1000)),
            );
        }
        if let Some(bytes) = bytes {
            amounts.insert("memory".into(), json!(format!("{bytes}b")));
        }
        amounts
    };
    let limits = amounts(service.confinement.nano_cpus, service.confinement.memory_bytes);
    let reservations = amounts(service.reservations.nano_cpus, service.reservations.memory_bytes);
    let mut resources = Map::new();
    for (name, amounts) in [("limits", limits), ("reservations", reservations)] {
        if !amounts.is_empty() {
            resources.insert(name.into(), Value::Object(amounts));
        }
    }
    if !resources.is_empty() {
        deploy.insert("resources".into(), Value::Object(resources));
    }
    Value::Object(deploy)
}

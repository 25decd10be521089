//! One service: from its tree to [`Service`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use indexmap::IndexMap;
use keel_diag::{Diagnostic, Span};
use keel_model::{DependencyCondition, Driver, DriverChoice, RestartCondition, RestartPolicy, signal_number};

use crate::{
    Build, BuildInputs, DependsOn, Dockerfile, NetworkAttachment, Process, Project, Reservations, RunPlace,
    Service, Spanned, UpdateConfig, UpdateOrder, container,
    decode::Decoder,
    dotenv::Format,
    driver,
    extends::missing_file,
    files::{FileReader, is_readable},
    healthcheck::healthcheck,
    interpolate::Layers,
    mounts::{self, CONFIGS, SECRETS},
    ports,
    project::NEVER,
    schema::{self, Care},
    seat::is_balancer_seat,
    yaml::{Entry, Mapping, Node, Value},
};

/// What an image has that says nothing of its PATH (BuildKit's `DefaultPathEnv`).
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Instances of one service at most.
const REPLICAS_MAX: u32 = 10_000;

/// What is said outside of the files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    /// `--driver`.
    pub(crate) driver: Option<DriverChoice>,
    pub(crate) place: RunPlace,
}

/// Reads a service.
pub(crate) fn service(
    name: &str,
    entry: &Entry,
    project: &Project,
    surroundings: Surroundings,
    reader: &mut FileReader<'_>,
) -> Service {
    let none = Mapping::new();
    let node = &entry.value;
    let (folder, variables) = (project.folder.as_path(), &project.variables);
    let mut decoder = Decoder { report: reader.report, folder, variables };
    check_name(&mut decoder, name, entry.key);
    let fields = decoder.entries(node).unwrap_or(&none);
    let mut service = read_fields(&mut decoder, name, entry, project);
    read_deploy(&mut decoder, node, &mut service);
    driver::of_service(surroundings.driver, &mut decoder, node, project, &mut service);
    service.enabled = service.profiles.is_empty()
        || service
            .profiles
            .iter()
            .any(|profile| project.profiles.iter().any(|active| *active == profile.value || active == "*"));
    read_environment(node, &mut service, project, reader);
    service.dockerfile = read_dockerfile(&service, project, reader);
    let care = match surroundings.place {
        RunPlace::Here => care(&service),
        RunPlace::Cluster if is_balancer_seat(&service) => Care::Names,
        RunPlace::Cluster => Care::Cluster,
    };
    schema::check(fields, schema::SERVICE, "a service", care, reader.report);
    if let Some(build) = node.get("build").and_then(Node::as_mapping) {
        schema::check(build, schema::BUILD, "`build`", care, reader.report);
    }
    if let Some(deploy) = node.get("deploy") {
        check_deploy(deploy, care, reader);
    }
    if care == Care::Container {
        container::check(&service, reader.report);
    } else if care == Care::Effects {
        check_effects(&service, reader);
    } else if is_balancer_seat(&service) && surroundings.place == RunPlace::Here {
        check_seat(&service, reader);
    }
    if service.image.is_none() && service.build.is_none() && service.process.is_none() {
        let message = format!("`{name}` has neither `image` nor `build`");
        reader.report.push(
            Diagnostic::error("compose::nothing-to-run", message)
                .at(entry.key, "nothing to run")
                .help("`x-process: {command: ...}` says what runs here instead"),
        );
    }
    service
}

fn read_fields(decoder: &mut Decoder<'_>, name: &str, entry: &Entry, project: &Project) -> Service {
    let node = &entry.value;
    let get = |field: &str| node.get(field).filter(|node| !node.is_null());
    Service {
        name: Spanned::new(name.to_owned(), entry.key),
        enabled: true,
        faulty: false,
        image: get("image").and_then(|node| decoder.name(node)),
        build: get("build").and_then(|node| build(decoder, node)),
        dockerfile: None,
        command: get("command").and_then(|node| decoder.words(node)),
        entrypoint: get("entrypoint").and_then(|node| decoder.words(node)),
        environment: IndexMap::new(),
        env_files: Vec::new(),
        working_dir: get("working_dir").and_then(|node| decoder.name(node)),
        ports: get("ports").map_or_else(Vec::new, |node| ports::ports(decoder, node)),
        expose: get("expose").map_or_else(Vec::new, |node| ports::expose(decoder, node)),
        depends_on: get("depends_on").map_or_else(Vec::new, |node| depends_on(decoder, node)),
        healthcheck: get("healthcheck").and_then(|node| healthcheck(decoder, node)),
        restart: get("restart").and_then(|node| restart(decoder, node)),
        deploy_restart: None,
        deploy_replicas: None,
        deploy_update: None,
        deploy_global: None,
        reservations: Reservations::default(),
        scale: get("scale").and_then(|node| replicas(decoder, node)),
        stop_signal: get("stop_signal").and_then(|node| signal(decoder, node)),
        stop_grace_period: get("stop_grace_period").and_then(|node| decoder.duration(node)),
        container_name: get("container_name").and_then(|node| decoder.name(node)),
        hostname: get("hostname").and_then(|node| decoder.name(node)),
        network_mode: get("network_mode").and_then(|node| decoder.name(node)),
        networks: get("networks").map_or_else(IndexMap::new, |node| networks(decoder, node)),
        link_aliases: Vec::new(),
        extra_hosts: get("extra_hosts").map_or_else(Vec::new, |node| extra_hosts(decoder, node)),
        volumes: get("volumes")
            .map_or_else(Vec::new, |node| mounts::volumes(decoder, node, &project.volumes)),
        configs: get("configs")
            .map_or_else(Vec::new, |node| mounts::configs(decoder, node, &project.configs, &CONFIGS)),
        secrets: get("secrets")
            .map_or_else(Vec::new, |node| mounts::configs(decoder, node, &project.secrets, &SECRETS)),
        profiles: get("profiles").map_or_else(Vec::new, |node| decoder.texts(node)),
        labels: get("labels").map_or_else(IndexMap::new, |node| decoder.labels(node)),
        driver: Driver::Process,
        driver_choice: DriverChoice::default(),
        gateway_hosts: get("extra_hosts").map_or_else(Vec::new, |node| gateway_hosts(decoder, node)),
        user: get("user").and_then(|node| decoder.name(node)),
        confinement: container::confinement(decoder, node),
        process: get("x-process").and_then(|node| process(decoder, node)),
    }
}

fn check_name(decoder: &mut Decoder<'_>, name: &str, span: Span) {
    let fits = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !fits || name.is_empty() {
        let message = format!("`{}` is not a service's name", name.escape_debug());
        decoder.invalid(span, message, "letters, digits, `.`, `_` and `-`");
    }
}

/// Reads names and addresses: a mapping, or a list of `NAME=ADDRESS` or `NAME:ADDRESS`.
fn extra_hosts(decoder: &mut Decoder<'_>, node: &Node) -> Vec<(String, Spanned<IpAddr>)> {
    let mut hosts = Vec::new();
    for (name, value) in decoder.labels(node) {
        let (name, text) = match (value.value.as_str(), name.split_once(':')) {
            ("", Some((name, address))) => (name.to_owned(), address.to_owned()),
            (address, _) => (name, address.to_owned()),
        };
        let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
        let address = match bare {
            "host-gateway" => Ok(IpAddr::from(Ipv4Addr::LOCALHOST)),
            address => address.parse(),
        };
        let fits = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        match address {
            Ok(address) if fits => hosts.push((name, Spanned::new(address, value.span))),
            _ => {
                let message = format!("`{name}` with `{text}` is not a name and its address");
                decoder.invalid(value.span, message, "write NAME=ADDRESS; `host-gateway` is this host");
            }
        }
    }
    hosts
}

/// The names that stand for this host, whichever address it has where they are asked for.
fn gateway_hosts(decoder: &mut Decoder<'_>, node: &Node) -> Vec<String> {
    let named = decoder.labels(node).into_iter().filter_map(|(name, value)| match name.split_once(':') {
        Some((name, "host-gateway")) => Some(name.to_owned()),
        _ => (value.value.trim() == "host-gateway").then_some(name),
    });
    named.collect()
}

/// Says what the settings mean for what is run: nothing for the seat, for what is found elsewhere, and for an image that
/// isn't run here.
fn care(service: &Service) -> Care {
    if service.driver == Driver::Docker && !is_balancer_seat(service) {
        return Care::Container;
    }
    let own = service.process.as_ref();
    let elsewhere = own.is_some_and(|process| process.address.is_some());
    let runs = service.build.is_some() || own.is_some_and(|process| process.command.is_some());
    if runs && !elsewhere && !is_balancer_seat(service) { Care::Effects } else { Care::Names }
}

/// Reports settings whose value decides whether they can be honoured.
fn check_effects(service: &Service, reader: &mut FileReader<'_>) {
    if let Some(mode) = &service.network_mode
        && !matches!(mode.value.as_str(), "bridge" | "default" | "")
    {
        let message = format!("`network_mode: {}` can't be honoured for a process", mode.value);
        reader.report.push(
            Diagnostic::error("compose::not-honoured", message)
                .at(mode.span, "an instance listens on an address of its own")
                .help("publish what it listens on with `ports`; other services reach it by its name"),
        );
    }
    for mount in &service.volumes {
        if !matches!(mount.source, crate::MountSource::Bind(_)) {
            let message = format!("nothing is mounted at {} for a process", mount.target);
            reader.report.push(
                Diagnostic::warning("compose::not-honoured", message)
                    .at(mount.span, "the process sees this host's files there")
                    .help("tell the program another folder under `x-process.environment`"),
            );
        }
    }
}

/// Reports what the balancer's place can't have.
fn check_seat(service: &Service, reader: &mut FileReader<'_>) {
    let Some(mode) = &service.network_mode else { return };
    if mode.value.starts_with("service:") || mode.value.starts_with("container:") || mode.value == "none" {
        let message = format!("`network_mode: {}` can't be honoured for the balancer", mode.value);
        reader.report.push(
            Diagnostic::error("compose::not-honoured", message).at(mode.span, "it listens on this host"),
        );
    }
}

fn build(decoder: &mut Decoder<'_>, node: &Node) -> Option<Build> {
    let field = |name: &str| node.get(name).filter(|node| !node.is_null());
    let (context, dockerfile, inline, args, target) = match &node.value {
        Value::Mapping(_) => (
            field("context").and_then(|node| decoder.text(node)),
            field("dockerfile").and_then(|node| decoder.name(node)),
            field("dockerfile_inline").and_then(|node| decoder.name(node)),
            field("args").map_or_else(IndexMap::new, |node| decoder.settings(node)),
            field("target").and_then(|node| decoder.name(node)),
        ),
        _ => (decoder.text(node), None, None, IndexMap::new(), None),
    };
    let context = context.unwrap_or_else(|| Spanned::new(".".to_owned(), node.span));
    if context.value.contains("://") || context.value.starts_with("git@") {
        decoder.invalid(
            context.span,
            format!("the build context {} is not a folder of this host", context.value),
            "clone it and name the folder",
        );
        return None;
    }
    let folder = decoder.path(&context.value);
    let dockerfile = match dockerfile {
        Some(name) => Spanned::new(crate::decode::tidy(&folder.join(&name.value)), name.span),
        None => Spanned::new(folder.join("Dockerfile"), context.span),
    };
    let context = Spanned::new(folder, context.span);
    Some(Build { span: node.span, context, dockerfile, dockerfile_inline: inline, args, target })
}

/// Reads the Dockerfile that `build` leads to.
fn read_dockerfile(service: &Service, project: &Project, reader: &mut FileReader<'_>) -> Option<Dockerfile> {
    let build = service.build.as_ref()?;
    let process = service.process.as_ref();
    let is_process = service.driver == Driver::Process;
    if is_process && process.is_some_and(|process| process.address.is_some()) {
        return None;
    }
    // What `x-process` says replaces the Dockerfile's command; then a missing Dockerfile is no one's business.
    let needed = !is_process || process.is_none_or(|process| process.command.is_none());
    let args: BTreeMap<String, String> =
        build.args.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect();
    let (id, text) = match &build.dockerfile_inline {
        Some(inline) => {
            let name = format!("Dockerfile of {}", service.name.value);
            (reader.sources.add(name, inline.value.clone()), inline.value.clone())
        }
        None => {
            let path = &build.dockerfile.value;
            if !path.is_file() {
                if needed {
                    let span = build.dockerfile.span;
                    missing_file(
                        reader.report,
                        if build.context.value.is_dir() { path } else { &build.context.value },
                        span,
                    );
                }
                return None;
            }
            let id = reader.read(path)?;
            (id, reader.sources.text(id).to_owned())
        }
    };
    let target = build.target.as_ref().map(|target| target.value.as_str());
    let path = project.variables.get("PATH").map_or(PATH_DEFAULT, String::as_str);
    let (dockerfile, diagnostics) = Dockerfile::parse(&text, id, &BuildInputs { args: &args, target, path });
    reader.report.extend(diagnostics);
    Some(dockerfile)
}

fn read_deploy(decoder: &mut Decoder<'_>, node: &Node, service: &mut Service) {
    let Some(deploy) = node.get("deploy") else { return };
    if decoder.entries(deploy).is_none() {
        return;
    }
    if let Some(limits) = deploy.get("resources").and_then(|resources| resources.get("limits")) {
        container::deploy_limits(decoder, limits, &mut service.confinement);
    }
    if let Some(reserved) = deploy.get("resources").and_then(|resources| resources.get("reservations")) {
        service.reservations = container::reservations(decoder, reserved);
    }
    service.deploy_update = deploy.get("update_config").and_then(|node| update(decoder, node));
    service.deploy_replicas = deploy.get("replicas").and_then(|node| replicas(decoder, node));
    service.deploy_restart = deploy.get("restart_policy").and_then(|node| restart_policy(decoder, node));
    let Some(mode) = deploy.get("mode").and_then(|node| decoder.text(node)) else { return };
    match mode.value.as_str() {
        "replicated" => {}
        // One on every machine, and this is the only one.
        "global" => {
            service.deploy_replicas = None;
            service.deploy_global = Some(mode.span);
        }
        _ => {
            let message = format!("`mode: {}` can't be honoured", mode.value);
            decoder.invalid(mode.span, message, "replicated and global are");
        }
    }
}

fn update(decoder: &mut Decoder<'_>, node: &Node) -> Option<UpdateConfig> {
    let entries = decoder.entries(node)?;
    schema::check(entries, schema::UPDATE_CONFIG, "`update_config`", Care::Effects, decoder.report);
    let field = |name: &str| node.get(name).filter(|node| !node.is_null());
    let order = match field("order").and_then(|node| decoder.name(node)) {
        None => None,
        Some(order) if order.value == "start-first" => Some(UpdateOrder::StartFirst),
        Some(order) if order.value == "stop-first" => Some(UpdateOrder::StopFirst),
        Some(order) => {
            let message = format!("`{}` is not an order", order.value);
            decoder.invalid(order.span, message, "start-first or stop-first");
            None
        }
    };
    Some(UpdateConfig {
        span: node.span,
        parallelism: field("parallelism").and_then(|node| decoder.number(node)).map(|number| number.value),
        delay: field("delay").and_then(|node| decoder.duration(node)).map(|delay| delay.value),
        order,
        failure_action: field("failure_action").and_then(|node| decoder.name(node)),
    })
}

fn check_deploy(deploy: &Node, care: Care, reader: &mut FileReader<'_>) {
    let mut check = |node: Option<&Node>, fields, what| {
        if let Some(entries) = node.and_then(Node::as_mapping) {
            schema::check(entries, fields, what, care, reader.report);
        }
    };
    check(Some(deploy), schema::DEPLOY, "`deploy`");
    let resources = deploy.get("resources");
    if care == Care::Container || care == Care::Cluster {
        check(resources, schema::RESOURCES, "`resources`");
    }
    check(resources.and_then(|resources| resources.get("limits")), schema::LIMITS, "`limits`");
}

fn replicas(decoder: &mut Decoder<'_>, node: &Node) -> Option<Spanned<u32>> {
    let count = decoder.number::<u32>(node)?;
    if count.value > REPLICAS_MAX {
        decoder.invalid(count.span, format!("more than {REPLICAS_MAX} instances"), "");
        return None;
    }
    Some(count)
}

fn restart(decoder: &mut Decoder<'_>, node: &Node) -> Option<Spanned<RestartPolicy>> {
    let text = decoder.text(node)?;
    let (condition, attempts) = match text.value.split_once(':') {
        Some((condition, attempts)) => (condition, Some(attempts)),
        None => (text.value.as_str(), None),
    };
    let policy = match (condition, attempts.map(str::parse::<u32>)) {
        // YAML 1.1 readers made `no` a bool, so `false` is what some tools write back.
        ("no" | "false" | "", None) => NEVER,
        ("always" | "unless-stopped", None) => RestartPolicy { condition: RestartCondition::Always, ..NEVER },
        ("on-failure", None) => RestartPolicy { condition: RestartCondition::OnFailure, ..NEVER },
        ("on-failure", Some(Ok(attempts))) => RestartPolicy {
            condition: RestartCondition::OnFailure,
            attempts_max: (attempts > 0).then_some(attempts),
            ..NEVER
        },
        _ => {
            let message = format!("`{}` is not a restart policy", text.value);
            decoder.invalid(text.span, message, "no, always, unless-stopped, on-failure or on-failure:N");
            return None;
        }
    };
    Some(Spanned::new(policy, text.span))
}

fn restart_policy(decoder: &mut Decoder<'_>, node: &Node) -> Option<Spanned<RestartPolicy>> {
    let entries = decoder.entries(node)?;
    schema::check(entries, schema::RESTART_POLICY, "`restart_policy`", Care::Effects, decoder.report);
    let condition = match node.get("condition").and_then(|node| decoder.text(node)) {
        None => RestartCondition::Always,
        Some(text) => match text.value.as_str() {
            "none" => RestartCondition::Never,
            "on-failure" => RestartCondition::OnFailure,
            "any" => RestartCondition::Always,
            _ => {
                let message = format!("`{}` is not a condition for a restart", text.value);
                decoder.invalid(text.span, message, "none, on-failure or any");
                return None;
            }
        },
    };
    let attempts_max = node.get("max_attempts").and_then(|node| decoder.number(node)).map(|n| n.value);
    let mut duration = |name: &str| {
        let value = node.get(name).and_then(|node| decoder.duration(node));
        value.map_or(Duration::ZERO, |duration| duration.value)
    };
    let (delay, window) = (duration("delay"), duration("window"));
    Some(Spanned::new(RestartPolicy { condition, attempts_max, delay, window }, node.span))
}

fn signal(decoder: &mut Decoder<'_>, node: &Node) -> Option<Spanned<i32>> {
    let text = decoder.name(node)?;
    match signal_number(&text.value) {
        Some(number) => Some(Spanned::new(number, text.span)),
        None => {
            decoder.invalid(text.span, format!("`{}` is not a signal", text.value), "such as SIGTERM or 15");
            None
        }
    }
}

fn depends_on(decoder: &mut Decoder<'_>, node: &Node) -> Vec<DependsOn> {
    let plain = |service| DependsOn {
        service,
        condition: DependencyCondition::Started,
        required: true,
        restart: false,
    };
    let Some(entries) = node.as_mapping() else {
        decoder.items(node);
        let names = if let Value::Sequence(_) = node.value { decoder.texts(node) } else { Vec::new() };
        return names.into_iter().map(plain).collect();
    };
    let mut result = Vec::new();
    for (name, entry) in entries {
        let mut dependency = plain(Spanned::new(name.clone(), entry.key));
        if let Some(fields) = decoder.entries(&entry.value) {
            schema::check(fields, schema::DEPENDS_ON, "`depends_on`", Care::Effects, decoder.report);
        }
        if let Some(condition) = entry.value.get("condition").and_then(|node| decoder.text(node)) {
            match condition.value.as_str() {
                "service_started" => {}
                "service_healthy" => dependency.condition = DependencyCondition::Healthy,
                "service_completed_successfully" => dependency.condition = DependencyCondition::Completed,
                _ => decoder.invalid(
                    condition.span,
                    format!("`{}` is not a condition", condition.value),
                    "service_started, service_healthy or service_completed_successfully",
                ),
            }
        }
        let mut flag = |name: &str| entry.value.get(name).and_then(|node| decoder.flag(node));
        dependency.required = flag("required").is_none_or(|flag| flag.value);
        dependency.restart = flag("restart").is_some_and(|flag| flag.value);
        result.push(dependency);
    }
    result
}

fn networks(decoder: &mut Decoder<'_>, node: &Node) -> IndexMap<String, NetworkAttachment> {
    let Some(entries) = node.as_mapping() else {
        decoder.items(node);
        let names = if let Value::Sequence(_) = node.value { decoder.texts(node) } else { Vec::new() };
        let attached =
            |name: Spanned<String>| (name.value, NetworkAttachment { span: name.span, aliases: Vec::new() });
        return names.into_iter().map(attached).collect();
    };
    let mut result = IndexMap::new();
    for (name, entry) in entries {
        if let Some(fields) = decoder.entries(&entry.value) {
            schema::check(fields, schema::ATTACHMENT, "a service's network", Care::Effects, decoder.report);
        }
        let aliases = entry.value.get("aliases").map_or_else(Vec::new, |node| decoder.names(node));
        result.insert(name.clone(), NetworkAttachment { span: entry.key, aliases });
    }
    result
}

fn process(decoder: &mut Decoder<'_>, node: &Node) -> Option<Process> {
    let entries = decoder.entries(node)?;
    schema::check(entries, schema::PROCESS, "`x-process`", Care::Effects, decoder.report);
    let field = |name: &str| node.get(name).filter(|node| !node.is_null());
    let address = field("address").and_then(|node| decoder.text(node)).and_then(|text| {
        let numeric = text.value.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        match numeric.as_ref().unwrap_or(&text.value).parse::<SocketAddr>() {
            Ok(address) => Some(Spanned::new(address, text.span)),
            Err(_) => {
                let message = format!("`{}` is not an address with a port", text.value);
                decoder.invalid(text.span, message, "such as 127.0.0.1:5432");
                None
            }
        }
    });
    Some(Process {
        span: node.span,
        command: field("command").and_then(|node| decoder.words(node)),
        build: field("build").and_then(|node| decoder.text(node)),
        address,
        environment: field("environment").map_or_else(IndexMap::new, |node| decoder.settings(node)),
    })
}

/// Resolves `env_file`, then `environment` on top of it. Variables in an env file are the project's, then those of
/// `environment`, then those of the files before.
fn read_environment(node: &Node, service: &mut Service, project: &Project, reader: &mut FileReader<'_>) {
    let mut own = IndexMap::new();
    let mut unset = Vec::new();
    if let Some(node) = node.get("environment") {
        let (folder, variables) = (project.folder.as_path(), &project.variables);
        own = Decoder { report: reader.report, folder, variables }.settings(node);
        unset = names_unset(node, &own);
    }
    for file in env_files(node, project, reader) {
        if is_readable(&file.path) {
            let outer = Layers(&[&project.variables, &own, &service.environment]);
            let values = reader.env_file(&file.path, file.format, &outer);
            service.environment.extend(values);
            service.env_files.push(file.path);
        } else if file.required && service.enabled {
            missing_file(reader.report, &file.path, file.span);
        }
    }
    for name in unset {
        service.environment.shift_remove(&name);
    }
    service.environment.extend(own);
}

/// The names that stand without a value and have none in the shell either: they end up unset.
fn names_unset(node: &Node, own: &IndexMap<String, Spanned<String>>) -> Vec<String> {
    let named: Vec<String> = match &node.value {
        Value::Mapping(entries) => entries.keys().cloned().collect(),
        Value::Sequence(items) => items
            .iter()
            .filter_map(|item| match &item.value {
                Value::Scalar(scalar) if !scalar.text.contains('=') => Some(scalar.text.clone()),
                _ => None,
            })
            .collect(),
        Value::Scalar(_) => Vec::new(),
    };
    named.into_iter().filter(|name| !own.contains_key(name)).collect()
}

/// One entry of `env_file`.
struct EnvFile {
    path: PathBuf,
    span: Span,
    required: bool,
    format: Format,
}

fn env_files(node: &Node, project: &Project, reader: &mut FileReader<'_>) -> Vec<EnvFile> {
    let Some(node) = node.get("env_file") else { return Vec::new() };
    let folder: &Path = &project.folder;
    let mut decoder = Decoder { report: reader.report, folder, variables: &project.variables };
    let items = match &node.value {
        Value::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    items.iter().filter_map(|item| env_file_entry(&mut decoder, item)).collect()
}

fn env_file_entry(decoder: &mut Decoder<'_>, item: &Node) -> Option<EnvFile> {
    let Some(entries) = item.as_mapping() else {
        let path = decoder.name(item)?;
        let (path, span) = (decoder.path(&path.value), path.span);
        return Some(EnvFile { path, span, required: true, format: Format::Dotenv });
    };
    schema::check(entries, schema::ENV_FILE, "`env_file`", Care::Effects, decoder.report);
    let path = item.get("path").and_then(|node| decoder.text(node));
    let required = item.get("required").and_then(|node| decoder.flag(node));
    let format = match item.get("format").and_then(|node| decoder.name(node)) {
        None => Format::Dotenv,
        Some(format) => match format.value.as_str() {
            "raw" => Format::Raw,
            _ => {
                let message = format!("`{}` is not a format of an env file", format.value);
                decoder.invalid(format.span, message, "leave it out, or write `format: raw`");
                return None;
            }
        },
    };
    let Some(path) = path else {
        decoder.invalid(item.span, "`env_file` needs `path`", "");
        return None;
    };
    let required = required.is_none_or(|required| required.value);
    Some(EnvFile { path: decoder.path(&path.value), span: path.span, required, format })
}

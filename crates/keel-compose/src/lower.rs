//! From the joined tree to a [`Project`], and what only the whole can tell: names that lead nowhere, circles.

use std::{collections::BTreeMap, path::PathBuf};

use indexmap::IndexMap;
use keel_diag::Diagnostic;
use keel_model::{DependencyCondition, DriverChoice};

use crate::{
    Config, DependsOn, NamedVolume, Network, Origin, Project, RunPlace, Service, Spanned,
    decode::Decoder,
    driver,
    files::FileReader,
    mounts::undefined,
    project::number_after,
    report::Report,
    schema::{self, Care, Field},
    service,
    yaml::{Entry, Mapping, Node},
};

/// What is known of a project before its tree is read.
pub(crate) struct LoadContext {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) profiles: Vec<String>,
    pub(crate) driver: Option<DriverChoice>,
    pub(crate) place: RunPlace,
}

/// Types a joined tree.
pub(crate) fn lower(tree: Node, context: LoadContext, reader: &mut FileReader<'_>) -> Project {
    let mut project = Project {
        name: context.name,
        folder: context.folder,
        files: reader.files.clone(),
        services: IndexMap::new(),
        networks: IndexMap::new(),
        volumes: IndexMap::new(),
        configs: IndexMap::new(),
        secrets: IndexMap::new(),
        variables: context.variables,
        profiles: context.profiles,
        driver: DriverChoice::default(),
        sound: true,
    };
    let none = Mapping::new();
    let top = tree.as_mapping().unwrap_or(&none);
    schema::check(top, schema::TOP, "a Compose file", Care::Effects, reader.report);
    top_level(&tree, &mut project, reader);
    project.driver = driver::of_project(context.driver, &tree, &project, reader);

    let services = tree.get("services").and_then(Node::as_mapping).unwrap_or(&none);
    if services.is_empty() {
        let span = top.get("services").map_or(tree.span, |entry| entry.key);
        let message = "no services are declared";
        reader.report.push(Diagnostic::error("compose::no-services", message).at(span, ""));
    }
    for (name, entry) in services {
        let surroundings = service::Surroundings { driver: context.driver, place: context.place };
        let service =
            reader.within(name, |reader| service::service(name, entry, &project, surroundings, reader));
        project.services.insert(name.clone(), service);
    }
    apply_links(services, &mut project, reader);
    check_names(&project, reader.report);
    check_instance_names(&project, reader.report);
    check_circles(&project, reader.report);
    for (name, service) in &mut project.services {
        service.faulty = reader.report.is_faulty(name);
    }
    project.sound = reader.report.is_sound();
    project
}

/// Reads networks, volumes, configs and secrets.
fn top_level(tree: &Node, project: &mut Project, reader: &mut FileReader<'_>) {
    let (folder, variables) = (project.folder.clone(), project.variables.clone());
    let mut decoder = Decoder { report: reader.report, folder: &folder, variables: &variables };
    project.networks = section(tree, "networks", schema::NETWORK, &mut decoder, |decoder, entry| {
        let Identity { name, external } = identity(decoder, entry);
        Network { span: entry.key, name, external }
    });
    project.volumes = section(tree, "volumes", schema::VOLUME, &mut decoder, |decoder, entry| {
        let Identity { name, external } = identity(decoder, entry);
        NamedVolume { span: entry.key, name, external }
    });
    project.configs = section(tree, "configs", schema::CONFIG, &mut decoder, config);
    project.secrets = section(tree, "secrets", schema::CONFIG, &mut decoder, config);
}

fn section<T>(
    tree: &Node,
    name: &str,
    fields: &[Field],
    decoder: &mut Decoder<'_>,
    mut read: impl FnMut(&mut Decoder<'_>, &Entry) -> T,
) -> IndexMap<String, T> {
    let Some(entries) = tree.get(name).and_then(|node| decoder.entries(node)) else { return IndexMap::new() };
    let mut result = IndexMap::new();
    for (key, entry) in entries {
        if let Some(entries) = decoder.entries(&entry.value) {
            schema::check(entries, fields, &format!("`{name}`"), Care::Effects, decoder.report);
        }
        result.insert(key.clone(), read(decoder, entry));
    }
    result
}

/// What a network or volume is called, and whether others make it.
struct Identity {
    name: Option<Spanned<String>>,
    external: bool,
}

/// Reads `name` and `external`, the latter also in its old form `external: {name: ...}`.
fn identity(decoder: &mut Decoder<'_>, entry: &Entry) -> Identity {
    let name = entry.value.get("name").and_then(|node| decoder.text(node));
    match entry.value.get("external") {
        Some(node) if node.as_mapping().is_some() => {
            let inner = node.get("name").and_then(|node| decoder.text(node));
            Identity { name: name.or(inner), external: true }
        }
        Some(node) => Identity { name, external: decoder.flag(node).is_some_and(|flag| flag.value) },
        None => Identity { name, external: false },
    }
}

fn config(decoder: &mut Decoder<'_>, entry: &Entry) -> Config {
    let text =
        |decoder: &mut Decoder<'_>, name: &str| entry.value.get(name).and_then(|node| decoder.text(node));
    let origin = if let Some(file) = text(decoder, "file") {
        Some(Origin::Host(decoder.path(&file.value)))
    } else if let Some(content) = text(decoder, "content") {
        Some(Origin::Text(content.value))
    } else if let Some(variable) = text(decoder, "environment") {
        let value = decoder.variables.get(&variable.value).cloned();
        if value.is_none() {
            let message = format!("the variable `{}` is not set", variable.value);
            decoder.invalid(variable.span, message, "");
        }
        value.map(Origin::Text)
    } else {
        None
    };
    Config { span: entry.key, origin }
}

/// `links: [db:database]`: the other service is started before and is found under the second name too.
fn apply_links(services: &Mapping, project: &mut Project, reader: &mut FileReader<'_>) {
    let (folder, variables) = (project.folder.clone(), project.variables.clone());
    for (name, entry) in services {
        let Some(links) = entry.value.get("links") else { continue };
        let links = reader.within(name, |reader| {
            Decoder { report: reader.report, folder: &folder, variables: &variables }.texts(links)
        });
        for link in links {
            let (target, alias) = match link.value.split_once(':') {
                Some((target, alias)) => (target, Some(alias)),
                None => (link.value.as_str(), None),
            };
            let known: Vec<String> = project.services.keys().cloned().collect();
            let Some(linked) = project.services.get_mut(target) else {
                reader.within(name, |reader| {
                    reader.report.push(undefined("service", target, link.span, known.iter()));
                });
                continue;
            };
            linked.link_aliases.extend(alias.map(|alias| Spanned::new(alias.to_owned(), link.span)));
            let Some(service) = project.services.get_mut(name) else { continue };
            if !service.depends_on.iter().any(|dependency| dependency.service.value == target) {
                service.depends_on.push(DependsOn {
                    service: Spanned::new(target.to_owned(), link.span),
                    condition: DependencyCondition::Started,
                    required: true,
                    restart: false,
                });
            }
        }
    }
}

/// Reports container names that numbered instances of another service have: `app-2` beside two of `app`. Where two
/// services' own names clash, their instances are numbered, as Compose numbers all.
fn check_instance_names(project: &Project, report: &mut Report) {
    let numbered = |service: &Service| {
        service.container_name.is_none() && (service.replicas() > 1 || project.has_namesake(service))
    };
    for service in project.services.values() {
        let Some(container) = &service.container_name else { continue };
        let is_one_of = |other: &&Service| {
            number_after(&container.value, &other.name.value).is_some_and(|n| n <= other.replicas())
        };
        let others = project.services.values().filter(|other| numbered(other));
        let Some(other) = others.filter(|other| other.name.value != service.name.value).find(is_one_of)
        else {
            continue;
        };
        let message =
            format!("an instance of `{}` has the container name `{}`", other.name.value, container.value);
        let diagnostic =
            Diagnostic::error("compose::container-name", message).at(container.span, "taken already").at(
                other.name.span,
                format!("{} instances, called {}-1 and so on", other.replicas(), other.name.value),
            );
        report.within(&service.name.value, |report| report.push(diagnostic));
    }
}

/// Reports names that lead nowhere, and names given twice.
fn check_names(project: &Project, report: &mut Report) {
    let mut containers: IndexMap<&str, &Spanned<String>> = IndexMap::new();
    for (name, service) in &project.services {
        report.within(name, |report| {
            for dependency in service.depends_on.iter().filter(|dependency| dependency.required) {
                check_dependency(project, service, dependency, report);
            }
            for (network, attachment) in &service.networks {
                if network != "default" && !project.networks.contains_key(network) {
                    report.push(undefined("network", network, attachment.span, project.networks.keys()));
                }
            }
            let Some(container) = &service.container_name else { return };
            if let Some(first) = containers.insert(&container.value, container) {
                let message = format!("two services have the container name `{}`", container.value);
                report.push(
                    Diagnostic::error("compose::container-name", message)
                        .at(container.span, "taken already")
                        .at(first.span, "taken here"),
                );
            }
            if service.replicas() > 1 {
                let count = service.scale.as_ref().or(service.deploy_replicas.as_ref());
                let message =
                    format!("`container_name` allows one instance, {} are asked for", service.replicas());
                let mut diagnostic = Diagnostic::error("compose::container-name", message)
                    .at(container.span, "a name for one instance");
                if let Some(count) = count {
                    diagnostic = diagnostic.at(count.span, "more than one");
                }
                report.push(
                    diagnostic.help("remove `container_name`, so that instances get names of their own"),
                );
            }
        });
    }
}

fn check_dependency(project: &Project, service: &Service, dependency: &DependsOn, report: &mut Report) {
    let name = &dependency.service;
    match project.services.get(&name.value) {
        None => report.push(undefined("service", &name.value, name.span, project.services.keys())),
        Some(other) if service.enabled && !other.enabled => {
            let profile = other.profiles.first().map_or("", |profile| profile.value.as_str());
            let message = format!(
                "`{}` depends on `{}`, which no active profile enables",
                service.name.value, name.value
            );
            report.push(
                Diagnostic::error("compose::disabled-dependency", message)
                    .at(name.span, "needed here")
                    .at(other.name.span, "enabled by a profile only")
                    .help(format!("say --profile {profile}, or write `required: false`")),
            );
        }
        Some(_) => {}
    }
}

/// Reports services that wait for each other.
fn check_circles(project: &Project, report: &mut Report) {
    let mut done: Vec<&str> = Vec::new();
    for start in project.services.keys() {
        // Each entry: a service and how many of its dependencies were looked at.
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((name, next)) = path.last_mut() {
            let (name, at) = (*name, *next);
            *next += 1;
            let dependencies = project.services.get(name).map_or(&[][..], |service| &service.depends_on);
            let Some(dependency) = dependencies.get(at) else {
                done.push(name);
                path.pop();
                continue;
            };
            let target = dependency.service.value.as_str();
            if let Some(from) = path.iter().position(|(name, _)| *name == target) {
                let circle: Vec<&str> = path.iter().skip(from).map(|(name, _)| *name).collect();
                let message = format!("services wait for each other: {} -> {target}", circle.join(" -> "));
                for member in &circle {
                    let diagnostic = Diagnostic::error("compose::circle", message.clone())
                        .at(dependency.service.span, "closes the circle");
                    report.within(member, |report| report.push(diagnostic));
                }
            } else if !done.contains(&target) {
                path.push((target, 0));
            }
        }
    }
}

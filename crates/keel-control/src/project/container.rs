//! From a Compose service to a container: names and labels as Compose gives them, so that `docker ps` and
//! `docker-compose ps` show the instances as their own.
//!
//! Nothing is asked of the engine here. What only the image knows — its healthcheck, its volumes, its stop signal — the
//! runner adds once the image is there.

use std::path::Path;

use keel_compose::{HealthTest, Mount, MountSource, Origin, Project, Service, Spanned};
use keel_model::{
    ContainerHealthcheck, ContainerMount, ContainerMountSource, ContainerNetwork, ContainerSpec,
    DockerfileSource, Handover, HostAddress, ImageBuild, Protocol, PublishedPort,
};

/// The Compose whose labels these are.
const COMPOSE_VERSION: &str = "1.29.2";

/// Who answers on the ports that a service publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publisher {
    /// Evenkeel's own listeners: requests are balanced.
    Evenkeel,
    /// The engine: connections of any protocol reach the one container.
    Engine,
}

/// Makes the container that stands for a service.
pub(super) fn container_spec(project: &Project, service: &Service, publisher: Publisher) -> ContainerSpec {
    let words = |words: &Option<Spanned<Vec<String>>>| words.as_ref().map(|words| words.value.clone());
    let text = |text: &Option<Spanned<String>>| text.as_ref().map(|text| text.value.clone());
    let name = &service.name.value;
    let mounts = mounts(project, service);
    let published = published(service, publisher);
    let build = service.build.as_ref().map(image_build);
    ContainerSpec {
        image: text(&service.image).unwrap_or_else(|| format!("{}_{name}", project.name)),
        handover: handover(service, &mounts, &published),
        build,
        image_id: None,
        entrypoint: words(&service.entrypoint),
        command: words(&service.command),
        environment: service
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), value.value.clone()))
            .collect(),
        working_dir: text(&service.working_dir),
        user: text(&service.user),
        hostname: text(&service.hostname),
        stop_signal: service.stop_signal.as_ref().map(|signal| signal.value),
        networks: networks(project, service),
        labels: labels(project, service),
        healthcheck: healthcheck(service),
        extra_hosts: service
            .extra_hosts
            .iter()
            .map(|(name, address)| match service.gateway_hosts.contains(name) {
                true => (name.clone(), HostAddress::Host),
                false => (name.clone(), HostAddress::Address(address.value)),
            })
            .collect(),
        names_on_host: Vec::new(),
        host_ports: Vec::new(),
        confinement: service.confinement.clone(),
        mounts,
        published,
    }
}

/// Two that write to one volume would spoil it, and one port of the host has one owner: then the old one ends first.
/// Folders of this host that are mounted into what is built here are sources, as a rule, and may be shared.
fn handover(service: &Service, mounts: &[ContainerMount], published: &[PublishedPort]) -> Handover {
    let holds_data = |mount: &ContainerMount| match &mount.source {
        ContainerMountSource::Bind(path) => service.build.is_none() && path.is_dir(),
        ContainerMountSource::Volume { .. } | ContainerMountSource::Anonymous => true,
    };
    let alone = mounts.iter().any(|mount| !mount.read_only && holds_data(mount));
    if alone || !published.is_empty() { Handover::OneAtATime } else { Handover::Overlap }
}

fn mounts(project: &Project, service: &Service) -> Vec<ContainerMount> {
    let volume = |name: &String| {
        let declared = project.volumes.get(name);
        let own = declared.and_then(|volume| volume.name.as_ref()).map(|name| name.value.clone());
        match declared.is_some_and(|volume| volume.external) {
            true => ContainerMountSource::Volume { name: own.unwrap_or_else(|| name.clone()), key: None },
            false => ContainerMountSource::Volume {
                name: own.unwrap_or_else(|| format!("{}_{name}", project.name)),
                key: Some(name.clone()),
            },
        }
    };
    let in_memory = |mount: &&Mount| service.confinement.tmpfs.contains_key(&mount.target);
    let volumes = service.volumes.iter().filter(|mount| !in_memory(mount)).map(|mount| ContainerMount {
        source: match &mount.source {
            MountSource::Bind(path) => ContainerMountSource::Bind(path.clone()),
            MountSource::Named(name) => volume(name),
            MountSource::Anonymous => ContainerMountSource::Anonymous,
        },
        target: mount.target.clone(),
        read_only: mount.read_only,
    });
    let files = service.configs.iter().chain(&service.secrets).filter_map(|mount| match &mount.origin {
        Some(Origin::Host(path)) => Some(ContainerMount {
            source: ContainerMountSource::Bind(path.clone()),
            target: mount.target.clone(),
            read_only: true,
        }),
        _ => None,
    });
    volumes.chain(files).collect()
}

/// The ports that the engine publishes: all where nobody balances them, else those that aren't TCP. More than one
/// container can't have them.
fn published(service: &Service, publisher: Publisher) -> Vec<PublishedPort> {
    let by_engine = |protocol: Protocol| publisher == Publisher::Engine || protocol == Protocol::Udp;
    if service.replicas() > 1 {
        return Vec::new();
    }
    let mappings = service.ports.iter().filter(|mapping| by_engine(mapping.protocol));
    let ports = mappings.map(|mapping| PublishedPort {
        host_ip: mapping.host_ip,
        host_port: mapping.published.map(|range| range.first),
        port: keel_model::Port { number: mapping.target, protocol: mapping.protocol },
    });
    ports.collect()
}

fn networks(project: &Project, service: &Service) -> Vec<ContainerNetwork> {
    let default = ["default".to_owned()];
    let named = service.networks.keys();
    let keys: Vec<&String> =
        if service.networks.is_empty() { default.iter().collect() } else { named.collect() };
    let links = || service.link_aliases.iter().map(|alias| alias.value.clone());
    let in_network = |key: &String| {
        let declared = project.networks.get(key);
        let own = declared.and_then(|network| network.name.as_ref()).map(|name| name.value.clone());
        let aliases = service.networks.get(key).into_iter().flat_map(|attachment| &attachment.aliases);
        let aliases = aliases.map(|alias| alias.value.clone());
        let aliases = std::iter::once(service.name.value.clone()).chain(aliases).chain(links()).collect();
        match declared.is_some_and(|network| network.external) {
            true => ContainerNetwork { name: own.unwrap_or_else(|| key.clone()), key: None, aliases },
            false => ContainerNetwork {
                name: own.unwrap_or_else(|| format!("{}_{key}", project.name)),
                key: Some(key.clone()),
                aliases,
            },
        }
    };
    keys.into_iter().map(in_network).collect()
}

fn labels(project: &Project, service: &Service) -> std::collections::BTreeMap<String, String> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let files: Vec<String> = project.files.iter().map(|file| path(file)).collect();
    let own = service.labels.iter().map(|(name, value)| (name.clone(), value.value.clone()));
    let compose = [
        ("project", project.name.clone()),
        ("project.working_dir", path(&project.folder)),
        ("project.config_files", files.join(",")),
        ("service", service.name.value.clone()),
        ("version", COMPOSE_VERSION.to_owned()),
    ];
    let compose = compose.map(|(name, value)| (format!("com.docker.compose.{name}"), value));
    own.chain(compose).collect()
}

fn healthcheck(service: &Service) -> ContainerHealthcheck {
    let Some(check) = &service.healthcheck else { return ContainerHealthcheck::Image };
    let test = match &check.test {
        Some(HealthTest::Disabled) => return ContainerHealthcheck::Off,
        Some(HealthTest::Command(argv)) => Some([&["CMD".to_owned()], argv.as_slice()].concat()),
        Some(HealthTest::Shell(line)) => Some(vec!["CMD-SHELL".to_owned(), line.clone()]),
        None => None,
    };
    ContainerHealthcheck::Own {
        test,
        interval: check.interval,
        timeout: check.timeout,
        retries: check.retries,
        start_period: check.start_period,
        start_interval: check.start_interval,
    }
}

/// What the engine is asked to build.
pub(super) fn image_build(build: &keel_compose::Build) -> ImageBuild {
    ImageBuild {
        context: build.context.value.clone(),
        dockerfile: match &build.dockerfile_inline {
            Some(text) => DockerfileSource::Text(text.value.clone()),
            None => DockerfileSource::File(build.dockerfile.value.clone()),
        },
        args: build.args.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect(),
        target: build.target.as_ref().map(|target| target.value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use keel_compose::{Options, load_text};
    use keel_diag::Sources;

    use super::*;

    fn spec(text: &str, publisher: Publisher) -> ContainerSpec {
        let options = Options { folder: "/srv/shop".into(), ..Options::default() };
        let project = load_text(text, &options, &mut Sources::default()).project.unwrap();
        container_spec(&project, project.services.first().unwrap().1, publisher)
    }

    #[test]
    fn names_are_those_that_compose_gives() {
        let spec = spec(
            "
name: shop
networks: {back: {}, front: {name: the-front}, others: {external: true}}
volumes: {data: {}, shared: {external: true, name: big}}
services:
  app:
    build: {context: ., dockerfile_inline: FROM scratch, args: {A: '1'}}
    command: [serve, --fast]
    entrypoint: []
    labels: {team: blue}
    networks: {back: {aliases: [api]}, front: {}, others: {}}
    volumes: ['data:/data:ro', 'shared:/shared', './src:/src']
    stop_signal: SIGQUIT
",
            Publisher::Evenkeel,
        );
        assert_eq!(spec.image, "shop_app");
        let networks: Vec<_> =
            spec.networks.iter().map(|network| (network.name.as_str(), network.key.is_some())).collect();
        assert_eq!(networks, [("shop_back", true), ("the-front", true), ("others", false)]);
        assert_eq!(spec.networks[0].aliases, ["app", "api"]);
        let volumes: Vec<_> = spec.mounts.iter().map(|mount| (&mount.source, mount.read_only)).collect();
        let volume = |name: &str, key: Option<&str>| ContainerMountSource::Volume {
            name: name.into(),
            key: key.map(str::to_owned),
        };
        assert_eq!(
            volumes,
            [
                (&volume("shop_data", Some("data")), true),
                (&volume("big", None), false),
                (&ContainerMountSource::Bind("/srv/shop/src".into()), false),
            ]
        );
        assert_eq!(spec.labels["com.docker.compose.project"], "shop");
        assert_eq!(spec.labels["com.docker.compose.service"], "app");
        assert_eq!(spec.labels["team"], "blue");
        assert_eq!((spec.entrypoint, spec.stop_signal), (Some(Vec::new()), Some(3)));
        assert_eq!(spec.handover, Handover::OneAtATime, "it writes to a volume");
    }

    #[test]
    fn only_what_nobody_balances_publishes_its_ports() {
        let ports = "ports: ['127.0.0.1:5432:5432', '53:53/udp']";
        let text = |more: &str| format!("services: {{db: {{image: postgres, {ports}{more}}}}}");
        let numbers = |text: &str, publisher| {
            let spec = spec(text, publisher);
            (spec.published.iter().map(|port| port.port.number).collect::<Vec<_>>(), spec.handover)
        };
        assert_eq!(numbers(&text(""), Publisher::Engine), (vec![5432, 53], Handover::OneAtATime));
        assert_eq!(numbers(&text(""), Publisher::Evenkeel), (vec![53], Handover::OneAtATime));
        assert_eq!(numbers(&text(", scale: 2"), Publisher::Evenkeel), (vec![], Handover::Overlap));
    }

    #[test]
    fn a_healthcheck_is_passed_on_as_the_file_has_it() {
        let check = |healthcheck: &str, expect: ContainerHealthcheck| {
            let text = format!("services: {{app: {{image: a{healthcheck}}}}}");
            assert_eq!(spec(&text, Publisher::Evenkeel).healthcheck, expect, "{healthcheck}");
        };
        check("", ContainerHealthcheck::Image);
        check(", healthcheck: {disable: true}", ContainerHealthcheck::Off);
        check(
            ", healthcheck: {test: 'curl -f localhost', retries: 2}",
            ContainerHealthcheck::Own {
                test: Some(vec!["CMD-SHELL".into(), "curl -f localhost".into()]),
                interval: None,
                timeout: None,
                retries: Some(2),
                start_period: None,
                start_interval: None,
            },
        );
    }
}

//! From a service to the container that the engine is asked to make.

use std::{collections::HashMap, net::IpAddr};

use keel_engine::{
    Docker, EngineError,
    api::{
        models::{
            ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, NetworkConnectRequest,
            NetworkingConfig, PortBinding, PortMap, RestartPolicy, RestartPolicyNameEnum,
            VolumeCreateRequest,
        },
        query_parameters::CreateContainerOptionsBuilder,
    },
    call,
};
use keel_model::{
    ContainerHealthcheck, ContainerMountSource, ContainerNetwork, ContainerSpec, Handover, HostAddress,
    Protocol, PublishedPort,
};

use super::{
    Birth, ContainerDriver, INCARNATION_LABEL, NAME_LABEL, OwnVolume, PROJECT_LABEL, Stage, container_of,
    error::LaunchError, lock, mounted,
};

/// What a one-off has in place of the service's own.
#[derive(Clone, Debug, Default)]
pub(super) struct Once {
    pub(super) argv: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) terminal: bool,
}

impl ContainerDriver {
    /// Makes the container of a life, and the networks and volumes that are missing; gives its id.
    pub(super) async fn create(
        &self,
        docker: &Docker,
        birth: &Birth,
        once: Option<&Once>,
    ) -> Result<String, LaunchError> {
        let spec = container_of(&birth.spec).ok_or("it is no container")?;
        if let (true, Some(port)) = (birth.ordinal > 1, spec.published.first()) {
            return Err(LaunchError::Refused(format!(
                "port {} is published by the engine, for one instance; write `scale:` or `deploy.replicas:` into the \
                 file, and Evenkeel balances the port over all of them",
                port.port.number
            )));
        }
        let _making = self.begin_making().await?;
        self.make_volumes(docker, spec).await?;
        let mut gateway = None;
        for network in &spec.networks {
            let found = self.network(docker, network).await?;
            gateway = gateway.or(found);
        }
        if let Some(gateway) = gateway {
            self.0.doors.open(gateway, &spec.host_ports);
        }
        let wish = self.living(birth.incarnation).ok_or("it has ended")?.wish;
        let name = lock(&self.0.names).take(&wish, birth.incarnation);
        let volumes = match (once, spec.handover) {
            (None, Handover::OneAtATime) => lock(&self.0.volumes).get(&wish).cloned().unwrap_or_default(),
            _ => Vec::new(),
        };
        let body = Plan { driver: self, birth, spec, once, gateway, wish: &wish, volumes: &volumes }.body();
        let made = self.make_container(docker, birth, &name, body).await;
        let id =
            made.map_err(|error| LaunchError::before_start(&error, why_not_made(&error, spec, &name)))?;
        for network in spec.networks.iter().skip(1) {
            let request = NetworkConnectRequest {
                container: id.clone(),
                endpoint_config: Some(endpoint(birth, network, once)),
            };
            let joined = call(docker.connect_network(&network.name, request)).await;
            joined.map_err(|error| {
                LaunchError::before_start(
                    &error,
                    format!("it can't join the network {}: {error}", network.name),
                )
            })?;
        }
        if name != wish {
            // The other one may have gone while this was made.
            self.claim_name(birth.incarnation, &id, &wish).await;
        }
        Ok(id)
    }

    async fn make_container(
        &self,
        docker: &Docker,
        birth: &Birth,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, EngineError> {
        let note = |stage| self.change(birth.incarnation, |living| living.stage = stage);
        let options = || Some(CreateContainerOptionsBuilder::default().name(name).build());
        note(Stage::Asked { name: name.to_owned() });
        let mut made = call(docker.create_container(options(), body.clone())).await;
        // It may be one that was made late, for a life that is forgotten.
        if made.as_ref().is_err_and(EngineError::is_conflict)
            && let Ok(true) = self.remove_unowned(docker, name).await
        {
            made = call(docker.create_container(options(), body)).await;
        }
        match made {
            Ok(made) => {
                note(Stage::Created { id: made.id.clone(), ended: None });
                Ok(made.id)
            }
            Err(error) => {
                if !error.is_in_doubt() {
                    note(Stage::Settled);
                }
                Err(error)
            }
        }
    }

    async fn make_volumes(&self, docker: &Docker, spec: &ContainerSpec) -> Result<(), LaunchError> {
        for mount in &spec.mounts {
            let ContainerMountSource::Volume { name, key } = &mount.source else { continue };
            let Some(key) = key else {
                call(docker.inspect_volume(name)).await.map_err(|error| match error.is_missing() {
                    true => LaunchError::Refused(format!(
                        "the volume {name} isn't there, and the file says that others make it: \
                         `docker volume create {name}`"
                    )),
                    false => LaunchError::before_start(
                        &error,
                        format!("the volume {name} can't be looked at: {error}"),
                    ),
                })?;
                continue;
            };
            let labels = [
                ("com.docker.compose.project", &self.0.project),
                ("com.docker.compose.version", &"1.29.2".to_owned()),
                ("com.docker.compose.volume", key),
            ];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.clone()));
            let request = VolumeCreateRequest {
                name: Some(name.clone()),
                labels: Some(HashMap::from(labels)),
                ..Default::default()
            };
            // One that is there already is taken as it is.
            let made = call(docker.create_volume(request)).await;
            made.map_err(|error| {
                LaunchError::before_start(&error, format!("the volume {name} can't be made: {error}"))
            })?;
        }
        Ok(())
    }
}

fn why_not_made(error: &EngineError, spec: &ContainerSpec, name: &str) -> String {
    if error.is_missing() {
        let remedy =
            if spec.build.is_some() { "`evenkeel up --build` makes it" } else { "`evenkeel up` pulls it" };
        return format!("its image {} isn't in the engine; {remedy}", spec.image);
    }
    if error.is_conflict() {
        return format!(
            "its container can't be made: {error}; `docker-compose down` ends those that Compose started, \
             `docker rm -f {name}` ends this one"
        );
    }
    format!("its container can't be made: {error}")
}

/// Everything that decides what a container is.
struct Plan<'a> {
    driver: &'a ContainerDriver,
    birth: &'a Birth,
    spec: &'a ContainerSpec,
    once: Option<&'a Once>,
    /// This host's address in its networks.
    gateway: Option<IpAddr>,
    wish: &'a str,
    /// What the instance's container before it left.
    volumes: &'a [OwnVolume],
}

impl Plan<'_> {
    fn body(&self) -> ContainerCreateBody {
        let Self { birth, spec, once, .. } = self;
        let service = &birth.spec;
        let further = once.iter().flat_map(|once| &once.environment);
        let environment = spec.environment.iter().chain(further.map(|(name, value)| (name, value)));
        let argv = once.map(|once| once.argv.clone()).filter(|argv| !argv.is_empty());
        let terminal = once.map_or(spec.confinement.tty, |once| once.terminal);
        let first = spec.networks.first();
        let published = if once.is_some() { [].as_slice() } else { &spec.published };
        ContainerCreateBody {
            hostname: spec.hostname.clone().or_else(|| host_name(&birth.name)),
            user: spec.user.clone(),
            attach_stdin: once.map(|_| true),
            attach_stdout: once.map(|_| true),
            attach_stderr: once.map(|_| true),
            open_stdin: once.map(|_| true),
            stdin_once: once.map(|_| true),
            tty: Some(terminal),
            env: Some(environment.map(|(name, value)| format!("{name}={value}")).collect()),
            cmd: argv.or_else(|| spec.command.clone()),
            entrypoint: spec.entrypoint.clone().map(cleared),
            healthcheck: health_config(&spec.healthcheck),
            image: Some(spec.image.clone()),
            working_dir: spec.working_dir.clone(),
            labels: Some(self.labels()),
            stop_signal: spec.stop_signal.map(|signal| signal.to_string()),
            stop_timeout: i64::try_from(service.stop.grace_period.as_secs()).ok(),
            exposed_ports: (!published.is_empty()).then(|| published.iter().map(port_key).collect()),
            host_config: Some(self.host_config(published)),
            networking_config: first.map(|network| NetworkingConfig {
                endpoints_config: Some(HashMap::from([(
                    network.name.clone(),
                    endpoint(birth, network, *once),
                )])),
            }),
            ..Default::default()
        }
    }

    fn labels(&self) -> HashMap<String, String> {
        let Self { birth, spec, once, .. } = self;
        let own = [
            ("com.docker.compose.container-number", birth.ordinal.to_string()),
            ("com.docker.compose.oneoff", if once.is_some() { "True" } else { "False" }.to_owned()),
            ("com.docker.compose.config-hash", birth.spec.digest.clone()),
            (PROJECT_LABEL, self.driver.0.project.clone()),
            (NAME_LABEL, self.wish.to_owned()),
            (INCARNATION_LABEL, birth.incarnation.to_string()),
            ("dev.evenkeel.instance", birth.name.clone()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        spec.labels.clone().into_iter().chain(own).collect()
    }

    fn host_config(&self, published: &[PublishedPort]) -> HostConfig {
        let confinement = &self.spec.confinement;
        let texts = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        HostConfig {
            binds: Some(self.binds()),
            network_mode: self.spec.networks.first().map(|network| network.name.clone()),
            port_bindings: (!published.is_empty()).then(|| bindings(published)),
            // Who starts it again is not the engine.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            extra_hosts: Some(self.extra_hosts()),
            init: confinement.init,
            readonly_rootfs: Some(confinement.read_only),
            privileged: Some(confinement.privileged),
            cap_add: texts(&confinement.cap_add),
            cap_drop: texts(&confinement.cap_drop),
            security_opt: texts(&confinement.security_opt),
            group_add: texts(&confinement.group_add),
            dns: texts(&confinement.dns),
            tmpfs: Some(confinement.tmpfs.clone().into_iter().collect()),
            sysctls: (!confinement.sysctls.is_empty())
                .then(|| confinement.sysctls.clone().into_iter().collect()),
            shm_size: confinement.shm_bytes,
            memory: confinement.memory_bytes,
            nano_cpus: confinement.nano_cpus,
            pids_limit: confinement.pids_max,
            ..Default::default()
        }
    }

    fn binds(&self) -> Vec<String> {
        let options = |read_only: bool| if read_only { "ro" } else { "rw" };
        let mounts = self.spec.mounts.iter().filter_map(|mount| {
            let source = match &mount.source {
                ContainerMountSource::Bind(path) => path.to_string_lossy().into_owned(),
                ContainerMountSource::Volume { name, .. } => name.clone(),
                ContainerMountSource::Anonymous => return None,
            };
            Some(format!("{source}:{}:{}", mount.target, options(mount.read_only)))
        });
        let named = mounted(&self.birth.spec);
        let kept = self.volumes.iter().filter(|volume| !named.contains(volume.target.as_str()));
        let kept: Vec<&OwnVolume> = kept.collect();
        let anonymous = self.spec.mounts.iter().filter(|mount| {
            let is_kept = kept.iter().any(|volume| volume.target == mount.target);
            mount.source == ContainerMountSource::Anonymous && !is_kept
        });
        let anonymous = anonymous.map(|mount| mount.target.clone());
        let kept = kept.iter().map(|volume| format!("{}:{}", volume.name, volume.target));
        mounts.chain(kept).chain(anonymous).collect()
    }

    fn extra_hosts(&self) -> Vec<String> {
        let own = self.spec.extra_hosts.iter().map(|(name, address)| match address {
            HostAddress::Address(address) => format!("{name}:{address}"),
            HostAddress::Host => format!("{name}:host-gateway"),
        });
        let on_host = self
            .gateway
            .iter()
            .flat_map(|gateway| self.spec.names_on_host.iter().map(move |name| format!("{name}:{gateway}")));
        own.chain(on_host).collect()
    }
}

/// The name that an instance has among the others, where a host can be called that: as a local process is.
fn host_name(instance: &str) -> Option<String> {
    const BYTES_MAX: usize = 63;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let fits = instance.len() <= BYTES_MAX && instance.bytes().all(fits);
    fits.then(|| instance.to_owned())
}

/// An entrypoint that the file clears: the engine takes an empty one for none given, and one empty word for none.
fn cleared(words: Vec<String>) -> Vec<String> {
    if words.is_empty() { vec![String::new()] } else { words }
}

fn endpoint(birth: &Birth, network: &ContainerNetwork, once: Option<&Once>) -> EndpointSettings {
    let own = [birth.name.clone(), format!("{}-{}", birth.spec.name, birth.ordinal)];
    let mut aliases: Vec<String> = network.aliases.iter().cloned().chain(own).collect();
    aliases.sort();
    aliases.dedup();
    // A one-off is found under no name of the service's.
    let aliases = if once.is_some() { Vec::new() } else { aliases };
    EndpointSettings { aliases: Some(aliases), ..Default::default() }
}

fn port_key(published: &PublishedPort) -> String {
    let protocol = if published.port.protocol == Protocol::Udp { "udp" } else { "tcp" };
    format!("{}/{protocol}", published.port.number)
}

fn bindings(published: &[PublishedPort]) -> PortMap {
    let mut all = PortMap::new();
    for one in published {
        let binding = PortBinding {
            host_ip: one.host_ip.map(|ip| ip.to_string()),
            host_port: Some(one.host_port.map(|port| port.to_string()).unwrap_or_default()),
        };
        all.entry(port_key(one)).or_default().get_or_insert_default().push(binding);
    }
    all
}

fn health_config(healthcheck: &ContainerHealthcheck) -> Option<HealthConfig> {
    match healthcheck {
        ContainerHealthcheck::Image => None,
        ContainerHealthcheck::Off => {
            Some(HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() })
        }
        ContainerHealthcheck::Own { test, interval, timeout, retries, start_period, start_interval } => {
            let nanos = |duration: &Option<std::time::Duration>| {
                duration.and_then(|duration| i64::try_from(duration.as_nanos()).ok())
            };
            Some(HealthConfig {
                test: test.clone(),
                interval: nanos(interval),
                timeout: nanos(timeout),
                retries: retries.map(i64::from),
                start_period: nanos(start_period),
                start_interval: nanos(start_interval),
            })
        }
    }
}

//! Pods: what an instance runs, what it may have, how it is asked whether it is well, and how it ends.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, ExecAction, HostAlias, Lifecycle, LifecycleHandler,
        PodDNSConfig, PodSecurityContext, PodSpec, Probe, ResourceRequirements, SecurityContext, SleepAction,
        Sysctl, TCPSocketAction,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use keel_compose::Service;
use keel_model::{Healthcheck, Port, Protocol};

use super::{
    SLEEP_HOOK, Writer,
    object::{label, some},
    seconds, seconds_i32,
};

/// Whether a pod is asked if it is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probes {
    /// As its healthcheck says.
    Written,
    /// It isn't: it runs once and ends.
    None,
}

/// A pod of a service.
pub(super) struct Pod {
    pub(super) spec: PodSpec,
    /// Whether two at once would write to one volume.
    pub(super) writes_a_volume: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn pod(&mut self, service: &'a Service, probes: Probes) -> Pod {
        let storage = self.storage(service, &|_| false);
        self.name_what_a_pod_has_not(service);
        let ports = self.ports(service);
        let mut container = Container {
            name: label(&service.name.value),
            image: Some(self.image(service)),
            // What is built here is brought to the nodes, or pulled where they lack it.
            image_pull_policy: service.build.as_ref().map(|_| "IfNotPresent".into()),
            env: some(environment(service)),
            ports: some(ports.iter().map(container_port).collect::<Vec<_>>()),
            resources: resources(service),
            security_context: security(service),
            volume_mounts: some(storage.mounts),
            working_dir: service.working_dir.as_ref().map(|folder| folder.value.clone()),
            tty: service.confinement.tty.then_some(true),
            ..words(service)
        };
        if probes == Probes::Written {
            add_probes(&mut container, service, &ports);
            container.lifecycle = self.serve_on(service, &ports);
        }
        let confinement = &service.confinement;
        let sysctl = |(name, value): (&String, &String)| Sysctl { name: name.clone(), value: value.clone() };
        let groups = confinement.group_add.iter().filter_map(|group| group.parse().ok()).collect();
        let security = PodSecurityContext {
            supplemental_groups: some(groups),
            sysctls: some(confinement.sysctls.iter().map(sysctl).collect::<Vec<_>>()),
            ..PodSecurityContext::default()
        };
        let dns = PodDNSConfig { nameservers: some(confinement.dns.clone()), ..PodDNSConfig::default() };
        let network = service.network_mode.as_ref().map(|mode| mode.value.as_str());
        let spec = PodSpec {
            automount_service_account_token: Some(false),
            containers: vec![container],
            dns_config: (!confinement.dns.is_empty()).then_some(dns),
            // Variables such as APP_PORT would change programs that read them.
            enable_service_links: Some(false),
            host_aliases: some(host_aliases(service)),
            host_network: (network == Some("host")).then_some(true),
            hostname: service.hostname.as_ref().map(|name| label(&name.value)),
            security_context: (security != PodSecurityContext::default()).then_some(security),
            termination_grace_period_seconds: Some(self.grace(service, probes)),
            volumes: some(storage.volumes),
            ..PodSpec::default()
        };
        Pod { spec, writes_a_volume: storage.writes_a_volume }
    }

    /// Gives a service's image, and says where somebody has to build it.
    fn image(&mut self, service: &Service) -> String {
        let image = match &service.image {
            Some(image) => image.value.clone(),
            None => format!("{}_{}", self.project.name, service.name.value),
        };
        if let Some(build) = &service.build {
            let message = format!("the cluster doesn't build `{image}`");
            let help = format!(
                "`docker-compose build {}`, then push it; kustomize's `images` gives it another name",
                service.name.value
            );
            self.cannot_say(build.span, message, &help);
        }
        image
    }

    /// The ports an instance listens on: what the files say, and what the balancer passes to.
    pub(super) fn ports(&self, service: &Service) -> Vec<Port> {
        let mut ports = service.container_ports();
        let upstreams = self.seat.into_iter().flat_map(|seat| &seat.upstreams);
        let own = upstreams.filter(|(name, _)| {
            let name = name.as_str();
            service.name.value == name || service.aliases().any(|alias| alias == name)
        });
        for number in own.flat_map(|(_, ports)| ports) {
            let port = Port { number: *number, protocol: Protocol::Tcp };
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }

    /// Lets an instance that is to end serve on for a moment: the word reaches it and the balancers at the same time.
    fn serve_on(&mut self, service: &Service, ports: &[Port]) -> Option<Lifecycle> {
        let drain = self.options.drain;
        if ports.is_empty() || drain.is_zero() {
            return None;
        }
        if self.options.minor_version < SLEEP_HOOK {
            let message = format!(
                "Kubernetes 1.{} can't let an instance serve on before its signal",
                self.options.minor_version
            );
            let help = "one that finishes what it has after the signal loses nothing; others need a preStop command of their own";
            self.cannot_say(service.name.span, message, help);
            return None;
        }
        let sleep = LifecycleHandler {
            sleep: Some(SleepAction { seconds: seconds(drain) }),
            ..LifecycleHandler::default()
        };
        Some(Lifecycle { pre_stop: Some(sleep), ..Lifecycle::default() })
    }

    /// The kubelet's grace period holds both: serving on and, after the signal, `stop_grace_period`.
    fn grace(&self, service: &Service, probes: Probes) -> i64 {
        let drain = if probes == Probes::Written { self.options.drain } else { Duration::ZERO };
        seconds(drain.saturating_add(service.stop().grace_period))
    }

    fn name_what_a_pod_has_not(&mut self, service: &Service) {
        const SIGTERM: i32 = 15;
        if let Some(signal) = service.stop_signal.as_ref().filter(|signal| signal.value != SIGTERM) {
            self.cannot_say(
                signal.span,
                "`stop_signal` is the image's there",
                "write `STOPSIGNAL` into its Dockerfile",
            );
        }
        if let Some(mode) = &service.network_mode
            && !matches!(mode.value.as_str(), "host" | "bridge" | "default" | "")
        {
            let message = format!("`network_mode: {}`: a pod has a network of its own", mode.value);
            self.cannot_say(mode.span, message, "");
        }
        if let Some(user) = service.user.as_ref().filter(|user| user_of(&user.value).is_none()) {
            let message = format!("`user: {}`: a pod's user is a number", user.value);
            self.cannot_say(user.span, message, "write the number, or `USER` into the Dockerfile");
        }
        let (span, confinement) = (service.name.span, &service.confinement);
        let named = confinement.group_add.iter().filter(|group| group.parse::<i64>().is_err());
        let options = confinement.security_opt.iter().filter(|option| !is_no_new_privileges(option));
        for (field, value) in
            named.map(|group| ("group_add", group)).chain(options.map(|one| ("security_opt", one)))
        {
            self.cannot_say(span, format!("`{field}: {value}` of `{}` is left out", service.name.value), "");
        }
        if confinement.pids_max.is_some() {
            let message = format!(
                "`pids_limit` of `{}`: the kubelet's `podPidsLimit` holds for all pods",
                service.name.value
            );
            self.cannot_say(span, message, "");
        }
        if confinement.init == Some(true) {
            let message = format!("`init` of `{}`: the program is process 1", service.name.value);
            self.cannot_say(
                span,
                message,
                "start it with an init of its own, such as tini, in the Dockerfile",
            );
        }
        for name in &service.gateway_hosts {
            let message = format!(
                "`{name}` of `{}` stands for this host, which a pod doesn't know",
                service.name.value
            );
            self.cannot_say(span, message, "");
        }
    }
}

/// `entrypoint` and `command`; the cluster's words for them are `command` and `args`.
fn words(service: &Service) -> Container {
    let escaped = |words: &Vec<String>| words.iter().map(|word| escape(word)).collect::<Vec<_>>();
    let entrypoint = service.entrypoint.as_ref().map(|words| escaped(&words.value));
    let command = service.command.as_ref().map(|words| escaped(&words.value));
    match entrypoint {
        // One that is cleared leaves the command to run by itself.
        Some(empty) if empty.is_empty() => Container { command, ..Container::default() },
        command_line => {
            Container { command: command_line, args: command.and_then(some), ..Container::default() }
        }
    }
}

/// Keeps `$(NAME)`, which a pod would replace, as the file has it.
fn escape(text: &str) -> String {
    text.replace("$(", "$$(")
}

fn environment(service: &Service) -> Vec<EnvVar> {
    let variables = service.environment.iter();
    let variable = |(name, value): (&String, &keel_compose::Spanned<String>)| EnvVar {
        name: name.clone(),
        value: Some(escape(&value.value)),
        value_from: None,
    };
    variables.map(variable).collect()
}

/// A port's name, which has at most 15 characters.
pub(super) fn port_name(port: &Port) -> String {
    match port.protocol {
        Protocol::Tcp => format!("tcp-{}", port.number),
        Protocol::Udp => format!("udp-{}", port.number),
    }
}

pub(super) fn protocol(port: &Port) -> String {
    match port.protocol {
        Protocol::Tcp => "TCP".into(),
        Protocol::Udp => "UDP".into(),
    }
}

fn container_port(port: &Port) -> ContainerPort {
    ContainerPort {
        name: Some(port_name(port)),
        container_port: i32::from(port.number),
        protocol: Some(protocol(port)),
        ..ContainerPort::default()
    }
}

fn add_probes(container: &mut Container, service: &Service, ports: &[Port]) {
    let Some(check) = service.effective_healthcheck() else {
        // As under Evenkeel: it is ready when it listens.
        let port = ports.iter().find(|port| port.protocol == Protocol::Tcp);
        container.readiness_probe = port.map(|port| Probe {
            tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(port.number.into()), host: None }),
            period_seconds: Some(1),
            ..Probe::default()
        });
        return;
    };
    let probe = Probe {
        exec: Some(ExecAction { command: Some(check.argv.iter().map(|word| escape(word)).collect()) }),
        timeout_seconds: Some(seconds_i32(check.timeout)),
        ..Probe::default()
    };
    container.startup_probe = start_probe(&check, &probe);
    container.readiness_probe = Some(Probe {
        period_seconds: Some(seconds_i32(check.interval)),
        failure_threshold: Some(i32::try_from(check.retries).unwrap_or(i32::MAX)),
        ..probe
    });
}

/// While an instance starts it is asked often, so that it joins soon. The kubelet restarts one that isn't well by the end
/// of `start_period` and of the failures that then count.
fn start_probe(check: &Healthcheck, probe: &Probe) -> Option<Probe> {
    let often = check.start_interval.unwrap_or(Duration::from_secs(1));
    let patience = check.start_period + check.interval * check.retries;
    let times = seconds(patience) / i64::from(seconds_i32(often));
    (!check.start_period.is_zero()).then(|| Probe {
        period_seconds: Some(seconds_i32(often)),
        failure_threshold: Some(i32::try_from(times).unwrap_or(i32::MAX).max(1)),
        ..probe.clone()
    })
}

fn resources(service: &Service) -> Option<ResourceRequirements> {
    let quantities = |nano_cpus: Option<i64>, bytes: Option<i64>| -> BTreeMap<String, Quantity> {
        let cpu = nano_cpus.map(|nano| ("cpu".to_owned(), Quantity(format!("{}m", nano / 1_000_000))));
        let memory = bytes.map(|bytes| ("memory".to_owned(), Quantity(size(bytes))));
        cpu.into_iter().chain(memory).collect()
    };
    let confinement = &service.confinement;
    let limits = quantities(confinement.nano_cpus, confinement.memory_bytes);
    let requests = quantities(service.reservations.nano_cpus, service.reservations.memory_bytes);
    let any = !limits.is_empty() || !requests.is_empty();
    any.then(|| ResourceRequirements { limits: some(limits), requests: some(requests), claims: None })
}

/// Writes a number of bytes in the largest unit that holds it exactly.
pub(super) fn size(bytes: i64) -> String {
    let units = [(1_i64 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let unit = units.iter().find(|(unit, _)| bytes > 0 && bytes % unit == 0);
    unit.map_or_else(|| bytes.to_string(), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// User and group, where they are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct User {
    uid: i64,
    gid: Option<i64>,
}

fn user_of(text: &str) -> Option<User> {
    match text.split_once(':') {
        Some((uid, gid)) => Some(User { uid: uid.parse().ok()?, gid: Some(gid.parse().ok()?) }),
        None => Some(User { uid: text.parse().ok()?, gid: None }),
    }
}

fn is_no_new_privileges(option: &str) -> bool {
    matches!(option, "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true")
}

fn security(service: &Service) -> Option<SecurityContext> {
    let confinement = &service.confinement;
    let capability = |name: &String| name.strip_prefix("CAP_").unwrap_or(name).to_owned();
    let add: Vec<String> = confinement.cap_add.iter().map(capability).collect();
    let drop: Vec<String> = confinement.cap_drop.iter().map(capability).collect();
    let any = !add.is_empty() || !drop.is_empty();
    let user = service.user.as_ref().and_then(|user| user_of(&user.value));
    let context = SecurityContext {
        allow_privilege_escalation: confinement
            .security_opt
            .iter()
            .any(|option| is_no_new_privileges(option))
            .then_some(false),
        capabilities: any.then(|| Capabilities { add: some(add), drop: some(drop) }),
        privileged: confinement.privileged.then_some(true),
        read_only_root_filesystem: confinement.read_only.then_some(true),
        run_as_user: user.map(|user| user.uid),
        run_as_group: user.and_then(|user| user.gid),
        ..SecurityContext::default()
    };
    (context != SecurityContext::default()).then_some(context)
}

fn host_aliases(service: &Service) -> Vec<HostAlias> {
    let known = service.extra_hosts.iter().filter(|(name, _)| !service.gateway_hosts.contains(name));
    known
        .map(|(name, address)| HostAlias {
            ip: address.value.to_string(),
            hostnames: Some(vec![name.clone()]),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        let check = |bytes: i64, expect: &str| assert_eq!(size(bytes), expect);
        check(1 << 30, "1Gi");
        check(512 << 20, "512Mi");
        check(3 << 29, "1536Mi");
        check(1000, "1000");
        check(0, "0");
    }

    #[test]
    fn users_are_numbers() {
        let check = |text: &str, expect: Option<(i64, Option<i64>)>| {
            assert_eq!(user_of(text), expect.map(|(uid, gid)| User { uid, gid }), "{text}");
        };
        check("1000", Some((1000, None)));
        check("101:102", Some((101, Some(102))));
        check("app", None);
        check("1:app", None);
    }

    #[test]
    fn what_looks_like_a_variable_of_the_pod_stays() {
        assert_eq!(escape("echo $(date) $HOME"), "echo $$(date) $HOME");
    }
}

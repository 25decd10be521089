//! The balancer's seat in the cluster: Evenkeel with its nginx.conf, and the right to follow endpoints.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            ConfigMapVolumeSource, Container, ContainerPort, EnvVar, ExecAction, Lifecycle, LifecycleHandler,
            PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ServiceAccount, Sysctl, Volume, VolumeMount,
        },
        rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{
    Seat, Writer,
    network::{Publisher, Reach},
    object::{Object, label, label_selector, metadata, selector, some},
    seconds,
    storage::{Storage, key_of},
};

/// The name of a balancer that no service is.
const NAME: &str = "evenkeel";
/// The image's own folder of nginx's files: what is mounted there is mounted file by file.
const NGINX_FOLDER: &str = "/etc/nginx";
/// How long requests may take to end after the listeners have closed.
const FINISH: Duration = Duration::from_secs(30);
/// The first port that needs no privilege.
const FREE_PORT: u16 = 1024;
/// The first version in which a pod may lower that port for itself.
const FREE_PORT_SETTING: u32 = 22;

impl<'a> Writer<'a> {
    pub(super) fn balancer(&mut self, seat: &'a Seat<'a>) {
        let name = seat.service.map_or(NAME, |service| service.name.value.as_str());
        if let Some(service) = seat.service {
            self.name(name, service.name.span);
        }
        self.rights(name);
        let storage = self.balancer_files(name, seat);
        let project = self.project.name.as_str();
        let replicas = seat.service.map_or(1, keel_compose::Service::replicas);
        let deployment = Deployment {
            metadata: metadata(project, name),
            spec: Some(DeploymentSpec {
                replicas: Some(i32::try_from(replicas).unwrap_or(i32::MAX)),
                selector: label_selector(project, name),
                // A new one serves before an old one leaves.
                strategy: Some(DeploymentStrategy {
                    type_: Some("RollingUpdate".into()),
                    rolling_update: Some(RollingUpdateDeployment {
                        max_surge: Some(IntOrString::Int(1)),
                        max_unavailable: Some(IntOrString::Int(0)),
                    }),
                }),
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta {
                        labels: Some(selector(project, name)),
                        annotations: Some(digest_annotation(seat)),
                        ..ObjectMeta::default()
                    }),
                    spec: Some(self.balancer_pod(name, seat, storage)),
                },
                ..DeploymentSpec::default()
            }),
            status: None,
        };
        self.export.objects.push(Object::of(&deployment));
        if replicas > 1 {
            self.disruption_budget(name);
        }
        let reach = match seat.published.iter().all(|one| one.local) {
            true => Reach::Cluster,
            false => Reach::Outside,
        };
        let service = Publisher::of(&seat.published).finish(project, name, reach);
        self.export.objects.extend(service.map(|service| Object::of(&service)));
    }

    /// Lets the balancer list and watch endpoints of its namespace, and nothing else.
    fn rights(&mut self, name: &str) {
        let project = self.project.name.as_str();
        let account = ServiceAccount { metadata: metadata(project, name), ..ServiceAccount::default() };
        let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let role = Role {
            metadata: metadata(project, name),
            rules: Some(vec![PolicyRule {
                api_groups: Some(texts(&["discovery.k8s.io"])),
                resources: Some(texts(&["endpointslices"])),
                verbs: texts(&["list", "watch"]),
                ..PolicyRule::default()
            }]),
        };
        let binding = RoleBinding {
            metadata: metadata(project, name),
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".into(),
                kind: "Role".into(),
                name: label(name),
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".into(),
                name: label(name),
                ..Subject::default()
            }]),
        };
        self.export.objects.extend([Object::of(&account), Object::of(&role), Object::of(&binding)]);
    }

    /// Writes a ConfigMap for each folder of nginx's files, and what else the seat mounts.
    fn balancer_files(&mut self, name: &str, seat: &'a Seat<'a>) -> Storage {
        let mut storage = match seat.service {
            Some(service) => self.storage(service, &|target| seat.renders(target)),
            None => Storage::default(),
        };
        let mut folders = BTreeMap::<&Path, BTreeMap<String, &String>>::new();
        for (path, text) in &seat.files {
            if let (Some(folder), Some(file)) =
                (path.parent(), path.file_name().and_then(|file| file.to_str()))
            {
                folders.entry(folder).or_default().insert(key_of(file), text);
            }
        }
        for (folder, files) in folders {
            self.balancer_folder(name, folder, &files, &mut storage);
        }
        storage
    }

    fn balancer_folder(
        &mut self,
        name: &str,
        folder: &Path,
        files: &BTreeMap<String, &String>,
        storage: &mut Storage,
    ) {
        let slug = folder.to_string_lossy().trim_matches('/').replace('/', "-");
        let map = format!("{name}-{slug}");
        let contents = files.iter().map(|(key, text)| (key.clone(), text.as_bytes().to_vec())).collect();
        self.config_map(name, &map, contents);
        let source = ConfigMapVolumeSource { name: label(&map), ..ConfigMapVolumeSource::default() };
        let volume = storage.add_volume(&slug, Volume { config_map: Some(source), ..Volume::default() });
        let mount = |path: PathBuf, sub_path: Option<String>| VolumeMount {
            name: volume.clone(),
            mount_path: path.to_string_lossy().into_owned(),
            read_only: Some(true),
            sub_path,
            ..VolumeMount::default()
        };
        match folder == Path::new(NGINX_FOLDER) {
            true => {
                let mounts = files.keys().map(|file| mount(folder.join(file), Some(file.clone())));
                storage.mounts.extend(mounts);
            }
            false => storage.mounts.push(mount(folder.to_owned(), None)),
        }
    }

    fn balancer_pod(&self, name: &str, seat: &Seat<'_>, storage: Storage) -> PodSpec {
        let variable = |name: &str, value: &str| EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            value_from: None,
        };
        let exec = |words: &[&str]| ExecAction {
            command: Some(words.iter().map(|word| (*word).to_owned()).collect()),
        };
        let linger = format!("{}s", seconds(self.options.drain));
        let ready = Probe {
            exec: Some(exec(&["evenkeel", "healthcheck"])),
            period_seconds: Some(2),
            timeout_seconds: Some(6),
            ..Probe::default()
        };
        let sysctl = Sysctl { name: "net.ipv4.ip_unprivileged_port_start".into(), value: "0".into() };
        let is_low = seat.listens.iter().any(|port| *port < FREE_PORT);
        let security = (is_low && self.options.minor_version >= FREE_PORT_SETTING)
            .then(|| PodSecurityContext { sysctls: Some(vec![sysctl]), ..PodSecurityContext::default() });
        let port = |port: &u16| ContainerPort {
            container_port: i32::from(*port),
            name: Some(format!("tcp-{port}")),
            ..ContainerPort::default()
        };
        let words = ["nginx".to_owned()].into_iter().chain(seat.arguments.iter().cloned());
        let container = Container {
            name: label(name),
            image: Some(self.options.image.clone()),
            args: Some(words.collect()),
            env: Some(vec![variable("EVENKEEL_RESOLVER", "kubernetes")]),
            ports: some(seat.listens.iter().map(port).collect::<Vec<_>>()),
            readiness_probe: Some(ready),
            // Clients that haven't heard yet connect for a moment longer.
            lifecycle: (!self.options.drain.is_zero()).then(|| Lifecycle {
                pre_stop: Some(LifecycleHandler {
                    exec: Some(exec(&["evenkeel", "linger", &linger])),
                    ..LifecycleHandler::default()
                }),
                ..Lifecycle::default()
            }),
            volume_mounts: some(storage.mounts),
            ..Container::default()
        };
        PodSpec {
            service_account_name: Some(label(name)),
            containers: vec![container],
            enable_service_links: Some(false),
            security_context: security,
            termination_grace_period_seconds: Some(seconds(self.options.drain + FINISH)),
            volumes: some(storage.volumes),
            ..PodSpec::default()
        }
    }
}

impl Seat<'_> {
    /// Whether a path is one of nginx's files, or the folder of some: the ConfigMaps have them as they are rendered.
    fn renders(&self, target: &Path) -> bool {
        self.files.keys().any(|file| file == target || file.parent() == Some(target))
    }
}

/// Changes with the files, so that pods with the old ones are replaced.
fn digest_annotation(seat: &Seat<'_>) -> BTreeMap<String, String> {
    // FNV-1a: the same everywhere and in every version.
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for (path, text) in &seat.files {
        let path = path.to_string_lossy();
        for byte in path.bytes().chain([0]).chain(text.bytes()).chain([0]) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    [("evenkeel/configuration".to_owned(), format!("{digest:016x}"))].into()
}

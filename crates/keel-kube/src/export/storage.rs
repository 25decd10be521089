//! Volumes: claims for what is named, ConfigMaps for files of this host, Secrets, memory.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use k8s_openapi::{
    ByteString,
    api::core::v1::{
        ConfigMap, ConfigMapVolumeSource, EmptyDirVolumeSource, KeyToPath, PersistentVolumeClaim,
        PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, Secret, SecretVolumeSource, Volume,
        VolumeMount, VolumeResourceRequirements,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use keel_compose::{ConfigMount, Mount, MountSource, Origin, Service};

use super::{
    Writer,
    container::size,
    object::{Object, label, metadata, some},
};

/// What a ConfigMap holds at most, all files together; the cluster refuses more than 1 MiB.
const CONFIG_BYTES_MAX: usize = 1_000_000;
/// Files of a folder that become a ConfigMap.
const CONFIG_FILES_MAX: usize = 200;
/// How deep a folder is looked through.
const DEPTH_MAX: usize = 4;
/// What a named volume gets: no file says how much it needs.
const CLAIM: &str = "1Gi";

/// What a pod mounts.
#[derive(Debug, Default)]
pub(super) struct Storage {
    pub(super) volumes: Vec<Volume>,
    pub(super) mounts: Vec<VolumeMount>,
    /// Whether two pods at once would write to one volume.
    pub(super) writes_a_volume: bool,
}

/// Files by their keys in a ConfigMap, with their paths below the folder.
#[derive(Debug, Default)]
struct Files {
    by_key: BTreeMap<String, Vec<u8>>,
    items: Vec<KeyToPath>,
    bytes: usize,
}

impl<'a> Writer<'a> {
    /// Writes what a service mounts, but for those paths whose content comes from elsewhere.
    pub(super) fn storage(&mut self, service: &'a Service, is_elsewhere: &dyn Fn(&Path) -> bool) -> Storage {
        let mut storage = Storage::default();
        let in_memory = &service.confinement.tmpfs;
        let is_own = |target: &String| !in_memory.contains_key(target) && !is_elsewhere(Path::new(target));
        for mount in service.volumes.iter().filter(|mount| is_own(&mount.target)) {
            self.mount(service, mount, &mut storage);
        }
        for mount in service.configs.iter().filter(|mount| is_own(&mount.target)) {
            let volume = Volume {
                config_map: Some(ConfigMapVolumeSource {
                    name: label(&mount.source),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            };
            storage.add_file(&format!("config-{}", mount.source), volume, mount);
        }
        for mount in service.secrets.iter().filter(|mount| is_own(&mount.target)) {
            let volume = Volume {
                secret: Some(SecretVolumeSource {
                    secret_name: Some(label(&mount.source)),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            };
            storage.add_file(&format!("secret-{}", mount.source), volume, mount);
        }
        for target in in_memory.keys() {
            storage.add_memory(target, None);
        }
        if let Some(bytes) = service.confinement.shm_bytes {
            storage.add_memory("/dev/shm", Some(Quantity(size(bytes))));
        }
        storage
    }

    fn mount(&mut self, service: &'a Service, mount: &'a Mount, storage: &mut Storage) {
        match &mount.source {
            MountSource::Anonymous => {
                let volume = Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() };
                storage.add("own", volume, mount, None);
            }
            MountSource::Named(name) => {
                let claim_name = self.claim(name);
                let claim = PersistentVolumeClaimVolumeSource {
                    claim_name,
                    read_only: mount.read_only.then_some(true),
                };
                let volume = Volume { persistent_volume_claim: Some(claim), ..Volume::default() };
                storage.add(name, volume, mount, None);
                storage.writes_a_volume |= !mount.read_only;
                if service.replicas() > 1 {
                    let message =
                        format!("all instances of `{}` share one claim for `{name}`", service.name.value);
                    let help = "where they run on several nodes, it needs `ReadWriteMany`, or a StatefulSet with a claim for each";
                    self.cannot_say(mount.span, message, help);
                }
            }
            MountSource::Bind(path) => self.bind(service, mount, path, storage),
        }
    }

    /// Files of this host become a ConfigMap, if they are few and small.
    fn bind(&mut self, service: &'a Service, mount: &'a Mount, path: &Path, storage: &mut Storage) {
        let Some(files) = Files::read(path) else {
            let message = format!("{} stays on this host: {} isn't mounted", path.display(), mount.target);
            let help = "copy it into the image, or make it a named volume";
            return self.cannot_say(mount.span, message, help);
        };
        let at = storage.volumes.len() + 1;
        let name = format!("{}-files-{at}", service.name.value);
        let is_file = path.is_file();
        let (items, key) = (files.items.clone(), files.by_key.keys().next().cloned());
        let is_flat = items.iter().all(|item| item.key == item.path);
        self.config_map(&service.name.value, &name, files.by_key);
        let source = ConfigMapVolumeSource {
            name: label(&name),
            items: some(items).filter(|_| !is_flat),
            ..ConfigMapVolumeSource::default()
        };
        let volume = Volume { config_map: Some(source), ..Volume::default() };
        storage.add(&format!("files-{at}"), volume, mount, key.filter(|_| is_file));
        if !mount.read_only && !is_file {
            let message = format!("{} is mounted as it is now, and can't be written to", path.display());
            self.cannot_say(mount.span, message, "make it a named volume where the program writes there");
        }
    }

    pub(super) fn config_map(&mut self, service: &str, name: &str, files: BTreeMap<String, Vec<u8>>) {
        let mut map = ConfigMap { metadata: metadata(&self.project.name, service), ..ConfigMap::default() };
        map.metadata.name = Some(label(name));
        let (mut texts, mut binary) = (BTreeMap::new(), BTreeMap::new());
        for (key, content) in files {
            match String::from_utf8(content) {
                Ok(text) => drop(texts.insert(key, text)),
                Err(error) => drop(binary.insert(key, ByteString(error.into_bytes()))),
            }
        }
        (map.data, map.binary_data) = (some(texts), some(binary));
        self.export.objects.push(Object::of(&map));
    }

    /// Writes the claim of a named volume, once, and gives its name.
    fn claim(&mut self, name: &str) -> String {
        let declared = self.project.volumes.get(name);
        if let Some(volume) = declared.filter(|volume| volume.external) {
            return label(volume.name.as_ref().map_or(name, |own| own.value.as_str()));
        }
        let claim = PersistentVolumeClaim {
            metadata: metadata(&self.project.name, name),
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec!["ReadWriteOnce".into()]),
                resources: Some(VolumeResourceRequirements {
                    requests: Some([("storage".to_owned(), Quantity(CLAIM.into()))].into()),
                    limits: None,
                }),
                ..PersistentVolumeClaimSpec::default()
            }),
            status: None,
        };
        let object = Object::of(&claim);
        if !self.export.objects.contains(&object) {
            if let Some(volume) = declared {
                let message = format!("`{name}` asks for {CLAIM}: the file doesn't say how much it needs");
                self.cannot_say(volume.span, message, "set `resources.requests.storage` in the claim");
            }
            self.export.objects.push(object);
        }
        label(name)
    }

    /// Writes the configs and secrets of the top level that somebody mounts.
    pub(super) fn config_objects(&mut self) {
        let project = self.project;
        let workloads = self.workloads();
        for (name, config) in &project.configs {
            let is_used = workloads.iter().any(|one| one.configs.iter().any(|mount| mount.source == *name));
            if let (true, Some(origin)) = (is_used, &config.origin) {
                match content(origin) {
                    Some(content) => self.config_map(name, name, [(key_of(name), content)].into()),
                    None => {
                        self.cannot_say(config.span, format!("`{name}` can't be read, or is too large"), "")
                    }
                }
            }
        }
        for (name, secret) in &project.secrets {
            let is_used = workloads.iter().any(|one| one.secrets.iter().any(|mount| mount.source == *name));
            let Some(origin) = secret.origin.as_ref().filter(|_| is_used) else { continue };
            let Some(content) = content(origin) else {
                self.cannot_say(secret.span, format!("`{name}` can't be read, or is too large"), "");
                continue;
            };
            let object = Secret {
                metadata: metadata(&project.name, name),
                data: Some([(key_of(name), ByteString(content))].into()),
                ..Secret::default()
            };
            self.export.objects.push(Object::of(&object));
            let message = format!("the manifest of `{name}` holds the secret: anybody who reads it knows it");
            self.cannot_say(
                secret.span,
                message,
                "keep it out of version control, or make the Secret with kubectl",
            );
        }
    }
}

impl Storage {
    fn add(&mut self, name: &str, volume: Volume, mount: &Mount, sub_path: Option<String>) {
        let name = self.add_volume(name, volume);
        self.mounts.push(VolumeMount {
            name,
            mount_path: mount.target.clone(),
            sub_path,
            read_only: mount.read_only.then_some(true),
            ..VolumeMount::default()
        });
    }

    fn add_file(&mut self, name: &str, volume: Volume, mount: &ConfigMount) {
        let name = self.add_volume(name, volume);
        self.mounts.push(VolumeMount {
            name,
            mount_path: mount.target.clone(),
            sub_path: Some(key_of(&mount.source)),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }

    fn add_memory(&mut self, target: &str, size_limit: Option<Quantity>) {
        let memory = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit };
        let volume = Volume { empty_dir: Some(memory), ..Volume::default() };
        let name = self.add_volume("memory", volume);
        self.mounts.push(VolumeMount { name, mount_path: target.to_owned(), ..VolumeMount::default() });
    }

    /// Adds a volume under a name of its own, or finds the one that is there.
    pub(super) fn add_volume(&mut self, name: &str, volume: Volume) -> String {
        let base = label(name);
        let same = |known: &&Volume| Volume { name: String::new(), ..(**known).clone() } == volume;
        if let Some(known) = self.volumes.iter().find(|known| known.name == base).filter(same) {
            return known.name.clone();
        }
        let taken = |name: &str| self.volumes.iter().any(|known| known.name == name);
        let mut name = base.clone();
        let mut number = 2;
        while taken(&name) {
            name = format!("{base}-{number}");
            number += 1;
        }
        self.volumes.push(Volume { name: name.clone(), ..volume });
        name
    }
}

impl Files {
    /// Reads a file, or a folder of files; `None` for what a ConfigMap can't hold.
    fn read(path: &Path) -> Option<Self> {
        let mut files = Self::default();
        if path.is_file() {
            files.add(path, path.file_name()?.to_str()?)?;
        } else {
            files.add_folder(path, &PathBuf::new(), 0)?;
        }
        (!files.by_key.is_empty()).then_some(files)
    }

    fn add_folder(&mut self, folder: &Path, below: &Path, depth: usize) -> Option<()> {
        if depth >= DEPTH_MAX {
            return None;
        }
        let mut entries: Vec<_> = std::fs::read_dir(folder).ok()?.collect::<Result<_, _>>().ok()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), below.join(entry.file_name()));
            if path.is_dir() {
                self.add_folder(&path, &name, depth + 1)?;
            } else if path.is_file() {
                self.add(&path, name.to_str()?)?;
            } else {
                return None;
            }
        }
        Some(())
    }

    fn add(&mut self, path: &Path, name: &str) -> Option<()> {
        let length = usize::try_from(path.metadata().ok()?.len()).ok()?;
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > CONFIG_BYTES_MAX || self.by_key.len() >= CONFIG_FILES_MAX {
            return None;
        }
        let key = key_of(name);
        let known = self.by_key.insert(key.clone(), std::fs::read(path).ok()?);
        self.items.push(KeyToPath { key, path: name.to_owned(), mode: None });
        // Two names that only differ in what a key can't have.
        known.is_none().then_some(())
    }
}

/// Makes a key of a ConfigMap of a name: letters, digits, `-`, `_` and `.`.
pub(super) fn key_of(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    name.chars().map(allowed).collect()
}

fn content(origin: &Origin) -> Option<Vec<u8>> {
    match origin {
        Origin::Text(text) => (text.len() <= CONFIG_BYTES_MAX).then(|| text.clone().into_bytes()),
        Origin::Host(path) => {
            let length = path.metadata().ok()?.len();
            let fits = usize::try_from(length).is_ok_and(|length| length <= CONFIG_BYTES_MAX);
            fits.then(|| std::fs::read(path).ok())?
        }
    }
}

//! The balancer's seat: the service whose place Evenkeel takes, and where its files lie on this host.

use std::path::{Path, PathBuf};

use keel_diag::Span;

use crate::{Copy, CopySource, Dockerfile, MountSource, Origin, Project, Service, decode::tidy};

/// Images that hold a balancer which reads nginx.conf.
const IMAGES: [&str; 4] = ["nginx", "evenkeel", "angie", "openresty"];
/// The label that says so outright, with `balancer` as its value; with any other it says the opposite.
const LABEL: &str = "evenkeel.role";

/// Tells whether a service is a balancer: by its label, its image, or the image its Dockerfile begins with. One that
/// `x-process` says how to run or where to find is an instance like any other.
pub fn is_balancer_seat(service: &Service) -> bool {
    if let Some(role) = service.labels.get(LABEL) {
        return role.value == "balancer";
    }
    if service.process.as_ref().is_some_and(|own| own.command.is_some() || own.address.is_some()) {
        return false;
    }
    let built = service.dockerfile.as_ref();
    if let Some(role) = built.and_then(|dockerfile| dockerfile.labels.get(LABEL)) {
        return role.value == "balancer";
    }
    let base = built.and_then(|dockerfile| dockerfile.base.as_ref());
    service.image.iter().chain(base).any(|image| IMAGES.contains(&repository(&image.value)))
}

/// Gives the service whose place Evenkeel takes: the enabled one that is a balancer. Of several, the one with the label,
/// else the first that publishes ports, else the first.
pub fn balancer_seat(project: &Project) -> Option<&Service> {
    let seats = || project.services.values().filter(|service| service.enabled && is_balancer_seat(service));
    seats()
        .find(|service| service.labels.contains_key(LABEL))
        .or_else(|| seats().find(|service| !service.ports.is_empty()))
        .or_else(|| seats().next())
}

/// Gives the last part of an image's name, without registry, tag and digest.
fn repository(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split([':', '@']).next().unwrap_or(name)
}

/// Where the files that a service's container would see lie on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeatFiles {
    /// Later entries hide earlier ones.
    pub entries: Vec<SeatFile>,
}

/// A file or folder in the container and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatFile {
    /// Its path in the container. Absolute.
    pub container: PathBuf,
    /// Where it comes from.
    pub origin: Origin,
    /// The line that says so.
    pub span: Span,
}

impl SeatFiles {
    /// Collects what a service's Dockerfile copies and what it mounts, in the order in which they hide each other.
    ///
    /// Looks at the build context to tell files from folders.
    pub fn of(service: &Service) -> Self {
        let mut files = Self::default();
        if let (Some(build), Some(dockerfile)) = (&service.build, &service.dockerfile) {
            for copy in &dockerfile.copies {
                files.add_copy(copy, dockerfile, &build.context.value);
            }
        }
        for mount in service.configs.iter().chain(&service.secrets) {
            if let Some(origin) = &mount.origin {
                files.add(Path::new(&mount.target), origin.clone(), mount.span);
            }
        }
        for mount in &service.volumes {
            if let MountSource::Bind(path) = &mount.source {
                files.add(Path::new(&mount.target), Origin::Host(path.clone()), mount.span);
            }
        }
        files
    }

    fn add(&mut self, container: &Path, origin: Origin, span: Span) {
        self.entries.push(SeatFile { container: tidy(container), origin, span });
    }

    fn add_copy(&mut self, copy: &Copy, dockerfile: &Dockerfile, context: &Path) {
        let is_stage = |from: &String| {
            dockerfile.stages.iter().any(|stage| stage.name.as_ref() == Some(from))
                || from.parse::<u32>().is_ok()
        };
        // What another stage or image made isn't on this host.
        if copy.from.as_ref().is_some_and(is_stage) || copy.from.is_some() {
            return;
        }
        let destination = Path::new(&copy.destination);
        let into_folder =
            copy.destination.ends_with('/') || copy.sources.len() > 1 || is_known_folder(destination);
        for source in &copy.sources {
            match source {
                CopySource::Inline { name, text } => {
                    let target = if into_folder { destination.join(name) } else { destination.to_owned() };
                    self.add(&target, Origin::Text(text.clone()), copy.span);
                }
                CopySource::Path(pattern) => {
                    for path in matches(context, pattern) {
                        let name = path.file_name().filter(|_| into_folder && !path.is_dir());
                        let target = name.map_or(destination.to_owned(), |name| destination.join(name));
                        self.add(&target, Origin::Host(path), copy.span);
                    }
                }
            }
        }
    }

    /// Gives where a path of the container comes from; `None` where it is the image's own or isn't there.
    pub fn find(&self, container: &Path) -> Option<Origin> {
        let container = tidy(container);
        self.entries.iter().rev().find_map(|entry| {
            let below = container.strip_prefix(&entry.container).ok()?;
            match &entry.origin {
                Origin::Text(_) if !below.as_os_str().is_empty() => None,
                Origin::Text(text) => Some(Origin::Text(text.clone())),
                Origin::Host(path) if below.as_os_str().is_empty() => Some(Origin::Host(path.clone())),
                Origin::Host(path) => Some(path.join(below)).filter(|path| path.exists()).map(Origin::Host),
            }
        })
    }

    /// Gives the path in the container that a file of this host has there.
    pub fn container_path(&self, host: &Path) -> Option<PathBuf> {
        self.entries.iter().rev().find_map(|entry| match &entry.origin {
            Origin::Host(path) => {
                let below = host.strip_prefix(path).ok()?;
                Some(if below.as_os_str().is_empty() {
                    entry.container.clone()
                } else {
                    entry.container.join(below)
                })
            }
            Origin::Text(_) => None,
        })
    }

    /// Gives the files that lie directly in a folder of the container, by name.
    pub fn list(&self, folder: &Path) -> Vec<PathBuf> {
        let folder = tidy(folder);
        let mut found = Vec::new();
        for entry in &self.entries {
            if entry.container.parent() == Some(&folder) {
                found.push(entry.container.clone());
            }
            let (Origin::Host(path), Ok(below)) = (&entry.origin, folder.strip_prefix(&entry.container))
            else {
                continue;
            };
            let names = std::fs::read_dir(path.join(below)).into_iter().flatten().flatten();
            found.extend(names.map(|file| folder.join(file.file_name())));
        }
        found.sort();
        found.dedup();
        found
    }
}

/// Tells whether an image of nginx has this folder, so that a file copied there goes into it.
fn is_known_folder(path: &Path) -> bool {
    ["/etc/nginx", "/etc/nginx/conf.d", "/usr/share/nginx/html", "/etc", "/"]
        .iter()
        .any(|known| path == Path::new(known))
}

/// Gives the files of the context that a source of COPY names; `*` and `?` stand in the last part only.
fn matches(context: &Path, pattern: &str) -> Vec<PathBuf> {
    let path = tidy(&context.join(pattern.trim_start_matches('/')));
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return vec![path];
    };
    if !name.contains(['*', '?']) {
        return vec![path];
    }
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = names
        .filter(|file| {
            file.file_name().to_str().is_some_and(|file| matches_wildcard(name.as_bytes(), file.as_bytes()))
        })
        .map(|file| file.path())
        .collect();
    found.sort();
    found
}

fn matches_wildcard(pattern: &[u8], name: &[u8]) -> bool {
    // Greedy with one step back: linear in practice, never exponential.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || Some(c) == name.get(n) => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_images_by_their_last_name() {
        let check = |image: &str, expect: &str| assert_eq!(repository(image), expect);
        check("nginx", "nginx");
        check("nginx:1.27-alpine", "nginx");
        check("registry.example.org:5000/lib/nginx@sha256:abc", "nginx");
        check("openresty/openresty:alpine", "openresty");
        check("nginx-exporter:1", "nginx-exporter");
    }

    #[test]
    fn wildcards() {
        let check = |pattern: &str, name: &str, expect| {
            assert_eq!(matches_wildcard(pattern.as_bytes(), name.as_bytes()), expect, "{pattern} {name}");
        };
        check("*.conf", "a.conf", true);
        check("*.conf", "a.conf.bak", false);
        check("a?c*", "abc", true);
        check("*a*b", "xaab", true);
        check("*a*b", "xaac", false);
    }
}

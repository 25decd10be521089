//! The balancer's seat: the services whose place Evenkeel may take, where their files lie on this host, and what their
//! containers would start.
//!
//! [`files`] has the files, in layers as an image has them; [`start`] reads what the container would run before nginx
//! and how it would start nginx; [`shell`] follows the shell commands that people put there: [`script`] cuts them,
//! [`expand`] reads their words, [`change`] does what they do to files, [`mod@print`] knows what
//! they write.

mod change;
mod envsubst;
mod expand;
mod files;
mod print;
mod script;
mod shell;
mod start;

pub use files::{Layer, SeatFile, SeatFiles};
pub use start::{ImageTexts, Invocation, SeatImage};

use crate::{Project, Service};

/// Images that hold a balancer which reads nginx.conf.
const IMAGES: [&str; 4] = ["nginx", "evenkeel", "angie", "openresty"];
/// The label that says so outright, with `balancer` as its value; with any other it says the opposite.
const LABEL: &str = "evenkeel.role";

/// Whether a service is a balancer: by its label, its image, or the image its Dockerfile begins with. One that
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

/// The enabled services that are balancers, in the file's order.
pub fn balancer_seats(project: &Project) -> Vec<&Service> {
    project.services.values().filter(|service| service.enabled && is_balancer_seat(service)).collect()
}

/// Whether a service's label says outright that it is the balancer.
pub fn is_named_seat(service: &Service) -> bool {
    service.labels.contains_key(LABEL) && is_balancer_seat(service)
}

/// The image that a service comes from: its own, else the one that its Dockerfile begins with.
fn image_of(service: &Service) -> Option<&str> {
    let base = service.dockerfile.as_ref().and_then(|dockerfile| dockerfile.base.as_ref());
    let own = service.image.as_ref().filter(|_| service.build.is_none());
    own.or(base).or(service.image.as_ref()).map(|image| image.value.as_str())
}

/// The last part of an image's name, without registry, tag and digest.
fn repository(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split([':', '@']).next().unwrap_or(name)
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
}

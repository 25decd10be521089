//! The demo and the examples say nothing and mean what their README says.

use std::path::Path;

use keel_compose::{Options, Project, Service, balancer_seats, load};
use keel_diag::Sources;

fn balancer_seat(project: &Project) -> Option<&Service> {
    balancer_seats(project).into_iter().next()
}

#[track_caller]
fn project(folder: &str, profiles: &[&str]) -> Project {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let profiles = profiles.iter().map(|name| (*name).to_owned()).collect();
    let loaded = load(&Options { folder: root, profiles, ..Options::default() }, &mut Sources::default());
    assert_eq!(loaded.diagnostics, []);
    loaded.project.unwrap()
}

fn enabled(project: &Project) -> Vec<&str> {
    project
        .services
        .values()
        .filter(|service| service.enabled)
        .map(|service| service.name.value.as_str())
        .collect()
}

#[test]
fn the_demo() {
    let demo = project(".", &[]);
    assert_eq!(enabled(&demo), ["app1", "app2", "app3", "nginx"]);
    assert_eq!(enabled(&project(".", &["more"])).len(), 5);
    assert_eq!(balancer_seat(&demo).unwrap().ports[0].published.unwrap().first, 8080);
    for name in ["app1", "app2", "app3", "app4"] {
        let app = &demo.services[name];
        assert_eq!(app.environment["NAME"].value, name);
        assert_eq!(app.aliases().collect::<Vec<_>>(), ["app"]);
        assert_eq!(app.container_ports()[0].number, 5000);
        assert!(app.process.as_ref().unwrap().build.is_some());
    }
}

#[test]
fn flask() {
    let flask = project("examples/flask", &[]);
    assert_eq!(enabled(&flask), ["app1", "app2", "app3", "nginx"]);
    assert_eq!(balancer_seat(&flask).unwrap().name.value, "nginx");
    let dockerfile = flask.services["app1"].dockerfile.as_ref().unwrap();
    assert_eq!(dockerfile.pip_installs().collect::<Vec<_>>(), [["flask"]]);
    assert_eq!(dockerfile.command.as_ref().unwrap().value, ["python", "app.py"]);
}

#[test]
fn replicas() {
    for (folder, published, target) in [("examples/replicas", 8080, 5000), ("examples/same-port", 8000, 8000)]
    {
        let project = project(folder, &[]);
        let web = &project.services["web"];
        assert!(balancer_seat(&project).is_none());
        assert_eq!((web.replicas(), web.ports[0].target), (3, target));
        assert_eq!(web.ports[0].published.unwrap().first, published);
    }
}

//! Which driver runs a service, and what a container is given beside what a process has.

use keel_model::{Confinement, Driver, DriverChoice};

use crate::common::Case;

const FILE: &str = "
x-driver: auto
services:
  web: {build: {context: ., dockerfile_inline: FROM scratch}, x-driver: process}
  api: {build: {context: ., dockerfile_inline: FROM scratch}}
  db: {image: postgres}
  cache: {image: redis, x-driver: process, x-process: {command: redis-server}}
  queue: {image: rabbit, x-process: {address: 127.0.0.1:5672}}
";

fn drivers(driver: Option<DriverChoice>) -> Vec<(String, Driver)> {
    let mut case = Case::compose(FILE);
    case.options.driver = driver;
    let services = case.both().0.services;
    services.into_iter().map(|(name, service)| (name, service.driver)).collect()
}

#[test]
fn the_caller_chooses_then_the_service_then_the_file() {
    use Driver::{Docker, Process};
    let check = |driver, expect: [Driver; 5]| {
        let names = ["web", "api", "db", "cache", "queue"].map(str::to_owned);
        assert_eq!(drivers(driver), names.into_iter().zip(expect).collect::<Vec<_>>(), "{driver:?}");
    };
    check(None, [Process, Process, Docker, Process, Process]);
    check(Some(DriverChoice::Process), [Process; 5]);
    check(Some(DriverChoice::Docker), [Docker; 5]);
    check(Some(DriverChoice::Auto), [Process, Process, Docker, Process, Process]);
}

#[test]
fn a_misspelt_driver_is_named_with_what_it_may_mean() {
    let says = |text: &str| Case::compose(text).says();
    insta::assert_snapshot!(says("x-driver: dokcer\nservices: {a: {image: a}}"), @r"
    error[compose::driver]: `dokcer` is not a driver
      compose.yaml:1:11 `dokcer` 
      help: did you mean `docker`?
    ");
    insta::assert_snapshot!(says("services: {a: {image: a, x-driver: kubernetes}}"), @r"
    error[compose::driver]: `kubernetes` is not a driver
      compose.yaml:1:36 `kubernetes` 
      help: process, docker or auto
    ");
}

#[test]
fn a_container_gets_what_a_process_is_told_it_lacks() {
    let case = Case::compose(
        "
x-driver: docker
configs: {here: {content: text}}
services:
  app:
    image: a
    user: '1000'
    read_only: true
    cap_drop: [ALL]
    mem_limit: 512m
    cpus: 0.5
    tmpfs: /run:size=1m
    gpus: all
    network_mode: host
    configs: [here]
    extra_hosts: ['engine:host-gateway', 'db=10.0.0.7']
",
    );
    let (project, said) = case.both();
    insta::assert_snapshot!(said, @r"
    warning[compose::not-honoured]: `gpus` is not honoured: the container is made without it
      compose.yaml:13:5 `gpus` 
    error[compose::not-honoured]: `network_mode: host` can't be honoured
      compose.yaml:14:19 `host` an instance needs an address of its own
      help: publish what it listens on with `ports`; other services reach it by its name
    error[compose::not-honoured]: `here` can't be mounted
      compose.yaml:15:15 `here` its content stands in the file, and only files of this host are mounted
      help: put the content into a file and name it with `file:`
    ");
    let app = &project.services["app"];
    assert_eq!(app.gateway_hosts, ["engine"]);
    let expect = Confinement {
        read_only: true,
        cap_drop: vec!["ALL".into()],
        memory_bytes: Some(512 << 20),
        nano_cpus: Some(500_000_000),
        tmpfs: [("/run".into(), "size=1m".into())].into(),
        ..Confinement::default()
    };
    assert_eq!(app.confinement, expect);
}

#[test]
fn limits_of_deploy_are_those_of_the_service() {
    let app = |lines: &str| {
        let text = format!("x-driver: docker\nservices: {{app: {{image: a, {lines}}}}}");
        let (project, said) = Case::compose(&text).both();
        (project.services["app"].confinement.clone(), said)
    };
    let (limits, said) = app("deploy: {resources: {limits: {cpus: '0.5', memory: 50M, pids: 7}}}");
    assert_eq!(
        (limits.nano_cpus, limits.memory_bytes, limits.pids_max),
        (Some(500_000_000), Some(50 << 20), Some(7))
    );
    assert_eq!(said, "");
    let (_, said) = app("mem_limit: 1g, cpus: 0.5, deploy: {resources: {limits: {cpus: 0.50, memory: 50M}}}");
    insta::assert_snapshot!(said, @"
    error[compose::invalid-value]: this limit and `mem_limit` differ
      compose.yaml:2:104 `50M` not understood
      help: say it in one place
    ");
    let (_, said) = app("deploy: {resources: {reservations: {memory: 1g}}}");
    assert!(said.contains("`reservations` is not honoured: the container is made without it"), "{said}");
}

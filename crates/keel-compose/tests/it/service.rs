//! The fields of a service, and what is said about those that can't be honoured.

use crate::common::{Case, below, pairs};
use keel_compose::{MountSource, Origin, Service};
use keel_model::{DependencyCondition, RestartCondition};

/// Reads a service `app` that has an image and these further lines.
#[track_caller]
fn app(lines: &str) -> Service {
    case(lines).project().services.shift_remove("app").unwrap()
}

fn case(lines: &str) -> Case {
    let lines = lines.trim_matches('\n').replace('\n', "\n    ");
    Case::compose(&format!("services:\n  app:\n    image: a\n    {lines}\n"))
}

#[test]
fn commands_are_split_as_a_shell_would() {
    let check = |line: &str, expect: &[&str]| {
        assert_eq!(app(&format!("command: {line}")).command.unwrap().value, expect, "{line}");
    };
    check("python app.py", &["python", "app.py"]);
    check("sh -c 'a && b'", &["sh", "-c", "a && b"]);
    check("[a, 'b c', 1]", &["a", "b c", "1"]);
    check("[]", &[]);
    assert!(app("command: null").command.is_none());
}

#[test]
fn an_operator_that_no_shell_reads_is_named() {
    let (project, said) = case("command: npm ci && npm start").both();
    insta::assert_snapshot!(said, @"
    warning[compose::shell-operator]: `&&` ends the command: no shell runs it
      compose.yaml:4:14 `npm ci && npm start` what follows is left out, as Compose does
      help: quote it if it belongs to an argument, or let a shell run the line: sh -c '...'
    ");
    assert_eq!(project.services["app"].command.as_ref().unwrap().value, ["npm", "ci"]);
    assert_eq!(app("command: sh -c 'npm ci && npm start'").command.unwrap().value[2], "npm ci && npm start");
    assert_eq!(app("command: server --key '#1' #2\n").command.unwrap().value, ["server", "--key", "#1"]);
    assert_eq!(app("command: |\n  server \\\n    --on \\\n    # --off\n").command.unwrap().value.len(), 4);
}

/// YAML's types count before Compose prints a value, and not where it is in quotes or has a variable.
#[test]
fn numbers_are_printed_as_compose_prints_them() {
    let fields =
        "{A: 0755, B: 1.50, C: True, D: '0755', E: 1_000, F: '${N}', G: '${M:-010}', H: yes, I: 0x1F}";
    let case = case(&format!("environment: {fields}\nlabels: {fields}")).variable("N", "1.50");
    let service = &case.project().services["app"];
    let expect = "A=493 B=1.5 C=true D=0755 E=1000 F=1.50 G=010 H=yes I=31";
    assert_eq!((pairs(&service.environment), pairs(&service.labels)), (expect.into(), expect.into()));
    let listed = app("environment: [A=0755, B=1.50, C=True]");
    assert_eq!(pairs(&listed.environment), "A=0755 B=1.50 C=True");
}

#[test]
fn environment_comes_from_files_then_from_the_service_then_from_the_shell() {
    let case = Case::new(&[
        (
            "compose.yaml",
            "
services:
  app:
    image: a
    env_file: [one.env, {path: gone.env, required: false}]
    environment:
      - B=own
      - SHELL_SET
      - NOT_SET
      - D
  map: {image: a, environment: {YES: true, NUMBER: 1.50, EMPTY: '', NONE: null}}
",
        ),
        ("one.env", "A=file\nB=file\nC=${SHELL_SET}\nD=file\n"),
    ])
    .variable("SHELL_SET", "s");
    let project = case.project();
    assert_eq!(pairs(&project.services["app"].environment), "A=file B=own C=s SHELL_SET=s");
    assert_eq!(pairs(&project.services["map"].environment), "EMPTY= NUMBER=1.5 YES=true");
}

#[test]
fn ports_expose_and_what_is_listened_on() {
    let app = app("
ports:
  - 8080:80
  - '127.0.0.1:8443:443'
  - {target: 53, published: '5353', protocol: udp, host_ip: '::1', mode: host}
expose: ['9000', 80]");
    let shown: Vec<String> = app
        .ports
        .iter()
        .map(|port| {
            format!(
                "{:?} {:?} {} {:?}",
                port.host_ip,
                port.published.map(|p| p.first),
                port.target,
                port.protocol
            )
        })
        .collect();
    assert_eq!(
        shown,
        ["None Some(8080) 80 Tcp", "Some(127.0.0.1) Some(8443) 443 Tcp", "Some(::1) Some(5353) 53 Udp"]
    );
    assert_eq!(app.container_ports().iter().map(|port| port.number).collect::<Vec<_>>(), [80, 443, 53, 9000]);
}

#[test]
fn dependencies() {
    let text = "
services:
  app:
    image: a
    depends_on:
      db: {condition: service_healthy, restart: true}
      job: {condition: service_completed_successfully, required: false}
  short: {image: a, depends_on: [db]}
  linked: {image: a, links: ['db:database', job]}
  db: {image: a}
  job: {image: a}
";
    let project = Case::compose(text).project();
    let of = |name: &str| project.services[name].depends_on.clone();
    assert_eq!(of("app")[0].condition, DependencyCondition::Healthy);
    assert!(of("app")[0].restart && of("app")[0].required);
    assert_eq!((of("app")[1].condition, of("app")[1].required), (DependencyCondition::Completed, false));
    assert_eq!(of("short")[0].condition, DependencyCondition::Started);
    assert_eq!(of("linked").iter().map(|d| d.service.value.as_str()).collect::<Vec<_>>(), ["db", "job"]);
    assert_eq!(project.service_named("database").unwrap().name.value, "db");
}

#[test]
fn healthchecks() {
    let check = |lines: &str| app(lines).effective_healthcheck();
    let full = check("healthcheck: {test: curl -f http://localhost/, interval: 1m30s, timeout: 5s, retries: '5', start_period: 2s, start_interval: 500ms}").unwrap();
    assert_eq!(full.argv, ["/bin/sh", "-c", "curl -f http://localhost/"]);
    assert_eq!(
        (full.interval.as_secs(), full.retries, full.start_interval.unwrap().as_millis()),
        (90, 5, 500)
    );
    let plain = check("healthcheck: {test: [CMD, ./ok, now]}").unwrap();
    assert_eq!((plain.argv.join(" "), plain.interval.as_secs(), plain.retries), ("./ok now".into(), 30, 3));
    assert_eq!(check("healthcheck: {test: [CMD-SHELL, 'a | b']}").unwrap().argv[2], "a | b");
    let (project, said) = case("healthcheck: {test: [CMD-SHELL, a, b]}").both();
    let several = project.services["app"].effective_healthcheck().unwrap();
    assert_eq!(several.argv, ["/bin/sh", "-c", "a", "b"]);
    assert!(said.starts_with("warning[compose::healthcheck]: the healthcheck runs `a` alone"), "{said}");
    assert_eq!(check("healthcheck: {test: [], retries: 5}"), None);
    assert_eq!(check("healthcheck: {test: [NONE]}"), None);
    assert_eq!(check("healthcheck: {test: [CMD, a], disable: true}"), None);
    assert_eq!(check("hostname: x"), None);
}

#[test]
fn restarts_replicas_and_stopping() {
    let policy = |lines: &str| {
        let policy = app(lines).restart_policy();
        (policy.condition, policy.attempts_max, policy.delay.as_secs())
    };
    assert_eq!(policy("restart: no"), (RestartCondition::Never, None, 0));
    assert_eq!(policy("restart: always"), (RestartCondition::Always, None, 0));
    assert_eq!(policy("restart: unless-stopped"), (RestartCondition::Always, None, 0));
    assert_eq!(policy("restart: on-failure:3"), (RestartCondition::OnFailure, Some(3), 0));
    assert_eq!(
        policy("deploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 2}}"),
        (RestartCondition::OnFailure, Some(2), 5)
    );
    assert_eq!(app("deploy: {replicas: 3}").replicas(), 3);
    assert_eq!(app("deploy: {replicas: '3'}\nscale: 2").replicas(), 2);
    assert_eq!(app("hostname: x").replicas(), 1);
    let stop = app("stop_signal: SIGQUIT\nstop_grace_period: 1m").stop();
    assert_eq!((stop.signal, stop.grace_period.as_secs()), (3, 60));
    let stop = app("hostname: x").stop();
    assert_eq!((stop.signal, stop.grace_period.as_secs()), (15, 10));
}

#[test]
fn networks_and_names() {
    let text = "
services:
  app:
    image: a
    container_name: box
    hostname: host
    networks: {back: {aliases: [one, two]}, front: null}
  other: {image: a, networks: [front]}
networks: {back: {}, front: {external: true, name: shared}}
";
    let project = Case::compose(text).project();
    assert_eq!(project.services["app"].aliases().collect::<Vec<_>>(), ["one", "two", "box", "host"]);
    for name in ["app", "one", "two", "box", "host"] {
        assert_eq!(project.service_named(name).unwrap().name.value, "app");
    }
    assert!(project.service_named("three").is_none());
    assert!(project.networks["front"].external);
}

#[test]
fn mounts_and_configs() {
    let text = "
services:
  app:
    image: nginx
    volumes:
      - ./a.conf:/etc/a.conf:ro
      - ~/b:/b
      - data:/data
      - /anonymous
      - {type: bind, source: ./c, target: /c, read_only: true}
      - {type: tmpfs, target: /t}
    configs: [site, {source: text, target: /etc/text}]
    secrets: [key]
volumes: {data: {}}
configs: {site: {file: ./site.conf}, text: {content: hello $NAME}}
secrets: {key: {environment: KEY}}
";
    let case = Case::compose(text).variable("HOME", "/ada").variable("NAME", "you").variable("KEY", "k");
    let project = case.project();
    let app = &project.services["app"];
    let shown: Vec<String> = app
        .volumes
        .iter()
        .map(|mount| {
            let source = match &mount.source {
                MountSource::Bind(path) => below(&case, path),
                MountSource::Named(name) => format!("volume {name}"),
                MountSource::Anonymous => "nothing".into(),
            };
            format!("{source} at {}{}", mount.target, if mount.read_only { " ro" } else { "" })
        })
        .collect();
    assert_eq!(
        shown,
        [
            "a.conf at /etc/a.conf ro",
            "/ada/b at /b",
            "volume data at /data",
            "nothing at /anonymous",
            "c at /c ro",
            "nothing at /t"
        ]
    );
    assert_eq!(app.configs[0].target, "/site");
    assert_eq!(app.configs[1].origin, Some(Origin::Text("hello you".into())));
    assert_eq!(
        (app.secrets[0].target.as_str(), &app.secrets[0].origin),
        ("/run/secrets/key", &Some(Origin::Text("k".into())))
    );
}

#[test]
fn x_process() {
    let own =
        app("x-process: {command: ./run -p 1, build: make && true, environment: {A: 1}}").process.unwrap();
    assert_eq!(own.command.unwrap().value, ["./run", "-p", "1"]);
    assert_eq!(
        (own.build.unwrap().value.as_str(), pairs(&own.environment).as_str()),
        ("make && true", "A=1")
    );
    let own = app("x-process: {address: 'localhost:5432'}").process.unwrap();
    assert_eq!(own.address.unwrap().value.to_string(), "127.0.0.1:5432");
    insta::assert_snapshot!(case("x-process: {address: 'db:5432', comand: x}").says(), @"
    error[compose::invalid-value]: `db:5432` is not an address with a port
      compose.yaml:4:26 `'db:5432'` not understood
      help: such as 127.0.0.1:5432
    error[compose::unknown-field]: unknown field `comand`
      compose.yaml:4:37 `comand` not a field of `x-process`
      help: did you mean `command`?
    ");
}

#[test]
fn anchors_merges_and_old_files() {
    let text = "
version: '2.4'
x-base: &base
  image: a
  environment: &env {A: 1, B: 1}
x-more: &more {hostname: h, image: no}
services:
  one: {<<: *base, hostname: mine}
  two:
    <<: [*base, *more]
    environment: {<<: *env, B: 2}
";
    let project = Case::compose(text).project();
    let two = &project.services["two"];
    assert_eq!(
        (two.image.as_ref().unwrap().value.as_str(), two.hostname.as_ref().unwrap().value.as_str()),
        ("a", "h")
    );
    assert_eq!(pairs(&two.environment), "A=1 B=2");
    assert_eq!(pairs(&project.services["one"].environment), "A=1 B=1");
}

#[test]
fn variables_in_values() {
    let text = "services: {app: {image: 'a:${TAG:-1}', ports: ['${PORT}:80'], deploy: {replicas: '${N}'}}}";
    let case =
        Case::new(&[("compose.yaml", text), (".env", "PORT=81\nN=4\nTAG=env\n")]).variable("TAG", "shell");
    let project = case.project();
    let app = &project.services["app"];
    assert_eq!((app.image.as_ref().unwrap().value.as_str(), app.replicas()), ("a:shell", 4));
    assert_eq!(app.ports[0].published.unwrap().first, 81);
    insta::assert_snapshot!(Case::compose("
services:
  one: {image: 'a:$NOT_SET', hostname: '$NOT_SET'}
  two: {image: '${MUST:?say what}'}
  three: {image: '${1}'}
").says(), @"
    warning[compose::unset-variable]: the variable `NOT_SET` is not set; it becomes the empty text
      compose.yaml:3:19 `$NOT_SET` used here
      help: set it, or give a default: ${NOT_SET:-...}
    error[compose::interpolation]: the required variable `MUST` is missing: say what
      compose.yaml:4:17 `${MUST:?say what}` in this value
      help: set it in the environment or in .env: MUST=...
    error[compose::interpolation]: `${1}` names no variable
      compose.yaml:5:19 `${1}` in this value
      help: a `$` that is meant as such is written `$$`
    ");
}

/// Compose types scalars before it replaces variables, so what comes of one is never null, a bool or a number by its looks.
#[test]
fn what_a_variable_yields_is_text() {
    let app = app("
command: sh -c 'for i in $(seq 1 3); do echo $$i; done'
environment:
  HOME: ${NO:-}
  NULL: ${NO:-null}
  TILDE: ${NO:-~}
  TRUE: ${NO:-true}
  QUOTED: \"${NO:-}\"
  HASH: ${NO:-$2a$14$$}
labels: {a: \"${NO:-}\", b: '${NO:-null}'}
expose: ['${NO:-}', '${NO:-80}']
networks: {default: {aliases: ['${NO:-}', '${NO:-api}']}}
hostname: ${NO:-}
container_name: ${NO:-}
user: ${NO:-}
working_dir: ${NO:-}
network_mode: ${NO:-}
stop_signal: ${NO:-}
restart: ${NO:-no}
dns: ['${NO:-}']
deploy: {replicas: '${NO:-2}'}
read_only: ${NO:-false}
stdin_open: ${NO:-false}");
    assert_eq!(
        pairs(&app.environment),
        "HASH=$2a$14$ HOME= NULL=null QUOTED= TILDE=~ TRUE=true",
        "HOME isn't the shell's"
    );
    assert_eq!(pairs(&app.labels), "a= b=null");
    assert_eq!(app.command.as_ref().unwrap().value[2], "for i in $(seq 1 3); do echo $i; done");
    assert_eq!(app.aliases().collect::<Vec<_>>(), ["api"]);
    assert_eq!((app.expose.len(), app.replicas()), (1, 2));
    assert!(app.hostname.is_none() && app.user.is_none() && app.stop_signal.is_none());
    assert_eq!(
        case("deploy: {replicas: '${NO:-}'}\nread_only: ${NO:-maybe}").says().matches("error[").count(),
        2
    );
}

#[test]
fn env_files_see_the_project_then_the_service_then_each_other() {
    let case = Case::new(&[
        (
            "compose.yaml",
            "
services:
  app:
    image: a
    env_file:
      - path: one.env
      - path: ./two.env
        required: true
      - {path: raw.env, format: raw}
      - {path: gone.env, required: false}
      - /dev/null
    environment: {OWN: own, B: own}
",
        ),
        (".env", "PROJECT=project\n"),
        ("one.env", "\u{feff}A=#ff8800\nB=file\nC=${B} ${PROJECT} ${OWN}\nPROJECT=mine\nPROJECT\n"),
        ("two.env", "D=${A}\nA=2\n"),
        ("raw.env", "HASH=$2b$12$abc\nQUOTED=\"kept\"\n"),
    ]);
    assert_eq!(
        pairs(&case.project().services["app"].environment),
        "A=2 B=own C=own project own D=#ff8800 HASH=$2b$12$abc OWN=own PROJECT=project QUOTED=\"kept\""
    );
    insta::assert_snapshot!(Case::new(&[
        ("compose.yaml", "services: {app: {image: a, env_file: [{path: a.env, format: json}, {format: raw}]}}"),
        ("a.env", ""),
    ]).says(), @"
    error[compose::invalid-value]: `json` is not a format of an env file
      compose.yaml:1:61 `json` not understood
      help: leave it out, or write `format: raw`
    error[compose::invalid-value]: `env_file` needs `path`
      compose.yaml:1:68 `{format: raw}` not understood
    ");
}

#[test]
fn several_env_files_of_the_project_override_each_other() {
    let mut case = Case::new(&[
        ("compose.yaml", "services: {app: {image: '${A}-${B}-${C}'}}"),
        ("one.env", "A=1\nB=1\nC=1\n"),
        ("two.env", "B=${A}2\nC=2\n"),
    ])
    .variable("C", "shell");
    case.options.env_files = vec!["one.env".into(), "two.env".into()];
    assert_eq!(case.project().services["app"].image.as_ref().unwrap().value, "1-12-shell");
}

#[test]
fn values_that_cannot_be_read() {
    insta::assert_snapshot!(case("
command: ['a', {b: c}]
ports: ['80:http', {published: 80}]
expose: [x]
restart: sometimes
stop_signal: SIGNOPE
stop_grace_period: 10
healthcheck: {test: [curl], retries: many, intervall: 1s}
deploy: {replicas: -1, mode: replicated-job}
environment: [[a]]
volumes: ['./a:b', {type: bind, target: /x}, nowhere:/data]
depends_on: {nope: {condition: service_ready}}
networks: [none_such]
configs: [gone]
env_file: missing.env
labels: text
x-process: {command: ./app}").says(), @r#"
    error[compose::wrong-type]: expected a text, found a mapping
      compose.yaml:4:20 `{b: c}` is a mapping
    error[compose::invalid-value]: `http` is not a port (0 to 65535)
      compose.yaml:5:13 `'80:http'` not understood
      help: write [HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL], such as "8080:80"
    error[compose::invalid-value]: a port needs `target`, the port in the container
      compose.yaml:5:24 `{published: 80}` not understood
    error[compose::invalid-value]: `x` is not a port (0 to 65535)
      compose.yaml:6:14 `x` not understood
      help: write PORT[/PROTOCOL], such as "5000"
    error[compose::invalid-value]: `sometimes` is not a restart policy
      compose.yaml:7:14 `sometimes` not understood
      help: no, always, unless-stopped, on-failure or on-failure:N
    error[compose::invalid-value]: `SIGNOPE` is not a signal
      compose.yaml:8:18 `SIGNOPE` not understood
      help: such as SIGTERM or 15
    error[compose::invalid-value]: `10` is not a duration
      compose.yaml:9:24 `10` not understood
      help: write a number and a unit: 500ms, 10s, 1m30s, 2h
    error[compose::invalid-value]: `test` as a list begins with NONE, CMD or CMD-SHELL, and what is run follows
      compose.yaml:10:25 `[curl]` not understood
      help: write ["CMD", "curl", "-f", "http://localhost:5000/"] or ["CMD-SHELL", "one line"]
    error[compose::invalid-value]: `many` is not a number that fits here
      compose.yaml:10:42 `many` not understood
    error[compose::unknown-field]: unknown field `intervall`
      compose.yaml:10:48 `intervall` not a field of `healthcheck`
      help: did you mean `interval`?
    error[compose::invalid-value]: `-1` is not a number that fits here
      compose.yaml:11:24 `-1` not understood
    error[compose::invalid-value]: `mode: replicated-job` can't be honoured
      compose.yaml:11:34 `replicated-job` not understood
      help: replicated and global are
    error[compose::wrong-type]: expected a text, found a list
      compose.yaml:12:19 `[a]` is a list
    error[compose::invalid-value]: `./a:b` is not a volume: the path in the container begins with `/`
      compose.yaml:13:15 `'./a:b'` not understood
      help: write [SOURCE:]TARGET[:ro], such as ./nginx.conf:/etc/nginx/nginx.conf:ro
    error[compose::invalid-value]: a bind mount needs `source`, the path on this host
      compose.yaml:13:24 `{type: bind, target: /x}` not understood
    error[compose::undefined]: there is no volume `nowhere`
      compose.yaml:13:50 `nowhere:/data` named here
      help: declare it at top level, under `volumes:`
    warning[compose::not-honoured]: nothing is mounted at /data for a process
      compose.yaml:13:50 `nowhere:/data` the process sees this host's files there
      help: tell the program another folder under `x-process.environment`
    error[compose::undefined]: there is no service `nope`
      compose.yaml:14:18 `nope` named here
      help: declare it at top level, under `services:`
    error[compose::invalid-value]: `service_ready` is not a condition
      compose.yaml:14:36 `service_ready` not understood
      help: service_started, service_healthy or service_completed_successfully
    error[compose::undefined]: there is no network `none_such`
      compose.yaml:15:16 `none_such` named here
      help: declare it at top level, under `networks:`
    error[compose::not-honoured]: `configs` can't be honoured: nothing is mounted for a process, so the file is not there for it to read
      compose.yaml:16:5 `configs` 
    error[compose::undefined]: there is no config `gone`
      compose.yaml:16:15 `gone` named here
      help: declare it at top level, under `configs:`
    error[compose::missing-file]: DEMO/missing.env is not there
      compose.yaml:17:15 `missing.env` named here
    error[compose::wrong-type]: expected a mapping or a list of NAME=value, found a single value
      compose.yaml:18:13 `text` is a single value
    "#);
}

#[test]
fn keys_that_are_unknown_or_double() {
    insta::assert_snapshot!(Case::compose("
servces: {}
services:
  app:
    image: a
    enviroment: {A: 1}
    x-mine: 1
    image: b
    zzz: 1
  'bad name': {image: a}
  empty: {}
").says(), @"
    error[compose::unknown-field]: unknown field `servces`
      compose.yaml:2:1 `servces` not a field of a Compose file
      help: did you mean `services`?
    error[compose::unknown-field]: unknown field `enviroment`
      compose.yaml:6:5 `enviroment` not a field of a service
      help: did you mean `environment`?
    error[compose::duplicate-key]: `image` is there twice
      compose.yaml:8:5 `image` given again
      compose.yaml:5:5 `image` given first
    error[compose::unknown-field]: unknown field `zzz`
      compose.yaml:9:5 `zzz` not a field of a service
      help: a field of your own begins with `x-`
    error[compose::invalid-value]: `bad name` is not a service's name
      compose.yaml:10:3 `'bad name'` not understood
      help: letters, digits, `.`, `_` and `-`
    error[compose::nothing-to-run]: `empty` has neither `image` nor `build`
      compose.yaml:11:3 `empty` nothing to run
      help: `x-process: {command: ...}` says what runs here instead
    ");
}

#[test]
fn fields_that_are_not_honoured() {
    insta::assert_snapshot!(case("
x-process: {command: ./app}
mem_limit: 1g
privileged: false
cap_add: []
network_mode: host
user: www
secrets: []
extra_hosts: ['host.docker.internal:host-gateway']
volumes: ['data:/var/lib/data', './src:/app']
deploy: {resources: {limits: {cpus: '1'}}}
networks: {default: {ipv4_address: 172.16.0.2}}").says(), @"
    warning[compose::not-honoured]: `mem_limit` is not honoured: the process isn't limited
      compose.yaml:5:5 `mem_limit` 
    error[compose::not-honoured]: `network_mode: host` can't be honoured for a process
      compose.yaml:8:19 `host` an instance listens on an address of its own
      help: publish what it listens on with `ports`; other services reach it by its name
    error[compose::undefined]: there is no volume `data`
      compose.yaml:12:15 `'data:/var/lib/data'` named here
      help: declare it at top level, under `volumes:`
    warning[compose::not-honoured]: nothing is mounted at /var/lib/data for a process
      compose.yaml:12:15 `'data:/var/lib/data'` the process sees this host's files there
      help: tell the program another folder under `x-process.environment`
    warning[compose::not-honoured]: `resources` is not honoured: the process isn't limited
      compose.yaml:13:14 `resources` 
    error[compose::not-honoured]: `ipv4_address` can't be honoured: an instance has an address of its own on this host, not this one; use the service's name
      compose.yaml:14:26 `ipv4_address`
    ");
    // What isn't run here has nothing to lose.
    assert_eq!(case("mem_limit: 1g\nuser: www\nextra_hosts: [a:1.2.3.4]").says(), "");
    assert_eq!(case("command: ./app\nentrypoint: x\nmem_limit: 1g\nuser: www").says(), "");
}

#[test]
fn extra_hosts_in_all_their_forms() {
    let check = |yaml: &str, expect: &[(&str, &str)]| {
        let lines = format!("command: ./app\nextra_hosts: {yaml}");
        assert_eq!(case(&lines).says(), "");
        let hosts = app(&lines).extra_hosts.into_iter();
        let hosts: Vec<_> = hosts.map(|(name, address)| (name, address.value.to_string())).collect();
        let expect: Vec<_> =
            expect.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect();
        assert_eq!(hosts, expect);
    };
    check("['host.docker.internal:host-gateway']", &[("host.docker.internal", "127.0.0.1")]);
    check(
        "['a:10.0.0.1', 'b=10.0.0.2', 'c:::1', 'd=[::2]']",
        &[("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "::1"), ("d", "::2")],
    );
    check("{a: 10.0.0.1, b: host-gateway}", &[("a", "10.0.0.1"), ("b", "127.0.0.1")]);
    let says = case("command: ./app\nextra_hosts: ['a:not an address']").says();
    assert!(says.contains("`a` with `not an address` is not a name and its address"), "{says}");
}

#[test]
fn no_two_instances_share_a_name() {
    let check = |services: &str, expect: &str| {
        let said = Case::compose(&format!("services:\n{services}")).says();
        let first = said.lines().next().unwrap_or_default();
        assert!(if expect.is_empty() { said.is_empty() } else { first.contains(expect) }, "{services}{said}");
    };
    check("  a: {image: i, scale: 2}\n  b: {image: i, container_name: a-2}\n", "an instance of `a` has");
    check("  b: {image: i, container_name: a-1}\n  a: {image: i, scale: 2}\n", "container name `a-1`");
    // `a` is numbered for the sake of `b`, so that `c` has its name.
    let three = "  a: {image: i}\n  b: {image: i, container_name: a}\n  c: {image: i, container_name: a-1}\n";
    check(three, "container name `a-1`");
    check("  a: {image: i, scale: 2}\n  b: {image: i, container_name: a-3}\n", "");
    check("  a: {image: i}\n  b: {image: i, container_name: a-1}\n", "");
    check("  a: {image: i, scale: 2}\n  b: {image: i, container_name: a-01}\n", "");
    check("  a: {image: i, scale: 2}\n  a-1: {image: i}\n", "");
    let case = Case::compose(
        "services:\n  app: {image: i, scale: 2}\n  app-1: {image: i}\n  web: {image: i, container_name: db}\n  \
         db: {image: i}\n  app-01: {image: i}\n",
    );
    let project = case.project();
    let numbered: Vec<_> =
        project.services.values().filter(|service| project.has_namesake(service)).collect();
    let numbered: Vec<_> = numbered.iter().map(|service| service.name.value.as_str()).collect();
    assert_eq!(numbered, ["app-1", "db"]);
}

#[test]
fn names_that_clash_and_circles() {
    let case = Case::compose(
        "
services:
  a: {image: i, container_name: c, depends_on: [b]}
  b: {image: i, container_name: c, scale: 2, depends_on: [c]}
  c: {image: i, depends_on: [a]}
  d: {image: i, depends_on: [e, a]}
  e: {image: i, profiles: [p]}
  f: {image: i}
",
    );
    let (project, said) = case.both();
    insta::assert_snapshot!(said, @"
    error[compose::container-name]: two services have the container name `c`
      compose.yaml:4:33 `c` taken already
      compose.yaml:3:33 `c` taken here
    error[compose::container-name]: `container_name` allows one instance, 2 are asked for
      compose.yaml:4:33 `c` a name for one instance
      compose.yaml:4:43 `2` more than one
      help: remove `container_name`, so that instances get names of their own
    error[compose::circle]: services wait for each other: a -> b -> c -> a
      compose.yaml:5:30 `a` closes the circle
    error[compose::disabled-dependency]: `d` depends on `e`, which no active profile enables
      compose.yaml:6:30 `e` needed here
      compose.yaml:7:3 `e` enabled by a profile only
      help: say --profile p, or write `required: false`
    ");
    let sound: Vec<_> =
        project.services.values().filter(|s| !s.faulty).map(|s| s.name.value.as_str()).collect();
    assert_eq!(sound, ["e", "f"]);
}

#[test]
fn yaml_that_grows_without_end() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let list = vec![format!("*a{}", n - 1); 10].join(", ");
        text += &format!("a{n}: &a{n} [{list}]\n");
    }
    let said = Case::compose(&text).says();
    assert!(said.contains("more than 200000 values"), "{said}");
    let said = Case::compose(&"- ".repeat(100)).says();
    assert!(said.contains("nested more than 64 deep"), "{said}");
    let said = Case::compose("a: &a [*a]").says();
    assert!(said.contains("stands inside what it refers to"), "{said}");
}

#[test]
fn defaults_are_nothing_to_talk_about() {
    let quiet = "
services:
  app:
    build: {context: ., platforms: [linux]}
    command: [x]
    platform: linux
    logging: {driver: json-file, options: {max-size: 10m, max-file: '3'}}
    attach: true
    runtime: runc
    deploy: {endpoint_mode: vip, resources: {limits: {}}}
    networks: [n]
networks: {n: {driver: bridge, enable_ipv4: true, internal: false, ipam: {driver: default}}, m: {driver: default}}
volumes: {v: {driver: local}}
";
    let loud = quiet
        .replace("bridge", "overlay")
        .replace("local", "nfs")
        .replace("json-file", "syslog")
        .replace("vip", "dnsrr")
        .replace("limits: {}", "limits: {memory: 50M}")
        .replace("[linux]", "[plan9]");
    let case = |text: &str| Case::new(&[("compose.yaml", text), ("Dockerfile", "FROM a")]).says();
    assert_eq!(case(quiet), "");
    let said = case(&loud);
    for field in ["driver", "logging", "endpoint_mode", "resources", "platforms"] {
        assert!(said.contains(&format!("`{field}` is not honoured")), "{field}: {said}");
    }
    assert_eq!(said.matches("warning").count(), 6, "{said}");
}

/// go-yaml and libyaml read these, so Compose does.
#[test]
fn brackets_and_quotes_need_not_be_indented() {
    let text = "
x-env: &env {A: a}
x-more: &more {B: b, A: second}
services:
  app:
    image: a
    command: [
      sh, -c, 'é',
    # who is where
    ]
    environment: {
      <<: [*env, *more],
      'LONG': 'one
  two

three',
  D: d
}
    labels:
      <<: *env
      <<: *more
    ports: [
    '80:80',
  '81:81'
]
    expose: ['x']
";
    let case = Case::compose(text);
    let (project, said) = case.both();
    let app = &project.services["app"];
    assert_eq!(app.command.as_ref().unwrap().value, ["sh", "-c", "é"]);
    assert_eq!(pairs(&app.environment), "A=a B=b D=d LONG=one two\nthree");
    assert_eq!(pairs(&app.labels), "A=a B=b");
    assert_eq!(app.ports.len(), 2);
    insta::assert_snapshot!(said, @r#"
    error[compose::invalid-value]: `x` is not a port (0 to 65535)
      compose.yaml:26:14 `'x'` not understood
      help: write PORT[/PROTOCOL], such as "5000"
    "#);
    let case = Case::compose("services:\n  app: {image: a\n}\n  b: [\n]]\n");
    assert!(case.says().contains("compose.yaml:5:2"), "{}", case.says());
}

//! Which files are read, and how they are joined.

use crate::common::{Case, below, pairs};
use keel_compose::Project;

fn files(case: &Case, project: &Project) -> Vec<String> {
    project.files.iter().map(|path| below(case, path)).collect()
}

const APP: &str = "services: {app: {image: a}}\n";

#[test]
fn searches_in_composes_order_and_takes_the_override_and_our_own() {
    let case = Case::new(&[
        ("docker-compose.yml", APP),
        ("docker-compose.override.yml", "services: {app: {hostname: over}}"),
        ("compose.evenkeel.yaml", "services: {app: {x-process: {command: ./app}}}"),
    ]);
    let project = case.project();
    assert_eq!(
        files(&case, &project),
        ["docker-compose.yml", "docker-compose.override.yml", "compose.evenkeel.yaml"]
    );
    assert_eq!(project.name, "demo");
    let app = &project.services["app"];
    assert_eq!(app.hostname.as_ref().unwrap().value, "over");
    assert_eq!(app.process.as_ref().unwrap().command.as_ref().unwrap().value, ["./app"]);
}

#[test]
fn searches_above_and_warns_of_several() {
    let mut case = Case::new(&[("compose.yml", APP), ("docker-compose.yml", APP), ("deep/er/x", "")]);
    case.options.folder.push("deep/er");
    let (loaded, _) = case.load();
    assert_eq!(loaded.project.unwrap().folder.file_name().unwrap(), "demo");
    insta::assert_snapshot!(case.says(), @"warning[compose::several-files]: several Compose files are here: compose.yml is read, docker-compose.yml is not");
}

#[test]
fn takes_files_from_options_and_from_the_environment() {
    let mut case = Case::new(&[("a.yml", APP), ("sub/b.yml", "services: {app: {hostname: b}}")]);
    case.options.files = vec!["a.yml".into(), "sub/b.yml".into()];
    assert_eq!(case.project().services["app"].hostname.as_ref().unwrap().value, "b");

    let case = Case::new(&[("a.yml", APP), (".env", "COMPOSE_FILE=a.yml\nCOMPOSE_PROJECT_NAME=from-env\n")]);
    let project = case.project();
    assert_eq!((files(&case, &project), project.name.as_str()), (vec!["a.yml".to_owned()], "from-env"));
}

#[test]
fn merges_as_the_specification_says() {
    let base = "
services:
  app:
    image: a
    command: one two
    ports: ['80:80']
    environment: [A=1, B=1]
    depends_on: [db]
    volumes: ['./a:/data', './b:/other']
    healthcheck: {test: [CMD, a], interval: 1s}
    build: ./ctx
  db: {image: b}
";
    let over = "
services:
  app:
    command: [three]
    ports: ['81:81', '80:80']
    environment: {B: '2', C: 3}
    depends_on: {db: {condition: service_healthy}}
    volumes: ['./c:/data']
    healthcheck: {test: [CMD, b, c]}
    build: {args: [X=1], dockerfile_inline: 'FROM x'}
";
    let case = Case::new(&[("compose.yaml", base), ("compose.override.yaml", over)]);
    let project = case.project();
    let app = &project.services["app"];
    assert_eq!(app.command.as_ref().unwrap().value, ["three"]);
    assert_eq!(app.ports.iter().map(|port| port.target).collect::<Vec<_>>(), [80, 81]);
    assert_eq!(pairs(&app.environment), "A=1 B=2 C=3");
    assert_eq!(app.depends_on[0].condition, keel_model::DependencyCondition::Healthy);
    let mounts: Vec<_> = app.volumes.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(mounts, ["/data", "/other"]);
    assert!(format!("{:?}", app.volumes[0].source).ends_with("/c\")"));
    let check = app.effective_healthcheck().unwrap();
    assert_eq!((check.argv.join(" "), check.interval.as_secs()), ("b c".to_owned(), 1));
    assert_eq!(pairs(&app.build.as_ref().unwrap().args), "X=1");
    assert!(app.build.as_ref().unwrap().context.value.ends_with("demo/ctx"));
}

#[test]
fn reset_and_override() {
    let base = "services: {app: {image: a, hostname: h, ports: ['80:80'], environment: {A: 1, B: 2}}}";
    let over = "
services:
  app:
    hostname: !reset null
    ports: !override ['90:90']
    environment: {A: !reset null}
";
    let app = Case::new(&[("compose.yaml", base), ("compose.override.yaml", over)]).project();
    let app = &app.services["app"];
    assert!(app.hostname.is_none());
    assert_eq!(app.ports.iter().map(|port| port.target).collect::<Vec<_>>(), [90]);
    assert_eq!(pairs(&app.environment), "B=2");
}

#[test]
fn extends_in_the_same_and_in_another_file() {
    let case = Case::new(&[
        (
            "compose.yaml",
            "
services:
  base: {image: a, environment: {A: 1}}
  app: {extends: base, environment: {B: 2}}
  far: {extends: {file: other/c.yaml, service: remote}, hostname: mine}
",
        ),
        (
            "other/c.yaml",
            "services: {root: {image: r, volumes: ['./d:/d']}, remote: {extends: {service: root}, env_file: e.env}}",
        ),
        ("other/e.env", "FROM_FILE=yes\n"),
    ]);
    let project = case.project();
    assert_eq!(pairs(&project.services["app"].environment), "A=1 B=2");
    let far = &project.services["far"];
    assert_eq!(
        (far.image.as_ref().unwrap().value.as_str(), far.hostname.as_ref().unwrap().value.as_str()),
        ("r", "mine")
    );
    assert_eq!(pairs(&far.environment), "FROM_FILE=yes");
    let keel_compose::MountSource::Bind(path) = &far.volumes[0].source else { panic!() };
    assert_eq!(below(&case, path), "other/d");
}

#[test]
fn extends_that_leads_nowhere() {
    let case = Case::compose(
        "
services:
  a: {image: i, extends: b}
  b: {image: i, extends: a}
  c: {image: i, extends: {service: nope}}
  d: {image: i, extends: {service: x, file: gone.yaml}}
  e: {image: i}
",
    );
    let (project, said) = case.both();
    insta::assert_snapshot!(said, @"
    error[compose::extends]: `a` extends itself
      compose.yaml:3:17 `extends` comes back here
    error[compose::extends]: `b` extends itself
      compose.yaml:4:17 `extends` comes back here
    error[compose::undefined]: there is no service `nope`
      compose.yaml:5:36 `nope` named here
      help: declare it at top level, under `services:`
    error[compose::missing-file]: DEMO/gone.yaml is not there
      compose.yaml:6:45 `gone.yaml` named here
    ");
    let faulty: Vec<_> = project.services.values().map(|service| service.faulty).collect();
    assert_eq!(faulty, [true, true, true, true, false]);
    assert!(project.sound);
}

#[test]
fn include_takes_in_other_files() {
    let case = Case::new(&[
        ("compose.yaml", "include: [db/compose.yaml]\nservices: {app: {image: a, depends_on: [db]}}"),
        ("db/compose.yaml", "services: {db: {image: '${DB_IMAGE}', volumes: ['./data:/data']}}"),
        ("db/.env", "DB_IMAGE=postgres\n"),
    ]);
    let project = case.project();
    let db = &project.services["db"];
    assert_eq!(db.image.as_ref().unwrap().value, "postgres");
    let keel_compose::MountSource::Bind(path) = &db.volumes[0].source else { panic!() };
    assert_eq!(below(&case, path), "db/data");
    assert_eq!(files(&case, &project), ["compose.yaml", "db/compose.yaml"]);
}

#[test]
fn include_of_what_is_there_already_is_merged_and_of_itself_refused() {
    let case = Case::new(&[
        (
            "compose.yaml",
            "
include:
  - path: [parts/b.yaml, parts/b.override.yaml]
    project_directory: other
    env_file: [vars/one.env, vars/two.env, /dev/null]
  - c.yaml
services:
  app: {depends_on: [db], environment: {OWN: yes, BOTH: own}, ports: ['81:81']}
  db: {image: d}
",
        ),
        (
            "parts/b.yaml",
            "services: {app: {image: 'b:${TAG}', build: ., environment: {BOTH: b, B: b}, ports: ['80:80'], command: [b]}}",
        ),
        ("parts/b.override.yaml", "services: {app: {command: [override]}}"),
        ("other/Dockerfile", "FROM x"),
        ("c.yaml", "services: {app: {image: c, hostname: c}}"),
        ("vars/one.env", "TAG=1\nX=x\n"),
        ("vars/two.env", "TAG=2$X\n"),
    ]);
    let project = case.project();
    let app = &project.services["app"];
    assert_eq!(app.image.as_ref().unwrap().value, "b:2x", "the first that is included counts");
    assert_eq!(app.hostname.as_ref().unwrap().value, "c");
    assert_eq!(pairs(&app.environment), "B=b BOTH=own OWN=yes");
    assert_eq!(app.ports.iter().map(|port| port.target).collect::<Vec<_>>(), [80, 81]);
    assert_eq!(app.command.as_ref().unwrap().value, ["override"]);
    assert_eq!(below(&case, &app.build.as_ref().unwrap().context.value), "other");
    assert_eq!(app.depends_on.len(), 1);
    insta::assert_snapshot!(Case::new(&[
        ("compose.yaml", "include: [{path: b.yaml, env_file: gone.env}]"),
        ("b.yaml", APP),
    ]).says(), @"
    error[compose::missing-file]: DEMO/gone.env is not there
      compose.yaml:1:11 `{path: b.yaml, env_file: gone.env}` named here
    ");
    let case = Case::compose("include: [compose.yaml]\nservices: {app: {image: a}}");
    insta::assert_snapshot!(case.says(), @"
    error[compose::include]: files include each other without end
      compose.yaml:1:1 `include` 16 deep here
    ");
}

#[test]
fn project_names() {
    let name = |option: Option<&str>, text: &str| {
        let mut case = Case::compose(text);
        case.options.project_name = option.map(str::to_owned);
        let (loaded, _) = case.load();
        (loaded.project.unwrap().name, loaded.diagnostics.len())
    };
    assert_eq!(name(None, APP), ("demo".into(), 0));
    assert_eq!(name(None, &format!("name: mine\n{APP}")), ("mine".into(), 0));
    assert_eq!(name(Some("given"), &format!("name: mine\n{APP}")), ("given".into(), 0));
    assert_eq!(name(Some("Given!"), APP), ("demo".into(), 1));
    assert_eq!(name(None, &format!("name: Mine\n{APP}")), ("demo".into(), 1));
}

#[test]
fn what_is_not_there_or_not_readable() {
    insta::assert_snapshot!(Case::new(&[("x", "")]).says(), @"
    error[compose::no-file]: no Compose file in DEMO or above it
      help: looked for compose.yaml, compose.yml, docker-compose.yaml, docker-compose.yml
    ");
    let mut case = Case::compose(APP);
    case.options.files = vec!["gone.yml".into()];
    insta::assert_snapshot!(case.says(), @"error[compose::unreadable]: DEMO/gone.yml can't be read: No such file or directory (os error 2)");
    insta::assert_snapshot!(Case::compose("").says(), @"error[compose::empty]: DEMO/compose.yaml is empty");
    insta::assert_snapshot!(Case::compose("- a\n").says(), @"
    error[compose::wrong-type]: a Compose file is a mapping, this is a list
      compose.yaml:1:1 `- a`
    ");
    let case = Case::compose("services:\n  app:\n    image: a\n   ports: [\n");
    insta::assert_snapshot!(case.says(), @"
    error[compose::yaml]: this is not YAML: while parsing a block mapping, did not find expected key
      compose.yaml:4:4 `p` not understood here
    ");
    let case = Case::new(&[("x", "")]);
    std::fs::write(case.options.folder.join("compose.yaml"), b"services:\n  a: \xff\n").unwrap();
    insta::assert_snapshot!(case.says(), @"error[compose::unreadable]: DEMO/compose.yaml can't be read: line 2 is not UTF-8");
}

/// A block that isn't YAML hides neither what others of the file say nor other files; and nothing is said that is only
/// a consequence.
#[test]
fn what_is_not_yaml_hides_nothing_else() {
    let check = |text: &str, expect: &[&str]| {
        let said = Case::compose(text).says();
        let lines: Vec<&str> = said.lines().collect();
        let found: Vec<String> = lines
            .windows(2)
            .filter(|pair| pair[0].starts_with("error[") && pair[1].trim().starts_with("compose.yaml:"))
            .map(|pair| {
                let code = pair[0].split(['[', ']']).nth(1).unwrap_or_default();
                let line = pair[1].split(':').nth(1).unwrap_or_default();
                format!("{code} {line}")
            })
            .collect();
        assert_eq!(found, expect, "{text}\n{said}");
        assert_eq!(lines.iter().filter(|line| line.starts_with("error[")).count(), expect.len(), "{said}");
    };
    let (yaml, wrong) = ("compose::yaml", "compose::invalid-value");
    let at = |code: &str, line: u32| format!("{code} {line}");
    let bad_port = "  bad:\n    image: i\n    ports: [x]\n";
    // A bracket and a quote that are never closed, a key without its colon, a tab, a bad indentation.
    for (fault, line) in [
        ("  a:\n    ports: [\n      '80'\n    image: i\n", 5),
        ("  a:\n    image: \"i\n    ports: []\n    x: 1\n", 3),
        ("  a\n    image: i\n    tty: 1\n    a: 1\n", 3),
        ("  a:\n\timage: i\n\n\n", 3),
        ("  a:\n    image: i\n   tty: true\n\n", 4),
        ("  a:\n    image: i: j\n\n\n", 3),
        ("  a:\n    image: @x\n\n\n", 3),
    ] {
        let text = format!("services:\n{fault}{bad_port}");
        check(&text, &[at(yaml, line).as_str(), at(wrong, 8).as_str()]);
        let text =
            format!("services:\n{bad_port}{fault}  c:\n    image: i\n    depends_on: [a]\n    expose: [y]\n");
        check(&text, &[at(wrong, 4).as_str(), at(yaml, line + 3).as_str(), at(wrong, 12).as_str()]);
    }
    // Two of them are both said, and what they leave is not taken for an empty project.
    check("services:\n  a:\n    image: @x\n  b:\n    image: @y\n", &["compose::yaml 3", "compose::yaml 5"]);
    check("services:\n  a:\n    image: @x\n", &["compose::yaml 3"]);
    check("servces\n  a:\n    image: x\n", &["compose::yaml 2"]);
    // Names without the block that they are of.
    let anchored = "x-a: &a\n  b: @x\nservices:\n  c:\n    <<: *a\n    image: i\n";
    check(&format!("{anchored}{bad_port}"), &["compose::yaml 2", "compose::invalid-value 9"]);
}

/// As libyaml and go-yaml read them: a tab is white space within brackets and quotes, and no indentation anywhere else.
#[test]
fn tabs_within_brackets() {
    let text = "
services:
  a:
    image: x
    command: [
\ta,
\t\tb c
\td,
    \t'e
\tf'
\t]
    environment: {
\t  A: b,
\tC: d
    }
";
    let app = &Case::compose(text).project().services["a"];
    assert_eq!(app.command.as_ref().unwrap().value, ["a", "b c d", "e f"]);
    assert_eq!(pairs(&app.environment), "A=b C=d");
    for text in [
        "services:\n\ta: {image: x}\n",
        "services:\n  a:\n\timage: x\n",
        "services:\n  a:\n    image: x\n\ttty: true\n",
    ] {
        let said = Case::compose(text).says();
        assert!(said.contains("YAML is indented with spaces, never with tabs"), "{text}{said}");
    }
}

#[test]
fn profiles_enable_services() {
    let text =
        "services: {a: {image: i}, b: {image: i, profiles: [more]}, c: {image: i, profiles: [other, less]}}";
    let enabled = |profiles: &[&str], listed: &str| {
        let mut case = Case::compose(text).variable("COMPOSE_PROFILES", listed);
        case.options.profiles = profiles.iter().map(|name| (*name).to_owned()).collect();
        let project = case.project();
        project.services.values().filter(|s| s.enabled).map(|s| s.name.value.clone()).collect::<String>()
    };
    assert_eq!(enabled(&[], ""), "a");
    assert_eq!(enabled(&["more"], ""), "ab");
    assert_eq!(enabled(&["more"], "less"), "abc");
    assert_eq!(enabled(&["*"], ""), "abc");
}

//! Who an instance is on this host: its user, its host name, and the port that it is found at where the file leaves the
//! choice. Only real processes show it.

use std::path::Path;

use keel_testkit::{Binary, Project, get};

type Done = anyhow::Result<()>;

fn project(files: &[(&str, &str)]) -> anyhow::Result<Project> {
    Project::new(Binary::new(env!("CARGO_BIN_EXE_evenkeel")), files)
}

/// Says whether users can be changed here.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        keel_testkit::not_run("only root may run a process as somebody else");
    }
    is_root
}

/// What instances are, as they see it: user, groups, HOME.
fn ids(project: &Project, service: &str) -> anyhow::Result<String> {
    let line = "echo $(id -u):$(id -g) $(id -G) $HOME";
    // What is run beside the instance is run as the instance is.
    let said = project.run(&["exec", "-T", service, "sh", "-c", line])?;
    let logged = project.run(&["logs", "-n", "1", service])?;
    assert!(logged.contains(said.trim()), "{logged} {said}");
    Ok(said.trim().to_owned())
}

#[test]
fn user_is_honoured_for_root() -> Done {
    if !is_root() {
        return Ok(());
    }
    let run = "x-process: {command: [sh, -c, 'echo $$(id -u):$$(id -g) $$(id -G) $$HOME; exec sleep 1000']}";
    let text = format!(
        "services:\n  number: {{user: '54321:12345', {run}}}\n  alone: {{user: 54321, {run}}}\n  \
         name: {{user: 'nobody:root', {run}}}\n  more: {{user: '54321', group_add: ['77'], {run}}}\n  \
         root: {{user: '0:0', group_add: ['77'], {run}}}\n  nobody-said: {{group_add: ['77'], {run}}}\n  \
         built: {{build: one, {run}}}\n  both: {{build: one, user: '222:333', {run}}}\n  \
         strange: {{build: two, {run}}}\n"
    );
    let files = [
        ("compose.yaml", text.as_str()),
        ("one/Dockerfile", "FROM scratch\nUSER 1111:2222\nCMD [\"x\"]\n"),
        ("two/Dockerfile", "FROM scratch\nUSER no-such-user\nCMD [\"x\"]\n"),
    ];
    let project = project(&files)?;
    let output = project.output(&["up", "-d"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("this host has no user `no-such-user`"), "{said}");
    assert_eq!(said.matches("warning[process::user]").count(), 1, "{said}");
    assert_eq!(ids(&project, "number")?, "54321:12345 12345 /");
    assert_eq!(ids(&project, "alone")?, "54321:54321 54321 /");
    assert_eq!(ids(&project, "more")?, "54321:54321 54321 77 /");
    assert_eq!(ids(&project, "root")?, "0:0 0 77 /root");
    assert_eq!(ids(&project, "nobody-said")?, "0:0 0 77 /root");
    assert!(ids(&project, "name")?.contains(":0 0 /"), "{}", ids(&project, "name")?);
    assert_eq!(ids(&project, "built")?, "1111:2222 2222 /");
    assert_eq!(ids(&project, "both")?, "222:333 333 /");
    assert!(ids(&project, "strange")?.starts_with("0:0 "));
    Ok(())
}

#[test]
fn a_virtual_environment_is_for_the_user_who_runs_in_it() -> Done {
    if !is_root() {
        return Ok(());
    }
    let text = "services:\n  app: {build: ., user: '54321'}\n";
    let dockerfile = "FROM python:3\nWORKDIR /app\nCOPY . .\nRUN pip install -r requirements.txt\n\
                      CMD [\"python\", \"-c\", \"import sys, time; print(sys.prefix, flush=True); time.sleep(1000)\"]\n";
    let files = [("compose.yaml", text), ("Dockerfile", dockerfile), ("requirements.txt", "# nothing\n")];
    let project = project(&files)?;
    let folder = project.folder();
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    project.run(&["up", "-d"])?;
    let printed = || project.run(&["logs", "--no-log-prefix", "app"]).unwrap_or_default();
    keel_testkit::wait_until("it says where its Python is", || printed().contains('/'))?;
    let cache = folder.join(".cache/evenkeel/venv");
    assert!(printed().starts_with(&*cache.to_string_lossy()), "{}", printed());
    Ok(())
}

#[test]
fn a_user_that_this_host_does_not_know_is_not_run_as_root() -> Done {
    if !is_root() {
        return Ok(());
    }
    let text = "services:\n  app: {user: no-such-user, x-process: {command: sleep 1000}}\n  \
                other: {x-process: {command: sleep 1000}}\n";
    let project = project(&[("compose.yaml", text)])?;
    let output = project.output(&["up", "-d"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("this host has no user `no-such-user`"), "{said}");
    assert_eq!(project.run(&["ps", "-q"])?, "other\n");
    Ok(())
}

#[test]
fn hostname_is_the_name_inside() -> Done {
    let run = "x-process: {command: [sh, -c, 'echo $$(hostname) $$HOSTNAME; exec sleep 1000']}";
    let text = format!("services:\n  named: {{hostname: node-a, {run}}}\n  plain: {{{run}}}\n");
    let project = project(&[("compose.yaml", &text)])?;
    let output = project.output(&["up", "-d"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("its hostname included") {
        keel_testkit::not_run("there are no namespaces for processes here");
        return Ok(());
    }
    for (service, name) in [("named", "node-a"), ("plain", "plain")] {
        let inside = project.run(&["exec", "-T", service, "sh", "-c", "echo $(hostname) $HOSTNAME"])?;
        let logged = project.run(&["logs", "-n", "1", service])?;
        assert_eq!(inside.trim(), format!("{name} {name}"), "{said}");
        assert!(logged.contains(inside.trim()), "{logged}");
    }
    Ok(())
}

/// The address that `up` and `ps` name after "listening on".
fn listening(project: &Project) -> anyhow::Result<Vec<String>> {
    let list = project.run(&["ps"])?;
    let line = list.lines().find_map(|line| line.strip_prefix("listening on "));
    let line = anyhow::Context::with_context(line, || list.clone())?;
    Ok(line.split(", ").map(str::to_owned).collect())
}

#[test]
fn a_port_without_a_number_is_chosen_once() -> Done {
    let app = keel_testkit::demo_app(Path::new(env!("CARGO_BIN_EXE_evenkeel")))?;
    let text = format!("services:\n  web: {{ports: ['127.0.0.1::5000'], x-process: {{command: {app}}}}}\n");
    let project = project(&[("compose.yaml", &text)])?;
    let output = project.output(&["up", "-d"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let first = listening(&project)?;
    let [address] = first.as_slice() else { panic!("{first:?}") };
    let address: std::net::SocketAddr = address.parse()?;
    assert!(address.port() > 0 && address.ip().is_loopback(), "{address}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(&first[0]) || said.contains(&first[0]),
        "{said}"
    );
    assert_eq!(get(address, "/")?.status, 200);
    project.run(&["reload"])?;
    assert_eq!(listening(&project)?, first);
    // A new service is no reason to choose again.
    project.write("compose.yaml", &format!("{text}  more: {{x-process: {{command: sleep 1000}}}}\n"))?;
    project.run(&["reload"])?;
    assert_eq!(listening(&project)?, first);
    assert_eq!(get(address, "/")?.status, 200);
    project.run(&["down"])?;
    assert!(get(address, "/").is_err());
    project.run(&["up", "-d"])?;
    assert_eq!(listening(&project)?, first);
    Ok(())
}

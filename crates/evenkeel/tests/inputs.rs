//! What a user gets wrong, and what is said about it; and what else a folder may ask for.

#![expect(clippy::expect_used, reason = "a test ends where it can't go on")]

mod support;

use std::{
    io::Read,
    net::TcpListener,
    process::{Output, Stdio},
};

use keel_testkit::{Binary, Project, free_port, wait_until};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use support::{app, project_on};

type Done = anyhow::Result<()>;

fn project(services: &str) -> anyhow::Result<Project> {
    project_on(free_port()?, services)
}

#[track_caller]
fn assert_says(output: &Output, status: i32, expect: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    for text in expect {
        assert!(said.contains(text), "{text:?} is missing in:\n{said}");
    }
}

/// Brings a project up that has this service beside one that serves, which must run all the same.
fn up_in_part(service: &str, status: i32, expect: &[&str]) -> Done {
    let project = project(service)?;
    assert_says(&project.output(&["up", "-d"])?, status, expect);
    assert!(project.run(&["ps"])?.lines().any(|line| line.starts_with("web ") && line.contains(" ready ")));
    Ok(())
}

#[test]
fn a_service_that_cannot_run_is_named_with_place_and_remedy() -> Done {
    up_in_part(
        "  x:\n    build: {dockerfile_inline: FROM scratch}\n    command: /opt/nowhere/app\n",
        1,
        &["compose.yaml:8:14", "/opt/nowhere/app isn't there on this host", "x-process"],
    )?;
    up_in_part(
        "  x:\n    build: {dockerfile_inline: FROM scratch}\n    command: sleep 9\n    working_dir: /opt/nowhere\n",
        1,
        &["compose.yaml:9:18", "/opt/nowhere isn't there on this host", "copy or mount a folder"],
    )?;
    up_in_part(
        "  x:\n    build: {dockerfile_inline: FROM scratch}\n    command: no-such-program\n",
        1,
        &["compose.yaml:8:14", "`no-such-program` is not found on this host", "install it"],
    )?;
    // It is said, and what it takes; whoever needs it no more than that is fine.
    let expect = ["compose.yaml:7:12", "`db` has only an image", "address: 127.0.0.1:5432"];
    up_in_part("  db:\n    image: postgres\n", 0, &expect)?;
    let needed = "  db:\n    image: postgres\n  worker:\n    image: none\n    x-process: {command: sleep 1000}\n    \
                  depends_on: [db]\n";
    up_in_part(needed, 1, &["compose.yaml:7:12", "`db` has only an image", "`worker` will miss it"])
}

#[test]
fn a_project_that_publishes_nothing_runs_and_may_publish_later() -> Done {
    let text = |ports: &str| {
        format!("services:\n  w:\n    image: none\n    {ports}\n    x-process: {{command: {}}}\n", app())
    };
    let port = free_port()?;
    let binary = Binary::new(env!("CARGO_BIN_EXE_evenkeel"));
    let project = Project::new(binary, &[("compose.yaml", &text("expose: ['5000']"))])?;
    assert_says(&project.output(&["up", "-d"])?, 0, &["no service publishes a port", "listening nowhere"]);
    assert!(project.run(&["ps"])?.lines().any(|line| line.starts_with("w ") && line.contains(" ready ")));
    project.write("compose.yaml", &text(&format!("ports: ['127.0.0.1:{port}:5000']")))?;
    assert_says(&project.output(&["up", "-d"])?, 0, &[]);
    assert_eq!(keel_testkit::get(([127, 0, 0, 1], port), "/")?.status, 200);
    Ok(())
}

#[test]
fn a_healthcheck_that_never_passes_is_told_with_where_to_look() -> Done {
    up_in_part(
        "  h:\n    image: none\n    x-process:\n      command: [sh, -c, 'echo begun; exec sleep 1000']\n    \
         healthcheck: {test: [CMD, 'false'], interval: 100ms, retries: 2}\n",
        1,
        &["h: its healthcheck never passed", "`evenkeel logs h` shows what it printed"],
    )
}

/// What an image's command does was meant for another root: here it would delete what isn't the project's.
#[test]
fn the_command_of_an_image_is_not_run_on_this_host() -> Done {
    let precious = tempfile::tempdir()?;
    let file = precious.path().join("file");
    std::fs::write(&file, "kept")?;
    let here = precious.path().display();
    let wipe = format!("sh -c \"rm -rf {here}/*\"");
    for fields in [
        format!("command: {wipe}"),
        format!("command: [sh, -c, 'rm -rf {here}/*']"),
        format!("entrypoint: {wipe}"),
        format!("entrypoint: [sh, -c]\n    command: [\"rm -rf {here}/*\"]"),
        format!("healthcheck: {{test: 'rm -rf {here}/*', interval: 100ms}}\n    command: sleep 1000"),
    ] {
        let text = format!("  prepare:\n    image: busybox\n    volumes: ['store:{here}']\n    {fields}\n");
        let project = project(&format!("{text}volumes: {{store: {{}}}}\n"))?;
        assert_says(&project.output(&["up", "-d"])?, 0, &["`prepare` has only an image, so it isn't run"]);
        for arguments in
            [["run", "-T", "prepare"].as_slice(), &["exec", "-T", "prepare", "true"], &["start", "prepare"]]
        {
            assert_says(&project.output(arguments)?, 1, &["prepare"]);
        }
        assert!(file.exists(), "{fields}");
    }
    Ok(())
}

#[test]
fn what_an_engine_would_run_is_left_out_where_none_answers() -> Done {
    let project = project("  db:\n    image: postgres\n    ports: ['127.0.0.1:1:5432']\n")?;
    let mut command = project.command(&["up", "-d", "--driver", "auto"]);
    let output = command.env("DOCKER_HOST", "unix:///nowhere/docker.sock").output()?;
    let expect = ["`db` has only an image", "no container engine answers at unix:///nowhere/docker.sock"];
    assert_says(&output, 0, &expect);
    assert_eq!(project.run(&["ps", "-q"])?, "web\n");
    Ok(())
}

/// A database of this host may have the port of the one that isn't run.
#[test]
fn the_port_of_what_is_not_run_stays_free() -> Done {
    let held = TcpListener::bind("127.0.0.1:0")?;
    let port = held.local_addr()?.port();
    let project = project(&format!("  db:\n    image: postgres\n    ports: ['127.0.0.1:{port}:5432']\n"))?;
    let expect = format!("port {port} isn't opened for it");
    assert_says(&project.output(&["up", "-d"])?, 0, &[&expect]);
    Ok(())
}

/// The balancer's own address is for this project's services; whoever has the container's port here keeps it.
#[test]
fn a_foreign_server_on_the_containers_port_is_no_reason_not_to_start() -> Done {
    let held = TcpListener::bind("0.0.0.0:0")?;
    let (inner, outer) = (held.local_addr()?.port(), free_port()?);
    let seat = format!(
        "  nginx:\n    image: nginx\n    ports: ['127.0.0.1:{outer}:{inner}']\n    \
         volumes: ['./nginx.conf:/etc/nginx/nginx.conf:ro']\n"
    );
    let project = project(&seat)?;
    let conf = format!(
        "events {{}}\nhttp {{ server {{ listen {inner}; location / {{ proxy_pass http://web:5000; }} }} }}"
    );
    project.write("nginx.conf", &conf)?;
    let expect = format!("the services of this project don't reach nginx:{inner}");
    assert_says(&project.output(&["up", "-d"])?, 0, &[&expect]);
    assert_eq!(keel_testkit::get(([127, 0, 0, 1], outer), "/")?.status, 200);
    Ok(())
}

#[test]
fn a_port_in_use_names_who_has_it() -> Done {
    let held = TcpListener::bind("127.0.0.1:0")?;
    let project = project_on(held.local_addr()?.port(), "")?;
    let pid = format!("held by pid {}", std::process::id());
    let output = project.output(&["up", "-d"])?;
    assert_says(&output, 1, &["compose.yaml:4:13", "published here", &pid, "or publish another port"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("error: error"));
    drop(held);
    project.run(&["up", "-d"])?;
    Ok(())
}

#[test]
fn two_services_on_one_port_are_named_and_the_first_has_it() -> Done {
    let port = free_port()?;
    let second = format!(
        "  x:\n    image: none\n    x-process: {{command: {}}}\n    ports: ['127.0.0.1:{port}:5000']\n",
        app()
    );
    let project = project_on(port, &second)?;
    let expect = ["compose.yaml:9:13", "is published twice", "`web` keeps it", "under another port"];
    assert_says(&project.output(&["up", "-d"])?, 1, &expect);
    Ok(())
}

#[test]
fn what_has_a_name_of_its_own_cannot_be_many() -> Done {
    let project =
        project("  x:\n    image: none\n    container_name: fixed\n    x-process: {command: sleep 1000}\n")?;
    project.run(&["up", "-d"])?;
    let expect = ["`x` has a `container_name`, so it can't have 3 instances", "remove `container_name`"];
    assert_says(&project.output(&["scale", "x=3"])?, 1, &expect);
    assert_says(&project.output(&["up", "-d", "--scale", "x=3"])?, 1, &expect);
    Ok(())
}

#[test]
fn a_udp_port_that_is_not_published_is_named_with_where_it_is() -> Done {
    let project = project(
        "  x:\n    image: none\n    ports: ['5354:5353/udp']\n    x-process: {command: sleep 1000}\n",
    )?;
    let expect = ["UDP port 5353 of `x` isn't published", "at the instance's own address", "--driver docker"];
    assert_says(&project.output(&["up", "-d"])?, 0, &expect);
    Ok(())
}

#[test]
fn a_reload_with_an_error_says_where_and_changes_nothing() -> Done {
    let project = project("")?;
    project.run(&["up", "-d"])?;
    let before = project.run(&["ps", "-q"])?;
    let compose = std::fs::read_to_string(project.folder().join("compose.yaml"))?;
    project.write("compose.yaml", &format!("{compose}  x: [\n"))?;
    assert_says(&project.output(&["reload"])?, 1, &["compose.yaml:", "this is not YAML"]);
    assert_eq!(project.run(&["ps", "-q"])?, before);
    Ok(())
}

#[test]
fn force_recreate_replaces_what_has_not_changed() -> Done {
    let project = project("")?;
    project.run(&["up", "-d"])?;
    let pid = || -> anyhow::Result<i64> {
        let list: serde_json::Value = serde_json::from_str(&project.run(&["ps", "--format", "json"])?)?;
        Ok(list[0]["pid"].as_i64().expect("it has a process"))
    };
    let first = pid()?;
    project.run(&["up", "-d"])?;
    assert_eq!(pid()?, first);
    project.run(&["up", "-d", "--force-recreate"])?;
    assert_ne!(pid()?, first);
    Ok(())
}

#[test]
fn a_killed_supervisors_socket_and_instances_are_no_hindrance() -> Done {
    let project = project("  x:\n    image: none\n    x-process:\n      command: sleep 1000\n")?;
    project.run(&["up", "-d"])?;
    let list: serde_json::Value = serde_json::from_str(&project.run(&["ps", "--format", "json"])?)?;
    let pids: Vec<Pid> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| Pid::from_raw(i32::try_from(one["pid"].as_i64()?).ok()?))
        .collect();
    assert_eq!(pids.len(), 2);
    let supervisor = i32::try_from(project.supervisor()?).ok().and_then(Pid::from_raw);
    kill_process(supervisor.expect("is a process"), Signal::KILL)?;
    // Until it is gone for good it may still take a connection, and never answer.
    let mut output = project.output(&["ps"])?;
    wait_until("nobody answers", || {
        let told = String::from_utf8_lossy(&output.stderr).contains("this project isn't running");
        if !told && let Ok(next) = project.output(&["ps"]) {
            output = next;
        }
        told
    })?;
    assert_says(&output, 1, &["`evenkeel up` starts it"]);
    project.run(&["up", "-d"])?;
    wait_until("nothing of the first one is left", || {
        pids.iter().all(|pid| test_kill_process(*pid).is_err())
    })?;
    assert_eq!(project.run(&["ps", "-q"])?, "web\nx\n");
    Ok(())
}

#[test]
fn services_wait_for_those_they_depend_on() -> Done {
    let project = project(
        "  migrate:\n    image: none\n    x-process:\n      command: sh -c 'echo migrated >> order'\n  \
         db:\n    image: none\n    \
         x-process:\n      command: sh -c 'echo db >> order; touch db-is-up; exec sleep 1000'\n    \
         depends_on: {migrate: {condition: service_completed_successfully}}\n    \
         healthcheck: {test: [CMD, test, -e, FOLDER/db-is-well], interval: 100ms}\n  \
         app:\n    image: none\n    x-process:\n      command: sh -c 'echo app >> order; exec sleep 1000'\n    \
         depends_on: {db: {condition: service_healthy}}\n",
    )?;
    let mut up = project.command(&["up", "-d"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait_until("the database is up", || project.folder().join("db-is-up").exists())?;
    let order = || std::fs::read_to_string(project.folder().join("order"));
    assert_eq!(order()?, "migrated\ndb\n");
    project.write("db-is-well", "")?;
    assert!(up.wait()?.success());
    wait_until("the app has begun", || order().is_ok_and(|order| order == "migrated\ndb\napp\n"))
}

#[test]
fn a_dependency_that_fails_keeps_its_dependents_from_starting() -> Done {
    up_in_part(
        "  migrate:\n    image: none\n    x-process:\n      command: sh -c 'exit 3'\n  \
         app:\n    image: none\n    x-process:\n      command: [sh, -c, 'echo begun; exec sleep 1000']\n    \
         depends_on: {migrate: {condition: service_completed_successfully}}\n",
        1,
        &["app: waits for migrate to complete", "migrate: ended: exit status 3"],
    )
}

#[test]
fn names_of_other_hosts_resolve_inside() -> Done {
    let project = project(
        "  x:\n    image: none\n    x-process:\n      command: [sh, -c, 'echo begun; exec sleep 1000']\n    \
         extra_hosts: ['host.docker.internal:host-gateway', 'other=10.1.2.3']\n",
    )?;
    project.run(&["up", "-d"])?;
    if project.run(&["ps"])?.contains("names of services don't resolve") {
        keel_testkit::not_run("no mount namespace here");
        return Ok(());
    }
    let names = "getent hosts host.docker.internal other | awk '{print $1, $2}'";
    let resolved = project.run(&["exec", "-T", "x", "sh", "-c", names])?;
    assert_eq!(resolved, "127.0.0.1 host.docker.internal\n10.1.2.3 other\n");
    Ok(())
}

/// Runs a command of the project on a terminal of its own, and gives what came there and its status.
fn on_terminal(project: &Project, arguments: &[&str]) -> anyhow::Result<(String, Option<i32>)> {
    use rustix::{fs::OFlags, pty};
    let terminal = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY)?;
    pty::grantpt(&terminal)?;
    pty::unlockpt(&terminal)?;
    let name = pty::ptsname(&terminal, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let end = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty())?;
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&end, size)?;
    let mut command = project.command(arguments);
    command.stdin(end.try_clone()?).stdout(end.try_clone()?).stderr(end);
    let mut child = command.spawn()?;
    // Else the terminal never ends.
    drop(command);
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // EIO is how a terminal ends.
        let _ = std::fs::File::from(terminal).read_to_end(&mut text);
        String::from_utf8_lossy(&text).replace('\r', "")
    });
    let mut status = None;
    wait_until("the command ends", || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    })?;
    let text = reader.join().expect("the reader doesn't panic");
    Ok((text, status.and_then(|status| status.code())))
}

#[test]
fn exec_and_run_have_a_terminal_where_the_user_has_one() -> Done {
    let project = project(
        "  x:\n    image: none\n    x-process:\n      command: sleep 1000\n    environment: {A: of-x}\n",
    )?;
    project.run(&["up", "-d"])?;
    let script = "test -t 0 && test -t 1 && stty size; echo $A; exit 7";
    let expect = ("33 77\nof-x\n".to_owned(), Some(7));
    assert_eq!(on_terminal(&project, &["exec", "x", "sh", "-c", script])?, expect);
    assert_eq!(on_terminal(&project, &["run", "--rm", "x", "sh", "-c", script])?, expect);
    let (text, status) = on_terminal(&project, &["exec", "-T", "x", "sh", "-c", "test -t 0 || echo none"])?;
    assert_eq!((text.as_str(), status), ("none\n", Some(0)));
    Ok(())
}

#[test]
fn doctor_says_what_there_is_and_how_to_get_the_rest() -> Done {
    let output = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).command().arg("doctor").output()?;
    let said = String::from_utf8(output.stdout)?;
    let lines: Vec<&str> = said.lines().collect();
    let marked =
        lines.iter().all(|line| ["ok   ", "no   ", "     hint: "].iter().any(|m| line.starts_with(m)));
    assert!(marked && lines.len() >= 3, "{said}");
    let lacks = lines.iter().any(|line| line.starts_with("no "));
    assert_eq!(output.status.success(), !lacks, "{said}");
    Ok(())
}

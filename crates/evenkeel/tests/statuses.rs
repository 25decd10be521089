//! What a command ends with when the files have an error, and what it says at the end.

use keel_testkit::{Binary, Project};

type Done = anyhow::Result<()>;

const FILE: &str = "services:\n  app: {x-process: {command: sleep 1000}}\n  worker: {build: ./gone}\n";

#[test]
fn an_error_in_a_service_is_no_success() -> Done {
    let project = Project::new(Binary::new(env!("CARGO_BIN_EXE_evenkeel")), &[("compose.yaml", FILE)])?;
    let check = |arguments: &[&str], last: &str| -> Done {
        let output = project.output(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("error["), "{arguments:?}: {said}");
        let mut end = said.lines().rev().take(2);
        assert!(last.is_empty() || end.any(|line| line.contains(last)), "{arguments:?}: {said}");
        Ok(())
    };
    check(&["config"], "")?;
    check(&["config", "-q"], "")?;
    // What can run does.
    check(&["up", "-d"], "`worker` isn't run, see above")?;
    assert!(project.run(&["ps", "-q"])?.contains("app"));
    check(&["up", "-d"], "`worker` isn't run, see above")?;
    check(&["reload"], "`worker` isn't run, see above")?;
    project.write("compose.yaml", FILE.split("  worker").next().unwrap())?;
    project.run(&["reload"])?;
    project.run(&["config", "-q"])?;
    project.run(&["up", "-d"])?;
    project.run(&["down"])?;
    let mut up = project.command(&["up", "-d"]);
    project.write("compose.yaml", FILE)?;
    assert_eq!(up.status()?.code(), Some(1));
    Ok(())
}

#[test]
fn a_balancer_for_http3_alone_keeps_nothing_else_from_running() -> Done {
    let app = keel_testkit::demo_app(std::path::Path::new(env!("CARGO_BIN_EXE_evenkeel")))?;
    let port = keel_testkit::free_port()?;
    let file = format!(
        "services:\n  web: {{image: nginx, volumes: ['./nginx.conf:/etc/nginx/nginx.conf']}}\n\
         \u{20} app: {{x-process: {{command: {app}}}, ports: ['127.0.0.1:{port}:5000']}}\n"
    );
    let conf = "events {} http { server { listen 443 quic; location / { proxy_pass http://app:5000; } } }";
    let binary = Binary::new(env!("CARGO_BIN_EXE_evenkeel"));
    let project = Project::new(binary, &[("compose.yaml", &file), ("nginx.conf", conf)])?;
    let output = project.output(&["up", "-d"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error[nginx::unreachable-server]"), "{said}");
    assert_eq!(keel_testkit::get(([127, 0, 0, 1], port), "/")?.status, 200);
    // The balancer alone would have nothing to do.
    let mut serve = project.command(&["serve", "-c", "nginx.conf"]);
    assert!(!serve.output()?.status.success());
    Ok(())
}

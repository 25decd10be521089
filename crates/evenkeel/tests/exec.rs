//! `exec`: a command's streams, whichever side is faster, and whoever stops first.

use std::{
    io::Write,
    process::{Child, Output, Stdio},
    thread,
};

use anyhow::Context;
use keel_testkit::{Binary, Project, free_port};

type Done = anyhow::Result<()>;

fn up() -> anyhow::Result<Project> {
    let port = free_port()?;
    let compose = format!(
        "services:\n  app:\n    image: none\n    x-process: {{command: [sleep, '1000']}}\n  \
         nginx:\n    image: nginx\n    ports: ['127.0.0.1:{port}:80']\n    \
         volumes: ['./nginx.conf:/etc/nginx/nginx.conf:ro']\n"
    );
    let conf = "events {}\nhttp { server { listen 80; return 204; } }\n";
    let project = Project::new(
        Binary::new(env!("CARGO_BIN_EXE_evenkeel")),
        &[("compose.yaml", &compose), ("nginx.conf", conf)],
    )?;
    project.run(&["up", "-d"])?;
    Ok(project)
}

/// Runs a command with this input.
fn exec(project: &Project, command: &[&str], input: Vec<u8>) -> anyhow::Result<Output> {
    let mut child: Child = project
        .command(&[&["exec", "-T", "app"], command].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("has an input")?;
    // A command that doesn't read everything breaks the pipe.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output()?;
    writer.join().ok().context("the writer doesn't panic")?;
    Ok(output)
}

#[test]
fn everything_sent_comes_back_through_cat() -> Done {
    let project = up()?;
    let input: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let output = exec(&project, &["cat"], input.clone())?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == input, "{} of {} bytes came", output.stdout.len(), input.len());
    Ok(())
}

#[test]
fn a_command_may_end_before_it_has_read_its_input() -> Done {
    let project = up()?;
    for (script, status) in [("exit 7", 7), ("head -c 1 >/dev/null; exit 8", 8), ("exec <&-; exit 9", 9)] {
        let output = exec(&project, &["sh", "-c", script], vec![b'x'; 2_000_000])?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{script}: {said}");
    }
    for _ in 0..20 {
        assert_eq!(project.run(&["exec", "-T", "app", "echo", "here"])?, "here\n");
    }
    Ok(())
}

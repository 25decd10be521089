//! `exec`: a command's streams, whichever side is faster, and whoever stops first.

use std::{
    io::{Read, Write},
    process::{Child, Output, Stdio},
    thread,
    time::{Duration, Instant},
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

#[test]
fn a_command_that_prints_nothing_yet_gets_all_of_its_input() -> Done {
    let project = up()?;
    let script = "all=$(mktemp); cat > $all; wc -c < $all; rm $all";
    let output = exec(&project, &["sh", "-c", script], vec![b'x'; 3_000_000])?;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "3000000");
    Ok(())
}

/// Waits for the end of a command that has been told to end.
fn ended(mut child: Child) -> anyhow::Result<std::process::ExitStatus> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("a signal doesn't end it");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) -> Done {
    let id = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).context("an id")?;
    Ok(rustix::process::kill_process(id, signal)?)
}

#[test]
fn a_signal_ends_a_command_whose_output_nobody_reads() -> Done {
    let project = up()?;
    for number in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut child = project
            .command(&["exec", "-T", "app", "sh", "-c", "yes"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = child.stdout.take().context("has an output")?;
        // Something has come, and the pipe fills up.
        stdout.read_exact(&mut [0; 2])?;
        signal(&child, number)?;
        let status = ended(child)?;
        assert_eq!(status.code(), Some(128 + number.as_raw()), "{status}");
    }
    Ok(())
}

#[test]
fn a_signal_ends_a_command_that_does_not_read_its_input() -> Done {
    let project = up()?;
    let mut child = project
        .command(&["exec", "-T", "app", "sh", "-c", "echo here; exec sleep 1000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("has an input")?;
    let writer = thread::spawn(move || while stdin.write_all(&[b'x'; 4096]).is_ok() {});
    child.stdout.take().context("has an output")?.read_exact(&mut [0; 4])?;
    signal(&child, rustix::process::Signal::TERM)?;
    let status = ended(child)?;
    assert_eq!(status.code(), Some(128 + 15), "{status}");
    writer.join().ok().context("the writer doesn't panic")?;
    Ok(())
}

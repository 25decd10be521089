//! The folders under `examples/`, as a user has them: copied, with another published port, brought up and asked.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use keel_testkit::{Binary, Project, free_port, get};

type Outcome = anyhow::Result<()>;

/// Copies an example into a project of its own. Its published port becomes a free one on loopback.
fn copy(name: &str, published: &str) -> anyhow::Result<(Project, SocketAddr)> {
    let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let project = Project::new(Binary::new(env!("CARGO_BIN_EXE_evenkeel")), &[])?;
    copy_folder(&from, project.folder())?;
    let port = free_port()?;
    let file = project.folder().join("docker-compose.yml");
    let compose = std::fs::read_to_string(&file)?;
    let inner = published.split_once(':').map_or("", |(_, inner)| inner);
    let changed = compose.replace(&format!("\"{published}\""), &format!("\"127.0.0.1:{port}:{inner}\""));
    anyhow::ensure!(changed != compose, "{name} publishes {published}");
    std::fs::write(file, changed)?;
    Ok((project, ([127, 0, 0, 1], port).into()))
}

fn copy_folder(from: &Path, to: &Path) -> Outcome {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Brings it up, looks that twelve answers come from three in turn, and takes it down.
fn answers_in_turn(project: &Project, address: SocketAddr) -> anyhow::Result<Vec<String>> {
    project.run(&["up", "-d"])?;
    let answers: Vec<String> =
        (0..12).map(|_| Ok(get(address, "/")?.text())).collect::<anyhow::Result<_>>()?;
    let round = answers.get(..3).unwrap_or_default();
    let in_turn: Vec<_> = round.iter().cycle().take(12).cloned().collect();
    assert_eq!(answers, in_turn);
    assert!(round.iter().all(|answer| answer.starts_with("Hello from ")), "{round:?}");
    assert!(
        round.iter().enumerate().all(|(at, answer)| !round.iter().skip(at + 1).any(|other| other == answer)),
        "three different ones: {round:?}"
    );
    let own = round.iter().filter_map(|answer| answer.trim().strip_prefix("Hello from ")?.parse().ok());
    own.into_iter().try_for_each(answers_in_one_piece)?;
    project.run(&["down"])?;
    assert!(get(address, "/").is_err(), "nobody listens any more");
    Ok(round.to_vec())
}

/// Asks an instance again and again on one connection: head and body of each answer must come together. A body that is
/// written by itself waits until the client's kernel has acknowledged the head, which it does after 40 ms.
fn answers_in_one_piece(instance: SocketAddr) -> Outcome {
    let mut stream = TcpStream::connect(instance)?;
    for _ in 0..20 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer)?;
        let answer = String::from_utf8_lossy(answer.get(..count).unwrap_or_default()).into_owned();
        assert!(answer.contains("\r\n\r\nHello from "), "{answer:?}");
    }
    Ok(())
}

/// Says whether a program is there.
fn is_there(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let there = command.status().is_ok_and(|status| status.success());
    if !there {
        keel_testkit::not_run(format_args!("`{program} {}` doesn't work here", arguments.join(" ")));
    }
    there
}

#[test]
fn three_replicas_behind_a_published_port() -> Outcome {
    if !is_there("python3", &["-c", "import http.server"]) {
        return Ok(());
    }
    let (project, address) = copy("replicas", "8080:5000")?;
    let answers = answers_in_turn(&project, address)?;
    assert!(answers.iter().all(|answer| answer.ends_with(":5000\n")), "{answers:?}");
    Ok(())
}

#[test]
fn three_replicas_on_the_very_port_that_is_published() -> Outcome {
    if !is_there("python3", &["-c", "import http.server"]) {
        return Ok(());
    }
    // Here the instances' port must stay the published one, so both become the free one.
    let (project, address) = copy("same-port", "8000:8000")?;
    let port = address.port();
    for (file, from, to) in [
        ("docker-compose.yml", format!("127.0.0.1:{port}:8000"), format!("{port}:{port}")),
        ("server.py", "(\"0.0.0.0\", 8000)".to_owned(), format!("(\"0.0.0.0\", {port})")),
    ] {
        let text = std::fs::read_to_string(project.folder().join(file))?;
        anyhow::ensure!(text.contains(&from), "{file} has {from}");
        project.write(file, &text.replace(&from, &to))?;
    }
    let answers = answers_in_turn(&project, address)?;
    assert!(answers.iter().all(|answer| answer.ends_with(&format!(":{port}\n"))), "{answers:?}");
    Ok(())
}

#[test]
fn three_flask_services_behind_an_nginx_conf() -> Outcome {
    let folder = tempfile::TempDir::new()?;
    let venv = folder.path().join("venv");
    let python = venv.join("bin/python").to_string_lossy().into_owned();
    // Whether the package index can be reached is asked of pip itself, in an environment that is thrown away.
    if !is_there("python3", &["-m", "venv", &venv.to_string_lossy()])
        || !is_there(&python, &["-m", "pip", "install", "-q", "--retries", "0", "--dry-run", "flask"])
    {
        return Ok(());
    }
    let (project, address) = copy("flask", "8080:80")?;
    let mut answers = answers_in_turn(&project, address)?;
    // Who is asked first depends on who was ready first.
    answers.sort();
    assert_eq!(answers, ["Hello from app1\n", "Hello from app2\n", "Hello from app3\n"]);
    Ok(())
}

//! What commands say and how they end: starts that fail, commands at the same time, an end in the middle of a start.

#![expect(clippy::expect_used, reason = "a test ends where it can't go on")]

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use keel_testkit::{DEADLINE, Project, free_port, wait_until};

use support::{app, project_on};

type Done = anyhow::Result<()>;

fn project(services: &str) -> anyhow::Result<Project> {
    project_on(free_port()?, services)
}

/// A command that runs, and what it says line by line.
struct Talking {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Talking {
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().expect("is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sender.send(line).ok())
        });
        Ok(Self { child, lines, said: Vec::new() })
    }

    fn until(&mut self, text: &str) -> Done {
        while !self.said.last().is_some_and(|line| line.contains(text)) {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => self.said.push(line),
                Err(error) => anyhow::bail!("{error} before {text:?} after:\n{}", self.said.join("\n")),
            }
        }
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<(Option<i32>, String)> {
        let mut status = None;
        wait_until("the command ends", || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        self.said.extend(self.lines.iter());
        Ok((status.and_then(|status| status.code()), self.said.join("\n")))
    }
}

fn up_fails(services: &str) -> anyhow::Result<(Project, String)> {
    let project = project(services)?;
    let output = project.output(&["up", "-d"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    Ok((project, said))
}

#[test]
fn what_dies_at_once_is_told_and_was_never_ready() -> Done {
    let worker = |restart: &str| {
        format!(
            "  worker:\n    image: none\n    restart: {restart}\n    \
             x-process: {{command: [sh, -c, 'echo boom; exit 3']}}\n"
        )
    };
    let (project, said) = up_fails(&worker("'no'"))?;
    assert!(said.contains("worker: exited (exit status 3)"), "{said}");
    assert!(said.contains("error: worker: ended: exit status 3"), "{said}");
    assert!(said.contains("hint: `evenkeel logs worker` shows what it printed"), "{said}");
    assert!(!said.contains("worker: ready"), "{said}");
    assert!(project.run(&["logs", "worker"])?.contains("boom"));
    // The other one serves on.
    assert!(project.run(&["ps"])?.lines().any(|line| line.starts_with("web ") && line.contains(" ready ")));

    let (_, said) = up_fails(&worker("always"))?;
    assert_eq!(said.matches("worker: crash-loop (exit status 3; starts again in ").count(), 1, "{said}");
    assert!(said.contains("worker: 3 times in a row right after its start, ended: exit status 3"), "{said}");
    assert!(!said.contains("worker: ready"), "{said}");
    Ok(())
}

#[test]
fn what_has_done_its_work_is_no_failure() -> Done {
    let project = project("  job:\n    image: none\n    x-process: {command: ['true']}\n")?;
    project.run(&["up", "-d"])?;
    assert!(project.run(&["ps"])?.contains("exit status 0"));
    Ok(())
}

#[test]
fn a_crash_loop_is_shown_once() -> Done {
    // It listens each time before it dies.
    let service = format!(
        "  app:\n    image: none\n    restart: always\n    expose: ['6000']\n    environment: {{PORT: 6000}}\n    \
         x-process: {{command: [sh, -c, '{} & app=$$!; sleep 0.5; kill $$app; exit 4']}}\n",
        app()
    );
    let project = project(&service)?;
    let mut up = Talking::start(project.command(&["up"]))?;
    up.until("app: crash-loop (exit status 4; starts again in ")?;
    // It goes on all the same.
    wait_until("it was started five times", || {
        project.run(&["ps", "--format", "json"]).is_ok_and(|list| list.contains("\"restarts\": 5"))
    })?;
    project.run(&["down", "-t", "0"])?;
    let (_, said) = up.end()?;
    assert_eq!(said.matches("app: crash-loop").count(), 1, "{said}");
    let after = said.rsplit("app: crash-loop").next().expect("it is there");
    assert!(!after.contains("app: ready") && !after.contains("app: starting"), "{said}");
    Ok(())
}

const SLOW: &str = "  slow:\n    build: .\n    x-process:\n      command: [sleep, '1000']\n      \
                    build: 'echo builds; while [ ! -e FOLDER/go ]; do sleep 0.01; done'\n";

#[test]
fn down_ends_an_up_that_is_under_way() -> Done {
    for detach in [["up"].as_slice(), &["up", "-d"]] {
        let project = project(SLOW)?;
        let mut up = Talking::start(project.command(detach))?;
        up.until("slow: builds")?;
        project.run(&["down"])?;
        let (status, said) = up.end()?;
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("stopped by `evenkeel down` before everything was up"), "{said}");
        assert!(!project.output(&["ps"])?.status.success());
    }
    Ok(())
}

const LEAVES_SLOWLY: &str = "  slow:\n    x-process:\n      command: [sh, -c, 'trap \"sleep 0.5; exit 0\" TERM; echo runs; \
                             while :; do sleep 0.05; done']\n";

#[test]
fn an_up_beside_a_down_comes_after_it() -> Done {
    let project = project(LEAVES_SLOWLY)?;
    project.run(&["up", "-d"])?;
    wait_until("it catches its signal", || {
        project.run(&["logs", "slow"]).is_ok_and(|said| said.contains("runs"))
    })?;
    let mut down = Talking::start(project.command(&["down"]))?;
    down.until("slow: stopping")?;
    let up = project.output(&["up", "-d"])?;
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let (status, said) = down.end()?;
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(project.run(&["ps", "-q"])?, "slow\nweb\n");
    Ok(())
}

#[test]
fn a_scale_beside_an_up_is_not_lost() -> Done {
    let project = project("")?;
    project.run(&["up", "-d"])?;
    let compose = std::fs::read_to_string(project.folder().join("compose.yaml"))?;
    project.write("compose.yaml", &format!("{compose}{SLOW}"))?;
    let mut up = Talking::start(project.command(&["up", "-d"]))?;
    up.until("slow: builds")?;
    let scale = Talking::start(project.command(&["scale", "web=3"]))?;
    project.write("go", "")?;
    let ended = [up.end()?, scale.end()?];
    assert!(ended.iter().all(|(status, _)| *status == Some(0)), "{ended:?}");
    let has_three = || -> anyhow::Result<bool> {
        let list = project.run(&["ps", "-q"])?;
        Ok(list.lines().filter(|line| line.starts_with("web")).eq(["web-1", "web-2", "web-3"]))
    };
    assert!(has_three()?);
    project.run(&["reload"])?;
    assert!(has_three()?);
    Ok(())
}

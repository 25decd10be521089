//! Projects of one name in several folders, and folders that are moved, linked or gone.

#![expect(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::{
    fs,
    path::Path,
    process::{Output, Stdio},
};

use keel_testkit::{Binary, Project};

type Done = anyhow::Result<()>;

const SLEEPER: &str = "services:\n  app: {x-process: {command: sleep 1000}}\n";

/// Projects in folders `one` and `two` of the given one.
fn folders() -> anyhow::Result<Project> {
    let files = [("one/compose.yaml", SLEEPER), ("two/compose.yaml", SLEEPER), ("empty/note", "")];
    Project::new(Binary::new(env!("CARGO_BIN_EXE_evenkeel")), &files)
}

fn output(project: &Project, folder: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    Ok(project.command(arguments).current_dir(project.folder().join(folder)).output()?)
}

/// Runs a command that must succeed in a folder.
fn run(project: &Project, folder: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = output(project, folder, arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{arguments:?} in {folder}: {}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn pid(project: &Project, folder: &str) -> anyhow::Result<u64> {
    let list: serde_json::Value = serde_json::from_str(&run(project, folder, &["ps", "--format", "json"])?)?;
    Ok(list[0]["pid"].as_u64().unwrap())
}

#[test]
fn a_command_acts_on_the_project_of_its_folder_alone() -> Done {
    let project = folders()?;
    run(&project, "one", &["up", "-d"])?;
    let first = pid(&project, "one")?;
    for arguments in [
        &["ps"][..],
        &["logs"],
        &["start"],
        &["stop"],
        &["restart"],
        &["kill", "app"],
        &["scale", "app=2"],
        &["exec", "app", "true"],
        &["run", "app", "true"],
        &["reload"],
        &["down"],
    ] {
        let output = output(&project, "two", arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("runs from another folder") && said.contains("/one"), "{arguments:?}: {said}");
    }
    assert_eq!(pid(&project, "one")?, first);

    run(&project, "two", &["up", "-d"])?;
    let second = pid(&project, "two")?;
    assert_ne!(first, second);
    assert_eq!(pid(&project, "one")?, first);
    // Where no files are, a name alone isn't enough any more.
    let which = output(&project, "empty", &["down"])?;
    assert_eq!(which.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&which.stderr).contains("run from other folders"), "{which:?}");
    run(&project, "two", &["down"])?;
    assert_eq!(pid(&project, "one")?, first);
    run(&project, "empty", &["down"]).and_then(|_| match output(&project, "one", &["ps"])?.status.code() {
        Some(1) => Ok(()),
        status => anyhow::bail!("it still runs: {status:?}"),
    })
}

#[test]
fn several_that_start_a_project_at_once_all_succeed() -> Done {
    let project = folders()?;
    for _ in 0..5 {
        let starting: Vec<_> = (0..3)
            .map(|_| {
                let mut command = project.command(&["up", "-d"]);
                command
                    .current_dir(project.folder().join("one"))
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped());
                command.spawn()
            })
            .collect::<Result<_, _>>()?;
        for child in starting {
            let output = child.wait_with_output()?;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        run(&project, "one", &["down"])?;
    }
    Ok(())
}

#[test]
fn a_folder_is_known_by_every_path_and_after_it_was_moved() -> Done {
    let project = folders()?;
    std::os::unix::fs::symlink(project.folder().join("one"), project.folder().join("link"))?;
    run(&project, "link", &["up", "-d"])?;
    let app = pid(&project, "one")?;
    fs::create_dir(project.folder().join("one/below"))?;
    assert_eq!(pid(&project, "one/below")?, app);
    assert!(run(&project, "empty", &["-f", "../one/compose.yaml", "ps", "-q"])?.contains("app"));
    assert!(run(&project, "two", &["--project-directory", "../one", "ps", "-q"])?.contains("app"));
    fs::rename(project.folder().join("one"), project.folder().join("moved"))?;
    assert_eq!(pid(&project, "moved")?, app);
    fs::remove_dir_all(project.folder().join("moved"))?;
    let said = output(&project, "two", &["ps"])?;
    assert!(String::from_utf8_lossy(&said.stderr).contains("a folder that is gone"), "{said:?}");
    run(&project, "empty", &["down"])?;
    Ok(())
}

#[test]
fn what_an_earlier_version_kept_is_taken_over() -> Done {
    let project = folders()?;
    let before = project.folder().join(".state/evenkeel").join(project.name());
    fs::create_dir_all(before.join("logs"))?;
    fs::write(before.join("logs/app.log"), "1000000 o of old\n")?;
    run(&project, "one", &["up", "-d"])?;
    assert!(run(&project, "one", &["logs"])?.contains("of old"));
    assert!(!before.exists());
    // It was one folder's.
    run(&project, "two", &["up", "-d"])?;
    assert!(!run(&project, "two", &["logs"])?.contains("of old"));
    for folder in ["one", "two"] {
        run(&project, folder, &["down"])?;
    }
    Ok(())
}

#[test]
fn folders_that_cannot_be_used_are_named_with_the_variable_that_moves_them() -> Done {
    let project = folders()?;
    for variable in ["XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] {
        let mut command = project.command(&["up", "-d"]);
        let output =
            command.current_dir(project.folder().join("one")).env(variable, "/proc/version").output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("/proc/version/evenkeel") && said.contains(&format!("set {variable}")),
            "{said}"
        );
    }
    // Nothing of it is needed to say that nothing runs.
    for arguments in [["ps"], ["down"]] {
        let mut command = project.command(&arguments);
        command.current_dir(project.folder().join("one")).env("XDG_STATE_HOME", "/proc/version");
        let output = command
            .env("XDG_CACHE_HOME", "/proc/version")
            .env("XDG_RUNTIME_DIR", "/proc/version")
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("this project isn't running"), "{said}");
    }
    assert!(!Path::new("/proc/version/evenkeel").exists());
    Ok(())
}

//! Output that nobody reads, that comes in bursts, or whose reader leaves.

#![expect(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::OwnedFd,
    process::{Child, Stdio},
    time::Duration,
};

use keel_testkit::{Binary, DEADLINE, Project, wait_until};
use rustix::process::{Pid, Signal, kill_process};

type Done = anyhow::Result<()>;

const BURST: &str =
    "import os, time\nos.write(1, b''.join(b'line %d\\n' % i for i in range(20000)))\ntime.sleep(1000)\n";

/// More than all queues hold: an instance whose pipe isn't read never comes to its second command.
const FLOOD: &str = "yes $(printf %01000d 7) | head -n 60000; touch done; exec sleep 1000\n";

fn project(command: &str) -> anyhow::Result<Project> {
    let file = format!("services:\n  talk: {{x-process: {{command: {command}}}}}\n");
    let binary = Binary::new(env!("CARGO_BIN_EXE_evenkeel"));
    Project::new(binary, &[("compose.yaml", &file), ("burst.py", BURST), ("flood.sh", FLOOD)])
}

fn signal(child: &Child, signal: Signal) -> Done {
    let pid = Pid::from_raw(i32::try_from(child.id())?).unwrap();
    Ok(kill_process(pid, signal)?)
}

#[test]
fn up_whose_output_is_not_read_serves_and_can_be_ended() -> Done {
    let project = project("[sh, flood.sh]")?;
    for ends in [&[Signal::INT, Signal::INT][..], &[Signal::TERM]] {
        let (reader, pipe) = std::io::pipe()?;
        let mut command = project.command(&["up"]);
        command.stdout(pipe.try_clone()?).stderr(pipe);
        let mut up = command.spawn()?;
        drop(command);
        let done = project.folder().join("done");
        wait_until("everything was printed", || done.exists())?;
        std::fs::remove_file(&done)?;
        assert!(project.run(&["ps", "-q"])?.contains("talk"));
        for (number, end) in ends.iter().enumerate() {
            if number > 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
            // The first one may have been enough.
            drop(signal(&up, *end));
        }
        let mut status = None;
        wait_until("it ends", || {
            status = up.try_wait().ok().flatten();
            status.is_some()
        })?;
        // By itself: 1 says that the instance wasn't ready yet.
        assert!(matches!(status.unwrap().code(), Some(0 | 1)), "{status:?}");
        drop(reader);
    }
    Ok(())
}

#[test]
fn a_burst_arrives_whole_and_in_order() -> Done {
    let project = project("[python3, burst.py]")?;
    let shown = project.folder().join("shown");
    let mut command = project.command(&["up"]);
    let mut up = command.stdout(File::create(&shown)?).stderr(Stdio::null()).spawn()?;
    let lines = |text: &str| {
        let lines = text.lines().filter_map(|line| line.split_once("| line "));
        lines.map(|(_, number)| number.to_owned()).collect::<Vec<_>>()
    };
    let expect: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
    wait_until("all lines are shown", || {
        std::fs::read_to_string(&shown).is_ok_and(|text| text.contains("line 19999\n"))
    })?;
    assert_eq!(lines(&std::fs::read_to_string(&shown)?), expect);
    // All is what the help says.
    assert_eq!(lines(&project.run(&["logs"])?), expect);
    assert_eq!(project.run(&["logs", "-n", "3", "--no-log-prefix"])?, "line 19997\nline 19998\nline 19999\n");

    let mut follow = project.command(&["logs", "-f", "-n", "0"]).stdout(Stdio::piped()).spawn()?;
    let mut followed = BufReader::new(follow.stdout.take().unwrap()).lines();
    project.run(&["restart", "-t", "0"])?;
    for number in &expect {
        let line = followed.next().unwrap()?;
        assert!(line.ends_with(&format!("| line {number}")), "{line} where {number} is expected");
    }
    project.run(&["down"])?;
    // There is nothing to follow any more, which is no error.
    assert!(follow.wait()?.success());
    assert!(up.wait()?.success());
    Ok(())
}

#[test]
fn a_reader_that_has_enough_ends_a_command_quietly() -> Done {
    let project = project("[python3, burst.py]")?;
    project.run(&["up", "-d"])?;
    for arguments in
        [&["ps"][..], &["logs"], &["config"], &["exec", "-T", "talk", "yes"], &["explain", "listen"]]
    {
        let (reader, pipe) = std::io::pipe()?;
        drop(reader);
        let output = project.command(arguments).stdout(pipe).stderr(Stdio::piped()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().filter(|line| !line.starts_with(['w', 'h'])).collect();
        assert_eq!((said.join("").as_str(), output.status.code()), ("", Some(141)), "{arguments:?}");
        // Nobody hears it, and it goes on.
        let full = || File::options().write(true).open("/dev/full");
        let output = project.command(arguments).stdout(full()?).stderr(Stdio::piped()).output()?;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("can't write to standard output: No space left"), "{arguments:?}: {said}");
        let output = project.command(arguments).stdout(full()?).stderr(full()?).output()?;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
    Ok(())
}

#[test]
fn a_terminal_gets_colors_of_instances_and_no_other_sequences() -> Done {
    let script = r#"[sh, -c, "printf '\\033[2J\\033]0;title\\007\\033[31mred\\n'; exec sleep 1000"]"#;
    let project = project(script)?;
    project.run(&["up", "-d"])?;
    wait_until("it has printed", || project.run(&["logs"]).is_ok_and(|text| text.contains("red")))?;
    // A file gets what was printed.
    assert_eq!(project.run(&["logs"])?, "talk | \x1b[2J\x1b]0;title\x07\x1b[31mred\n");
    let (mut master, terminal) = terminal()?;
    let mut logs = project.command(&["logs"]);
    let status = logs.stdout(terminal.try_clone()?).stderr(terminal).status()?;
    drop(logs);
    assert!(status.success());
    let mut text = vec![0; 4096];
    let length = master.read(&mut text)?;
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default()).into_owned();
    assert_eq!(text, "talk | \\u{1b}[2J\\u{1b}]0;title\\u{7}\x1b[31mred\x1b[0m\r\n");
    Ok(())
}

/// Both ends of a terminal.
fn terminal() -> anyhow::Result<(File, OwnedFd)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let terminal = File::options().read(true).write(true).open(name.to_str()?)?;
    Ok((File::from(master), terminal.into()))
}

#[test]
fn what_a_slow_reader_misses_is_said() -> Done {
    let project = project("[sh, flood.sh]")?;
    let (reader, pipe) = std::io::pipe()?;
    let mut command = project.command(&["up"]);
    let mut up = command.stdout(pipe).stderr(Stdio::null()).spawn()?;
    drop(command);
    let done = project.folder().join("done");
    wait_until("everything was printed", || done.exists())?;
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(reader).lines().map_while(Result::ok).try_for_each(|line| sender.send(line).ok())
    });
    let (mut seen, mut left_out) = (0, 0);
    while seen + left_out < 60_000 {
        let line = lines.recv_timeout(DEADLINE)?;
        match line.strip_prefix('[') {
            Some(rest) => left_out += rest.split(' ').next().unwrap().parse::<u64>()?,
            None => seen += 1,
        }
    }
    assert!(left_out > 0);
    assert_eq!(seen + left_out, 60_000);
    signal(&up, Signal::TERM)?;
    up.wait()?;
    Ok(())
}

//! An instance's address is answered by that instance or by nobody: not by Evenkeel's own listener on the port, not by
//! another project, not by a stranger.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
};

use keel_testkit::{Binary, Client, DEADLINE, Project, free_port, get, wait_until};

type Done = anyhow::Result<()>;

/// Answers with its name, the project's and how many requests it has had. While there is a file `close` it has no listening
/// socket, as a server that restarts in place.
const APP: &str = r#"
import os, select, socket, sys, time
port, name, served = int(sys.argv[1]), sys.argv[2], 0
time.sleep(float(sys.argv[3]))
def listen():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("0.0.0.0", port)); s.listen(64)
    return s
s = listen()
while True:
    if os.path.exists("close"):
        s.close(); open("closed", "w").close()
        while os.path.exists("close"): time.sleep(0.002)
        s = listen()
        os.remove("closed")
    if not select.select([s], [], [], 0.005)[0]: continue
    c, _ = s.accept(); request = b""
    while b"\r\n\r\n" not in request or (request.startswith(b"POST") and not request.endswith(b"body")):
        more = c.recv(4096)
        if not more: break
        request += more
    if request:
        served += 1
        body = b"%s %s %d" % (name.encode(), os.environ["HOSTNAME"].encode(), served)
        c.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    c.close()
"#;

/// Makes a project of one service: `name` is in its answers, `more` follows in its service.
fn project(name: &str, published: u16, port: u16, more: &str) -> anyhow::Result<Project> {
    let compose = format!(
        "services:\n  app:\n    image: none\n    ports: ['{published}:{port}']\n    \
         x-process: {{command: [python3, app.py, '{port}', {name}, '0.2']}}\n    {more}\n"
    );
    let binary = Binary::new(env!("CARGO_BIN_EXE_evenkeel"));
    Project::new(binary, &[("compose.yaml", &compose), ("app.py", APP)])
}

/// The address and the ports of a project's first instance, as `ps` has them.
fn instance(project: &Project) -> anyhow::Result<(IpAddr, String)> {
    let list: serde_json::Value = serde_json::from_str(&project.run(&["ps", "--format", "json"])?)?;
    let address = list[0]["address"].as_str().unwrap_or_default().parse()?;
    Ok((address, list[0]["ports"].to_string()))
}

fn close(folder: &Path) -> Done {
    std::fs::write(folder.join("close"), "")?;
    wait_until("it closes its socket", || folder.join("closed").exists())
}

/// Says something and gives all that comes back; nothing where the connection is reset.
fn ask(address: SocketAddr) -> anyhow::Result<String> {
    let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    let mut stream = match TcpStream::connect_timeout(&address, DEADLINE) {
        // So soon that the wait for the connection shows it.
        Err(error) if is_reset(&error) => return Ok(String::new()),
        connected => connected?,
    };
    stream.set_read_timeout(Some(DEADLINE))?;
    // Whether it is reset before or after this shows in what is read.
    _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Err(error) if !is_reset(&error) => Err(error.into()),
        _ => Ok(answer),
    }
}

#[test]
fn a_published_port_never_answers_for_an_instance() -> Done {
    let port = free_port()?;
    let project = project("one", port, port, "")?;
    project.run(&["up", "-d"])?;
    let (address, ports) = instance(&project)?;
    assert_eq!(ports, format!("[\"{port}\"]"), "Evenkeel's own listener is no reason to move");
    assert!(ask((address, port).into())?.ends_with("one app 1"));
    close(project.folder())?;
    assert_eq!(ask((address, port).into())?, "", "Evenkeel's listener has the port on all addresses");
    // A request that comes meanwhile, of a kind that is never sent twice, waits for the instance. It doesn't go round.
    let mut client = Client::connect(([127, 0, 0, 1], port))?;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody")?;
    wait_until("it is known that nobody listens", || {
        project.run(&["ps"]).is_ok_and(|list| list.contains(" starting "))
    })?;
    std::fs::remove_file(project.folder().join("close"))?;
    let response = client.response()?;
    assert_eq!((response.status, response.text().as_str()), (200, "one app 2"));
    assert_eq!(get(([127, 0, 0, 1], port), "/")?.text(), "one app 3");
    Ok(())
}

#[test]
fn projects_never_answer_for_one_another() -> Done {
    let (port, other) = (free_port()?, free_port()?);
    let check = format!(
        "healthcheck: {{test: [CMD, python3, -c, 'import socket; socket.create_connection((\"localhost\", {port}), 9)'], \
         retries: 99}}"
    );
    let first = project("first", other, port, &check)?;
    first.run(&["up", "-d"])?;
    let (address, ports) = instance(&first)?;
    assert_eq!(ports, format!("[\"{port}\"]"));
    // One that comes later publishes the port, on all addresses.
    let second = project("second", port, port, "")?;
    second.run(&["up", "-d"])?;
    close(first.folder())?;
    assert_eq!(
        ask((address, port).into())?,
        "",
        "the other project's listener has the port on all addresses"
    );
    std::fs::remove_file(first.folder().join("close"))?;
    let answers = || get(([127, 0, 0, 1], other), "/").map(|response| response.text());
    wait_until("it listens again", || !first.folder().join("closed").exists())?;
    assert!(answers()?.starts_with("first "));
    // An instance that starts now finds the port taken: it is elsewhere, and its healthcheck finds it there.
    first.run(&["restart"])?;
    let (_, ports) = instance(&first)?;
    assert!(ports.contains(&format!("{port} (as ")), "{ports}");
    for _ in 0..8 {
        assert!(answers()?.starts_with("first "));
    }
    assert!(get(([127, 0, 0, 1], port), "/")?.text().starts_with("second "));
    Ok(())
}

/// The killed one's clients get its own answers or an error, never the other's: what they send is meant for it alone.
#[test]
fn a_project_whose_instance_is_killed_is_never_answered_for_by_another() -> Done {
    const KILLS: usize = 5;
    let (port, published) = (free_port()?, free_port()?);
    let other = project("other", port, port, "")?;
    other.run(&["up", "-d"])?;
    let killed = project("killed", published, port, "restart: always")?;
    killed.run(&["up", "-d"])?;
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let ask_on = || {
        let mut answers = Vec::new();
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            // While none runs a request waits, or ends with an error.
            if let Ok(response) = get(([127, 0, 0, 1], published), "/") {
                answers.push((response.status, response.text()));
            }
        }
        answers
    };
    let answers = std::thread::scope(|scope| -> anyhow::Result<Vec<(u16, String)>> {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask_on)).collect();
        let kill_all = || {
            let mut last = None;
            for _ in 0..KILLS {
                let mut pid = None;
                wait_until("another life of it is ready", || {
                    pid = ready_pid(&killed).unwrap_or_default().filter(|pid| Some(*pid) != last);
                    pid.is_some()
                })?;
                last = pid;
                let pid = pid.and_then(rustix::process::Pid::from_raw);
                let pid = anyhow::Context::context(pid, "a process has a number")?;
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            }
            wait_until("the last life of it is ready", || {
                ready_pid(&killed).is_ok_and(|pid| pid.is_some() && pid != last)
            })
        };
        let outcome: Done = kill_all();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome?;
        clients.into_iter().map(|client| client.join()).try_fold(Vec::new(), |mut all, answers| {
            all.extend(answers.map_err(|_| anyhow::anyhow!("a client panicked"))?);
            Ok(all)
        })
    })?;
    let served: Vec<&String> =
        answers.iter().filter(|(status, _)| *status == 200).map(|(_, text)| text).collect();
    assert!(served.len() > KILLS, "{answers:?}");
    let foreign: Vec<&&String> = served.iter().filter(|text| !text.starts_with("killed ")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert!(get(([127, 0, 0, 1], port), "/")?.text().starts_with("other "));
    Ok(())
}

/// The process of a project's first instance, if that is ready.
fn ready_pid(project: &Project) -> anyhow::Result<Option<i32>> {
    let list: serde_json::Value = serde_json::from_str(&project.run(&["ps", "--format", "json"])?)?;
    let is_ready = list[0]["state"] == "ready";
    Ok(list[0]["pid"].as_i64().filter(|_| is_ready).and_then(|pid| pid.try_into().ok()))
}

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

/// Gives the address and the ports of a project's first instance, as `ps` has them.
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

//! The balancer alone, as a real process with real sockets.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use keel_testkit::{Binary, Client, Ledger, Load, Peer, PeerBehaviour, Running, free_port, get, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

type Outcome = anyhow::Result<()>;

fn binary() -> Binary {
    Binary::new(env!("CARGO_BIN_EXE_evenkeel"))
}

fn peers(count: usize, behaviour: &PeerBehaviour) -> anyhow::Result<Vec<Peer>> {
    (1..=count).map(|n| Ok(Peer::start(&format!("app{n}"), behaviour.clone())?)).collect()
}

/// A configuration with one upstream of these servers.
fn configuration(workers: usize, port: u16, servers: &[String]) -> String {
    let servers: String = servers.iter().map(|server| format!("server {server};\n")).collect();
    format!(
        "worker_processes {workers};\n\
         events {{}}\n\
         http {{\n\
             access_log off;\n\
             upstream app {{ {servers} }}\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; }} }}\n\
         }}\n"
    )
}

fn addresses(peers: &[Peer]) -> Vec<String> {
    peers.iter().map(|peer| peer.address().to_string()).collect()
}

struct Setup {
    balancer: Running,
    address: SocketAddr,
    peers: Vec<Peer>,
}

fn setup(workers: usize, count: usize, behaviour: &PeerBehaviour) -> anyhow::Result<Setup> {
    let peers = peers(count, behaviour)?;
    let port = free_port()?;
    let balancer = binary().serve(&configuration(workers, port, &addresses(&peers)))?;
    Ok(Setup { balancer, address: ([127, 0, 0, 1], port).into(), peers })
}

#[test]
fn twelve_requests_are_four_each_in_turn() -> Outcome {
    let setup = setup(1, 3, &PeerBehaviour::Answer)?;
    let answers: Vec<String> =
        (0..12).map(|_| Ok(get(setup.address, "/")?.text())).collect::<anyhow::Result<_>>()?;
    assert_eq!(answers, ["app1", "app2", "app3"].repeat(4));
    Ok(())
}

#[test]
fn shares_are_exact_over_four_workers_with_kept_and_with_new_connections() -> Outcome {
    let setup = setup(4, 3, &PeerBehaviour::Answer)?;
    for kept in [false, true] {
        let before: Vec<u64> = setup.peers.iter().map(Peer::requests).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| ask(setup.address, 50, kept))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("asks"))
        })?;
        let after = setup.peers.iter().map(Peer::requests);
        let shares: Vec<u64> = after.zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(shares, [100, 100, 100], "kept: {kept}");
    }
    Ok(())
}

fn ask(address: SocketAddr, count: usize, kept: bool) -> Outcome {
    let mut client = Client::connect(address)?;
    for _ in 0..count {
        let response =
            if kept { client.request("GET / HTTP/1.1\r\nHost: test\r\n\r\n")? } else { get(address, "/")? };
        assert_eq!(response.status, 200);
    }
    Ok(())
}

#[test]
fn reloads_under_load_lose_and_double_nothing() -> Outcome {
    let folder = TempDir::new()?;
    let ledger = Ledger::new(folder.path().join("ledger"));
    let peers: Vec<Peer> = (1..=4)
        .map(|n| Peer::with_ledger(&format!("app{n}"), PeerBehaviour::Answer, Some(ledger.path())))
        .collect::<Result<_, _>>()?;
    let port = free_port()?;
    let all = addresses(&peers);
    let balancer = binary().serve(&configuration(2, port, &all[..3]))?;
    let load = Load::start(([127, 0, 0, 1], port).into(), 16);
    for round in 0..20 {
        let servers = if round % 2 == 0 { &all[1..] } else { &all[..3] };
        balancer.write_configuration(&configuration(2, port, servers))?;
        balancer.signal(Signal::HUP)?;
        load.wait_for(200)?;
    }
    let report = load.stop();
    assert_eq!(report.failed().len(), 0, "{:?}", report.failed().first());
    assert_eq!(ledger.doubled()?, []);
    assert!(peers.last().is_some_and(|peer| peer.requests() > 0), "the reloads took effect");
    Ok(())
}

#[test]
fn a_bad_file_leaves_the_old_configuration_running() -> Outcome {
    let setup = setup(1, 1, &PeerBehaviour::Answer)?;
    setup.balancer.write_configuration("events {}\nhttp { no_such_directive on; also_none; }\n")?;
    setup.balancer.signal(Signal::HUP)?;
    wait_until("both errors are logged", || {
        let log = setup.balancer.error_log();
        log.contains("unknown directive \"no_such_directive\"")
            && log.contains("unknown directive \"also_none\"")
    })?;
    assert_eq!(get(setup.address, "/")?.text(), "app1");
    Ok(())
}

#[test]
fn a_killed_data_plane_is_replaced_and_its_sockets_stay_open() -> Outcome {
    let setup = setup(1, 3, &PeerBehaviour::Answer)?;
    for _ in 0..3 {
        let before = setup.balancer.children()?;
        for pid in &before {
            let pid =
                i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw).expect("is a process id");
            rustix::process::kill_process(pid, Signal::KILL)?;
        }
        // At once: the connection waits in the accept queue until the next data plane serves.
        assert_eq!(get(setup.address, "/")?.status, 200);
        assert_ne!(setup.balancer.children()?, before);
    }
    Ok(())
}

#[test]
fn quit_finishes_what_is_in_flight_and_term_does_not_wait() -> Outcome {
    let slow = PeerBehaviour::AnswerAfter(std::time::Duration::from_millis(300));
    let Setup { mut balancer, address, peers } = setup(1, 1, &slow)?;
    let mut client = Client::connect(address)?;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    wait_until("the request is at its peer", || peers.iter().any(|peer| peer.requests() == 1))?;
    balancer.signal(Signal::QUIT)?;
    let response = client.response()?;
    assert_eq!((response.status, response.field("Connection")), (200, Some("close")));
    assert!(balancer.wait()?.success());
    assert!(Client::connect(address).is_err(), "nobody listens any more");

    let Setup { mut balancer, address, peers } = setup(1, 1, &slow)?;
    let mut client = Client::connect(address)?;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    wait_until("the request is at its peer", || peers.iter().any(|peer| peer.requests() == 1))?;
    balancer.signal(Signal::TERM)?;
    assert!(balancer.wait()?.success());
    assert!(client.response().is_err());
    Ok(())
}

#[test]
fn a_request_goes_on_to_the_next_peer_unless_it_may_have_arrived() -> Outcome {
    let dead = Peer::start("dead", PeerBehaviour::Close)?;
    let live = Peer::start("live", PeerBehaviour::Answer)?;
    let port = free_port()?;
    let servers = [format!("{} max_fails=0", dead.address()), format!("{} max_fails=0", live.address())];
    let _balancer = binary().serve(&configuration(1, port, &servers))?;
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    for _ in 0..4 {
        let got = get(address, "/")?;
        assert_eq!((got.status, got.text().as_str()), (200, "live"));
    }
    let (dead_before, live_before) = (dead.requests(), live.requests());
    let mut failed = 0;
    for _ in 0..8 {
        let post = "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
        match Client::connect(address)?.request(post)?.status {
            200 => {}
            502 => failed += 1,
            other => panic!("status {other}"),
        }
    }
    // A POST that went to the peer that closes was read there: it fails and is not sent again.
    assert_eq!((failed, dead.requests() - dead_before, live.requests() - live_before), (4, 4, 4));
    Ok(())
}

#[test]
fn the_command_line_is_nginxs() -> Outcome {
    let folder = TempDir::new()?;
    let conf = folder.path().join("nginx.conf");
    std::fs::write(&conf, "events {}\nhttp { server { listen 127.0.0.1:1; } }\n")?;
    let run = |arguments: &[&str]| -> anyhow::Result<(i32, String)> {
        let output = binary().command().arg("serve").arg("-p").arg(folder.path()).args(arguments).output()?;
        Ok((output.status.code().unwrap_or(-1), String::from_utf8(output.stderr)?))
    };
    let (code, text) = run(&["-t"])?;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("syntax is ok") && text.contains("test is successful"), "{text}");
    std::fs::write(&conf, "events {}\nhttp { server { lisen 80; } }\n")?;
    let (code, text) = run(&["-t", "--format", "short"])?;
    assert_eq!(code, 2);
    assert!(text.contains("nginx: [emerg] unknown directive \"lisen\" in "), "{text}");
    let (code, text) = run(&["-V"])?;
    assert_eq!(code, 0);
    assert!(text.contains("nginx version: nginx/") && text.contains("configure arguments:"), "{text}");
    Ok(())
}

/// Sends what runs in a folder a signal by name, as its user would.
fn signal_by_name(balancer: &Running, name: &str) -> anyhow::Result<bool> {
    let mut command = binary().command();
    command.args(["serve", "-p"]).arg(balancer.folder());
    Ok(command.args(["-c", "nginx.conf", "-e", "error.log", "-s", name]).output()?.status.success())
}

#[test]
fn signals_by_name_reload_reopen_quit_and_stop() -> Outcome {
    let port = free_port()?;
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let text = |answer: &str| {
        format!(
            "events {{}}\nhttp {{ access_log PREFIX/access.log; \
             server {{ listen 127.0.0.1:{port}; return 200 {answer}; }} }}\n"
        )
    };
    let mut balancer = binary().serve(&text("one"))?;
    assert_eq!(get(address, "/")?.text(), "one");

    balancer.write_configuration(&text("two"))?;
    assert!(signal_by_name(&balancer, "reload")?);
    wait_until("the new configuration answers", || {
        get(address, "/").is_ok_and(|answer| answer.text() == "two")
    })?;

    let (log, rotated) = (balancer.folder().join("access.log"), balancer.folder().join("access.log.1"));
    std::fs::rename(&log, &rotated)?;
    assert!(signal_by_name(&balancer, "reopen")?);
    wait_until("the log is there again", || log.exists())?;
    wait_until("requests are logged there", || {
        get(address, "/").is_ok() && std::fs::read_to_string(&log).is_ok_and(|text| !text.is_empty())
    })?;

    assert!(signal_by_name(&balancer, "quit")?);
    assert!(balancer.wait()?.success());
    // Nobody is left to be told.
    assert!(!signal_by_name(&balancer, "stop")?);

    let mut balancer = binary().serve(&text("three"))?;
    assert!(signal_by_name(&balancer, "stop")?);
    assert!(balancer.wait()?.success());
    assert!(get(address, "/").is_err());
    Ok(())
}

/// Whether the data plane has a file of this name open.
fn is_open(balancer: &Running, name: &str) -> anyhow::Result<bool> {
    let mut is_open = false;
    for pid in balancer.children()? {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
        is_open |=
            files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|path| path.ends_with(name));
    }
    Ok(is_open)
}

#[test]
fn a_log_that_a_reload_drops_is_closed_although_clients_idle() -> Outcome {
    let port = free_port()?;
    let configuration = |log: &str| {
        format!(
            "worker_processes 2;\nevents {{}}\nhttp {{ access_log off; server {{ listen 127.0.0.1:{port};\n\
             location /logged {{ {log} return 200 x; }} }} }}\n"
        )
    };
    let log = "access_log PREFIX/dropped.log combined buffer=64k; error_log PREFIX/dropped-too.log;";
    let balancer = binary().serve(&configuration(log))?;
    let mut idle = Client::connect(([127, 0, 0, 1], port))?;
    assert_eq!(idle.request("GET /logged HTTP/1.1\r\nHost: test\r\n\r\n")?.status, 200);
    for name in ["dropped.log", "dropped-too.log"] {
        assert!(is_open(&balancer, name)?, "{name}");
    }
    balancer.write_configuration(&configuration(""))?;
    balancer.signal(Signal::HUP)?;
    for name in ["dropped.log", "dropped-too.log"] {
        wait_until("the log is closed", || is_open(&balancer, name).is_ok_and(|is_open| !is_open))?;
    }
    let text = std::fs::read_to_string(balancer.folder().join("dropped.log"))?;
    assert!(text.contains("GET /logged"), "what it gathered was written: {text}");
    assert_eq!(idle.request("GET /logged HTTP/1.1\r\nHost: test\r\n\r\n")?.status, 200);
    Ok(())
}

/// Runs a command on a balancer's control socket. Gives whether it succeeded, its output and what it said.
fn control(socket: &Path, command: &str, more: &[&str]) -> anyhow::Result<(bool, String, String)> {
    let output = binary().command().arg(command).arg("--control").arg(socket).args(more).output()?;
    Ok((output.status.success(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

/// Each peer of a balancer with how many requests it got.
fn requests(socket: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    let (succeeded, text, said) = control(socket, "peers", &["--format", "json"])?;
    anyhow::ensure!(succeeded, "{said}");
    let peers: serde_json::Value = serde_json::from_str(&text)?;
    let one = |peer: &serde_json::Value| {
        assert_eq!(
            (&peer["upstream"], &peer["state"], &peer["weight"]),
            (&"app".into(), &"up".into(), &1.into())
        );
        Some((peer["address"].as_str()?.to_owned(), peer["requests"].as_u64()?))
    };
    Ok(peers.as_array().into_iter().flatten().filter_map(one).collect())
}

#[test]
fn a_configuration_is_not_lost_with_the_data_plane_that_prepares_it() -> Outcome {
    let setup = setup(2, 2, &PeerBehaviour::Answer)?;
    let data_plane = setup.balancer.children()?[0];
    let data_plane = Pid::from_raw(i32::try_from(data_plane)?).expect("a process");
    kill_process(data_plane, Signal::STOP)?;
    setup.balancer.write_configuration(&configuration(
        2,
        setup.address.port(),
        &addresses(&setup.peers)[1..],
    ))?;
    let socket = setup.balancer.folder().join("nginx.control");
    let (succeeded, said) = std::thread::scope(|scope| -> anyhow::Result<_> {
        let reload = scope.spawn(|| control(&socket, "reload", &[]));
        // It waits for a data plane that stands still; one that is killed before it was asked is replaced first.
        std::thread::sleep(Duration::from_millis(300));
        kill_process(data_plane, Signal::KILL)?;
        let (succeeded, _, said) = reload.join().expect("the command doesn't panic")?;
        Ok((succeeded, said))
    })?;
    assert!(succeeded, "{said}");
    for _ in 0..4 {
        assert_eq!(get(setup.address, "/")?.text(), "app2");
    }
    Ok(())
}

#[test]
fn the_control_socket_has_metrics() -> Outcome {
    let setup = setup(2, 1, &PeerBehaviour::Answer)?;
    assert_eq!(get(setup.address, "/")?.status, 200);
    let mut socket = UnixStream::connect(setup.balancer.folder().join("nginx.control"))?;
    socket.write_all(b"GET /v1/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let server = &addresses(&setup.peers)[0];
    for line in [
        "evenkeel_http_requests_total 1".to_owned(),
        format!(
            "evenkeel_upstream_server_responses_total{{upstream=\"app\",server=\"{server}\",service_instance=\"\",code=\"2xx\"}} 1"
        ),
    ] {
        assert!(text.contains(&line), "{line} in\n{text}");
    }
    assert!(text.contains("# EOF\n"));
    Ok(())
}

#[test]
fn the_control_socket_lists_peers_and_reloads() -> Outcome {
    let mut setup = setup(2, 2, &PeerBehaviour::Answer)?;
    let addresses = addresses(&setup.peers);
    let socket = setup.balancer.folder().join("nginx.control");
    for _ in 0..6 {
        assert_eq!(get(setup.address, "/")?.status, 200);
    }
    let each = |count: u64| addresses.iter().map(|address| (address.clone(), count)).collect::<Vec<_>>();
    assert_eq!(requests(&socket)?, each(3));
    let (_, list, _) = control(&socket, "ps", &[])?;
    assert!(
        list.contains(&addresses[0]) && list.contains(&format!("listens on {}", setup.address)),
        "{list}"
    );

    setup.balancer.write_configuration("events {}\nhttp { no_such_directive on; }\n")?;
    let (succeeded, _, said) = control(&socket, "reload", &[])?;
    assert!(!succeeded && said.contains("no_such_directive") && said.contains("stays"), "{said}");
    assert_eq!(requests(&socket)?, each(3), "what was in effect is");

    setup.balancer.write_configuration(&configuration(2, setup.address.port(), &addresses[1..]))?;
    assert!(control(&socket, "reload", &[])?.0);
    assert_eq!(requests(&socket)?, each(3)[1..], "the peer that stays keeps its counts");
    assert_eq!(get(setup.address, "/")?.text(), "app2");
    let (succeeded, _, said) = control(&socket, "reload", &["--no-such-option"])?;
    assert!(!succeeded, "{said}");

    setup.balancer.signal(Signal::QUIT)?;
    assert!(setup.balancer.wait()?.success());
    assert!(!socket.exists());
    let (succeeded, _, said) = control(&socket, "peers", &[])?;
    assert!(!succeeded && said.contains("nobody answers at"), "{said}");
    Ok(())
}

/// A balancer that is killed when dropped.
struct Served(std::process::Child);

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_live_control_socket_is_an_error_for_serve_and_a_dead_one_is_replaced() -> Outcome {
    let folder = TempDir::new()?;
    let at = |name: &str| folder.path().join(name);
    let write = |name: &str| -> anyhow::Result<SocketAddr> {
        let port = free_port()?;
        let pid = at("nginx.pid");
        let text = format!(
            "pid {};\ndaemon off;\nevents {{}}\nhttp {{ access_log off; server {{ listen 127.0.0.1:{port}; return 200 {name}; }} }}\n",
            pid.display()
        );
        std::fs::write(at(name), text)?;
        Ok(([127, 0, 0, 1], port).into())
    };
    let start = |mut command: std::process::Command, conf: &str| -> anyhow::Result<Served> {
        command.args(["-p"]).arg(folder.path()).args(["-e", "error.log", "-c", conf]);
        Ok(Served(command.stderr(std::process::Stdio::null()).spawn()?))
    };
    let serve = || {
        let mut command = binary().command();
        command.arg("serve");
        command
    };
    let answers = |address: SocketAddr, name: &str| {
        wait_until("it answers", || get(address, "/").is_ok_and(|answer| answer.text() == name))
    };
    let (one, two) = (write("one")?, write("two")?);
    let mut first = start(serve(), "one")?;
    answers(one, "one")?;
    let mut second = serve();
    second.arg("-p").arg(folder.path()).args(["-e", "error.log", "-c", "two"]);
    let refused = second.output()?;
    let said = String::from_utf8(refused.stderr)?;
    assert!(!refused.status.success() && said.contains(&format!("(pid {})", first.0.id())), "{said}");
    assert!(said.contains("hint: ") && said.contains("--control"), "{said}");

    // Where nginx would start, so does what is called as it.
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_evenkeel"), at("nginx"))?;
    let as_nginx = start(std::process::Command::new(at("nginx")), "two")?;
    answers(two, "two")?;
    drop(as_nginx);
    assert!(control(&at("nginx.control"), "peers", &[])?.0, "the first still has its socket");

    first.0.kill()?;
    first.0.wait()?;
    assert!(at("nginx.control").exists());
    let _third = start(serve(), "one")?;
    wait_until("the next is reached by it", || {
        control(&at("nginx.control"), "ps", &[])
            .is_ok_and(|(_, list, _)| list.contains(&format!("listens on {one}")))
    })?;
    let _fourth = {
        let mut command = serve();
        command.arg("--control").arg(at("other"));
        start(command, "two")?
    };
    wait_until("another has a socket of its own", || {
        control(&at("other"), "peers", &[]).is_ok_and(|(ok, ..)| ok)
    })?;
    Ok(())
}

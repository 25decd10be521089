//! Names that are followed: a real balancer, a scripted DNS server, peers on addresses of one port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use keel_testkit::{
    Binary, NameAnswer, NameServer, Peer, PeerBehaviour, Project, Running, free_port, get, wait_until,
};

type Outcome = anyhow::Result<()>;

/// Addresses of their own for each test, so that tests can run at one time.
#[derive(Clone, Copy)]
struct Net(u8);

impl Net {
    fn ip(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 77, self.0, host)
    }

    fn peer(self, host: u8, port: u16) -> anyhow::Result<Peer> {
        let address = SocketAddr::from((self.ip(host), port));
        Ok(Peer::at(address, &format!("app{host}"), PeerBehaviour::Answer)?)
    }

    /// One whose connections end with it: none outlives a request.
    fn closing_peer(self, host: u8, port: u16) -> anyhow::Result<Peer> {
        let address = SocketAddr::from((self.ip(host), port));
        Ok(Peer::at(address, &format!("app{host}"), PeerBehaviour::AnswerAndClose)?)
    }
}

struct Setup {
    balancer: Running,
    address: SocketAddr,
    dns: NameServer,
    net: Net,
    port: u16,
}

impl Setup {
    /// Failures count for an hour: nothing here waits for them to be forgotten.
    fn new(net: Net, first: NameAnswer) -> anyhow::Result<Self> {
        let dns = NameServer::start()?;
        dns.say("app.test", first);
        let (listen, port) = (free_port()?, free_port()?);
        let configuration = format!(
            "events {{}}\n\
             http {{ access_log off;\n\
                 resolver {} valid=1s ipv6=off;\n\
                 upstream app {{ zone app 64k; server app.test:{port} resolve fail_timeout=1h; }}\n\
                 server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass http://app; }} }}\n\
             }}\n",
            dns.address()
        );
        let balancer = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).serve(&configuration)?;
        Ok(Self { balancer, address: ([127, 0, 0, 1], listen).into(), dns, net, port })
    }

    fn say(&self, hosts: &[u8]) {
        self.dns.say("app.test", self.addresses(hosts));
    }

    fn addresses(&self, hosts: &[u8]) -> NameAnswer {
        addresses(self.net, hosts)
    }

    /// Who answered six requests, each name once.
    fn who(&self) -> anyhow::Result<Vec<String>> {
        let mut names: Vec<String> =
            (0..6).map(|_| Ok(get(self.address, "/")?.text())).collect::<anyhow::Result<_>>()?;
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn wait_for(&self, expect: &[&str]) -> Outcome {
        wait_until(&format!("{expect:?} answer"), || self.who().is_ok_and(|names| names == expect))
    }

    /// Waits until the server has been asked twice more, so that what it says now has been heard.
    fn wait_for_questions(&self) -> Outcome {
        let before = self.dns.questions();
        wait_until("the name server is asked", || self.dns.questions() >= before + 2)
    }
}

fn addresses(net: Net, hosts: &[u8]) -> NameAnswer {
    NameAnswer::Addresses(hosts.iter().map(|host| net.ip(*host)).collect(), 600)
}

#[test]
fn a_name_that_a_variable_holds_is_followed() -> Outcome {
    let net = Net(30);
    let dns = NameServer::start()?;
    let (listen, port) = (free_port()?, free_port()?);
    dns.say("app.test", addresses(net, &[1]));
    let configuration = format!(
        "events {{}}\n\
         http {{ access_log off;\n\
             server {{ listen 127.0.0.1:{listen};\n\
                 location / {{ resolver {} valid=1s ipv6=off; set $app app.test; proxy_pass http://$app:{port}; }} }}\n\
         }}\n",
        dns.address()
    );
    let _first = net.peer(1, port)?;
    let balancer = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).serve(&configuration)?;
    let setup = Setup { balancer, address: ([127, 0, 0, 1], listen).into(), dns, net, port };
    setup.wait_for(&["app1"])?;
    let _second = net.peer(2, port)?;
    setup.say(&[2]);
    setup.wait_for(&["app2"])?;
    Ok(())
}

#[test]
fn a_name_that_only_a_request_shows_is_resolved_and_known_for_its_time() -> Outcome {
    let net = Net(31);
    let dns = NameServer::start()?;
    let (listen, port) = (free_port()?, free_port()?);
    let configuration = format!(
        "events {{}}\n\
         http {{ access_log off;\n\
             server {{ listen 127.0.0.1:{listen};\n\
                 location / {{ resolver {dns} ipv6=off; proxy_pass http://$arg_name:{port}; }}\n\
                 location /soon/ {{ resolver {dns} ipv6=off valid=1s; proxy_pass http://$arg_name:{port}; }}\n\
                 location /short/ {{ resolver {dns} ipv6=off; resolver_timeout 200ms; proxy_pass http://$arg_name; }}\n\
                 location /none/ {{ proxy_pass http://$arg_name; }}\n\
                 location /raw/ {{ proxy_pass $arg_name; }} }}\n\
         }}\n",
        dns = dns.address()
    );
    let (_one, _two) = (net.peer(1, port)?, net.peer(2, port)?);
    let balancer = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).serve(&configuration)?;
    let ask = |path: &str| get(([127, 0, 0, 1], listen), path);

    // Both addresses take their turns, from one question, in whatever case the name is.
    dns.say("app.test", addresses(net, &[1, 2]));
    let mut answers = [ask("/?name=app.test")?.text(), ask("/?name=APP.Test.")?.text()];
    answers.sort();
    assert_eq!((answers, dns.questions()), (["app1".to_owned(), "app2".to_owned()], 1));

    // Failures aren't remembered.
    dns.say("late.test", NameAnswer::Failure);
    assert_eq!(ask("/?name=late.test")?.status, 502);
    dns.say("late.test", addresses(net, &[2]));
    assert_eq!(ask("/?name=late.test")?.text(), "app2");
    assert_eq!(ask("/?name=nobody.test")?.status, 502);

    // Another resolver knows nothing of what this one has found, and forgets in its own time.
    assert_eq!(ask("/soon/?name=late.test")?.text(), "app2");
    dns.say("late.test", addresses(net, &[1]));
    wait_until("the new address is found", || {
        ask("/soon/?name=late.test").is_ok_and(|response| response.text() == "app1")
    })?;
    assert_eq!(ask("/?name=late.test")?.text(), "app2");

    dns.say("silent.test", NameAnswer::Silence);
    assert_eq!(ask("/short/?name=silent.test")?.status, 502);
    assert_eq!(ask("/none/?name=app.test")?.status, 502);
    assert_eq!(ask("/raw/?name=app.test")?.status, 500);
    for text in [
        "late.test could not be resolved (2: Server failure)",
        "nobody.test could not be resolved (3: Host not found)",
        "silent.test could not be resolved (110: Operation timed out)",
        "no resolver defined to resolve app.test",
        "invalid URL prefix in \"app.test\"",
    ] {
        wait_until(text, || balancer.error_log().contains(text))?;
    }
    Ok(())
}

#[test]
fn peers_follow_the_records_and_an_address_joins_when_it_listens() -> Outcome {
    let net = Net(1);
    let setup = Setup::new(net, addresses(net, &[1]))?;
    // Nobody listens yet: an empty group, not a failure to start.
    assert_eq!(get(setup.address, "/")?.status, 502);
    let _one = net.peer(1, setup.port)?;
    setup.wait_for(&["app1"])?;
    let failed = || setup.balancer.error_log().matches("failed").count();
    let failed_before = failed();
    let _two = net.peer(2, setup.port)?;
    setup.say(&[2, 1, 3]);
    setup.wait_for(&["app1", "app2"])?;
    // The third has an address and doesn't listen: nobody is sent there.
    for _ in 0..20 {
        assert_eq!(get(setup.address, "/")?.status, 200);
    }
    assert_eq!(failed(), failed_before, "{}", setup.balancer.error_log());
    let _three = net.peer(3, setup.port)?;
    setup.wait_for(&["app1", "app2", "app3"])?;
    setup.say(&[3]);
    setup.wait_for(&["app3"])
}

#[test]
fn shares_are_exact_over_what_a_name_stands_for() -> Outcome {
    let net = Net(2);
    let setup = Setup::new(net, addresses(net, &[1, 2, 3]))?;
    let _peers = [net.peer(1, setup.port)?, net.peer(2, setup.port)?, net.peer(3, setup.port)?];
    setup.wait_for(&["app1", "app2", "app3"])?;
    let mut names: Vec<String> =
        (0..12).map(|_| Ok(get(setup.address, "/")?.text())).collect::<anyhow::Result<_>>()?;
    names.sort();
    let each = |name: &str| vec![name.to_owned(); 4];
    assert_eq!(names, [each("app1"), each("app2"), each("app3")].concat());
    Ok(())
}

#[test]
fn the_last_known_addresses_stay_while_dns_fails() -> Outcome {
    let net = Net(3);
    let setup = Setup::new(net, addresses(net, &[1, 2]))?;
    let _peers = [net.peer(1, setup.port)?, net.peer(2, setup.port)?];
    setup.wait_for(&["app1", "app2"])?;
    for failure in [NameAnswer::Failure, NameAnswer::Silence] {
        setup.dns.say("app.test", failure.clone());
        wait_until("the log says so", || setup.balancer.error_log().contains("known addresses stay"))?;
        setup.wait_for_questions()?;
        assert_eq!(setup.who()?, ["app1", "app2"], "{failure:?}");
    }
    let log = setup.balancer.error_log();
    assert_eq!(log.matches("known addresses stay").count(), 1, "once, not every second: {log}");
    setup.say(&[2]);
    setup.wait_for(&["app2"])
}

/// As where a container is replaced within a second: DNS says the same before and after.
#[test]
fn an_address_that_was_gone_takes_part_again_when_it_listens() -> Outcome {
    let net = Net(7);
    let setup = Setup::new(net, addresses(net, &[1, 2]))?;
    let (one, _two) = (net.closing_peer(1, setup.port)?, net.peer(2, setup.port)?);
    setup.wait_for(&["app1", "app2"])?;
    drop(one);
    setup.wait_for(&["app2"])?;
    let _another = net.peer(1, setup.port)?;
    setup.wait_for(&["app1", "app2"])
}

/// It is there, so what `max_fails` and `fail_timeout` say of it holds.
#[test]
fn an_address_that_accepts_and_fails_stays_excluded() -> Outcome {
    let net = Net(8);
    let setup = Setup::new(net, addresses(net, &[2]))?;
    let failing = Peer::at((net.ip(1), setup.port).into(), "app1", PeerBehaviour::Close)?;
    let _two = net.peer(2, setup.port)?;
    // Joining first, the failing one would be the last of its group, which is never excluded.
    setup.wait_for(&["app2"])?;
    setup.say(&[1, 2]);
    wait_until("it has failed", || setup.who().is_ok() && failing.requests() == 1)?;
    // One connection before it joined, one that failed, one to look whether it is there.
    wait_until("it has been looked at", || failing.connections() == 3)?;
    setup.wait_for_questions()?;
    assert_eq!(setup.who()?, ["app2"]);
    assert_eq!(failing.requests(), 1);
    Ok(())
}

#[test]
fn a_name_that_is_gone_is_an_empty_group() -> Outcome {
    let net = Net(4);
    let setup = Setup::new(net, addresses(net, &[1]))?;
    let _peer = net.peer(1, setup.port)?;
    setup.wait_for(&["app1"])?;
    setup.dns.say("app.test", NameAnswer::NoSuchName);
    wait_until("nobody is left", || get(setup.address, "/").is_ok_and(|response| response.status == 502))?;
    setup.say(&[1]);
    setup.wait_for(&["app1"])
}

#[test]
fn a_resolver_beside_the_file_follows_names_without_resolve() -> Outcome {
    let net = Net(5);
    let dns = NameServer::start()?;
    let (listen, port) = (free_port()?, free_port()?);
    let _peers = [net.peer(1, port)?, net.peer(2, port)?];
    dns.say("app", addresses(net, &[1]));
    let configuration = format!(
        "events {{}}\n\
         http {{ access_log off; server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass http://app:{port}; }} }} }}\n"
    );
    let resolver = format!("{} valid=1s", dns.address());
    let binary = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).with("EVENKEEL_RESOLVER", &resolver);
    let balancer = binary.serve(&configuration)?;
    let setup = Setup { balancer, address: ([127, 0, 0, 1], listen).into(), dns, net, port };
    setup.wait_for(&["app1"])?;
    setup.dns.say("app", addresses(net, &[1, 2]));
    setup.wait_for(&["app1", "app2"])
}

/// As in a swarm, with the image's resolver: an explicit `resolve` means that one, too.
#[test]
fn tasks_of_a_swarm_are_followed_and_shares_stay_exact() -> Outcome {
    let net = Net(9);
    let dns = NameServer::start()?;
    let (listen, port) = (free_port()?, free_port()?);
    let _peers = (1..=4).map(|host| net.peer(host, port)).collect::<anyhow::Result<Vec<_>>>()?;
    dns.say("tasks.app", addresses(net, &[1, 2, 3]));
    let configuration = format!(
        "events {{}}\n\
         http {{ access_log off;\n\
             upstream app {{ zone app 64k; server tasks.app:{port} resolve; }}\n\
             server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass http://app; }} }}\n\
         }}\n"
    );
    let resolver = format!("{} valid=1s", dns.address());
    let binary = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).with("EVENKEEL_RESOLVER", &resolver);
    let balancer = binary.serve(&configuration)?;
    let setup = Setup { balancer, address: ([127, 0, 0, 1], listen).into(), dns, net, port };
    let shares = |each: usize, names: &[&str]| -> Outcome {
        let mut answers: Vec<String> =
            (0..12).map(|_| Ok(get(setup.address, "/")?.text())).collect::<anyhow::Result<_>>()?;
        answers.sort();
        let expect: Vec<String> = names.iter().flat_map(|name| vec![(*name).to_owned(); each]).collect();
        assert_eq!(answers, expect);
        Ok(())
    };
    setup.wait_for(&["app1", "app2", "app3"])?;
    shares(4, &["app1", "app2", "app3"])?;
    setup.dns.say("tasks.app", addresses(net, &[1, 2, 3, 4]));
    setup.wait_for(&["app1", "app2", "app3", "app4"])?;
    shares(3, &["app1", "app2", "app3", "app4"])
}

#[test]
fn a_reload_follows_other_names() -> Outcome {
    let net = Net(6);
    let setup = Setup::new(net, addresses(net, &[1]))?;
    let _peers = [net.peer(1, setup.port)?, net.peer(2, setup.port)?];
    setup.wait_for(&["app1"])?;
    setup.dns.say("other.test", addresses(net, &[2]));
    let file = std::fs::read_to_string(setup.balancer.folder().join("nginx.conf"))?;
    std::fs::write(setup.balancer.folder().join("nginx.conf"), file.replace("app.test", "other.test"))?;
    setup.balancer.signal(rustix::process::Signal::HUP)?;
    setup.wait_for(&["app2"])
}

#[test]
fn a_project_s_reload_waits_until_new_names_have_addresses() -> Outcome {
    let net = Net(9);
    let (dns, listen, port) = (NameServer::start()?, free_port()?, free_port()?);
    let _peers = [net.peer(1, port)?, net.peer(2, port)?];
    let configuration = |name: &str| {
        format!(
            "events {{}} http {{ access_log off; resolver {} valid=600s ipv6=off;\n\
             upstream app {{ zone app 64k; server {name}:{port} resolve; }}\n\
             server {{ listen 80; location / {{ proxy_pass http://app; }} }} }}\n",
            dns.address()
        )
    };
    let compose = format!(
        "services:\n  other: {{image: none, x-process: {{command: sleep 600}}}}\n  nginx:\n    image: nginx\n    ports: [\"127.0.0.1:{listen}:80\"]\n    \
         volumes: [\"./nginx.conf:/etc/nginx/nginx.conf:ro\"]\n"
    );
    let name = |at: usize| format!("app{at}.test");
    (0..8).for_each(|at| dns.say(&name(at), addresses(net, &[if at % 2 == 0 { 1 } else { 2 }])));
    let files = [("docker-compose.yml", compose.as_str()), ("nginx.conf", &configuration(&name(0)))];
    let project = Project::new(Binary::new(env!("CARGO_BIN_EXE_evenkeel")), &files)?;
    project.run(&["up", "-d"])?;
    let address = SocketAddr::from(([127, 0, 0, 1], listen));
    let (over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = std::thread::scope(|scope| -> anyhow::Result<_> {
        let load = scope.spawn(|| {
            let mut failed = Vec::new();
            while !over.load(SeqCst) {
                sent.fetch_add(1, SeqCst);
                match get(address, "/") {
                    Ok(response) if response.status == 200 => {}
                    other => failed.push(format!("{other:?}")),
                }
            }
            failed
        });
        let reloads = (1..8).try_for_each(|at| {
            project.write("nginx.conf", &configuration(&name(at)))?;
            project.run(&["reload"])?;
            let before = sent.load(SeqCst);
            wait_until("requests follow the reload", || sent.load(SeqCst) > before + 20)
        });
        over.store(true, SeqCst);
        reloads?;
        load.join().map_err(|_| anyhow::anyhow!("the load broke off"))
    })?;
    anyhow::ensure!(
        failed.is_empty(),
        "{} of {} failed: {:?}",
        failed.len(),
        sent.load(SeqCst),
        failed.first()
    );
    Ok(())
}

//! Limits and passwords, with several workers and over reloads.

use std::net::SocketAddr;

use keel_testkit::{Binary, Client, free_port, get, wait_until};
use rustix::process::Signal;

type Outcome = anyhow::Result<()>;

fn binary() -> Binary {
    Binary::new(env!("CARGO_BIN_EXE_evenkeel"))
}

/// Four workers; what may pass finds no file.
fn configuration(port: u16, inside: &str) -> String {
    format!(
        "worker_processes 4;\n\
         events {{}}\n\
         http {{\n\
             access_log off;\n\
             limit_req_zone $arg_k zone=rate:1m rate=1r/m;\n\
             server {{ listen 127.0.0.1:{port}; root /nonexistent; {inside} }}\n\
         }}\n"
    )
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn workers_share_a_limit_and_a_reload_keeps_it() -> Outcome {
    let port = free_port()?;
    let limit = "location / { limit_req zone=rate burst=19 nodelay; }";
    let mut balancer = binary().serve(&configuration(port, limit))?;
    let ask = |count: usize| -> anyhow::Result<usize> {
        let passed = (0..count).map(|_| Ok(get(address(port), "/?k=1")?.status == 404));
        Ok(passed.collect::<anyhow::Result<Vec<bool>>>()?.into_iter().filter(|passed| *passed).count())
    };
    let passed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| ask(10))).collect();
        threads.into_iter().map(|thread| thread.join().expect("asks")).sum::<anyhow::Result<usize>>()
    })?;
    assert_eq!(passed, 20);
    balancer
        .write_configuration(&configuration(port, &format!("{limit} location /new {{ return 204; }}")))?;
    balancer.signal(Signal::HUP)?;
    wait_until("the reload", || get(address(port), "/new").is_ok_and(|response| response.status == 204))?;
    assert_eq!(ask(4)?, 0);
    assert_eq!(get(address(port), "/?k=2")?.status, 404);
    balancer.signal(Signal::TERM)?;
    balancer.wait()?;
    Ok(())
}

#[test]
fn passwords_are_verified_for_all_workers_and_changes_count() -> Outcome {
    let port = free_port()?;
    let basic = "location / { auth_basic here; auth_basic_user_file users; }";
    let balancer = binary().serve(&configuration(port, basic))?;
    let users = balancer.folder().join("users");
    let ask = |credentials: &str| -> anyhow::Result<u16> {
        let field = format!("Authorization: Basic {credentials}\r\n");
        let mut client = Client::connect(address(port))?;
        Ok(client.request(format!("GET / HTTP/1.1\r\nHost: test\r\n{field}\r\n"))?.status)
    };
    // Of user a: `password` and `other`.
    let (right, wrong) = ("YTpwYXNzd29yZA==", "YTpvdGhlcg==");
    assert_eq!(ask(right)?, 403, "there is no file");
    std::fs::write(&users, "a:$1$salt$qJH7.N4xYta3aEG/dfqo/0\n")?;
    for _ in 0..8 {
        assert_eq!((ask(right)?, ask(wrong)?), (404, 401));
    }
    std::fs::write(&users, "a:{PLAIN}other\n")?;
    assert_eq!((ask(right)?, ask(wrong)?), (401, 404));
    Ok(())
}

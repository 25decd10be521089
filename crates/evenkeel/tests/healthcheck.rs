//! `evenkeel healthcheck` tells whether a balancer serves, without sending it a request.

use keel_testkit::{Binary, Peer, PeerBehaviour, free_port, wait_until};
use rustix::process::{Pid, Signal, kill_process};

type Outcome = anyhow::Result<()>;

fn binary() -> Binary {
    Binary::new(env!("CARGO_BIN_EXE_evenkeel"))
}

fn is_well(pid: u32) -> anyhow::Result<bool> {
    Ok(binary().command().args(["healthcheck", &pid.to_string()]).output()?.status.success())
}

#[test]
fn well_while_the_data_plane_answers() -> Outcome {
    let peer = Peer::start("app", PeerBehaviour::Answer)?;
    let configuration = format!(
        "events {{}}\n\
         http {{ access_log off; server {{ listen 127.0.0.1:{}; location / {{ proxy_pass http://{}; }} }} }}\n",
        free_port()?,
        peer.address()
    );
    let mut balancer = binary().serve(&configuration)?;
    let pid = balancer.pid()?;
    wait_until("it is well", || is_well(pid).is_ok_and(|well| well))?;
    assert_eq!(peer.requests(), 0);
    // A data plane that hangs is there and doesn't serve.
    let data_plane = i32::try_from(balancer.children()?[0])?;
    let data_plane = Pid::from_raw(data_plane).expect("a process id");
    kill_process(data_plane, Signal::STOP)?;
    let output = binary().command().args(["healthcheck", &pid.to_string()]).output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no data plane answers"), "{output:?}");
    kill_process(data_plane, Signal::CONT)?;
    wait_until("it is well again", || is_well(pid).is_ok_and(|well| well))?;
    balancer.signal(Signal::QUIT)?;
    balancer.wait()?;
    let output = binary().command().args(["healthcheck", &pid.to_string()]).output()?;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "evenkeel: no balancer runs here\n");
    Ok(())
}

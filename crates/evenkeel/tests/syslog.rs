//! Logs that go to syslog: real sockets, and what a server of syslog receives.

use std::{
    fs::Permissions,
    io,
    net::{SocketAddr, UdpSocket},
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    time::Duration,
};

use keel_testkit::{Binary, free_port, get, wait_until};

type Outcome = anyhow::Result<()>;

/// How long a message may be under way.
const PATIENCE: Duration = Duration::from_secs(20);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Splits a message into its priority, its time, and what follows.
fn parts(message: &str) -> anyhow::Result<(&str, &str, &str)> {
    let (priority, rest) = message
        .strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
        .ok_or_else(|| anyhow::anyhow!("{message}"))?;
    // `Sep 28 12:00:00 `
    anyhow::ensure!(rest.len() > 16, "{message}");
    let (time, rest) = rest.split_at(16);
    Ok((priority, time, rest))
}

/// The data plane may be another user.
fn open_to_all(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

fn listen(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::bind(path)?;
    open_to_all(path, 0o666)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

#[test]
fn lines_go_to_udp_and_to_unix_sockets() -> Outcome {
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    udp.set_read_timeout(Some(PATIENCE))?;
    let folder = tempfile::tempdir()?;
    open_to_all(folder.path(), 0o755)?;
    let path = folder.path().join("log");
    let unix = listen(&path)?;
    let port = free_port()?;
    let configuration = format!(
        "events {{}}\n\
         http {{\n\
             log_format short escape=none '$request_uri $status';\n\
             error_log syslog:server={},facility=user,tag=edge,nohostname error;\n\
             access_log syslog:server=unix:{},severity=notice short;\n\
             server {{ listen 127.0.0.1:{port};\n\
                 location / {{ return 204; }}\n\
                 location /files/ {{ root {}; }}\n\
             }}\n\
         }}\n",
        udp.local_addr()?,
        path.display(),
        folder.path().display(),
    );
    let balancer = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).serve(&configuration)?;
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    assert_eq!(get(address, "/one")?.status, 204);
    let mut bytes = [0; 4096];
    let length = unix.recv(&mut bytes)?;
    let message = text(bytes.get(..length).unwrap_or_default());
    let (priority, time, rest) = parts(&message)?;
    assert_eq!((priority, time.ends_with(' ')), ("189", true), "local7, notice: {message}");
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    assert_eq!(rest, format!("{host} nginx: /one 204"));

    assert_eq!(get(address, "/files/none")?.status, 404);
    let length = udp.recv(&mut bytes)?;
    let message = text(bytes.get(..length).unwrap_or_default());
    let (priority, _, rest) = parts(&message)?;
    assert_eq!(priority, "11", "user, error: {message}");
    assert!(
        rest.starts_with("edge: ") && rest.contains("[error]") && rest.contains("files/none"),
        "{message}"
    );
    assert!(!rest.ends_with('\n'));

    // The server goes and comes back: requests are served meanwhile, and the log goes on.
    drop(unix);
    std::fs::remove_file(&path)?;
    for _ in 0..3 {
        assert_eq!(get(address, "/lost")?.status, 204);
    }
    let said = balancer.folder().join("said");
    wait_until("it is said", || {
        std::fs::read_to_string(&said).is_ok_and(|said| said.contains("the syslog server unix:"))
    })?;
    let unix = listen(&path)?;
    assert_eq!(get(address, "/again")?.status, 204);
    let length = unix.recv(&mut bytes)?;
    assert!(text(bytes.get(..length).unwrap_or_default()).ends_with(" /again 204"));
    Ok(())
}

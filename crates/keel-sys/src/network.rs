//! Network namespaces: network_namespaces(7).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::{
    net::{AddressFamily, SocketType},
    thread::UnshareFlags,
};

/// Gives the calling thread, and what it starts from now on, a network of its own: nothing but a loopback device that is
/// down, without the machine's packet filters. The thread can't return.
///
/// # Errors
/// What unshare(2) says: `EPERM` without root.
pub fn enter_own_network() -> io::Result<()> {
    // SAFETY: the flag doesn't touch the descriptor table.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?)
}

/// Brings the loopback device of the thread's network up: netdevice(7).
///
/// # Errors
/// What ioctl(2) says: `EPERM` without CAP_NET_ADMIN in that network.
pub fn bring_loopback_up() -> io::Result<()> {
    let socket: OwnedFd = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all zeroes are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
    // SAFETY: the request outlives the call, which reads a name and flags from it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn has_a_loopback_device_and_nothing_of_the_machine_s() {
        let outside = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let outside = outside.local_addr().unwrap();
        // A thread of its own: entering can't be undone.
        let inside = std::thread::spawn(move || {
            if let Err(error) = enter_own_network() {
                return eprintln!("skipped has_a_loopback_device_and_nothing_of_the_machine_s: {error}");
            }
            bring_loopback_up().unwrap();
            assert!(TcpStream::connect(outside).is_err(), "the machine's listener is reached");
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(b"x").unwrap();
            drop(client);
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            assert_eq!(received, b"x");
        });
        inside.join().unwrap();
    }
}

//! What `socket2` lacks of TCP: tcp(7).

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

/// The kernel's account of a connection (TCP_INFO), or of a listening socket where said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// The state, by the kernel's number: 1 established, 7 closed, 8 close-wait, 10 listening.
    pub state: u8,
    /// Bytes of ours that the other side has acknowledged since the connection was made (`tcpi_bytes_acked`; the
    /// kernel counts the SYN as one).
    pub bytes_acked: u64,
    /// Bytes taken from the other side.
    pub bytes_received: u64,
    /// Segments sent and not acknowledged; of a listening socket, connections that wait to be accepted.
    pub unacked: u32,
    /// Of a listening socket, how many connections may wait.
    pub backlog: u32,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Its mean deviation.
    pub rttvar: Duration,
    /// The congestion window, in segments.
    pub snd_cwnd: u32,
    /// The receive window that the kernel aims at, in bytes.
    pub rcv_space: u32,
    /// Segments sent again since the connection was made.
    pub total_retrans: u32,
    /// Bytes that wait to be sent.
    pub notsent_bytes: u32,
}

/// The head of `struct tcp_info` of <linux/tcp.h>; later kernels only append.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawTcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    scales: u8,
    delivery_rate_flags: u8,
    /// rto, ato, snd_mss, rcv_mss
    sizes: [u32; 4],
    unacked: u32,
    sacked: u32,
    /// lost, retrans, fackets
    losses: [u32; 3],
    /// last_data_sent, last_ack_sent, last_data_recv, last_ack_recv
    last: [u32; 4],
    /// pmtu, rcv_ssthresh
    path: [u32; 2],
    rtt_us: u32,
    rttvar_us: u32,
    snd_ssthresh: u32,
    snd_cwnd: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt_us: u32,
    rcv_space: u32,
    total_retrans: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt_us: u32,
}

/// Asks the kernel about a TCP socket.
///
/// # Errors
/// What getsockopt(2) says; `EOPNOTSUPP` or `ENOPROTOOPT` for a socket that isn't TCP.
pub fn tcp_info(socket: impl AsFd) -> io::Result<TcpInfo> {
    let mut raw = RawTcpInfo::default();
    let mut length = socklen::<RawTcpInfo>();
    // SAFETY: the pointer and the length describe `raw`, which outlives the call; every bit pattern is valid for it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut raw).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(TcpInfo {
        state: raw.state,
        bytes_acked: raw.bytes_acked,
        bytes_received: raw.bytes_received,
        unacked: raw.unacked,
        backlog: raw.sacked,
        rtt: Duration::from_micros(raw.rtt_us.into()),
        rttvar: Duration::from_micros(raw.rttvar_us.into()),
        snd_cwnd: raw.snd_cwnd,
        rcv_space: raw.rcv_space,
        total_retrans: raw.total_retrans,
        notsent_bytes: raw.notsent_bytes,
    })
}

/// Wakes an accepting process only once data came (TCP_DEFER_ACCEPT), or after about this long.
///
/// # Errors
/// What setsockopt(2) says.
pub fn set_defer_accept(socket: impl AsFd, time: Duration) -> io::Result<()> {
    let seconds = i32::try_from(time.as_secs().max(1)).unwrap_or(i32::MAX);
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// Lets this many connections that sent data with their SYN wait (TCP_FASTOPEN).
///
/// # Errors
/// What setsockopt(2) says.
pub fn set_fastopen(socket: impl AsFd, queue_length: u32) -> io::Result<()> {
    let length = i32::try_from(queue_length).unwrap_or(i32::MAX);
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, length)
}

/// Lets the port of a bound socket be chosen when it connects (IP_BIND_ADDRESS_NO_PORT).
///
/// # Errors
/// What setsockopt(2) says.
pub fn set_bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

fn set_int(socket: impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            socklen::<i32>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(clippy::cast_possible_truncation, reason = "sizes of the few types above, far below 4 GiB")]
const fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn counts_acknowledged_bytes_and_waiting_connections() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(tcp_info(&listener).unwrap().unacked, 1);
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(tcp_info(&listener).unwrap().unacked, 0);

        let before = tcp_info(&client).unwrap();
        assert_eq!(before.state, 1);
        client.write_all(b"hello").unwrap();
        let mut received = [0; 5];
        server.read_exact(&mut received).unwrap();
        server.write_all(b"x").unwrap();
        client.read_exact(&mut received[..1]).unwrap();
        let after = tcp_info(&client).unwrap();
        assert_eq!(after.bytes_acked - before.bytes_acked, 5);
        assert_eq!(after.bytes_received - before.bytes_received, 1);
        assert!(after.rtt > Duration::ZERO && after.snd_cwnd > 0);
    }

    #[test]
    fn refuses_what_is_not_tcp() {
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(tcp_info(&unix).is_err());
    }

    #[test]
    fn sets_options_of_a_listener() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        set_defer_accept(&listener, Duration::from_secs(1)).unwrap();
        set_fastopen(&listener, 16).unwrap();
    }
}

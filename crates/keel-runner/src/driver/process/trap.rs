//! Answers the trapped `bind` and `connect` calls of all instances, on a thread of its own.
//!
//! The thread acts on a duplicate of the caller's socket, so nothing it decides can be undone by a change of the
//! caller's memory. It never waits: a `connect` that may block goes to a thread that lives as long as that call.
//!
//! A signal that comes before this thread has seen the call interrupts it; the kernel then makes the call again, unless
//! the handler was installed without SA_RESTART: such a program sees EINTR from a `bind`, which it would not otherwise.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use keel_sys::{
    proc,
    process::{pidfd_getfd, pidfd_open},
    seccomp::{Answer, Call, Notification, Trap, read_memory},
};
use rustix::{
    event::epoll,
    fs::OFlags,
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketType, sockopt},
};

use super::{
    homes::{Hold, Home, Homes, Ports, Role, Tenant, taker_of},
    rules::{self, Bind, Connect, Instance, Kind, Request},
};
use crate::supervisor::Incarnation;

/// Connects that may block at one time; beyond, the caller is told to try again.
const BLOCKING_CONNECTS_MAX: usize = 64;
/// The longest address that is looked at: `struct sockaddr_storage`.
const SOCKADDR_BYTES_MAX: usize = 128;

/// The answer to a bind of a socket that is bound as it asks: before Linux 5.19 a signal interrupts a call that was done
/// already, and the kernel makes it again.
const ALREADY_BOUND: Answer = Answer::Done;

/// What a trapped bind brings to light.
#[derive(Debug)]
pub(super) enum Found {
    /// A stream port was bound.
    Bound(Ports),
    /// Something that its user should know.
    Remark(String),
    /// Something that may keep it from starting.
    Obstacle(String),
}

/// Takes what was found.
pub(super) type OnFound = Box<dyn Fn(Incarnation, Found) + Send + Sync>;

/// The handle to the thread.
#[derive(Debug)]
pub(super) struct Traps {
    shared: Arc<Shared>,
}

struct Shared {
    epoll: OwnedFd,
    traps: Mutex<HashMap<u64, (Arc<Trap>, Whose)>>,
    last_key: AtomicU64,
    homes: Arc<Homes>,
    on_found: OnFound,
    blocking: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The key of the event that ends the thread.
const END: u64 = 0;

impl Traps {
    /// Starts the thread.
    pub(super) fn start(homes: Arc<Homes>, on_found: OnFound) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            traps: Mutex::default(),
            last_key: AtomicU64::new(END),
            homes,
            on_found,
            blocking: Arc::default(),
        });
        let thread = Arc::clone(&shared);
        std::thread::Builder::new().name("keel-traps".into()).spawn(move || thread.run())?;
        Ok(Self { shared })
    }

    /// Has it answer the calls of one more process tree.
    pub(super) fn add(&self, trap: OwnedFd, whose: Whose) -> io::Result<()> {
        let key = self.shared.last_key.fetch_add(1, Ordering::Relaxed) + 1;
        let trap = Arc::new(Trap::from(trap));
        self.shared.lock().insert(key, (Arc::clone(&trap), whose));
        epoll::add(&self.shared.epoll, &*trap, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?;
        Ok(())
    }
}

impl Drop for Traps {
    fn drop(&mut self) {
        if let Ok(event) = rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC) {
            let data = epoll::EventData::new_u64(END);
            let _ = epoll::add(&self.shared.epoll, &event, data, epoll::EventFlags::IN);
            // Stays readable for as long as the thread needs to see it.
            let whose = Whose { incarnation: 0, role: Role::Instance };
            self.shared.lock().insert(END, (Arc::new(Trap::from(event)), whose));
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (Arc<Trap>, Whose)>> {
        self.traps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!("trapped calls can't be answered any more: {error}");
                    return;
                }
            }
            for event in &events {
                let (key, flags) = (event.data.u64(), event.flags);
                if key == END {
                    return;
                }
                let Some((trap, whose)) = self.lock().get(&key).cloned() else { continue };
                if flags.contains(epoll::EventFlags::IN) {
                    self.answer_one(&trap, whose);
                } else if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                    let _ = epoll::delete(&self.epoll, &*trap);
                    self.lock().remove(&key);
                }
            }
        }
    }

    fn answer_one(&self, trap: &Arc<Trap>, whose: Whose) {
        // The caller may be gone by now.
        let Ok(notification) = trap.receive() else { return };
        match self.decide(trap, whose, &notification) {
            Ok(Decision::Answer(answer)) => drop(trap.answer(notification.id, answer)),
            Ok(Decision::Aside(call)) => self.answer_aside(trap, notification.id, *call),
            // The kernel does a call that can't be examined as it was made.
            Err(error) => {
                tracing::debug!("a trapped call of {} passes: {error}", whose.incarnation);
                drop(trap.answer(notification.id, Answer::Continue));
            }
        }
    }

    fn decide(&self, trap: &Trap, whose: Whose, call: &Notification) -> io::Result<Decision> {
        let pass = Ok(Decision::Answer(Answer::Continue));
        let length = usize::try_from(call.address_bytes).unwrap_or(usize::MAX).min(SOCKADDR_BYTES_MAX);
        let mut bytes = [0; SOCKADDR_BYTES_MAX];
        let read = read_memory(call.thread, call.address, bytes.get_mut(..length).unwrap_or_default())?;
        let bytes = bytes.get(..read).unwrap_or_default();
        if let (Call::Bind, Some(name)) = (call.call, rules::abstract_name(bytes)) {
            return self.bind_abstract(trap, whose.incarnation, call, name).map(Decision::Answer);
        }
        let Some(address) = rules::parse_sockaddr(bytes) else { return pass };
        let Whose { incarnation, role } = whose;
        let tenant = self.homes.view(incarnation, role).filter(|tenant| tenant.home.own);
        let Some(tenant) = tenant else { return pass };
        let process = thread_group_of(call.thread)?;
        let socket = pidfd_getfd(pidfd_open(process)?, call.descriptor)?;
        // The memory and the descriptor are the call's only if it still waits.
        if !trap.is_valid(call.id) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let kind = match sockopt::socket_type(&socket)? {
            SocketType::STREAM => Kind::Stream,
            SocketType::DGRAM => Kind::Datagram,
            _ => return pass,
        };
        let request = Request { address, kind };
        match call.call {
            Call::Bind => {
                let caller = Caller { incarnation, process, descriptor: call.descriptor };
                self.bind(&socket, &request, &tenant, caller).map(Decision::Answer)
            }
            Call::Connect => match rules::connect(&request, &tenant) {
                Connect::Pass => pass,
                Connect::Refuse => Ok(Decision::refused()),
                Connect::Exact => {
                    let at = SocketAddr::new(address.ip().to_canonical(), address.port());
                    match taker_of(at)? {
                        Some(taker) if taker.address == at => pass,
                        _ => Ok(Decision::refused()),
                    }
                }
                Connect::Instance { address, port } => {
                    let Some(home) = tenant.home_at(address) else { return Ok(Decision::refused()) };
                    connect_to(socket, kind, home, port)
                }
            },
            Call::Other => pass,
        }
    }

    /// Binds a unix socket to an abstract name. A host has one set of these names: a name in use is an obstacle, and one
    /// that another instance can't have then is a remark, unless it holds the process id.
    fn bind_abstract(
        &self,
        trap: &Trap,
        incarnation: Incarnation,
        call: &Notification,
        name: &[u8],
    ) -> io::Result<Answer> {
        let process = thread_group_of(call.thread)?;
        let socket = pidfd_getfd(pidfd_open(process)?, call.descriptor)?;
        if !trap.is_valid(call.id) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let wanted = SocketAddrUnix::new_abstract_name(name)?;
        let is = rustix::net::getsockname(&socket).ok().and_then(|any| SocketAddrUnix::try_from(any).ok());
        if is.is_some_and(|is| is == wanted) {
            return Ok(ALREADY_BOUND);
        }
        let bound = rustix::net::bind(&socket, &wanted);
        let shown = rules::shown_name(name);
        match bound {
            Err(Errno::ADDRINUSE) => {
                let why =
                    format!("another has the abstract socket {shown}, which is one for all of this host");
                (self.on_found)(incarnation, Found::Obstacle(why));
            }
            Ok(()) if !shown.contains(&process.to_string()) => {
                let text = format!("its abstract socket {shown} is one for all of this host");
                (self.on_found)(incarnation, Found::Remark(text));
            }
            Ok(()) | Err(_) => {}
        }
        Ok(answer_of(bound))
    }

    /// Binds a UDP port that the file doesn't list.
    fn bind_shared(
        &self,
        socket: &OwnedFd,
        port: u16,
        request: &Request,
        tenant: &Tenant<'_>,
        caller: Caller,
    ) -> io::Result<Answer> {
        let hold = |socket: &OwnedFd| -> io::Result<()> {
            let inode = rustix::fs::fstat(socket)?.st_ino;
            let hold = Hold { process: caller.process, descriptor: caller.descriptor, inode };
            self.homes.hold_udp(caller.incarnation, port, hold);
            Ok(())
        };
        if !may_bind(caller.process, port) {
            // The kernel says so to the instance itself.
            return Ok(Answer::Continue);
        }
        let own = OwnAddress {
            address: tenant.address(),
            v6: sockopt::socket_domain(socket)? == AddressFamily::INET6,
        };
        if bound_address(socket).is_some_and(|bound| bound == request.address || bound == own.at(port)) {
            return Ok(ALREADY_BOUND);
        }
        match rustix::net::bind(socket, &request.address) {
            Ok(()) => {
                hold(socket)?;
                Ok(Answer::Done)
            }
            Err(Errno::ADDRINUSE) if !tenant.holds_udp(port) => {
                let reuse = sockopt::socket_reuseaddr(socket)?;
                sockopt::set_socket_reuseaddr(socket, true)?;
                self.homes.udp_holds(port).iter().for_each(|other| drop(share(other)));
                let answer = bind_own(socket, own, port, Kind::Datagram, tenant)?;
                if answer == Answer::Done {
                    hold(socket)?;
                    let text =
                        format!("has UDP port {port} at its own address only: another has it on this host");
                    (self.on_found)(caller.incarnation, Found::Remark(text));
                } else {
                    sockopt::set_socket_reuseaddr(socket, reuse)?;
                }
                Ok(answer)
            }
            result => Ok(answer_of(result)),
        }
    }

    fn bind(
        &self,
        socket: &OwnedFd,
        request: &Request,
        tenant: &Tenant<'_>,
        caller: Caller,
    ) -> io::Result<Answer> {
        match rules::bind(request, tenant) {
            Bind::Pass => Ok(Answer::Continue),
            Bind::Share { port } => self.bind_shared(socket, port, request, tenant, caller),
            Bind::Aside => bind_aside(socket, request, tenant),
            Bind::Move { port } => {
                let v6 = sockopt::socket_domain(socket)? == AddressFamily::INET6;
                let own = OwnAddress { address: tenant.address(), v6 };
                if own.is_bound(socket, tenant, port) {
                    return Ok(ALREADY_BOUND);
                }
                let answer = bind_own(socket, own, port, request.kind, tenant)?;
                if answer == Answer::Done && request.kind == Kind::Stream {
                    let actual =
                        bound_address(socket).map(|bound| bound.port()).filter(|actual| *actual != port);
                    let inode = rustix::fs::fstat(socket)?.st_ino;
                    let hold = Hold { process: caller.process, descriptor: caller.descriptor, inode };
                    let ports = self.homes.hold(caller.incarnation, port, hold, actual);
                    (self.on_found)(caller.incarnation, Found::Bound(ports));
                }
                Ok(answer)
            }
        }
    }

    /// Answers a connect that may take its time without blocking this thread.
    fn answer_aside(&self, trap: &Arc<Trap>, id: u64, call: Aside) {
        let (trap, blocking) = (Arc::clone(trap), Arc::clone(&self.blocking));
        if blocking.fetch_add(1, Ordering::Relaxed) >= BLOCKING_CONNECTS_MAX {
            blocking.fetch_sub(1, Ordering::Relaxed);
            drop(trap.answer(id, Answer::Fail(Errno::AGAIN.raw_os_error())));
            return;
        }
        let refuse = Arc::clone(&trap);
        let connect = move || {
            drop(trap.answer(id, call.run()));
            blocking.fetch_sub(1, Ordering::Relaxed);
        };
        if let Err(error) = std::thread::Builder::new().name("keel-connect".into()).spawn(connect) {
            tracing::warn!("a connect of an instance can't be redirected: {error}");
            self.blocking.fetch_sub(1, Ordering::Relaxed);
            drop(refuse.answer(id, Answer::Fail(Errno::AGAIN.raw_os_error())));
        }
    }
}

/// Whether a process may bind a port: a low one needs a privilege, which Evenkeel may have and the process not.
fn may_bind(process: i32, port: u16) -> bool {
    const NET_BIND_SERVICE: u64 = 1 << 10;
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if port >= first.trim().parse().unwrap_or(1024) {
        return true;
    }
    let effective = proc::status(process, "CapEff").ok();
    effective
        .and_then(|text| u64::from_str_radix(&text, 16).ok())
        .is_some_and(|all| all & NET_BIND_SERVICE != 0)
}

/// Has a socket share its UDP port with others, so that an instance can have it at its own address.
fn share(hold: &Hold) -> io::Result<()> {
    let socket = pidfd_getfd(pidfd_open(hold.process)?, hold.descriptor)?;
    if rustix::fs::fstat(&socket)?.st_ino == hold.inode {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    Ok(())
}

/// Whose calls a trap gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whose {
    pub(super) incarnation: Incarnation,
    pub(super) role: Role,
}

#[derive(Clone, Copy)]
struct Caller {
    incarnation: Incarnation,
    process: i32,
    descriptor: i32,
}

enum Decision {
    Answer(Answer),
    /// The answer may take its time.
    Aside(Box<Aside>),
}

impl Decision {
    fn refused() -> Self {
        Self::Answer(refused())
    }
}

/// A connect to an instance that is answered on a thread of its own.
struct Aside {
    socket: OwnedFd,
    to: Target,
    /// The instance, where its processes must be looked at first.
    doubted: Option<Home>,
}

impl Aside {
    fn run(self) -> Answer {
        if let Some(home) = self.doubted {
            let taker = taker_of(self.to.at).ok().flatten();
            if taker.is_none_or(|taker| home.owns(&taker, self.to.at).is_none()) {
                return self.to.refuse(&self.socket);
            }
        }
        self.to.connect(&self.socket)
    }
}

/// Where an instance's connect leads.
#[derive(Clone, Copy)]
struct Target {
    at: SocketAddr,
    is_v6: bool,
    is_nonblocking: bool,
}

impl Target {
    fn connect(self, socket: &OwnedFd) -> Answer {
        let to = match self.at {
            SocketAddr::V4(at) if self.is_v6 => SocketAddr::from((at.ip().to_ipv6_mapped(), at.port())),
            at => at,
        };
        answer_of(rustix::net::connect(socket, &to))
    }

    /// Refuses as the kernel does: a program that doesn't wait is told later. It is sent where nobody is.
    fn refuse(self, socket: &OwnedFd) -> Answer {
        const UNUSED_PORT: u16 = 1;
        let mut nowhere = [self.at.port(), UNUSED_PORT]
            .into_iter()
            .map(|port| SocketAddr::new(self.at.ip(), port))
            .filter(|at| matches!(taker_of(*at), Ok(None)));
        match nowhere.next().filter(|_| self.is_nonblocking) {
            Some(at) => Self { at, ..self }.connect(socket),
            None => refused(),
        }
    }
}

/// An instance's own address, as a socket of either family takes it.
#[derive(Clone, Copy)]
struct OwnAddress {
    address: Ipv4Addr,
    v6: bool,
}

impl OwnAddress {
    fn at(self, port: u16) -> SocketAddr {
        match self.v6 {
            true => SocketAddr::from((self.address.to_ipv6_mapped(), port)),
            false => SocketAddr::from((self.address, port)),
        }
    }

    fn is_bound(self, socket: &OwnedFd, tenant: &Tenant<'_>, port: u16) -> bool {
        let actual = tenant.actual_port(port);
        bound_address(socket)
            .is_some_and(|bound| bound.ip() == self.at(0).ip() && [port, actual].contains(&bound.port()))
    }
}

/// The address that a socket has.
fn bound_address(socket: &OwnedFd) -> Option<SocketAddr> {
    rustix::net::getsockname(socket).ok()?.try_into().ok()
}

/// Binds the second family of a server to a port that nobody asks for. Where `::1` is no address of this host (IPv6 is
/// switched off on loopback), that is one of the instance's own address.
fn bind_aside(socket: &OwnedFd, request: &Request, tenant: &Tenant<'_>) -> io::Result<Answer> {
    let aside = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let own = OwnAddress { address: tenant.address(), v6: true }.at(0);
    if bound_address(socket)
        .is_some_and(|bound| bound.port() != 0 && [aside.ip(), own.ip()].contains(&bound.ip()))
    {
        return Ok(ALREADY_BOUND);
    }
    match rustix::net::bind(socket, &aside) {
        Err(Errno::ADDRNOTAVAIL) if request.address.ip().is_unspecified() => {
            sockopt::set_ipv6_v6only(socket, false)?;
            Ok(answer_of(rustix::net::bind(socket, &own)))
        }
        result => Ok(answer_of(result)),
    }
}

/// Binds a socket to a port of the instance's own address, or, where that can't be, to a free one.
fn bind_own(
    socket: &OwnedFd,
    own: OwnAddress,
    port: u16,
    kind: Kind,
    tenant: &Tenant<'_>,
) -> io::Result<Answer> {
    if own.v6 {
        // Refused only once it is bound, and then the bind says so.
        let _ = sockopt::set_ipv6_v6only(socket, false);
    }
    if kind == Kind::Stream {
        // What would have failed on a machine of its own fails here: a second server on the port.
        if !sockopt::socket_reuseport(socket)? && tenant.listens(port) && tenant.holds(port) {
            return Ok(Answer::Fail(Errno::ADDRINUSE.raw_os_error()));
        }
        // Evenkeel's listener on the wildcard address has it too; the specific address wins.
        sockopt::set_socket_reuseport(socket, true)?;
        // Somebody else's listener there would take what comes while this one doesn't listen.
        if is_taken_by_a_stranger(SocketAddr::from((own.address, port))) {
            return Ok(answer_of(rustix::net::bind(socket, &own.at(0))));
        }
    }
    match rustix::net::bind(socket, &own.at(port)) {
        // A port that needs a privilege, or that somebody holds on the wildcard address for himself.
        Err(Errno::ACCESS | Errno::ADDRINUSE) if kind == Kind::Stream => {
            Ok(answer_of(rustix::net::bind(socket, &own.at(0))))
        }
        result => Ok(answer_of(result)),
    }
}

/// Whether another program has the port on a wildcard address. This one's listeners reset what is an instance's.
fn is_taken_by_a_stranger(address: SocketAddr) -> bool {
    match taker_of(address) {
        Ok(Some(taker)) => taker.address.ip().is_unspecified() && !proc::is_own_socket(taker.inode),
        Ok(None) | Err(_) => false,
    }
}

/// Connects to a port of an instance: to a socket of its own or to none, never to another program's on the wildcard address.
fn connect_to(socket: OwnedFd, kind: Kind, home: Home, port: u16) -> io::Result<Decision> {
    let to = Target {
        at: home.socket_address(port),
        is_v6: sockopt::socket_domain(&socket)? == AddressFamily::INET6,
        is_nonblocking: rustix::fs::fcntl_getfl(&socket)?.contains(OFlags::NONBLOCK),
    };
    if to.is_v6 && sockopt::ipv6_v6only(&socket)? && sockopt::set_ipv6_v6only(&socket, false).is_err() {
        // The caller then tries the other family.
        return Ok(Decision::refused());
    }
    if kind == Kind::Datagram {
        return Ok(Decision::Answer(to.connect(&socket)));
    }
    let is_doubted = match taker_of(to.at) {
        Ok(Some(taker)) if taker.address == to.at => false,
        // On a port that it was given by the kernel an instance listens on the wildcard address.
        Ok(Some(_)) => true,
        Ok(None) => return Ok(Decision::Answer(to.refuse(&socket))),
        Err(error) => {
            tracing::debug!("the kernel doesn't say who listens on {}: {error}", to.at);
            false
        }
    };
    if to.is_nonblocking && !is_doubted {
        return Ok(Decision::Answer(to.connect(&socket)));
    }
    Ok(Decision::Aside(Box::new(Aside { socket, to, doubted: is_doubted.then_some(home) })))
}

fn refused() -> Answer {
    Answer::Fail(Errno::CONNREFUSED.raw_os_error())
}

fn answer_of(result: Result<(), Errno>) -> Answer {
    match result {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Fail(error.raw_os_error()),
    }
}

/// The process that a thread belongs to: descriptors are looked up there.
fn thread_group_of(thread: i32) -> io::Result<i32> {
    proc::status(thread, "Tgid")?.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_process_of_a_thread() {
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            std::thread::park();
        });
        let process = thread_group_of(told.recv().unwrap()).unwrap();
        assert_eq!(process, i32::try_from(std::process::id()).unwrap());
        thread.thread().unpark();
        thread.join().unwrap();
    }
}

//! The demo service: answers "Hello from app1", and whatever else helps to watch a balancer at work.
//!
//! | request | answer |
//! |---|---|
//! | `GET /slow?ms=500` | the same as below, half a second later |
//! | `GET /health` | `ok` |
//! | `POST`, `PUT` and others with a body | how many bytes came |
//! | any other | `Hello from NAME` |
//!
//! | variable | meaning |
//! |---|---|
//! | `PORT` | the port to listen on, on all addresses; default 5000 |
//! | `NAME` | who says hello; default is the host's name |
//! | `HOSTNAME` | which instance this is; default is NAME |
//! | `LEDGER` | a file that gets `received ID INSTANCE` before a request is answered and `answered ID INSTANCE SUM` after, each by one `write(2)`; the ID is `X-Request-Id` or else the target, the SUM is of the request's body |
//!
//! Answers say in `X-Instance` who gave them, in `X-Request-Id` to what, and in `X-Body` the length and CRC-32 of their
//! body, so that one which was cut on the way and closed as if it were whole can be told.
//!
//! TERM and INT: accepts no more, finishes what is in flight, exits.

#![forbid(unsafe_code)]

mod checksum;
mod connection;
mod guests;
mod ledger;
mod request;
mod server;

use std::{
    env,
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    process::ExitCode,
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is gone there is nobody to tell.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let port = match env::var("PORT") {
        Ok(text) => text.parse().map_err(|_| format!("PORT is `{text}`, which is no port"))?,
        Err(_) => 5000,
    };
    let name = match env::var("NAME") {
        Ok(name) if !name.is_empty() => name,
        _ => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let instance = env::var("HOSTNAME").ok().filter(|text| !text.is_empty()).unwrap_or_else(|| name.clone());
    let ledger = ledger::Ledger::open(env::var_os("LEDGER"))?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|error| format!("port {port} can't be listened on: {error}"))?;
    let address = listener.local_addr()?;
    let stop = server::Stop::on_signals()?;
    writeln!(io::stdout(), "{name} listens on {address}")?;
    server::serve(&listener, stop, &connection::Service { name, instance, ledger })?;
    Ok(())
}

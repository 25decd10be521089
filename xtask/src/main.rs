//! `cargo xtask`: what the house needs besides cargo.

#![forbid(unsafe_code)]

mod docs;
mod modules;
mod tidy;
mod unread;

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => tidy::run(),
        ["docs"] => docs::run(docs::Mode::Write),
        ["docs", "--check"] => docs::run(docs::Mode::Check),
        _ => {
            eprintln!("usage: cargo xtask tidy | docs [--check]");
            Ok(ExitCode::from(2))
        }
    }
}

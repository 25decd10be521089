//! One client's connection: reads requests and answers them until somebody wants to stop.

use std::{
    fmt::Write as _,
    io::{self, BufReader, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use crate::{checksum::Checksum, guests::Guest, ledger::Ledger, request::Request};

/// The longest that `/slow` waits.
const SLOW_MS_MAX: u64 = 600_000;

/// What is said, and where it is noted.
pub(crate) struct Service {
    pub(crate) name: String,
    /// Which of several instances with one name this is.
    pub(crate) instance: String,
    pub(crate) ledger: Ledger,
}

impl Service {
    /// Answers a client's requests to the end of its connection.
    pub(crate) fn answer_all(&self, guest: &Guest) -> io::Result<()> {
        let stream: &TcpStream = guest.stream();
        stream.set_nodelay(true)?;
        let mut input = BufReader::new(stream);
        let mut output = stream;
        loop {
            if !guest.wait_for_request(&mut input)? {
                return Ok(());
            }
            let Some(request) = Request::read(&mut input)? else { return Ok(()) };
            let id = request.id.as_deref().unwrap_or(&request.target);
            self.ledger.note(&format!("received {id} {}", self.instance))?;
            let body = request.read_body(&mut input, &mut output)?;
            let text = self.text(&request, body.length);
            let keep_alive = request.keep_alive && !guest.is_stopping();
            output.write_all(self.response(&request, &text, keep_alive).as_bytes())?;
            self.ledger.note(&format!("answered {id} {} {body}", self.instance))?;
            // Standard output may be gone; that is no reason to stop serving.
            let _ = io::stdout().write_all(format!("{} 200 {}\n", request.line, text.len()).as_bytes());
            if !keep_alive {
                return Ok(());
            }
        }
    }

    fn text(&self, request: &Request, body: u64) -> String {
        match (request.method.as_str(), request.path()) {
            ("GET" | "HEAD", "/health") => "ok\n".to_owned(),
            ("GET" | "HEAD", path) => {
                if path == "/slow" {
                    let wait_ms = request.number("ms").unwrap_or(0).min(SLOW_MS_MAX);
                    thread::sleep(Duration::from_millis(wait_ms));
                }
                format!("Hello from {}\n", self.name)
            }
            _ => format!("{body} bytes to {}\n", self.name),
        }
    }

    fn response(&self, request: &Request, text: &str, keep_alive: bool) -> String {
        let mut response = String::with_capacity(240 + text.len());
        response.push_str("HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ");
        let mut sum = Checksum::default();
        sum.add(text.as_bytes());
        // Writing to a String can't fail.
        let _ = write!(response, "{}\r\nX-Instance: {}\r\nX-Body: {sum}", text.len(), self.instance);
        if let Some(id) = &request.id {
            let _ = write!(response, "\r\nX-Request-Id: {id}");
        }
        response.push_str(if keep_alive {
            "\r\nConnection: keep-alive\r\n\r\n"
        } else {
            "\r\nConnection: close\r\n\r\n"
        });
        if request.method != "HEAD" {
            response.push_str(text);
        }
        response
    }
}

//! The first message of TLS, in which a client says whom it means and what it can. The server's settings depend on it.

use rustls::{
    AlertDescription,
    server::{Accepted, AcceptedAlert, Acceptor},
};

/// Bytes of a first message at most, records' headers included. Clients send less than 2 KB.
const BYTES_MAX: usize = 32 << 10;

/// What a client offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offer {
    /// The host that it means (SNI), in lower case.
    pub(crate) server_name: Option<String>,
    /// Suites by IANA's numbers.
    pub(crate) ciphers: Box<[u16]>,
    /// Groups by IANA's numbers.
    pub(crate) groups: Box<[u16]>,
}

/// Bytes that tell a client why there is no connection.
pub(crate) struct Alert(pub(crate) Vec<u8>);

impl Alert {
    /// One of these, from before anything is encrypted (RFC 8446 §6).
    pub(crate) fn of(description: AlertDescription) -> Self {
        const FATAL: u8 = 2;
        Self(vec![0x15, 3, 3, 0, 2, FATAL, description.into()])
    }
}

impl From<AcceptedAlert> for Alert {
    fn from(mut alert: AcceptedAlert) -> Self {
        let mut bytes = Vec::new();
        // Into memory it always goes.
        let _ = alert.write_all(&mut bytes);
        if bytes.is_empty() { Self::of(AlertDescription::DecodeError) } else { Self(bytes) }
    }
}

/// A first message that is being read.
pub(crate) struct Hello {
    acceptor: Acceptor,
    read: usize,
}

impl Hello {
    pub(crate) fn new() -> Self {
        Self { acceptor: Acceptor::default(), read: 0 }
    }

    /// Looks at all that has come so far. `None` while the message isn't whole.
    ///
    /// # Errors
    /// What came is none.
    pub(crate) fn look(&mut self, input: &[u8]) -> Result<Option<Offer>, (rustls::Error, Alert)> {
        let mut rest = input.get(self.read..).unwrap_or_default();
        while !rest.is_empty() {
            // From memory it always comes, but for a message that is too large.
            let Ok(read @ 1..) = self.acceptor.read_tls(&mut rest) else { return Err(too_large()) };
            self.read += read;
            match self.acceptor.accept() {
                Ok(Some(accepted)) => return Ok(Some(offer(&accepted))),
                Ok(None) => {}
                Err((error, alert)) => return Err((error, alert.into())),
            }
        }
        if self.read > BYTES_MAX { Err(too_large()) } else { Ok(None) }
    }
}

fn too_large() -> (rustls::Error, Alert) {
    let error = rustls::Error::General("the first message is too large".into());
    (error, Alert::of(AlertDescription::DecodeError))
}

fn offer(accepted: &Accepted) -> Offer {
    let hello = accepted.client_hello();
    Offer {
        server_name: hello.server_name().map(str::to_ascii_lowercase),
        ciphers: hello.cipher_suites().iter().map(|suite| u16::from(*suite)).collect(),
        groups: hello.named_groups().unwrap_or_default().iter().map(|group| u16::from(*group)).collect(),
    }
}

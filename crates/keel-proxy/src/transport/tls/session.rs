//! One session of TLS, of either side: records in, bytes out, and back. No I/O.

use rustls::{
    CipherSuite, HandshakeKind, ProtocolVersion, ServerConfig,
    pki_types::CertificateDer,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedConnectionCommon,
        UnbufferedStatus, WriteTraffic,
    },
};

use std::{cell::RefCell, sync::Arc};

use crate::sessions::SessionId;

/// What a record of the largest size takes more than its bytes: header, nonce, type and tag, of either version.
const RECORD_OVERHEAD: usize = 64;

/// Bytes in a record that room is reckoned with; where there are fewer, room is made once more.
const RECORD_BYTES_USUAL: usize = 4 << 10;

/// Room for records that a worker keeps while none wait: others are freed.
const KEPT_BYTES_MAX: usize = 128 << 10;

thread_local! {
    /// Room for records, of whichever connection sends next.
    static OUTGOING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Records that wait to be sent. Without any it has no room of its own.
#[derive(Default)]
pub(crate) struct Records {
    /// Its length is the room that there is.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Records {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Notes that so many bytes have left.
    pub(super) fn sent(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            (self.start, self.end) = (0, 0);
            if bytes.len() <= KEPT_BYTES_MAX {
                OUTGOING.replace(bytes);
            }
        }
    }

    /// Has `write` write behind what waits, once more with as much room as it says it needs.
    fn append<E>(
        &mut self,
        room: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
        needed: impl Fn(&E) -> Option<usize>,
    ) -> Result<(), E> {
        if self.bytes.is_empty() {
            self.bytes = OUTGOING.take();
        }
        self.make_room(room);
        loop {
            match write(self.bytes.get_mut(self.end..).unwrap_or_default()) {
                Ok(written) => {
                    self.end += written;
                    return Ok(());
                }
                Err(error) => match needed(&error) {
                    Some(room) if self.bytes.len() - self.end < room => self.make_room(room),
                    _ => return Err(error),
                },
            }
        }
    }

    fn make_room(&mut self, room: usize) {
        if self.bytes.len() < self.end + room {
            self.bytes.resize(self.end + room, 0);
        }
    }
}

/// Whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Goes,
    /// The other side has said that nothing will.
    Ended,
}

/// What both sides have agreed on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agreed {
    pub(crate) protocol: Option<ProtocolVersion>,
    /// IANA's number.
    pub(crate) cipher: Option<CipherSuite>,
    /// IANA's number.
    pub(crate) group: Option<u16>,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) is_resumed: bool,
    /// The other side's certificate, then those that certify it.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) session_id: SessionId,
}

/// A session.
pub(crate) enum Session {
    /// With a client.
    Server(UnbufferedServerConnection),
}

impl Session {
    /// Begins one with a client.
    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        UnbufferedServerConnection::new(config).map(Self::Server)
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Server(session) => session.is_handshaking(),
        }
    }

    pub(super) fn agreed(&self, session_id: SessionId) -> Agreed {
        let state: &rustls::CommonState = match self {
            Self::Server(session) => session,
        };
        Agreed {
            protocol: state.protocol_version(),
            cipher: state.negotiated_cipher_suite().map(|suite| suite.suite()),
            group: state.negotiated_key_exchange_group().map(|group| group.name().into()),
            alpn: state.alpn_protocol().map(<[u8]>::to_vec),
            is_resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
            certificates: state.peer_certificates().unwrap_or_default().to_vec(),
            session_id,
        }
    }

    /// Works through records: what is in them is put into `plain`, what TLS itself has to say into `outgoing`, and what
    /// is left in `records` isn't whole.
    pub(super) fn work(
        &mut self,
        records: &mut Vec<u8>,
        outgoing: &mut Records,
        plain: &mut Plain<'_>,
    ) -> Result<Progress, rustls::Error> {
        match self {
            Self::Server(session) => work(&mut **session, records, outgoing, plain),
        }
    }

    /// Makes records of bytes. `records` is what [`work`](Self::work) has left.
    pub(super) fn encrypt(
        &mut self,
        bytes: &[u8],
        records: &mut Vec<u8>,
        outgoing: &mut Records,
    ) -> Result<(), rustls::Error> {
        self.write(Writing::Bytes(bytes), records, outgoing)
    }

    /// Says that nothing more will be sent. `records` is what [`work`](Self::work) has left.
    pub(super) fn close(&mut self, records: &mut Vec<u8>, outgoing: &mut Records) {
        if !self.is_handshaking() {
            // Who can't be told finds the connection closed.
            let _ = self.write(Writing::End, records, outgoing);
        }
    }

    fn write(
        &mut self,
        what: Writing<'_>,
        records: &mut Vec<u8>,
        outgoing: &mut Records,
    ) -> Result<(), rustls::Error> {
        match self {
            Self::Server(session) => write(&mut **session, what, records, outgoing),
        }
    }
}

/// Where decrypted bytes go: into the reader's buffer as far as there is room, the rest beside it.
pub(super) struct Plain<'a> {
    pub(super) buffer: Option<&'a mut Vec<u8>>,
    pub(super) ahead: &'a mut Vec<u8>,
}

impl Plain<'_> {
    fn put(&mut self, mut bytes: &[u8]) {
        if let Some(buffer) = self.buffer.as_deref_mut()
            && self.ahead.is_empty()
        {
            let (fits, rest) = bytes.split_at(bytes.len().min(buffer.capacity() - buffer.len()));
            buffer.extend_from_slice(fits);
            bytes = rest;
        }
        self.ahead.extend_from_slice(bytes);
    }
}

/// What is to be made records of.
#[derive(Clone, Copy)]
enum Writing<'a> {
    Bytes(&'a [u8]),
    /// That nothing more follows.
    End,
}

/// What rustls makes for each side, and calls by the same name.
trait Side: Sized {
    fn process<'c, 'i>(
        session: &'c mut UnbufferedConnectionCommon<Self>,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self>;
}

impl Side for ServerConnectionData {
    fn process<'c, 'i>(
        session: &'c mut UnbufferedConnectionCommon<Self>,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self> {
        session.process_tls_records(records)
    }
}

fn work<S: Side>(
    session: &mut UnbufferedConnectionCommon<S>,
    records: &mut Vec<u8>,
    outgoing: &mut Records,
    plain: &mut Plain<'_>,
) -> Result<Progress, rustls::Error> {
    let mut used = 0;
    let outcome = loop {
        let UnbufferedStatus { mut discard, state } =
            S::process(session, records.get_mut(used..).unwrap_or_default());
        let step = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut read = Ok(None);
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            plain.put(record.payload);
                            discard += record.discard;
                        }
                        Err(error) => read = Err(error),
                    }
                }
                read
            }
            // None is accepted, so none comes.
            Ok(ConnectionState::ReadEarlyData(_)) => Err(rustls::Error::General("early data".into())),
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                outgoing.append(0, |room| data.encode(room), encode_needs).map_err(general).map(|()| None)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(None)
            }
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Some(Progress::Ended)),
            Ok(_) => Ok(Some(Progress::Goes)),
            Err(error) => Err(error),
        };
        used += discard;
        match step {
            Ok(None) => {}
            Ok(Some(progress)) => break Ok(progress),
            Err(error) => break Err(error),
        }
    };
    records.drain(..used.min(records.len()));
    if outcome.is_err() {
        // What is wrong is said to the other side.
        say(session, records, outgoing);
    }
    outcome
}

/// Takes what a session has to say although it has failed. It is asked for nothing else: it would fail once more.
fn say<S: Side>(session: &mut UnbufferedConnectionCommon<S>, records: &mut Vec<u8>, outgoing: &mut Records) {
    while session.wants_write() {
        let UnbufferedStatus { discard, state } = S::process(session, records);
        let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { return };
        let said = outgoing.append(0, |room| data.encode(room), encode_needs);
        records.drain(..discard.min(records.len()));
        if said.is_err() {
            return;
        }
    }
}

/// Writes, with what is left of records at hand: a session that has seen a part of a message in them looks at that part
/// again, and panics where it is missing.
fn write<S: Side>(
    session: &mut UnbufferedConnectionCommon<S>,
    what: Writing<'_>,
    records: &mut Vec<u8>,
    outgoing: &mut Records,
) -> Result<(), rustls::Error> {
    loop {
        let UnbufferedStatus { discard, state } = S::process(session, records);
        let is_written = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                outgoing.append(0, |room| data.encode(room), encode_needs).map_err(general).map(|()| false)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(false)
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                put(&mut traffic, what, outgoing).map_err(general).map(|()| true)
            }
            // It has been seen where records were read.
            Ok(ConnectionState::PeerClosed) => Ok(false),
            Ok(_) => Err(rustls::Error::General("the connection takes no bytes".into())),
            Err(error) => Err(error),
        };
        records.drain(..discard.min(records.len()));
        if is_written? {
            return Ok(());
        }
    }
}

fn put<S>(
    traffic: &mut WriteTraffic<'_, S>,
    what: Writing<'_>,
    outgoing: &mut Records,
) -> Result<(), EncryptError> {
    let needs = |error: &EncryptError| match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
        EncryptError::EncryptExhausted => None,
    };
    match what {
        Writing::Bytes(bytes) => {
            let records = bytes.len() / RECORD_BYTES_USUAL + 1;
            let room = bytes.len() + RECORD_OVERHEAD * records;
            outgoing.append(room, |room| traffic.encrypt(bytes, room), needs)
        }
        Writing::End => outgoing.append(RECORD_OVERHEAD, |room| traffic.queue_close_notify(room), needs),
    }
}

fn encode_needs(error: &EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

fn general(error: impl std::fmt::Display) -> rustls::Error {
    rustls::Error::General(error.to_string())
}

#[cfg(test)]
mod tests {
    use keel_model::{CertifiedPair, Der, Secret};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

    use super::*;

    /// A server's side, a client's, and the records of the client's first message.
    fn both() -> (Session, ClientConnection, Vec<u8>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap().self_signed(&key).unwrap();
        let pair = CertifiedPair {
            chain: vec![Der(certificate.der().to_vec())],
            key: Secret::new(key.serialize_der()),
        };
        let provider = keel_tls::provider(&[], &[]);
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                keel_tls::certified_key(&pair).unwrap(),
            )));
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("h").unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        (Session::server(Arc::new(server)).unwrap(), client, hello)
    }

    fn work(
        session: &mut Session,
        records: &mut Vec<u8>,
        outgoing: &mut Records,
    ) -> Result<Progress, rustls::Error> {
        session.work(records, outgoing, &mut Plain { buffer: None, ahead: &mut Vec::new() })
    }

    #[test]
    fn a_message_cut_over_records_is_refused_and_nothing_more() {
        for behind in
            [&b"\x17\x03\x03\x00\x01x"[..], b"\x15\x03\x03\x00\x02\x01\x00", b"\x14\x03\x03\x00\x01\x01"]
        {
            let (mut session, _, mut records) = both();
            let mut outgoing = Records::default();
            assert_eq!(work(&mut session, &mut records, &mut outgoing), Ok(Progress::Goes));
            // A byte of a message that is longer, and a record of another kind.
            records.extend_from_slice(b"\x16\x03\x03\x00\x01\x0b");
            if work(&mut session, &mut records, &mut outgoing).is_ok() {
                records.extend_from_slice(behind);
                assert!(work(&mut session, &mut records, &mut outgoing).is_err());
            }
            // What the server has answered, and why it goes no further.
            assert!(!outgoing.is_empty());
        }
    }
}

//! Redirects: those within this server, and the URLs that clients are sent to.
//!
//! `error_page`, `try_files`, `index` and `X-Accel-Redirect` begin anew at another URI or go on in a named location. One
//! request does so [`REDIRECTS_MAX`] times at most, together.

use crate::{
    job::{Flow, Job},
    snapshot::PlaceId,
    variables::Lookup,
};

/// How often one request may be redirected internally, as in nginx.
const REDIRECTS_MAX: u32 = 10;

/// A path, decoded, and the query behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InternalUri {
    pub(crate) path: Vec<u8>,
    pub(crate) args: Vec<u8>,
}

/// Where the phases begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    /// With those of the server: the location is looked for.
    Server,
    /// In a named location.
    Location(PlaceId),
}

impl Flow {
    /// Begins anew at a path.
    pub(crate) fn restart(path: Vec<u8>, args: Vec<u8>) -> Self {
        Flow::Redirect { uri: Some(Box::new(InternalUri { path, args })), restart: Restart::Server }
    }
}

/// Redirects to what the configuration or a peer names: a URI with its query, or a location that begins with `@`.
pub(crate) fn to(job: &mut Job<'_>, uri: &[u8]) -> Flow {
    if !uri.starts_with(b"@") {
        let (path, args) = split(uri);
        return Flow::restart(path.to_vec(), args.to_vec());
    }
    let name = String::from_utf8_lossy(uri);
    match job.ex.server(&job.view).named.get(name.as_ref()) {
        Some(place) => Flow::Redirect { uri: None, restart: Restart::Location(*place) },
        None => {
            let text = format!("could not find named location \"{name}\"");
            job.client.log_error(job.worker, job.ex, &text);
            job.ex.routed.error_page = true;
            Flow::status(500)
        }
    }
}

/// Splits a URI into its path and the query behind `?`.
pub(crate) fn split(uri: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', uri) {
        Some(at) => (uri.get(..at).unwrap_or_default(), uri.get(at + 1..).unwrap_or_default()),
        None => (uri, b""),
    }
}

/// Counts a redirect, or a rewritten URI. An error is what ends the request: it has been led on too often.
pub(super) fn count(job: &mut Job<'_>, what: &str) -> Result<(), Flow> {
    job.ex.routed.redirects += 1;
    if job.ex.routed.redirects > REDIRECTS_MAX {
        let uri = String::from_utf8_lossy(&job.ex.routed.uri);
        let text = format!("rewrite or internal redirection cycle while {what} \"{uri}\"");
        job.client.log_error(job.worker, job.ex, &text);
        job.ex.routed.error_page = true;
        return Err(Flow::status(500));
    }
    Ok(())
}

/// Takes a request to where it is redirected. An error is what ends it: it has been redirected too often.
pub(super) fn follow(job: &mut Job<'_>, uri: Option<Box<InternalUri>>, restart: Restart) -> Result<(), Flow> {
    count(job, "internally redirecting from")?;
    job.ex.routed.internal = true;
    if let Some(uri) = uri {
        let InternalUri { path, args } = *uri;
        job.ex.routed.uri = path;
        job.ex.routed.args = args;
        job.ex.routed.raw_uri_valid = false;
        job.ex.routed.prefix_is_gone = false;
        job.ex.routed.uri_below_alias = false;
    }
    if let Restart::Location(place) = restart {
        job.ex.routed.place = Some(place);
        let view = job.view.clone();
        job.client.limit_keep_alive(job.worker, job.ex, &view);
    }
    Ok(())
}

/// Makes the URL that a client is sent to for a path: absolute unless `absolute_redirect` is off.
pub(crate) fn absolute_url(lookup: Lookup<'_>, path: &[u8]) -> Vec<u8> {
    let core = &lookup.ex.place(lookup.view).scope.core;
    let mut url = Vec::new();
    if core.absolute_redirect {
        let (scheme, usual_port) = match lookup.client.connection.tls() {
            Some(_) => ("https://", 443),
            None => ("http://", 80),
        };
        url.extend_from_slice(scheme.as_bytes());
        let name = &lookup.ex.server(lookup.view).name;
        if core.server_name_in_redirect && !name.is_empty() {
            url.extend_from_slice(name.as_bytes());
        } else if !lookup.ex.received.host.is_empty() {
            url.extend_from_slice(&lookup.ex.received.host);
        } else if let Some(address) = lookup.client.local_address() {
            url.extend_from_slice(address.ip().to_string().as_bytes());
        }
        let listener = lookup.view.snapshot.listener(&lookup.client.connection.listener);
        let listener = listener.and_then(|listener| lookup.view.snapshot.listeners.get(listener));
        let port = listener.map_or(usual_port, |listener| listener.declared_port);
        if core.port_in_redirect && port != usual_port && port != 0 {
            url.extend_from_slice(format!(":{port}").as_bytes());
        }
    }
    url.extend_from_slice(path);
    url
}

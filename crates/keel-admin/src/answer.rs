//! Answers of control sockets.

use std::convert::Infallible;

use axum::{
    Json,
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::api::{Failure, Message};

/// An answer that says what failed.
pub(crate) fn fail(status: StatusCode, text: String) -> Response {
    (status, Json(Failure { text, hints: Vec::new() })).into_response()
}

/// An answer of one message a line, until their sender is gone.
pub(crate) fn stream(receiver: mpsc::Receiver<Message>) -> Response {
    let lines = ReceiverStream::new(receiver).map(|message| {
        let mut line = serde_json::to_vec(&message).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
